"""A trained ICface at work: the source's own units with the emotion's level become edited frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.maps import grid_of, warped
from spfem_dist.generators.generator import Face as Shown
from spfem_dist.generators.generator import Motion, landmarks_of, refuse_unknown
from spfem_dist.generators.icface.pairs import Face, edited_values, known_changes, shapes
from spfem_dist.generators.icface.units import Measured
from spfem_dist.generators.rendered import Rendered
from spfem_dist.nets.frozen import freeze


class TrainedICface:
    """ICface, frozen; see `generators.generator.Generator`. config: what was saved with it."""

    def __init__(self, reenactor: nn.Module, face: Face, size: int, config: dict[str, Any]):
        self.reenactor = freeze(reenactor)
        self.face, self.size, self.config = face, size, config
        self.units = face.units
        self.topology = face.units.model.topology.name
        self.device = torch.device("cpu")
        self._clip: tuple[np.ndarray, Measured] | None = None

    def to(self, device: torch.device | str) -> TrainedICface:
        """Compute on `device`."""
        self.device = torch.device(device)
        self.reenactor.to(self.device)
        self.face = Face.of(self.units, self.face.texture, device=self.device)
        return self

    def drive(
        self, source: Shown, emotion: Emotion | None = None, reference: Shown | None = None, strength: float = 1.0
    ) -> Motion:
        """See `Generator.drive`. With an emotion and a reference, the level is half way between both.

        The source's units keep their timing; those that words do not move take on the level of the emotion.
        """
        refuse_unknown(emotion, reference)
        landmarks = self._own(source, "source")
        measured = self.units.measured(landmarks, neutral=True)
        levels = []
        if reference is not None:
            levels.append(self.units.measured(self._own(reference, "reference")).values.mean(0))
        if emotion is not None:
            levels.append(self.units.level(emotion))
        change = strength * (np.mean(levels, 0) - measured.values.mean(0))
        wanted = edited_values(self.units, measured.values, change)
        moved = self.units.moved(landmarks, measured, wanted).astype(np.float32)
        return Motion(landmarks, moved, np.stack([measured.values, wanted]).astype(np.float32))

    @torch.inference_mode()
    def render(self, frames: np.ndarray, motion: Motion, first: int = 0, flow_side: int | None = None) -> Rendered:
        """See `Generator.render`."""
        rows = slice(first, first + len(frames))
        measured, wanted = self._measured(motion, rows)
        faces = shapes(self.face, motion.source[rows], measured, wanted)
        # The wanted face as the motion has it, which may have been smoothed, or is known better than units say.
        faces[:, 2, : motion.target.shape[1]] = motion.target[rows]
        places = torch.from_numpy(faces).to(self.device)
        picture = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        shown, asked = (
            torch.from_numpy(np.concatenate([values, measured.pose], 1).astype(np.float32)).to(self.device)
            for values in (measured.values, wanted)
        )
        known, soft = known_changes(self.face, places, shown, asked, self.size)
        drawn, _, flow = self.reenactor(picture, shown, asked, known)
        residual = (drawn - warped(picture, grid_of(flow))) * 127.5
        if flow_side is not None and flow_side != self.size:
            seen, _, aimed = (places * (flow_side / self.size)).unbind(1)
            learnt = (flow - known.whole).permute(0, 3, 1, 2)
            learnt = F.interpolate(learnt, flow_side, mode="bilinear", align_corners=False)
            flow = self.face.maps.flow(aimed, seen, flow_side) + learnt.permute(0, 2, 3, 1)
        return Rendered(*(t.cpu().numpy() for t in (flow, residual.permute(0, 2, 3, 1), soft[:, 0])))

    def _measured(self, motion: Motion, rows: slice) -> tuple[Measured, np.ndarray]:
        """The source's units in the frames `rows`, and those that are wanted [N, U]; where the motion has none, of its landmarks."""
        if self._clip is None or self._clip[0] is not motion.source:
            self._clip = motion.source, self.units.measured(motion.source, neutral=True)  # once for all parts of a film
        seen = self._clip[1].frames(rows)
        if motion.coefficients is not None:
            return seen, motion.coefficients[1, rows]
        return seen, self.units.measured(motion.target[rows], seen.rest).values

    def _own(self, face: Shown, which: str) -> np.ndarray:
        """The face's landmarks in pixels of this generator's size."""
        return landmarks_of(face, which, self.topology, self.size)
