"""How the crop of a face lies to its mesh: what recorded faces are cut by, and rendered ones are framed like."""

#: Mesh points that move with the skull: eye corners, bridge, tip and base of the nose.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 2, 98, 327)
#: Side of the crop and its centre below the mean of those points, in eye distances: on 990 frames of five MEAD speakers the lowest
#: chin (mouth wide open) is at 2.07 and the top of the mesh at -1.12.
CROP_SIDE, CROP_DROP = 3.4, 0.42
