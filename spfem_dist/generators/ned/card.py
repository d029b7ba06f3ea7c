"""What NED's model card says."""

from spfem_dist.generators.card import GeneratorCard

CARD = GeneratorCard(
    title="a generator that changes the emotion of a talking face and keeps its speech",
    about="A manipulator of expression coefficients, a renderer of face crops and a face model, in the form of Neural Emotion Director "
    "(NED) that this project calls clean. It edits crops of {size} x {size} pixels by {topology} landmarks; `spfem edit` finds them, "
    "edits whole clips and copies their sound.",
)
