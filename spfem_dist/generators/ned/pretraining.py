"""The pre-training of NED's manipulator: no frame is decoded, no prior asked; windows of coefficients in memory, unpaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from spfem_dist.config import GuidedRun
from spfem_dist.generators.guided import described
from spfem_dist.generators.ned import objectives
from spfem_dist.generators.ned.known import Known
from spfem_dist.generators.ned.motions import Windows
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.generators.ned.saved import save
from spfem_dist.generators.ned.settings import Pretraining
from spfem_dist.generators.ned.windows import Coefficients
from spfem_dist.records import Batch, Seeds
from spfem_dist.shares import held_out_share
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.order import sample_seed
from spfem_dist.streaming.views import MOTION


def pretraining_job(
    run: GuidedRun, name: str, settings: Pretraining, rank: int, size: int, device: torch.device
) -> Job:
    """The job as worker `rank` of `size` sees it."""
    feed = JobData(run, settings, MOTION, Source(run.data, device, landmarks=True), rank, size, device)
    known = Known(run, settings, feed, device)

    def batches(start_sample: int) -> Iterator[tuple[Batch, float]]:
        windows, start = known.windows, start_sample
        while True:
            for span in feed.share.spans():
                yield drawn(windows, run.seed, range(start + span.start, start + span.stop)), 0.0
            start += settings.global_batch

    def validation() -> list[Batch]:
        windows = known.held_out_windows
        share = held_out_share(settings, run.validation.samples, rank, size)
        return [drawn(windows, run.seed, span) for span in share.spans()] if windows is not None else []

    def begin() -> list[str]:
        known.fit_texture()
        return []

    def export(networks: Networks, folder: Path) -> None:
        save(folder, networks, known.face, settings, run.data, described(run, settings, {}, {}))

    return Job(
        name,
        build_networks(settings),
        {"manipulator_critic": settings.manipulator_critic, "manipulator": settings.optimizer},
        phases(settings, lambda: known.face.model.speech),
        settings,
        batches,
        validation,
        feed.facts | {"read": "once"},
        validation_losses=lambda networks, batch: _of_manipulator(settings, networks, batch, known.face.model.speech),
        close=feed.close,
        begin=begin,
        export=export,
        registers=False,
        judges=frozenset({"manipulator_critic"}),
    )


def drawn(windows: Windows, seed: int, samples: range) -> Batch:
    """The windows of these global samples as a batch; it has no frames."""
    seeds = [sample_seed(seed, k) for k in samples]
    nothing = torch.empty(len(seeds), 0)
    return Batch(
        frames=nothing,
        speech=nothing,
        position=nothing.long(),
        emotion=nothing.long(),
        valid=nothing.bool(),
        sample=torch.tensor(samples, dtype=torch.int64),
        seed=Seeds(tuple(seeds)),
        keys=[str(k) for k in samples],
        extras={f"windows/{name}": value for name, value in windows.draw(seeds, 1).items()},
    )


def phases(settings: Pretraining, speech: Callable[[], tuple[int, ...]]) -> tuple[Phase, ...]:
    """Who makes, then who judges what was made. speech: gives the columns of what words move."""
    return (
        Phase("manipulator", lambda networks, batch: _of_manipulator(settings, networks, batch, speech())),
        Phase("manipulator_critic", _of_critic),
    )


def _of_manipulator(settings: Pretraining, networks: Networks, batch: Batch, speech: tuple[int, ...]) -> Losses:
    learnt = _windows(networks, batch)
    edited, style = objectives.learnt_windows(networks["manipulator"], learnt)
    critic = networks["manipulator_critic"]
    return objectives.manipulator_losses(settings, networks["manipulator"], critic, learnt, edited, style, speech), {}


def _of_critic(networks: Networks, batch: Batch) -> Losses:
    learnt = _windows(networks, batch)
    with torch.no_grad():
        edited, _ = objectives.learnt_windows(networks["manipulator"], learnt)
    return objectives.critic_losses(networks["manipulator_critic"], learnt, edited), {}


def _windows(networks: Networks, batch: Batch) -> Coefficients:
    return Coefficients.of(batch, next(networks["manipulator"].parameters()).dtype)
