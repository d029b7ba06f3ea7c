"""A batch as SSERD sees it: pictures, what chance decides of each sample, what sources are paired with.

What must be known on the host (which exemplars a sample meets) is added to a batch in the loader's threads (`Meeting`); `prepare` and all
that follows stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.topology import Topology
from spfem_dist.generators.guided import Pictures
from spfem_dist.generators.sserd.bank import Bank, Directions
from spfem_dist.generators.sserd.networks import Portrait
from spfem_dist.generators.sserd.settings import Settings
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch
from spfem_dist.streaming.views import MATCHED, REFERENCE, SOURCE

#: How much more an error at eyes, brows and lips counts than one elsewhere, and how far around a landmark, as a share of the side.
FEATURES, REACH = 4.0, 0.04
#: Side at which these weights are made, pixels.
_GRID = 64
#: The number of each of `list(Emotion)` in SEVEN; -1 for others.
_OF_SEVEN = torch.tensor([SEVEN.index(e) if e in SEVEN else -1 for e in Emotion])


def attention(landmarks: Tensor, order: Topology, size: int) -> Tensor:
    """Weights [N, 1, S, S] of the pixels of faces with landmarks [N, L, 2] (pixels of size S): from 1 to 1 + FEATURES."""
    points = [
        *order.brows,
        *order.mouth,
        *(p for lip in order.lips for p in lip),
        *(p for eye in order.eyes for p in eye),
    ]
    at = landmarks[:, points] / size
    side = min(size, _GRID)
    axis = (torch.arange(side, device=at.device, dtype=at.dtype) + 0.5) / side
    across, down = ((axis - at[:, :, i, None]).square() for i in (0, 1))
    nearest = (down[:, :, :, None] + across[:, :, None, :]).amin(1)
    weights = 1 + FEATURES * torch.exp(-nearest / (2 * REACH**2))
    return F.interpolate(weights[:, None], size, mode="bilinear", align_corners=False)


def picture_errors(made: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Squared and absolute error of each picture [N], weighted by `weights` [N, 1, S, S]."""
    error, whole = made - wanted, weights.flatten(1).sum(1)

    def mean(each: Tensor) -> Tensor:
        return (each * weights).mean(1).flatten(1).sum(1) / whole

    return mean(error.square()), mean(error.abs())


class Meeting:
    """Adds to a batch the exemplars that its samples meet; called in the loader's threads, a function of each sample alone.

    other: int64 [B], an exemplar of another person with the reference's emotion; keys: int64 [B, 7], one of each emotion, the reference's
    first. -1 where the bank has none. bank: made when it is first asked for.
    """

    def __init__(self, bank: Callable[[], Bank]):
        self.bank = bank

    def __call__(self, batch: Batch) -> Batch:
        assert batch.speakers is not None
        bank = self.bank()
        numbers = uniform(batch.seed, "sserd/exemplars", 1 + len(SEVEN))
        other, keys = [], []
        for i in range(len(batch)):
            emotion = int(_OF_SEVEN[batch.emotion[i, REFERENCE]])
            strangers = [s != batch.speakers[i] for s in bank.speakers]
            candidates = (bank.emotions == emotion) & torch.tensor(strangers)
            other.append(_drawn(candidates, numbers[i, 0]))
            order = [emotion, *(e for e in range(len(SEVEN)) if e != emotion)]
            keys.append([_drawn(bank.emotions == e, n) for e, n in zip(order, numbers[i, 1:], strict=True)])
        extras = {"other": torch.tensor(other), "keys": torch.tensor(keys)}
        return replace(batch, extras=batch.extras | extras)


def _drawn(candidates: Tensor, number: Tensor) -> int:
    """One of the candidates bool [M], by a uniform number; -1 without any."""
    at = torch.nonzero(candidates)[:, 0]
    return int(at[min(int(number * len(at)), len(at) - 1)]) if len(at) else -1


@dataclass
class Prepared:
    """What the phases of one step share; B samples, F neighbouring source frames that are edited. Pictures are in [-1, 1].

    source: [B * F, 3, S, S], codes [B * F, L, D]; weights: of their pixels. own: codes of one frame of the reference, [B, L, D]; other: of
    another person with its emotion, or the same where there is none. same: of another frame of the source. reference: pictures [B, 3, S, S].
    target: what the sources are paired with, [B * F, 3, S, S]; paired: [B * F], 1 where there is a pair to equal. keys: codes [B, 7, L, D] of
    the contrast, minus what their emotion's neutral mean is; meets: [B], 1 where all seven are there.
    edited: int64 [B, F]. frames, speech, emotion: the batch's. made: what one phase leaves for the next.
    """

    source: Tensor
    codes: Tensor
    weights: Tensor
    own: Tensor
    other: Tensor
    same: Tensor
    reference: Tensor
    target: Tensor
    paired: Tensor
    keys: Tensor
    meets: Tensor
    edited: Tensor
    frames: Pictures
    speech: Tensor
    emotion: Tensor
    made: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def prepare(
    batch: Batch,
    portrait: Portrait,
    bank: Bank,
    directions: Directions,
    order: Topology,
    settings: Settings,
    edited: int,
) -> Prepared:
    """The batch with its codes and pairs, on its device. edited: neighbouring frames of each source whose edit is drawn."""
    assert batch.landmarks is not None, "the loader's source was asked for landmarks"
    dtype = next(portrait.parameters()).dtype
    device, t, size = batch.frames.device, batch.valid.shape[2], batch.frames.shape[-1]
    each = torch.arange(len(batch), device=device)
    draws = uniform(batch.seed, "sserd/sample", 4)
    frames = Pictures(batch.frames, dtype)
    first = (draws[:, 0] * (t - edited + 1)).long().clamp(max=t - edited)
    rows = first[:, None] + torch.arange(edited, device=device)
    at = (each[:, None], rows)
    source = frames[each[:, None], SOURCE, rows].flatten(0, 1)
    reference, again = (frames[each, row, (draws[:, 1 + row] * t).long()] for row in (REFERENCE, SOURCE))
    codes, own, same = portrait.encode(torch.cat([source, reference, again])).split(
        [len(source), len(batch), len(batch)]
    )

    emotions = _OF_SEVEN.to(device)[batch.emotion]
    other_index = batch.extras["other"]
    known_other = (other_index >= 0)[:, None, None]
    other = torch.where(known_other, bank.codes.to(own)[other_index.clamp(min=0)], own)
    keys = batch.extras["keys"]
    meets = (keys >= 0).all(1)

    towards = directions.between(emotions[:, SOURCE], emotions[:, REFERENCE], codes)
    has = directions.known.to(device)[emotions[:, [SOURCE, REFERENCE]]].all(1)
    if settings.pairs == "warp":
        target = frames[each[:, None], MATCHED, rows].flatten(0, 1)
        exists = batch.valid[:, MATCHED][at]
    else:
        target = portrait.draw(codes + settings.step * towards.repeat_interleave(edited, 0))
        exists = has[:, None].expand(-1, edited)
    chosen = draws[:, 3] < settings.paired_share
    paired = (exists & chosen[:, None] & (emotions[:, SOURCE] != emotions[:, REFERENCE])[:, None]).flatten()
    return Prepared(
        source=source,
        codes=codes,
        weights=attention(batch.landmarks[:, SOURCE][at].flatten(0, 1).to(dtype), order, size),
        own=own,
        other=other,
        same=same,
        reference=reference,
        target=target,
        paired=paired.to(dtype),
        keys=bank.codes.to(codes)[keys.clamp(min=0)] - bank.neutral.to(codes),
        meets=meets.to(dtype),
        edited=rows,
        frames=frames,
        speech=batch.speech,
        emotion=batch.emotion,
    )
