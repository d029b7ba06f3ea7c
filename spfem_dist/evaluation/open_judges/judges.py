"""The open judges, loaded: emotion by two networks of different makers and data, identity, 68 landmarks.

Figures of these judges are theirs alone: every table names them, and nothing compares them with those of other networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist import weights
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.open_judges.faces import FaceCut
from spfem_dist.nets.face_api import ExpressionNetwork, LandmarkNetwork, RecognitionNetwork, load_network
from spfem_dist.nets.face_api.networks import EXPRESSIONS
from spfem_dist.prepare.mesh import load_litert

#: The networks that say an emotion, and the entries of `spfem weights` that hold all judges.
FER, FACE_API = EMOTION_JUDGES = ("fer", "face_api")
NEEDED = ("fer", "face-api")
#: FER's classes, in its order (`FER._get_labels`).
FER_CLASSES = (
    *(Emotion.ANGRY, Emotion.DISGUSTED, Emotion.FEAR, Emotion.HAPPY),
    *(Emotion.SAD, Emotion.SURPRISED, Emotion.NEUTRAL),
)
#: Faces of one call of the LiteRT model, whose input is of one size.
_AT_ONCE = 16


@dataclass(frozen=True)
class OpenJudges:
    """The networks, frozen, on one device; FER's model runs in LiteRT, on the CPU. digest: of all their files."""

    fer: Any
    expression: ExpressionNetwork
    landmark: LandmarkNetwork
    recognition: RecognitionNetwork
    digest: str

    def __str__(self) -> str:
        return f"open judges: {weights.entry('fer').source}; {weights.entry('face-api').source}; weights {self.digest}"

    def emotion(self, faces: Sequence[FaceCut]) -> dict[str, np.ndarray]:
        """Probabilities float32 [N, 7], in the order of SEVEN, by each of EMOTION_JUDGES."""
        read = {FER: (_run(self.fer, faces), FER_CLASSES)}
        read[FACE_API] = (self._torch(self.expression, [face.small for face in faces]), EXPRESSIONS)
        return {name: found[:, [classes.index(e) for e in SEVEN]] for name, (found, classes) in read.items()}

    def identity(self, faces: Sequence[FaceCut]) -> np.ndarray:
        """Descriptors float32 [N, 128]; two of them nearer than `SAME_PERSON` (Euclidean) are taken for one person's."""
        return self._torch(self.recognition, [face.large for face in faces])

    def landmarks(self, faces: Sequence[FaceCut]) -> np.ndarray:
        """68 iBUG landmarks float32 [N, 68, 2] in pixels of the picture: another witness than the mesh that guides an edit."""
        found = self._torch(self.landmark, [face.small for face in faces])
        placed = [
            face.square.to_picture(points.astype(np.float64), 1.0) for face, points in zip(faces, found, strict=True)
        ]
        return np.array(placed, np.float32).reshape(-1, 68, 2)

    def _torch(self, network: nn.Module, pictures: list[np.ndarray]) -> np.ndarray:
        device = next(network.parameters()).device
        batch: Tensor = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return network(batch).float().cpu().numpy()


def load_open_judges(device: str = "", say: Callable[[str], object] = print) -> OpenJudges:
    """The judges on `device` (empty: a GPU where there is one). Weights that are missing are fetched, with a line to `say`.

    Raises weights.MissingWeights, with what to do, where they cannot be fetched, and ValueError for damaged ones.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    fer, folder = (weights.ensure(name, say) for name in NEEDED)
    networks = [
        load_network(kind(), folder).to(place) for kind in (ExpressionNetwork, LandmarkNetwork, RecognitionNetwork)
    ]
    expression, landmark, recognition = networks
    return OpenJudges(load_litert(fer, shape=(_AT_ONCE, 64, 64, 1)), expression, landmark, recognition, digest())  # type: ignore[arg-type]


def digest() -> str:
    """One hash of all the judges' files, by the table of weights; equal judges give equal scores."""
    files = [f"{name}/{file.name} {file.sha256}" for name in NEEDED for file in weights.entry(name).files]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()[:12]


def _run(interpreter: Any, faces: Sequence[FaceCut]) -> np.ndarray:
    """FER's probabilities [N, 7] in its own order."""
    into, out = (found[0]["index"] for found in (interpreter.get_input_details(), interpreter.get_output_details()))
    read = []
    for first in range(0, len(faces), _AT_ONCE):
        part = [face.grey for face in faces[first : first + _AT_ONCE]]
        batch = np.zeros((_AT_ONCE, 64, 64, 1), np.float32)
        batch[: len(part), ..., 0] = (np.stack(part) / 255.0 - 0.5) * 2.0
        interpreter.set_tensor(into, batch)
        interpreter.invoke()
        read.append(interpreter.get_tensor(out)[: len(part)])
    return np.concatenate(read)
