"""Which face stands behind a NED, as its settings say: a linear model that the training part taught, or the head of 52 units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spfem_dist.generators.face.expressions import ExpressionModel
from spfem_dist.generators.face.model import COEFFICIENTS, FaceModel
from spfem_dist.generators.face.recordings import Recorded, learnt_model
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.face.unit_model import UnitModel, refuse_drawn
from spfem_dist.generators.ned.settings import Manipulation
from spfem_dist.head.asset import head


def count_of(settings: Manipulation) -> int:
    """Coefficients of one frame."""
    return COEFFICIENTS if settings.coefficients == "linear" else len(head().names)


def face_model(settings: Manipulation, recordings: Sequence[Recorded], landmarks: str) -> ExpressionModel:
    """The face of these recordings. landmarks: their order, as the shards' index says."""
    return learnt_model(recordings, landmarks) if settings.coefficients == "linear" else UnitModel(topology(landmarks))


def load_face_model(settings: Manipulation, file: Path, order: str) -> ExpressionModel:
    """The face in `file`, of the landmark order `order`. Raises ValueError where the file is damaged or holds another."""
    if settings.coefficients == "linear":
        return FaceModel.load(file, order)
    return UnitModel.load(file, topology(order))


def check_face(settings: Manipulation, job: str, landmarks: str, shards: str) -> None:
    """Raise ValueError where the faces of `shards` cannot be told in these coefficients. landmarks: their order, as the index says."""
    if settings.coefficients == "units":
        refuse_drawn(landmarks, shards, f"--{job}.coefficients", "linear")
