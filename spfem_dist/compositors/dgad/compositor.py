"""A trained DGAD as `spfem edit` and the evaluation use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spfem_dist.compositors.dgad.diffusion import drawn_by
from spfem_dist.compositors.dgad.networks import AppearanceNetwork, Codec, Condition, GeometryNetwork
from spfem_dist.compositors.dgad.settings import Settings
from spfem_dist.nets.frozen import freeze

#: Frames that are drawn at once.
_CHUNK = 16


class TrainedDGAD:
    """See `Compositor`. config: what its folder says of it."""

    def __init__(
        self,
        geometry: GeometryNetwork,
        appearance: AppearanceNetwork,
        codec: Codec,
        settings: Settings,
        config: dict[str, Any],
    ):
        self.geometry, self.appearance, self.codec = (freeze(part) for part in (geometry, appearance, codec))
        self.settings, self.config = settings, config
        self.size, self.topology, self.grow = int(config["size"]), str(config["topology"]), settings.grow

    def compose(self, scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray, covers: np.ndarray) -> np.ndarray:
        """See `Compositor`."""
        parts = [slice(first, first + _CHUNK) for first in range(0, len(scenes), _CHUNK)]
        drawn = [self._drawn(scenes[p], masks[p], heads[p], covers[p]) for p in parts]
        filled = np.concatenate(drawn) if drawn else scenes
        return np.where(masks[..., None], filled, scenes)

    @torch.no_grad()
    def _drawn(self, scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray, covers: np.ndarray) -> np.ndarray:
        pictures = (torch.from_numpy(p.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1 for p in (scenes, heads))
        scene, head = pictures
        hole, cover = (torch.from_numpy(m.astype(np.float32))[:, None] for m in (masks, covers))
        condition = self.codec.condition(scene, hole, head, cover)
        maps = self.appearance.maps(condition.head)

        def predict(noisy: Tensor, steps: Tensor, known: Condition) -> Tensor:
            return self.appearance(self.geometry, noisy, steps, known, maps)

        # One noise for every frame: of noise of their own, the frames of a clip would flicker.
        noise = torch.randn(condition.scene.shape[1:], generator=torch.Generator().manual_seed(0))
        drawn = drawn_by(predict, self.codec, self.settings, condition, noise.expand_as(condition.scene).clone())
        return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
