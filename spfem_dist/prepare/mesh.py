"""MediaPipe's face detector, 468-point face mesh and iris model, run by LiteRT (`spfem weights pull face-mesh`).

Detector: BlazeFace, short range (Bazarevsky et al., arXiv 1907.05047): 128 px input, 896 anchors, six key points.
Mesh: Kartynnik et al., arXiv 1907.06724: 192 px input that holds the upright face, 468 points and a face score.
Iris: Ablavatski et al., arXiv 2006.11341: 64 px input that holds one eye, five points of its iris.
All are run on one frame; `faces.MeshFinder` makes a track of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spfem_dist import weights

_DETECTOR_SIDE, _MESH_SIDE, _IRIS_SIDE = 128, 192, 64
#: The mesh wants a quarter of the face's width around it on every side.
_MARGIN = 1.5
#: Side of the iris model's square in widths of the eye.
_EYE_MARGIN = 2.3
#: Corners of the eye on the left and of the one on the right of the picture: outer, inner.
_EYES = ((33, 133), (263, 362))
_LEFT_EYE_CORNER, _RIGHT_EYE_CORNER = 33, 263  # left and right in the picture


@dataclass(frozen=True)
class Region:
    """A square of the picture: centre (x, y), side, and roll in radians (positive turns clockwise on the screen)."""

    x: float
    y: float
    side: float
    roll: float

    def to_picture(self, points: np.ndarray, side: float) -> np.ndarray:
        """Points [..., 2] of the square, drawn `side` pixels wide, in pixels of the picture."""
        return (points - side / 2) * (self.side / side) @ _turn(self.roll).T + (self.x, self.y)

    def from_picture(self, points: np.ndarray, side: float) -> np.ndarray:
        """Points [..., 2] of the picture in pixels of the square, drawn `side` pixels wide."""
        return (points - (self.x, self.y)) @ _turn(self.roll) * (side / self.side) + side / 2

    def cut(self, frame: np.ndarray, side: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        """The square of `frame` as uint8 [side, side, 3]. border: OpenCV's rule for what lies outside the picture."""
        square = np.array([[0.0, 0.0], [side, 0.0], [0.0, side]])
        # A coordinate of 0 is the left edge of the first pixel here and its centre in OpenCV.
        matrix = cv2.getAffineTransform(
            (square - 0.5).astype(np.float32), (self.to_picture(square, side) - 0.5).astype(np.float32)
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(frame, matrix, (side, side), flags=flags, borderMode=border)


@dataclass(frozen=True)
class Detection:
    """A face: box (x0, y0, x1, y1) in pixels, score in 0..1, key points [6, 2]: eyes, nose, mouth, ears."""

    box: np.ndarray
    score: float
    key_points: np.ndarray

    def region(self) -> Region:
        """The upright square for the mesh."""
        (x0, y0, x1, y1), (dx, dy) = self.box, self.key_points[1] - self.key_points[0]
        side = _MARGIN * max(x1 - x0, y1 - y0)
        return Region((x0 + x1) / 2, (y0 + y1) / 2, side, math.atan2(dy, dx))


class FaceModels:
    """The LiteRT models, loaded at first use. threads: compute threads of each."""

    def __init__(self, threads: int = 1):
        self.threads = threads

    def __reduce__(self):
        return FaceModels, (self.threads,)

    @cached_property
    def _folder(self) -> Path:
        return weights.locate("face-mesh")

    @cached_property
    def _detector(self):
        return load_litert(self._folder / "face_detection_short_range.tflite", self.threads)

    @cached_property
    def _mesh(self):
        return load_litert(self._folder / "face_landmark.tflite", self.threads)

    @cached_property
    def _iris(self):
        return load_litert(self._folder / "iris_landmark.tflite", self.threads)

    def detect(self, frame: np.ndarray, minimum_score: float = 0.5) -> list[Detection]:
        """The faces of an RGB frame uint8 [H, W, 3], best first; they are not found below an eighth of the longer side.

        A face that fills the picture leaves the detector without the surroundings it needs, so a picture without a
        finding is searched once more with a border around it.
        """
        height, width = frame.shape[:2]
        for border in (1.0, 1.6):
            square = Region(width / 2, height / 2, border * max(width, height), 0.0)
            if found := self.detect_in(frame, square, minimum_score):
                return found
        return []

    def detect_small(self, frame: np.ndarray, minimum_score: float = 0.75) -> list[Detection]:
        """Faces down to a 25th of the shorter side, best first, sought in overlapping squares: 24 times the work for 16:9.

        Textures look like faces more often in so many squares, hence the higher score.
        """
        height, width = frame.shape[:2]
        for side in (min(height, width), min(height, width) / 2):
            down, across = (
                np.linspace(side / 2, n - side / 2, math.ceil((n - side) / (side / 2)) + 1) for n in (height, width)
            )
            found = [
                face
                for y in down
                for x in across
                for face in self.detect_in(frame, Region(float(x), float(y), side, 0.0), minimum_score)
            ]
            if found:
                return _each_once(found)
        return []

    def detect_in(self, frame: np.ndarray, square: Region, minimum_score: float) -> list[Detection]:
        """The faces in one square of the frame, best first, in pixels of the frame."""
        boxes, scores = _run(self._detector, square.cut(frame, _DETECTOR_SIDE).astype(np.float32) / 127.5 - 1.0)
        found = _decode(boxes[0], scores[0, :, 0], minimum_score)
        return [_in_picture(detection, square) for detection in found]

    def landmarks(self, frame: np.ndarray, region: Region) -> tuple[np.ndarray, float]:
        """(points [468, 2] in pixels of the picture, face score in 0..1) of the face in `region`."""
        outputs = _run(self._mesh, region.cut(frame, _MESH_SIDE).astype(np.float32) / 255.0)
        points, flag = sorted(outputs, key=lambda output: -output.size)
        points = region.to_picture(points.reshape(468, 3)[:, :2].astype(np.float64), _MESH_SIDE)
        return points, float(_sigmoid(flag.reshape(())))

    def irises(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The irises [10, 2] of the face with mesh `points` [468, 2], in pixels of the picture.

        Five for each eye, the eye on the left of the picture first: its centre, then four points of its rim, as in
        MediaPipe's order 468 to 477.
        """
        found = []
        for mirrored, (outer, inner) in zip((True, False), _EYES, strict=True):
            # The model knows an eye whose outer corner lies on the right; the other one is shown in the mirror.
            left, right = (points[outer], points[inner]) if mirrored else (points[inner], points[outer])
            (x, y), (dx, dy) = (left + right) / 2, right - left
            region = Region(float(x), float(y), _EYE_MARGIN * math.hypot(dx, dy), math.atan2(dy, dx))
            eye = region.cut(frame, _IRIS_SIDE).astype(np.float32) / 255.0
            outputs = _run(self._iris, eye[:, ::-1] if mirrored else eye)
            iris = min(outputs, key=lambda output: output.size).reshape(5, 3)[:, :2].astype(np.float64)
            if mirrored:
                iris[:, 0] = _IRIS_SIDE - iris[:, 0]
            found.append(region.to_picture(iris, _IRIS_SIDE))
        return np.concatenate(found)


def region_of(points: np.ndarray) -> Region:
    """The upright square for the mesh around the landmarks [468, 2] of the frame before."""
    (dx, dy) = points[_RIGHT_EYE_CORNER] - points[_LEFT_EYE_CORNER]
    roll = math.atan2(dy, dx)
    upright = points @ _turn(roll)
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2 @ _turn(roll).T
    return Region(float(x), float(y), float(_MARGIN * (high - low).max()), roll)


def _turn(roll: float) -> np.ndarray:
    return np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])


def load_litert(path: Path, threads: int = 1, shape: tuple[int, ...] | None = None) -> Any:
    """The LiteRT model in `path`, ready to be run. shape: of its input, where it is to be another than the file's."""
    from ai_edge_litert.interpreter import Interpreter  # heavy; other finders do without

    interpreter = Interpreter(str(path), num_threads=threads)
    if shape is not None:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], list(shape))
    interpreter.allocate_tensors()
    return interpreter


def _run(interpreter, picture: np.ndarray) -> list[np.ndarray]:
    """The outputs in the model's order, copied out of the interpreter's memory."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def _anchors() -> np.ndarray:
    """Anchor centres [896, 2] in 0..1: two for each cell of a 16 x 16 grid, then six for each of an 8 x 8 grid."""
    grids = []
    for cells, copies in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells
        grids.append(centres.repeat(copies, axis=0))
    return np.concatenate(grids)


_ANCHORS = _anchors()


def _decode(boxes: np.ndarray, logits: np.ndarray, minimum_score: float) -> list[Detection]:
    """Detections in pixels of the detector's input from its raw outputs [896, 16] (centre, size, key points) and [896]."""
    scores = _sigmoid(logits)
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= minimum_score]
    centres = boxes[:, :2] + _ANCHORS * _DETECTOR_SIDE
    sizes = boxes[:, 2:4]
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    points = boxes[:, 4:].reshape(-1, 6, 2) + _ANCHORS[:, None] * _DETECTOR_SIDE
    found = []
    while order:
        overlap = _overlap(corners[order[0]], corners[order])
        same = [i for i, o in zip(order, overlap, strict=True) if o > 0.3]
        # The neighbours' weighted mean is steadier than the best one alone (the "blending" of the paper, section 4).
        share = scores[same] / scores[same].sum()
        found.append(Detection(share @ corners[same], float(scores[same[0]]), np.tensordot(share, points[same], 1)))
        order = [i for i, o in zip(order, overlap, strict=True) if o <= 0.3]
    return found


def _each_once(found: list[Detection]) -> list[Detection]:
    """The best of those that several squares show, best first."""
    kept: list[Detection] = []
    for face in sorted(found, key=lambda face: -face.score):
        if not kept or _overlap(face.box, np.array([other.box for other in kept])).max() <= 0.3:
            kept.append(face)
    return kept


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with many."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    result = both / np.maximum((box[2:] - box[:2]).prod() + areas - both, 1e-9)
    result[(others == box).all(1)] = 1.0  # a box of no area still overlaps itself
    return result


def _in_picture(detection: Detection, square: Region) -> Detection:
    box = square.to_picture(detection.box.reshape(2, 2), _DETECTOR_SIDE).reshape(4)
    return Detection(box, detection.score, square.to_picture(detection.key_points, _DETECTOR_SIDE))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -80, 80)))
