"""PCMECL, clean form: prompts made for the speaker, and changes of the face held against changes of the prompt.

Of the paper (arXiv 2604.25255) only the abstract could be had; this is our design of it. A portrait, the mean vector of some neutral
frames of the speaker in another recording, shifts the prompts of all emotions (as in conditional prompt learning, Zhou et al., CVPR
2022). Pictures and prompts are never quite in one place of their common space, so that their *differences* are compared: from the
speaker at rest to the speaker in an emotion, and back. See docs/priors.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion, class_of
from spfem_dist.nets.augment import colour_jitter, face_crop, flip, random_shift, uniform
from spfem_dist.nets.batchnorm import synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.small import resized, to_unit_range, unit
from spfem_dist.pictures import framed, grid, tile
from spfem_dist.priors.pcmecl.networks import BOTTLENECK, ClipTowers, SmallTowers
from spfem_dist.priors.pcmecl.settings import Settings
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.streaming.views import PERSONAL

NEUTRAL = SEVEN.index(Emotion.NEUTRAL)
#: Changes of unit vectors that are shorter have no direction to speak of; a generator that copies would get one of any steepness.
LEAST = 0.05


class CleanPCMECL(nn.Module):
    """Face vectors v and prompts T_e(u) of the seven emotions in one space of unit vectors; u is who it is."""

    view = PERSONAL
    hears, frames, softened = False, 1, True
    compares_with: Literal["source", "reference"] = "reference"

    def __init__(self, settings: Settings, *, pretrained: bool = True):
        super().__init__()
        self.settings = settings
        self.towers: SmallTowers | ClipTowers = (
            ClipTowers(pretrained) if settings.network == "paper" else SmallTowers(settings.embedding)
        )
        self.person = nn.Sequential(
            nn.Linear(self.towers.width, BOTTLENECK),
            nn.ReLU(),
            nn.Linear(BOTTLENECK, self.towers.shift_width),
        )
        nn.init.zeros_(self.person[-1].weight)  # every prompt begins as nobody's
        nn.init.zeros_(self.person[-1].bias)
        synchronise(self)

    def see(self, faces: Tensor) -> Tensor:
        """Emotion vectors v [N, D], unit norm, of cropped faces [N, 3, side, side] in [-1, 1]."""
        return unit(self.towers.see(faces.to(self._dtype)))

    def embed(self, frames: Tensor, speech: Tensor | None = None) -> Tensor:
        """Emotion vectors [N, D], unit norm, of frames [N, 3, S, S], uint8 or in [-1, 1]. Speech is not listened to."""
        return self.see(self.cropped(frames))

    def portrait(self, vectors: Tensor, counted: Tensor | None = None) -> Tensor:
        """Who it is, u [N, D]: the mean of vectors [N, P, D] of neutral frames; counted: bool [N, P], which of them count."""
        if counted is None:
            return vectors.mean(1)
        weight = counted.to(vectors.dtype)[..., None]
        return (vectors * weight).sum(1) / weight.sum(1).clamp(min=1)

    def prompts(self, who: Tensor | None = None) -> Tensor:
        """Prompts T_e(u), unit norm, in the order of `emotions.SEVEN`: [N, 7, D] for portraits [N, D], [7, D] nobody's.

        N(g(ctx_e + pi(u))): the portrait shifts what the text tower g reads; nobody's prompts are not shifted.
        """
        if who is None:
            nothing = torch.zeros(1, self.towers.shift_width, device=self.device, dtype=self._dtype)
            return unit(self.towers.say(nothing))[0]
        return unit(self.towers.say(self._shift(who)))

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and monitors of a batch with nine recordings: one for each emotion, and two rows of a portrait.

        `pcmecl/personal`, `pcmecl/generic`: recognition by the speaker's prompts and by nobody's. `pcmecl/direction`: 1 - cos of the
        change from the portrait to an emotional frame and the change of the prompt; `pcmecl/return`: the same from an emotional to a
        neutral frame of the sample. `pcmecl/size`: the mean square of what shifts the prompts. A speaker without a portrait has nobody's
        prompts and no directions.
        """
        s, rows = self.settings, len(SEVEN)
        b, r, k = batch.valid.shape
        if r <= rows:
            raise ValueError(
                f"PCMECL needs {rows} recordings and a portrait for each sample, found {r}: draw personal views"
            )
        vectors = self.see(self.augmented(batch)).view(b, r, k, -1)
        who = self.portrait(vectors[:, rows:].flatten(1, 2), batch.valid[:, rows:].flatten(1))
        known = batch.valid[:, rows:].flatten(1).any(1)
        shift = self._shift(who) * known[:, None]
        nobodys = self.prompts()
        prompts = unit(self.towers.say(shift))
        shown = vectors[:, :rows]
        classes = class_of(batch.emotion[:, :rows])[..., None].expand(b, rows, k)
        counted = batch.valid[:, :rows] & (classes >= 0)
        recognised = {
            "personal": torch.einsum("brkd,bed->brke", shown, prompts) / s.temperature,
            "generic": shown @ nobodys.T / s.temperature,
        }
        weights = {"personal": 1.0, "generic": s.generic_weight}
        losses = {f"pcmecl/{n}": weights[n] * entropy(logits, classes, counted) for n, logits in recognised.items()}
        losses["pcmecl/size"] = s.size_weight * shift.square().mean()
        if s.direction_weight:
            turned = prompts - prompts[:, NEUTRAL, None]
            turned = turned[torch.arange(b, device=turned.device)[:, None, None], classes.clamp(min=0)]  # [B, 7, K, D]
            moved = counted & known[:, None, None] & (classes != NEUTRAL)
            forth = 1 - cosine(shown - who[:, None, None], turned)
            losses["pcmecl/direction"] = s.direction_weight * per_sample(forth, moved)
            back = 1 - cosine(shown[:, NEUTRAL, None] - shown, -turned)
            both = moved & batch.valid[:, NEUTRAL, None]
            losses["pcmecl/return"] = s.direction_weight * per_sample(back, both)
        right = {n: (logits.argmax(-1) == classes).to(shown.dtype) for n, logits in recognised.items()}
        return losses, {f"pcmecl/accuracy_{n}": per_sample(hit, counted).detach() for n, hit in right.items()}

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """How far the change of the face is from the change of the speaker's prompt. See `Prior.guidance`.

        `pcmecl/direction`: 1 - cos of v(generated) - v(source) and T_target - T_source; the squared change of the face where target
        and source emotion are one. `pcmecl/contrast`: cross-entropy of the target among the changes to every other emotion, which
        gives the change a length where a direction has none. The portrait is of `edit.neutral`, else of the source (`enrolled`).
        An emotion that is none of the seven has no prompt: it fails on its device.
        """
        s, (n, t) = self.settings, edit.generated.shape[:2]
        target = _classes(edit.emotion)
        with torch.no_grad():
            source = self.embed(edit.source.flatten(0, 1)).view(n, t, -1)
            shown = self._shown(edit, source)
            who = self.enrolled(source, shown, edit)
            prompts = self.prompts(who)
            each = torch.arange(n, device=shown.device)
            change = prompts - prompts[each, shown][:, None]  # [N, 7, D], 0 at the source's emotion
            same = target == shown
        moved = self.embed(edit.generated.flatten(0, 1)).view(n, t, -1) - source
        wanted = change[each, target][:, None]
        direction = torch.where(same[:, None], moved.square().sum(-1), 1 - cosine(moved, wanted))
        others = torch.arange(len(SEVEN), device=shown.device) != shown[:, None]  # [N, 7]
        logits = torch.where(others[:, None], cosine(moved[:, :, None], change[:, None]) / s.temperature, -torch.inf)
        # Where nothing is to change there is no target among the changes.
        asked = torch.where(same, others.to(torch.uint8).argmax(1), target)
        contrast = F.cross_entropy(logits.flatten(0, 1), asked.repeat_interleave(t), reduction="none").view(n, t)
        return {
            "pcmecl/direction": edit.mean(direction),
            "pcmecl/contrast": edit.mean(contrast * ~same[:, None]),
        }

    @torch.no_grad()
    def enrolled(self, source: Tensor, shown: Tensor, edit: EditedFrames) -> Tensor:
        """Who speaks in an edit, u [N, D]: the mean of its neutral frames, where there are any.

        Else it is enrolled by its source frames, vectors [N, T, D] that show emotions [N]: their mean, less what nobody's prompts
        say that the emotion changes.
        """
        if edit.neutral is not None:
            n, t = edit.neutral.shape[:2]
            return self.portrait(self.embed(edit.neutral.flatten(0, 1)).view(n, t, -1), edit.valid)
        nobodys = self.prompts()
        return self.portrait(source, edit.valid) - (nobodys[shown] - nobodys[NEUTRAL])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`prompts`: for the first speakers of a batch a row: a neutral frame, and the faces nearest to their prompts (green: right)."""
        with evaluating(self):
            rows = len(SEVEN)
            lines = []
            for i in range(min(4, len(batch))):
                if not bool(batch.valid[i, rows:].any()):
                    continue
                counted = batch.valid[i, rows:].flatten()
                neutral = batch.frames[i, rows:].flatten(0, 1)[counted]
                shown = batch.valid[i, :rows].flatten()
                faces = batch.frames[i, :rows].flatten(0, 1)[shown]
                classes = class_of(batch.emotion[i, :rows])[:, None].expand(rows, batch.valid.shape[2]).flatten()[shown]
                prompts = self.prompts(self.portrait(self.embed(neutral)[None]))[0]
                best = (prompts @ self.embed(faces).T).argmax(1)
                found = [framed(tile(faces[j]), int(classes[j]) == e) for e, j in enumerate(best.tolist())]
                lines.append([tile(neutral[0]), *found])
        return {"prompts": grid(lines)} if lines else {}

    def augmented(self, batch: Batch) -> Tensor:
        """The batch's faces [B * R * K, 3, side, side] in [-1, 1]; shifted, mirrored and recoloured in training only.

        All faces of a sample are mirrored alike: how a face leans is its speaker's own.
        """
        s, frames, each = self.settings, batch.frames.flatten(0, 2), tuple(batch.valid.shape[1:])
        if not self.training:
            return self.cropped(frames)
        faces = self.cropped(frames, random_shift(frames, batch.seed, "pcmecl/shift", s.shift, each))
        faces = flip(faces, (uniform(batch.seed, "pcmecl/flip") < 0.5).repeat_interleave(each[0] * each[1], 0))
        colours = uniform(batch.seed, "pcmecl/colour", *each, 5).flatten(0, 2)
        return colour_jitter(faces, s.colour_jitter, colours)

    def cropped(self, frames: Tensor, offset: Tensor | None = None) -> Tensor:
        """The face of frames [N, 3, S, S] as the network sees it, float [N, 3, side, side] in [-1, 1]."""
        crop = face_crop(frames, self.settings.crop, self.settings.crop_row, offset)
        return resized(to_unit_range(crop), self.towers.side)

    def _shift(self, who: Tensor) -> Tensor:
        # A unit vector's numbers are small: brought to unit variance they reach a prompt within few steps.
        return self.person(who.to(self._dtype) * self.towers.width**0.5)

    def _shown(self, edit: EditedFrames, source: Tensor) -> Tensor:
        """The emotion of each source, as an index into `SEVEN`, int64 [N]: as said, else as nobody's prompts find it."""
        if edit.source_emotion is not None:
            return _classes(edit.source_emotion)
        return (self.portrait(source, edit.valid) @ self.prompts().T).argmax(1)

    @property
    def _dtype(self) -> torch.dtype:
        return self.person[0].weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.person[0].weight.device


def _classes(emotion: Tensor) -> Tensor:
    classes = class_of(emotion)
    torch._assert_async((classes >= 0).all(), f"PCMECL has no prompt for an emotion that is none of {', '.join(SEVEN)}")
    return classes


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last dimension, broadcast; of changes shorter than `LEAST` proportionally less, 0 where there is none."""
    return (F.normalize(a, dim=-1, eps=LEAST) * F.normalize(b, dim=-1, eps=LEAST)).sum(-1)


def per_sample(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over samples of each one's mean over what counts; values, counted: [B, R, K]."""
    weight = counted.to(values.dtype)
    return ((values * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)).mean()


def entropy(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of each face over the prompts. logits: [B, R, K, 7]; classes, counted: [B, R, K]."""
    each = F.cross_entropy(logits.flatten(0, 2), classes.clamp(min=0).flatten(), reduction="none")
    return per_sample(each.view(classes.shape), counted)
