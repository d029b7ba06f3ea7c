"""The judges: an oracle for emotion and mouth, a face's identity, and the synchrony of lips and speech.

None shares a trunk, a seed or an objective with the priors (`nets.small`, `priors/`): a generator that learnt to please
the priors finds no friend here. Linear heads stand on a batch norm of the whole map: heads with a rectifier died at the
learning rates that a minute's training needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, class_of
from spfem_dist.evaluation.judges.disturb import crop_matrix, cropped, disturbed, to_crop, to_frame
from spfem_dist.evaluation.judges.settings import Identity, JudgeSettings, Oracle, Synchrony
from spfem_dist.nets.augment import flip, uniform
from spfem_dist.nets.batchnorm import BatchNorm1d, BatchNorm2d
from spfem_dist.nets.small import to_unit_range
from spfem_dist.prepare.landmarks import mouth_opening
from spfem_dist.records import Batch
from spfem_dist.stage import Losses
from spfem_dist.streaming.views import EMOTION, MOTION

#: Crops that are judged at once.
AT_ONCE = 512


class Trunk(nn.Sequential):
    """Crops [N, C, side, side] -> flat maps [N, 64 (side / 8)^2], batch-normalised: pairs of small convolutions."""

    def __init__(self, side: int, channels: int = 3):
        layers: list[nn.Module] = []
        for before, width, stride in ((channels, 16, 2), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), BatchNorm2d(width), nn.SiLU(inplace=True)]
        self.width = 64 * (side // 8) ** 2
        super().__init__(*layers, nn.Flatten(), BatchNorm1d(self.width))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous(memory_format=torch.channels_last).to(self[0].weight.dtype))


def placed(frames: Tensor, settings: JudgeSettings) -> tuple[Tensor, Tensor]:
    """The undisturbed crops of frames [N, 3, S, S] (uint8, or float in [-1, 1]) and their matrix."""
    matrix = crop_matrix(settings, len(frames))
    return cropped(to_unit_range(frames), matrix, settings.side), matrix


def shown(batch: Batch, settings: JudgeSettings, purpose: str, training: bool) -> tuple[Tensor, Tensor]:
    """Crops of every frame of the batch, disturbed in training, [B * R * K, 3, side, side], and their matrices."""
    each = batch.valid.shape[1:]
    frames = batch.frames.flatten(0, 2)
    if not training:
        return placed(frames, settings)
    matrix = crop_matrix(
        settings, len(frames), uniform(batch.seed.to("cpu"), f"{purpose}/place", *each, 4).flatten(0, 2)
    )
    faces = cropped(to_unit_range(frames), matrix, settings.side)
    return disturbed(faces, batch.seed, purpose, settings, tuple(each)), matrix


@dataclass(frozen=True)
class Reading:
    """What the oracle sees in N frames.

    emotion: [N, 7] probabilities in the order of SEVEN. opening: [N], as `prepare.landmarks.mouth_opening`.
    landmarks: [N, L, 2] pixels of the frames. features: [N, D], what the emotion is read from (CSIM).
    """

    emotion: Tensor
    opening: Tensor
    landmarks: Tensor
    features: Tensor


class OracleNetwork(nn.Module):
    """Emotion, mouth opening and landmarks of one frame.

    topology: order of the corpus's landmarks, ibug68, mesh468 or mesh478.
    """

    view = EMOTION

    def __init__(self, settings: Oracle, topology: str):
        super().__init__()
        self.settings, self.topology, self.points = settings, topology, int("".join(filter(str.isdigit, topology)))
        self.trunk = Trunk(settings.side)
        self.pool = nn.Linear(self.trunk.width, settings.embedding, bias=False)
        self.pool_norm = BatchNorm1d(settings.embedding)
        self.emotion = nn.Linear(settings.embedding, len(SEVEN))
        self.opening = nn.Linear(self.trunk.width, 1)
        self.landmarks = nn.Linear(self.trunk.width, 2 * self.points)
        # Targets are learnt in units of their own spread, which these keep.
        self.opening_scale = BatchNorm1d(1, affine=False)
        self.landmark_scale = BatchNorm1d(2 * self.points, affine=False)

    def forward(self, batch: Batch) -> Losses:
        """Cross-entropy of the emotion, smooth L1 of opening and landmarks in units of their spread."""
        s = self.settings
        faces, matrix = shown(batch, s, "oracle", self.training)
        classes = class_of(batch.emotion)[..., None].expand_as(batch.valid).flatten()
        counted = batch.valid.flatten() & (classes >= 0)
        faces, matrix, classes = faces[counted], matrix[counted.cpu()], classes[counted]
        assert batch.landmarks is not None
        points = batch.landmarks.flatten(0, 2)[counted]
        openings = torch.from_numpy(mouth_opening(points.cpu().numpy(), self.topology)).float()[:, None]
        seen = self.trunk(faces)
        logits = self.emotion(self.pool_norm(self.pool(seen))).float()
        placed_points = to_crop(points, matrix, batch.frames.shape[-1]).flatten(1)
        opening = self.opening_scale(openings.to(seen)).float().detach()
        landmarks = self.landmark_scale(placed_points.to(seen)).float().detach()
        each = {
            "oracle/emotion": F.cross_entropy(logits, classes, label_smoothing=0.05, reduction="none"),
            "oracle/opening": s.opening_weight * _apart(self.opening(seen), opening),
            "oracle/landmarks": s.landmark_weight * _apart(self.landmarks(seen), landmarks),
            "oracle/accuracy": (logits.argmax(1) == classes).float(),
        }
        means = {name: mean_over_samples(values, counted.view(len(batch), -1)) for name, values in each.items()}
        return means, {"oracle/accuracy": means.pop("oracle/accuracy")}

    @torch.inference_mode()
    def read(self, frames: Tensor) -> Reading:
        """What is seen in frames [N, 3, S, S], uint8 or float in [-1, 1]."""
        parts = [self._read(frames[i : i + AT_ONCE]) for i in range(0, len(frames), AT_ONCE)]
        return Reading(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _read(self, frames: Tensor) -> tuple[Tensor, ...]:
        faces, matrix = placed(frames, self.settings)
        seen = self.trunk(faces)
        features = self.pool_norm(self.pool(seen))
        landmarks = _unscaled(self.landmark_scale, self.landmarks(seen)).view(len(frames), -1, 2)
        return (
            self.emotion(features).float().softmax(1),
            _unscaled(self.opening_scale, self.opening(seen))[:, 0],
            to_frame(landmarks, matrix, frames.shape[-1]),
            features.float(),
        )


def _apart(seen: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(seen.float(), target, reduction="none").mean(1)


def mean_over_samples(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over samples of the means over their counted frames, so that it does not depend on how a batch is cut.

    values: [M], one for each True of counted: bool [B, frames].
    """
    table = torch.zeros_like(counted, dtype=values.dtype).masked_scatter(counted, values)
    return (table.sum(1) / counted.sum(1).clamp(min=1)).mean()


def _unscaled(scale: BatchNorm1d, values: Tensor) -> Tensor:
    """The inverse of a batch norm without parameters, in evaluation."""
    assert scale.running_mean is not None
    assert scale.running_var is not None
    return values.float() * (scale.running_var + scale.eps).sqrt() + scale.running_mean


class IdentityNetwork(nn.Module):
    """Unit features of who it is. speakers: the training speakers by number. speaker_of: group key -> speaker.

    Everything outside an ellipse around the face is painted grey: an edit keeps background and clothes, so they would
    vouch for any face.
    """

    view = EMOTION
    #: Half axes of that ellipse, as shares of the crop's half side (across, down).
    ELLIPSE = (0.86, 1.0)

    def __init__(self, settings: Identity, speakers: list[str], speaker_of: dict[str, str] | None = None):
        super().__init__()
        self.settings, self.speakers, self.speaker_of = settings, speakers, speaker_of or {}
        self.trunk = Trunk(settings.side)
        self.pool = nn.Linear(self.trunk.width, settings.embedding, bias=False)
        self.norm = BatchNorm1d(settings.embedding, affine=False)
        self.classes = nn.Parameter(torch.randn(len(speakers), settings.embedding) / settings.embedding**0.5)
        axis = (torch.arange(settings.side) + 0.5) / settings.side * 2 - 1
        distance = (axis[None, :] / self.ELLIPSE[0]).square() + (axis[:, None] / self.ELLIPSE[1]).square()
        self.register_buffer("inside", (distance < 1).float()[None, None], persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """Training: cross-entropy of the speaker. Held out: how far the faces of one speaker in seven emotions are apart."""
        s = self.settings
        faces, _ = shown(batch, s, "identity", self.training)
        counted = batch.valid.flatten()
        names = [self.speaker_of[key] for key in batch.keys for _ in range(batch.valid[0].numel())]
        speakers = torch.tensor([self.speakers.index(n) if n in self.speakers else -1 for n in names])
        speakers = speakers.to(counted.device)[counted]
        if self.training:
            mirrored = uniform(batch.seed, "identity/flip", *batch.valid.shape[1:]).flatten() < 0.5
            faces = flip(faces, mirrored)
        features = self.unit(faces[counted])
        rows = counted.view(len(batch), -1)
        if self.training or (speakers >= 0).all():
            logits = features @ F.normalize(self.classes.float(), dim=1).T / s.temperature
            loss = F.cross_entropy(logits, speakers, reduction="none")
            right = (logits.argmax(1) == speakers).float()
            return {"identity/speaker": mean_over_samples(loss, rows)}, {
                "identity/accuracy": mean_over_samples(right, rows)
            }
        centre = torch.zeros(len(batch), features.shape[1]).to(features)
        sample = rows.nonzero()[:, 0]
        centre = F.normalize(centre.index_add(0, sample, features), dim=1)
        apart = 1.0 - (features * centre[sample]).sum(1)
        return {"identity/apart": mean_over_samples(apart, rows)}, {}

    def unit(self, faces: Tensor) -> Tensor:
        """Unit features [N, D] of crops [N, 3, side, side]."""
        return F.normalize(self.norm(self.pool(self.trunk(faces * self.inside))).float(), dim=1)

    @torch.inference_mode()
    def embed(self, frames: Tensor) -> Tensor:
        """Unit features [N, D] of frames [N, 3, S, S], uint8 or float in [-1, 1]."""
        return torch.cat(
            [self.unit(placed(frames[i : i + AT_ONCE], self.settings)[0]) for i in range(0, len(frames), AT_ONCE)]
        )


class SynchronyNetwork(nn.Module):
    """Two towers: a moving mouth and its speech, as unit vectors that meet where they belong together.

    feature_dim: numbers in one row of speech features. speech_window: rows around a frame that are heard.
    """

    view = MOTION

    def __init__(self, settings: Synchrony, feature_dim: int, speech_window: int):
        super().__init__()
        self.settings, self.speech_window = settings, speech_window
        self.lips_trunk = Trunk(settings.side, 3 * settings.window)
        self.lips_pool = nn.Linear(self.lips_trunk.width, settings.embedding, bias=False)
        self.lips_norm = BatchNorm1d(settings.embedding, affine=False)
        self.speech_trunk = nn.Sequential(
            BatchNorm1d(feature_dim * speech_window),
            nn.Linear(feature_dim * speech_window, 256, bias=False),
            BatchNorm1d(256),
            nn.SiLU(inplace=True),
            nn.Linear(256, 256, bias=False),
            BatchNorm1d(256),
            nn.SiLU(inplace=True),
            nn.Linear(256, settings.embedding, bias=False),
            BatchNorm1d(settings.embedding, affine=False),
        )

    def forward(self, batch: Batch) -> Losses:
        """Symmetric InfoNCE within each clip: a window's speech against the speech of all its other windows."""
        s, (b, r, k) = self.settings, batch.valid.shape
        mouths = self._mouths(batch)
        count, edge = k - s.window + 1, s.window // 2
        windows = mouths.unfold(1, s.window, 1).permute(0, 1, 5, 2, 3, 4)
        lips = self.see(windows.flatten(0, 1).flatten(1, 2)).view(b * r, count, -1)
        heard = self.hear_windows(batch.speech[:, :, edge : edge + count].flatten(0, 2)).view(b * r, count, -1)
        counted = batch.valid.flatten(0, 1).unfold(1, s.window, 1).all(-1)
        alike = lips @ heard.transpose(1, 2) / s.temperature
        hidden = ~counted
        target = torch.arange(count, device=alike.device).expand(b * r, count)
        weight = counted / counted.sum(1, keepdim=True).clamp(min=1)
        loss = alike.new_zeros(())
        for table in (alike, alike.transpose(1, 2)):
            table = table.masked_fill(hidden[:, None, :], -1e4)
            each = F.cross_entropy(table.flatten(0, 1), target.flatten(), reduction="none").view(b * r, count)
            loss = loss + 0.5 * (each * weight).sum(1).mean()
        near = (alike.argmax(2) - target).abs() <= 1
        return {"synchrony/contrast": loss}, {"synchrony/within_1": (near * weight).sum(1).mean()}

    def _mouths(self, batch: Batch) -> Tensor:
        """Mouth crops [B * R, K, 3, side, side]; in training one disturbance for all frames of a clip."""
        s, (b, r, k) = self.settings, batch.valid.shape
        frames = batch.frames.flatten(0, 2)
        if not self.training:
            return placed(frames, s)[0].view(b * r, k, 3, s.side, s.side)
        place = uniform(batch.seed.to("cpu"), "synchrony/place", r, 4).repeat_interleave(k, 1).flatten(0, 1)
        faces = cropped(to_unit_range(frames), crop_matrix(s, len(frames), place), s.side)
        tall = faces.view(b * r, k, 3, s.side, s.side).transpose(1, 2).reshape(b * r, 3, k * s.side, s.side)
        tall = disturbed(tall, batch.seed, "synchrony", s, (r,))
        faces = tall.view(b * r, 3, k, s.side, s.side).transpose(1, 2)
        mirrored = uniform(batch.seed, "synchrony/flip", r).flatten() < 0.5
        return torch.where(mirrored[:, None, None, None, None], faces.flip(-1), faces)

    def see(self, windows: Tensor) -> Tensor:
        """Unit vectors [N, D] of mouth windows [N, window * 3, side, side]."""
        return F.normalize(self.lips_norm(self.lips_pool(self.lips_trunk(windows))).float(), dim=1)

    def hear_windows(self, speech: Tensor) -> Tensor:
        """Unit vectors [N, D] of speech windows [N, W, F]."""
        flat = speech.flatten(1).to(self.lips_pool.weight.dtype)
        return F.normalize(self.speech_trunk(flat).float(), dim=1)

    @torch.inference_mode()
    def embed(self, frames: Tensor, speech: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of lips and speech, both [T - window + 1, D], one for each whole window of a clip.

        frames: [T, 3, S, S], uint8 or float in [-1, 1]. speech: [T, F], the clip's feature rows.
        """
        s, edge = self.settings, self.settings.window // 2
        mouths = placed(frames, s)[0]
        windows = mouths.unfold(0, s.window, 1).permute(0, 4, 1, 2, 3).flatten(1, 2)
        reach = torch.arange(self.speech_window, device=speech.device) - self.speech_window // 2
        centres = torch.arange(edge, edge + len(windows), device=speech.device)
        heard = speech.float()[(centres[:, None] + reach).clamp(0, len(speech) - 1)]
        lips = torch.cat([self.see(windows[i : i + AT_ONCE]) for i in range(0, len(windows), AT_ONCE)])
        return lips, self.hear_windows(heard)
