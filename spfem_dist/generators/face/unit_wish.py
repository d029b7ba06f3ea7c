"""Any generator that draws landmarks, driven by units: what the head's units are to be becomes another motion of the clip's landmarks.

The 52-unit face is fitted to the clip, its units are taken to the wish, and what that moves, seen through the film's own pose, is added to the landmarks.
Nothing is trained for it. The person's own motion stays on top of the wish, and the mouth opens and closes as it did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spfem_dist.generators.face.gaps import hold_lips
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.face.units import unit_face
from spfem_dist.generators.generator import Motion

#: Share of a clip's frames that lie below the level of an expression that is held: what speech adds comes and goes, and a blink is short.
_HELD = 0.25
#: Over this time what a wish moves is averaged, sigma in seconds.
_STEADY = 0.04
#: Units that give way where lips are rounded, by half, as in the rendered heads' acting (`corpora/heads/acting.py`).
_SPREADING = ("mouthSmile", "mouthStretch", "mouthFrown", "mouthDimple")


@dataclass(frozen=True)
class UnitWish:
    """What a face is to show. level: float32 [52], the level of each of the head's units that is to be held. named: float32 [52] in 0..1, how far the
    wish speaks of a unit; where it is 0 the unit stays as it is. strength: 0 changes nothing, 1 takes every named unit to its level, more goes beyond."""

    level: np.ndarray
    named: np.ndarray
    strength: float = 1.0


def wished(names: tuple[str, ...], units: Tensor, wish: UnitWish) -> Tensor:
    """Units [T, 52] of a clip under a wish: what is held goes to its level, what moves on top of that stays."""
    held = torch.quantile(units, _HELD, dim=0)
    level, named = (torch.from_numpy(values).to(units) for values in (wish.level, wish.named))
    change = (wish.strength * named * (level - held)).expand(len(units), -1).clone()

    def of(*kinds: str) -> list[int]:
        return [i for i, name in enumerate(names) if name.removesuffix("Left").removesuffix("Right") in kinds]

    rounded = units[:, of("mouthPucker", "mouthFunnel")].sum(1).clamp(0, 1)
    change[:, of(*_SPREADING)] *= (1 - 0.5 * rounded)[:, None]
    change[:, of("eyeWide")] *= 1 - units[:, of("eyeBlink")].clamp(0, 1)  # a blink closes the eye, however wide it is
    return (units + change).clamp(0, max(1.0, float((wish.strength * level).max())))


def toward(motion: Motion, order: str, wish: UnitWish, fps: float) -> Motion:
    """`motion` with a wish upon what it becomes. order: of its landmarks. fps: frames a second.

    What the wish names wins over what the motion does with it, by its strength. Raises ValueError for an order or landmarks that the face does not take.
    """
    face = unit_face(order)
    source = torch.from_numpy(np.ascontiguousarray(motion.source, np.float32))
    fit, base = face.fit(source), source
    if motion.target is not motion.source:
        base = torch.from_numpy(np.ascontiguousarray(motion.target, np.float32))
        fit = face.fit(base, rest=fit.rest)
    moved = face.moved(base, fit, wished(face.names, fit.units, wish))
    shift = gaussian_filter1d((moved - base).numpy(), _STEADY * fps, axis=0, mode="nearest")
    before = base.numpy()
    target = before + shift
    hold_lips(before, target, topology(order), (1.0, 1.0))
    return replace(motion, target=target.astype(np.float32), coefficients=None)
