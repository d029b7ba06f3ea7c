"""Action units from the package's 3-D head: its 52 units, fitted to landmarks, in the place of `units.LandmarkUnits`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.expressions import Fit
from spfem_dist.generators.face.model import Pose, similarity
from spfem_dist.generators.face.recordings import FittedRecordings
from spfem_dist.generators.face.unit_model import GAZE, SPEECH, UnitClip, UnitModel
from spfem_dist.generators.icface.units import POSE, Measured, emptied, filled, level_of, pose_scale_of
from spfem_dist.saved import load_tensors, save_tensors


class HeadUnits:
    """The units of the head, in steps of `unit_model.STEP`.

    spoken: bool [52], units that an edit leaves as the source has them: those that words move, lids and gaze. pose_scale: [2]. means: [7, 52],
    mean units of the training part by emotion, in the order of SEVEN; nan for an emotion that nobody showed.
    """

    def __init__(self, model: UnitModel, pose_scale: np.ndarray, means: np.ndarray):
        self.model, self.pose_scale, self.means = model, pose_scale, means
        self.spoken = np.isin(model.names, SPEECH + GAZE)

    def measured(self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False) -> Measured:
        """Units of a clip's landmarks [T, L, 2], pixels; see `LandmarkUnits.measured`. rest: [L, 3]."""
        return self.told(landmarks, self.model.fit(landmarks, rest, neutral))

    def told(self, landmarks: np.ndarray, fit: Fit) -> Measured:
        """The same, of landmarks that are fitted already."""
        assert isinstance(fit, UnitClip)
        still = list(self.model.topology.rigid)
        factor, centre = similarity(landmarks[:, still].astype(np.float64), self.model.mean[still])
        turn, nod = fit.camera.rotation[:, :2, 2].double().numpy().T
        pose = np.stack([turn, nod], 1) / self.pose_scale
        return Measured(fit.coefficients, pose.astype(np.float32), fit.rest, Pose(factor, centre, turn, nod), fit)

    def bounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest units [T, 52] that a face can show."""
        return self.model.bounded(torch.from_numpy(values)).numpy()

    def moved(self, landmarks: np.ndarray, measured: Measured, values: np.ndarray) -> np.ndarray:
        """The clip's landmarks [T, L, 2] with other units [T, 52]; what units do not explain stays."""
        assert isinstance(measured.fit, UnitClip)
        return self.model.moved(landmarks, measured.fit, values)

    def level(self, emotion: Emotion) -> np.ndarray:
        """Mean units [52] of an emotion. ValueError for one that no training recording showed."""
        return level_of(self.means, emotion)

    def save(self, file: Path) -> None:
        """Write what is beside the face model as safetensors."""
        tensors = {"pose_scale": self.pose_scale, "means": self.means}
        save_tensors({name: torch.from_numpy(filled(array)) for name, array in tensors.items()}, file)

    @classmethod
    def load(cls, file: Path, model: UnitModel) -> HeadUnits:
        """The units in `file`, of the face `model`. ValueError where the file is damaged or holds something else."""
        shapes = {"pose_scale": (POSE,), "means": (len(SEVEN), len(model.names))}
        tensors = load_tensors(file, {n: torch.empty(s, device="meta") for n, s in shapes.items()}, "generator")
        return cls(model, **{name: emptied(value.numpy()) for name, value in tensors.items()})


def learnt_head_units(model: UnitModel, fitted: FittedRecordings) -> HeadUnits:
    """The units of these recordings. ValueError without recordings."""
    if not fitted.recordings:
        raise ValueError("action units want landmarks of at least one clip: prepare the shards with --faces mesh")
    plain = HeadUnits(model, np.ones(POSE), np.zeros(0))
    found = [(r.emotion, plain.told(r.landmarks, fitted.of(r)).frames(r.valid)) for r in fitted.recordings]
    nobody = np.full(len(model.names), np.nan)
    means = {e: [m.values.mean(0) for emotion, m in found if emotion == e] for e in SEVEN}
    levels = np.stack([np.mean(means[e], 0) if means[e] else nobody for e in SEVEN])
    return HeadUnits(model, pose_scale_of([m.pose for _, m in found]), levels)
