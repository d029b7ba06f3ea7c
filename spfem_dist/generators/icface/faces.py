"""Which action units drive an ICface, as its settings say: distances between landmarks, or the units of the package's 3-D head."""

from __future__ import annotations

from pathlib import Path

from spfem_dist.generators.face.model import FaceModel
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.face.unit_model import UnitModel, refuse_drawn
from spfem_dist.generators.icface.head_units import HeadUnits
from spfem_dist.generators.icface.settings import Reenactment
from spfem_dist.generators.icface.units import NAMES, LandmarkUnits, Units
from spfem_dist.head.asset import head


def count_of(settings: Reenactment) -> int:
    """Units of one frame."""
    return len(NAMES) if settings.units == "landmarks" else len(head().names)


def load_units(settings: Reenactment, face: Path, units: Path, order: str) -> Units:
    """The units in the files `face` and `units`, of the landmark order `order`. Raises ValueError where a file is damaged or holds others."""
    if settings.units == "landmarks":
        return LandmarkUnits.load(units, FaceModel.load(face, order))
    return HeadUnits.load(units, UnitModel.load(face, topology(order)))


def check_units(settings: Reenactment, job: str, landmarks: str, shards: str) -> None:
    """Raise ValueError where the faces of `shards` cannot be told in these units. landmarks: their order, as the index says."""
    if settings.units == "head":
        refuse_drawn(landmarks, shards, f"--{job}.units", "landmarks")
