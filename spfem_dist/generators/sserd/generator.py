"""A trained SSERD at work: a picture's code and an emotion's residual become an edited frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.maps import EDGE, FaceMaps, mask_edge
from spfem_dist.generators.face.model import FaceModel
from spfem_dist.generators.generator import Face, Motion, landmarks_of, refuse_unknown
from spfem_dist.generators.rendered import Rendered
from spfem_dist.generators.sserd.bank import Bank, level_of
from spfem_dist.generators.sserd.networks import Portrait, pictures_of
from spfem_dist.nets.frozen import freeze

#: Exemplars that an edit is made of, at most: their residuals' weighted mean.
MOST = 8


@dataclass(frozen=True)
class Driven(Motion):
    """A motion that says which exemplars the edit is made of. shares: float32 [M], of the generator's exemplars. strength: of the edit."""

    shares: np.ndarray | None = None
    strength: float = 1.0


class TrainedSSERD:
    """SSERD, frozen; see `generators.generator.Generator`. config: what was saved with it."""

    def __init__(
        self, portrait: Portrait, residual: nn.Module, face: FaceModel, bank: Bank, size: int, config: dict[str, Any]
    ):
        freeze(portrait)
        self.portrait, self.residual = portrait, freeze(residual)
        self.face, self.bank, self.size, self.config = face, bank, size, config
        self.maps = FaceMaps(face)
        self.topology = face.topology.name
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> TrainedSSERD:
        """Compute on `device`."""
        self.device = torch.device(device)
        for part in (self.portrait, self.residual, self.maps):
            part.to(self.device)
        return self

    def drive(
        self, source: Face, emotion: Emotion | None = None, reference: Face | None = None, strength: float = 1.0
    ) -> Driven:
        """See `Generator.drive`. A reference is looked up by its landmarks among the exemplars; with an emotion too, both count half.

        The landmarks that the motion aims at have the level of the exemplars' expression and the source's timing and jaw.
        """
        refuse_unknown(emotion, reference)
        landmarks = landmarks_of(source, "source", self.topology, self.size)
        shares = []
        if reference is not None:
            shown = landmarks_of(reference, "reference", self.topology, self.size)
            shares.append(self.bank.like(level_of(self.face, shown)))
        if emotion is not None:
            shares.append(self.bank.shown(emotion))
        share = np.mean(shares, 0)
        fit = self.face.fit(landmarks, neutral=True)
        wanted = fit.coefficients.copy()
        wanted[:, 1:] += strength * (share @ self.bank.levels - fit.coefficients[:, 1:].mean(0))
        moved = self.face.moved(landmarks, fit, wanted).astype(np.float32)
        return Driven(landmarks, moved, shares=share.astype(np.float32), strength=strength)

    @torch.inference_mode()
    def render(self, frames: np.ndarray, motion: Motion, first: int = 0, flow_side: int | None = None) -> Rendered:
        """See `Generator.render`. A motion of another maker is looked up by the landmarks that it aims at."""
        rows = slice(first, first + len(frames))
        shares, strength = getattr(motion, "shares", None), getattr(motion, "strength", 1.0)
        if shares is None:
            shares = self.bank.like(level_of(self.face, motion.target))
        picture = pictures_of(torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2), torch.float32)
        codes = self.portrait.encode(picture)
        drawn = self.portrait.draw(codes + strength * self.added(codes, shares))
        drawn = picture + drawn - self.portrait.draw(codes)
        mask = self._mask(motion.target[rows], motion.source[rows])
        painted = ((drawn + 1) * 127.5).permute(0, 2, 3, 1).clamp(0, 255)
        return Rendered.painted(frames, painted.cpu().numpy(), mask[:, 0].cpu().numpy())

    def added(self, codes: Tensor, shares: np.ndarray) -> Tensor:
        """The residual [N, L, D] of codes [N, L, D] for the exemplars' shares [M]: the weighted mean over the largest ones."""
        largest = np.argsort(-shares, kind="stable")[:MOST]
        weights = shares[largest] / shares[largest].sum()
        total = torch.zeros_like(codes)
        for number, weight in zip(largest.tolist(), weights.tolist(), strict=True):
            reference = self.bank.codes[number].to(codes)
            total += weight * self.residual(codes, reference.expand_as(codes))
        return total

    def _mask(self, target: np.ndarray, source: np.ndarray) -> Tensor:
        """Where the face is redrawn, soft at the edge: [N, 1, S, S]; the face as it is and as it shall be."""
        found = []
        for landmarks in (target, source):
            points = np.concatenate([landmarks, self.maps.anchors(landmarks)], 1).astype(np.float32)
            vertices = torch.from_numpy(points).to(self.device)
            maps, _ = self.maps.draw(vertices, vertices, self.size)
            found.append(maps[:, -1:])
        return mask_edge(torch.maximum(*found), max(1, round(EDGE * self.size)))
