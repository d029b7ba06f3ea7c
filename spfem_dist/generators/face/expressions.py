"""What a face model is to the generators: a clip's landmarks become coefficients of its expression, and other coefficients other landmarks.

Two stand behind it: the linear `face.model.FaceModel`, which is learnt, and `face.unit_model.UnitModel`, whose coefficients have names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from spfem_dist.generators.face.topology import Topology

#: Of coefficients [N, C] before and after, and what is seen of each frame's head (tensors [N, ...] by name): shifts of landmarks [N, L, 2], pixels.
Shift = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


class Fit(Protocol):
    """A clip of T frames in a model's terms. coefficients: float32 [T, C]. rest: the person without expression, as the model has it."""

    @property
    def coefficients(self) -> np.ndarray: ...

    @property
    def rest(self) -> np.ndarray: ...

    @property
    def seen(self) -> dict[str, np.ndarray]:
        """What a `Shift` asks of each frame: arrays [T, ...] by name."""
        ...

    def frames(self, numbers: np.ndarray) -> Fit:
        """Some frames of it."""
        ...


class ExpressionModel(Protocol):
    """mean: [L, 2] and depth: [L], the mean face, in eye distances; depth towards the camera. speech: columns of what words move."""

    topology: Topology
    mean: np.ndarray
    depth: np.ndarray

    @property
    def speech(self) -> tuple[int, ...]: ...

    def fit(self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False) -> Fit:
        """One clip's landmarks [T, L, 2], pixels. rest: the person's, where it is known; else the most likely one, given that the clip is
        neutral or of any emotion."""
        ...

    def rest_of(self, clips: Sequence[np.ndarray], neutral: bool) -> np.ndarray:
        """The person seen in these clips [T, L, 2], without expression; neutral: whether the clips show none."""
        ...

    def bounded(self, coefficients: Tensor) -> Tensor:
        """The nearest coefficients that a face can show."""
        ...

    def moved(self, landmarks: np.ndarray, fit: Any, coefficients: np.ndarray) -> np.ndarray:
        """The clip's landmarks [T, L, 2] with other coefficients; pose, person and what the model does not explain stay. fit: of this model."""
        ...

    def shifting(self, device: torch.device | str) -> Shift:
        """How landmarks of frames move with their coefficients: differentiable, on `device`."""
        ...

    def save(self, file: Path) -> None:
        """Write the model as safetensors."""
        ...
