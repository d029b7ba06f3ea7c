"""What every generator that frozen priors guide does alike: what it begins from, how hard each prior pulls, what its export says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from spfem_dist.config import GuidedRun, Run
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.load import PRETRAINING, SHIPPED, SHIPPED_FOLDER, local_copy
from spfem_dist.job_settings import Guidance, GuidedSettings, JobSettings
from spfem_dist.priors.frozen import FrozenPriors, frozen_priors
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.saved import CONFIG, misfit, read_config
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.views import REFERENCE, SOURCE

#: A prior whose gradient is shorter than this at every held-out edit wants nothing of them: its share stays its weight.
LEAST = 1e-6

Own = TypeVar("Own", bound=JobSettings)
Parts = TypeVar("Parts")
Made = TypeVar("Made")


def pretrained_folder(run: GuidedRun, pretraining: type[JobSettings]) -> str:
    """Where the generator lies that a run goes on from: of the run it names, or of its own pre-training; '' where it has none.

    pretraining: the class of its settings.
    """
    if run.pretrained == SHIPPED:
        return str(SHIPPED_FOLDER)
    if run.pretrained:
        fs, root = open_filesystem(run.pretrained)
        if fs.exists(f"{root}/{CONFIG}"):
            return run.pretrained
        jobs = [file.split("/")[-3] for file in sorted(fs.glob(f"{root}/*/model/{CONFIG}"))]
        if not jobs:
            raise FileNotFoundError(
                f"--pretrained {run.pretrained}: there is no finished pre-training; give the folder of a finished stage-2 run"
            )
        return f"{run.pretrained.rstrip('/')}/{PRETRAINING if PRETRAINING in jobs else jobs[0]}/model"
    own = next((name for name, job in run.jobs().items() if isinstance(job, pretraining)), "")
    return f"{run.folder()}/{own}/model" if own else ""


def checked(run: Run, name: str, own: type[Own]) -> tuple[GuidedRun, Own]:
    """The run and the settings of its job `name`, which a room's own class of settings has; TypeError where it is another room's."""
    settings = run.jobs()[name]
    if not isinstance(run, GuidedRun) or not isinstance(settings, own):
        raise TypeError(f"{name} of run {run.name!r} is a {type(settings).__module__}.Settings: it has another stage")
    return run, settings


def jobs_of(run: Run, pretraining: type[JobSettings]) -> list[str]:
    """The run's jobs: the pre-training, unless the run names another's, and the generator."""
    given = isinstance(run, GuidedRun) and run.pretrained
    return [name for name, job in run.jobs().items() if not (given and isinstance(job, pretraining))]


def exported_before(
    run: GuidedRun, settings: JobSettings, pretraining: type[JobSettings], load: Callable[[Path], Parts]
) -> Parts | None:
    """What the pre-training of the run, or of the run that it names, exported, as `load` reads its folder; None where there is none (yet)."""
    location = "" if isinstance(settings, pretraining) else pretrained_folder(run, pretraining)
    if not location:
        return None
    fs, root = open_filesystem(location)
    if not fs.exists(f"{root}/{CONFIG}"):
        return None
    with local_copy(location) as folder:
        return load(folder)


def check_pretraining(
    run: GuidedRun,
    name: str,
    settings: JobSettings,
    pretraining: type[JobSettings],
    fields: Sequence[str] = ("network",),
) -> None:
    """Raise ValueError where the job `name` cannot go on from what `--pretrained` names, or from the run's own pre-training.

    fields: of the settings, which say how the networks are built.
    """
    own = next((job for job in run.jobs().values() if isinstance(job, pretraining)), None)
    if run.pretrained:
        with local_copy(pretrained_folder(run, pretraining)) as folder:
            config = read_config(folder, "generator")
        if config["kind"] != settings.kind:
            raise ValueError(f"--pretrained {run.pretrained} is a {config['kind']}: give a run of this recipe")
        try:
            built, size, order = dict(config["settings"]), int(config["size"]), str(config["topology"])
        except (KeyError, TypeError, ValueError) as error:
            raise misfit(run.pretrained, "generator", error) from None
        check_agreement(name, settings, built, run.pretrained, fields)
        if size != run.data.size:
            raise ValueError(
                f"--pretrained {run.pretrained} was trained on faces of {size} pixels, data.size is {run.data.size}: give --data.size "
                f"{size}, or another pre-training"
            )
        if order != (given := topology(ShardReader.of(run.data).index.landmarks).name):
            raise ValueError(
                f"--pretrained {run.pretrained} knows landmarks in the order {order}, and the shards in {run.data.shards} have {given}: "
                "give shards or a pre-training with the other's, or train without --pretrained"
            )
    elif own is not None:
        check_agreement(name, settings, own.model_dump(), "this run", fields)


def priors_of(run: GuidedRun, device: torch.device) -> FrozenPriors:
    """The run's frozen priors on `device`, computed as the run says."""
    double, recomputing = run.zero.precision == "fp64", run.speed.recompute
    return frozen_priors(run.priors, run.tracking.uri, run.data, device, double, recomputing)


def check_guided(
    run: GuidedRun,
    name: str,
    settings: GuidedSettings,
    pretraining: type[JobSettings],
    fields: Sequence[str] = ("network",),
) -> FrozenPriors:
    """The run's priors, on the CPU. Raises what would keep them from guiding the job `name`, or it from going on from a pre-training.

    fields: as `check_pretraining` takes them.
    """
    priors = frozen_priors(run.priors, run.tracking.uri, run.data, "cpu")
    priors.check_weights(settings.guidance, f"--{name}.guidance")
    window_of(settings.guidance, priors, run.data.frames_per_recording)
    check_pretraining(run, name, settings, pretraining, fields)
    return priors


def check_penalty(run: Run, name: str, weight: float) -> None:
    """Raise ValueError where the discriminator's `name`.gradient_penalty, of that weight, cannot be computed."""
    if run.zero.stage == 3 and weight:
        raise ValueError(
            f"{name}.gradient_penalty wants the discriminator's weights once more in a step, which ZeRO-3 has given back by then: give "
            f"--zero.stage 2, or --{name}.gradient-penalty 0"
        )


def check_agreement(
    name: str, settings: JobSettings, other: dict[str, Any], origin: str, fields: Sequence[str] = ("network",)
) -> None:
    """Raise ValueError where a pre-training's settings made other networks than the job `name` trains.

    fields: of the settings, which say how the networks are built.
    """
    for field in fields:
        theirs = other.get(field, type(settings).model_fields[field].default)  # an older version's has no such field
        if (mine := getattr(settings, field)) != theirs:
            raise ValueError(
                f"--{name}.{field} is {mine}, the pre-training in {origin} has {theirs}: give both the same (--{name}.{field} "
                f"{theirs}, or --pretraining.{field} {mine} for one of its own)"
            )


def described(
    run: GuidedRun, settings: JobSettings, priors: dict[str, Any], weights: dict[str, float]
) -> dict[str, Any]:
    """What an exported generator says of its origin."""
    return {
        "run": run.name,
        "seed": run.seed,
        "steps": settings.steps,
        "samples": settings.steps * settings.global_batch,
        "priors": priors,
        "guidance": weights,
        "pretrained": str(Path(run.pretrained).name) if run.pretrained else "",
    }


def window_of(guidance: Guidance, priors: FrozenPriors, frames: int) -> int:
    """Neighbouring frames that the guiding priors judge at once; ValueError where windows of `frames` frames hold fewer."""
    kinds = priors.guiding(guidance)
    longest = priors.frames(guidance)
    if longest > frames:
        name = next(kind for kind in kinds if priors.networks[kind].frames == longest)
        raise ValueError(
            f"the prior {name} judges windows of {longest} frames, data.frames_per_recording is {frames}: give --data.frames-per-recording "
            f"{longest} or more"
        )
    return longest


@dataclass(frozen=True)
class Pictures:
    """Frames uint8 [B, 3, T, 3, S, S], of which those that are asked for become pictures in [-1, 1]: a step looks at few of them."""

    frames: Tensor
    dtype: torch.dtype

    def __getitem__(self, which: Any) -> Tensor:
        return self.frames[which].to(self.dtype) / 127.5 - 1


class Sampled(Protocol):
    """What a generator keeps of samples that `streaming.views.motion_view` drew.

    frames: [B, 3, T, 3, S, S]; speech: [B, 3, T, W, F]; emotion: int64 [B, 3]. edited: int64 [B, F], the source frames that it edits.
    """

    frames: Pictures
    speech: Tensor
    emotion: Tensor
    edited: Tensor


def edited_frames(sampled: Sampled, generated: Tensor) -> EditedFrames:
    """Generated frames [B * F, 3, S, S] beside the frames that they were made from, as the priors are shown them."""
    each = torch.arange(len(sampled.edited), device=generated.device)[:, None]
    return EditedFrames(
        source=sampled.frames[each, SOURCE, sampled.edited],
        reference=sampled.frames[each, REFERENCE, sampled.edited],
        generated=generated.unflatten(0, sampled.edited.shape),
        emotion=sampled.emotion[:, REFERENCE],
        speech=sampled.speech[each, SOURCE, sampled.edited],
        source_emotion=sampled.emotion[:, SOURCE],
    )


class Kept(Generic[Made]):
    """What was made of the last `most` batches, so that the phases of a step make it once."""

    def __init__(self, most: int):
        self.most = most
        self._made: OrderedDict[int, tuple[Batch, Made]] = OrderedDict()

    def of(self, batch: Batch, make: Callable[[], Made]) -> Made:
        """What `make` made of this very batch, made now where it was not."""
        if (kept := self._made.get(id(batch))) is not None and kept[0] is batch:
            return kept[1]
        made = make()
        self._made[id(batch)] = (batch, made)
        while len(self._made) > self.most:
            self._made.popitem(last=False)
        return made

    def clear(self) -> None:
        """Keep nothing."""
        self._made.clear()


class Balance:
    """weights: of the priors' guidance by kind; 0 for those that are left out. They begin as shares.

    content_pull, emotion_pull: how hard the priors that compare with the source, and those that compare with the reference, pull at an
    edit when training begins, together: the norm of their gradient for one sample. 0: their shares are weights.
    """

    def __init__(self, guidance: Guidance, priors: FrozenPriors, content_pull: float, emotion_pull: float):
        self.priors, self.content_pull, self.emotion_pull = priors, content_pull, emotion_pull
        self.guiding = {kind: guidance.get(kind, 1.0) for kind in priors.guiding(guidance)}

    @property
    def weights(self) -> dict[str, float]:
        """See the class."""
        return dict.fromkeys(self.priors.networks, 0.0) | self.guiding

    def pulling(self) -> dict[str, float]:
        """How hard each prior pulls with share 1: the pull of its like, shared out evenly among those that are there; without those
        whose shares are weights."""
        found = {}
        for kind in self.guiding:
            compared = self.priors.networks[kind].compares_with
            alike = [other for other in self.guiding if self.priors.networks[other].compares_with == compared]
            if whole := self.content_pull if compared == "source" else self.emotion_pull:
                found[kind] = whole / len(alike)
        return found

    def weigh(self, edits: Iterable[tuple[Tensor, EditedFrames]]) -> list[str]:
        """Set the weights so that the priors pull at these edits as they shall; in words. edits: see `pulls`."""
        pulling = self.pulling()
        found = pulls(list(pulling), self.priors, edits)
        for kind, norm in found.items():
            if norm > LEAST:
                self.guiding[kind] *= pulling[kind] / norm
        return [
            f"guidance of {kind}: weight {self.guiding[kind]:.3g} (its gradient at weight 1: {norm:.3g} for one sample)"
            for kind, norm in found.items()
        ]


def pulls(kinds: Sequence[str], priors: FrozenPriors, edits: Iterable[tuple[Tensor, EditedFrames]]) -> dict[str, float]:
    """The norm of each prior's gradient of guidance with weight 1 at the edits of one sample, mean over all samples, by kind.

    kinds: the priors that are asked. edits: what is edited of B samples [B, ...], wanting gradients, and the frames made of it.
    """
    norms: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for edited, frames in edits:
        for kind in kinds:
            only = dict.fromkeys(priors.networks, 0.0) | {kind: 1.0}
            total = torch.stack(list(priors.guidance(frames, only).values())).sum()
            (gradient,) = torch.autograd.grad(total, edited, retain_graph=True)
            norms[kind].append(gradient.flatten(1).norm(dim=1) * len(edited))
    return {kind: float(torch.cat(found).mean()) for kind, found in norms.items()}
