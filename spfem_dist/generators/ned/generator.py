"""A trained NED at work: a clip's landmarks become an edited motion, its frames edited frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.maps import grid_of, warped
from spfem_dist.generators.generator import Face as Shown
from spfem_dist.generators.generator import Motion, landmarks_of, refuse_unknown
from spfem_dist.generators.ned.motions import WINDOW, Face
from spfem_dist.generators.ned.windows import made_scene
from spfem_dist.generators.rendered import Rendered
from spfem_dist.nets.frozen import freeze

#: Fall-off of a frame's weight towards a window's ends (sigma, frames).
SIGMA = 2.0
#: Windows that are edited at once: a film's memory does not grow with the recurrent layers' inner numbers.
AT_ONCE = 512


class TrainedNED:
    """NED, frozen; see `generators.generator.Generator`. config: what was saved with it."""

    def __init__(
        self, manipulator: nn.Module, renderer: nn.Module | None, face: Face, size: int, config: dict[str, Any]
    ):
        self.manipulator: Any = freeze(manipulator)
        self.renderer = freeze(renderer) if renderer is not None else None
        self.face, self.size, self.config = face, size, config
        self.model = face.model
        self.topology = face.model.topology.name
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> TrainedNED:
        """Compute on `device`."""
        self.device = torch.device(device)
        self.manipulator.to(self.device)
        if self.renderer is not None:
            self.renderer.to(self.device)
        self.face = Face.of(self.model, self.face.texture, device=self.device)
        return self

    @torch.inference_mode()
    def drive(
        self, source: Shown, emotion: Emotion | None = None, reference: Shown | None = None, strength: float = 1.0
    ) -> Motion:
        """See `Generator.drive`. With an emotion and a reference, the style is half way between both."""
        refuse_unknown(emotion, reference)
        landmarks = self._own(source, "source")
        fit = self.model.fit(landmarks, neutral=True)
        styles = []
        if reference is not None:
            seen = self.model.fit(self._own(reference, "reference")).coefficients
            read = [self.manipulator.style_of(part) for part in self._windows(seen).split(AT_ONCE)]
            styles.append(torch.cat(read).mean(0, keepdim=True))
        if emotion is not None:
            middle = torch.zeros(1, 4, device=self.device)
            styles.append(self.manipulator.style_for(torch.tensor([SEVEN.index(emotion)], device=self.device), middle))
        style = torch.stack(styles).mean(0)
        parts = self._windows(fit.coefficients).split(AT_ONCE)
        made = [self.manipulator(part, style.expand(len(part), -1)) for part in parts]
        edited = self._joined(torch.cat(made), len(landmarks))
        changed = self.model.bounded(
            torch.from_numpy(fit.coefficients + strength * (edited - fit.coefficients))
        ).numpy()
        moved = self.model.moved(landmarks, fit, changed).astype(np.float32)
        return Motion(landmarks, moved, np.stack([fit.coefficients, changed]).astype(np.float32))

    @torch.inference_mode()
    def render(self, frames: np.ndarray, motion: Motion, first: int = 0, flow_side: int | None = None) -> Rendered:
        """See `Generator.render`."""
        rows = slice(first, first + len(frames))
        seen, wanted = motion.source[rows], motion.target[rows]
        anchors = self.face.maps.anchors(seen)
        picture = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        shape, source = (
            torch.from_numpy(np.concatenate([points, anchors], 1)).to(self.device) for points in (wanted, seen)
        )
        before, after = torch.from_numpy(self._expressions(motion)[:, rows]).to(self.device)
        scene = made_scene(self.face, shape, source, picture, picture, (before, after))
        painted = scene.moved if self.renderer is None else self.renderer(scene.maps, scene.source)
        flow = scene.flow
        if flow_side is not None and flow_side != self.size:
            larger = flow_side / self.size
            flow = self.face.maps.flow(shape * larger, source * larger, flow_side)
        residual = (painted - warped(picture, grid_of(scene.flow))) * 127.5
        return Rendered(*(t.cpu().numpy() for t in (flow, residual.permute(0, 2, 3, 1), scene.soft[:, 0])))

    def _expressions(self, motion: Motion) -> np.ndarray:
        """Coefficients [2, T, C] of a motion's source and target; where it has none, of its landmarks."""
        if motion.coefficients is not None:
            return motion.coefficients
        fit = self.model.fit(motion.source, neutral=True)
        return np.stack([fit.coefficients, self.model.fit(motion.target, fit.rest).coefficients])

    def _own(self, face: Shown, which: str) -> np.ndarray:
        """The face's landmarks in pixels of this generator's size."""
        return landmarks_of(face, which, self.topology, self.size)

    def _windows(self, coefficients: np.ndarray) -> Tensor:
        """Every window of WINDOW frames [N, WINDOW, C]; a shorter clip repeats its last frame."""
        lack = max(0, WINDOW - len(coefficients))
        whole = np.concatenate([coefficients, np.repeat(coefficients[-1:], lack, 0)])
        starts = np.arange(len(whole) - WINDOW + 1)[:, None] + np.arange(WINDOW)
        return torch.from_numpy(whole)[starts].to(self.device)

    def _joined(self, windows: Tensor, frames: int) -> np.ndarray:
        """Overlapping windows [N, WINDOW, C] as one clip [T, C]: Gaussian weights, least at a window's ends."""
        weight = torch.exp(-0.5 * ((torch.arange(WINDOW) - (WINDOW - 1) / 2) / SIGMA) ** 2).to(self.device)
        length = len(windows) + WINDOW - 1
        total, count = (
            torch.zeros(length, windows.shape[-1], device=self.device),
            torch.zeros(length, 1, device=self.device),
        )
        for k in range(WINDOW):
            total[k : k + len(windows)] += weight[k] * windows[:, k]
            count[k : k + len(windows)] += weight[k]
        return (total / count)[:frames].cpu().numpy()
