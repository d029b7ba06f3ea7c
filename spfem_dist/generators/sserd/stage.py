"""SSERD's two stages: generator and encoder of faces, then the residual of an emotion, under the frozen priors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.config import GuidedRun, Run
from spfem_dist.generators.guided import (
    Balance,
    Kept,
    check_guided,
    check_penalty,
    checked,
    described,
    edited_frames,
    jobs_of,
    priors_of,
    window_of,
)
from spfem_dist.generators.sserd import objectives
from spfem_dist.generators.sserd.known import Known
from spfem_dist.generators.sserd.networks import build_critic, build_portrait, build_residual, check_size
from spfem_dist.generators.sserd.pairs import Meeting, Prepared, picture_errors, prepare
from spfem_dist.generators.sserd.pretraining import pretraining_job
from spfem_dist.generators.sserd.saved import save
from spfem_dist.generators.sserd.settings import Portraits, Pretraining, Settings
from spfem_dist.nets.frozen import evaluating
from spfem_dist.pictures import grid, tile
from spfem_dist.priors.frozen import FrozenPriors
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import MOTION


class Stage:
    """SSERD learns from frames of recordings; the priors of stage 1 stand still."""

    name = "stage2"
    reads_shards = True

    def jobs(self, run: Run) -> list[str]:
        """The pre-training, unless the run names another's, and the residual."""
        return jobs_of(run, Pretraining)

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` with its training stream and held-out samples, as worker `rank` of `size` sees it."""
        run, settings = checked(run, name, Portraits)
        if isinstance(settings, Pretraining):
            return pretraining_job(run, name, settings, rank, size, device)
        return guided_job(run, name, priors_of(run, device), rank, size, device)

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep SSERD from training: no landmarks, no groups to draw from, priors that are not here, a side that its
        generator cannot draw, ZeRO-3 with a gradient penalty."""
        run, settings = checked(run, name, Portraits)
        check_groups(run, MOTION, landmarks=True)
        check_size(run.data.size)
        if isinstance(settings, Pretraining):
            _check_average(run, name)
        check_penalty(run, name, settings.gradient_penalty)
        if isinstance(settings, Settings):
            check_guided(run, name, settings, Pretraining)


def guided_job(run: Run, name: str, priors: FrozenPriors, rank: int, size: int, device: torch.device) -> Job:
    """The residual under `priors`, as worker `rank` of `size` sees it. The export checks that the priors are what they were."""
    run, settings = checked(run, name, Portraits)
    assert isinstance(settings, Settings)
    feed = JobData(run, settings, MOTION, Source(run.data, device, landmarks=True), rank, size, device)
    known = Known(run, settings, feed, device, build_portrait(settings, run.data.size))
    feed.finish = Meeting(lambda: known.bank)
    losses = ResidualLosses(settings, known, priors, feed.share.steps)
    critic = build_critic(settings, run.data.size)
    networks: dict[str, nn.Module] = {"residual": build_residual(settings, run.data.size), "critic": critic}

    def begin() -> list[str]:
        if known.before is not None:
            critic.load_state_dict(known.before.critic.state_dict())
        whole, layers = known.directions.lengths
        said = [
            f"codes of {len(known.bank.speakers)} frames; emotions lie {min(whole[1:]):.3g} to {max(whole[1:]):.3g} from neutral "
            f"({min(layers[1:]):.3g} to {max(layers[1:]):.3g} for each layer)"
        ]
        return said + (
            losses.weigh(networks, feed.first_samples(run.validation.samples)) if losses.balance.pulling() else []
        )

    def export(networks: Networks, folder: Path) -> None:
        priors.check_untouched()
        facts = described(run, settings, priors.sources, losses.balance.guiding)
        save(folder, {"portrait": known.portrait, **networks}, known.face, known.bank, settings, run.data, facts)

    return Job(
        name,
        networks,
        {"residual": settings.optimizer, "critic": settings.critic},
        losses.phases(),
        settings,
        feed.batches,
        feed.validation,
        feed.facts,
        validation_losses=losses.held_out,
        pictures=losses.pictures,
        close=feed.close,
        begin=begin,
        export=export,
        judges=frozenset({"critic"}),
    )


class ResidualLosses:
    """What a step computes: the phases' losses, the held-out judgement, the pictures. balance: of the priors' guidance."""

    def __init__(self, settings: Settings, known: Known, priors: FrozenPriors, micro_batches: int):
        self.settings, self.known, self.priors = settings, known, priors
        self.balance = Balance(settings.guidance, priors, settings.content_pull, settings.emotion_pull)
        self.edited = window_of(settings.guidance, priors, known.run.data.frames_per_recording)
        self._kept = Kept[Prepared](micro_batches)

    def phases(self) -> tuple[Phase, ...]:
        """The order in which the networks learn within one step: who edits, then who judges."""
        found = [Phase("residual", self.of_residual), Phase("critic", self.of_critic)]
        if self.settings.gradient_penalty:
            found.append(Phase("critic", self.of_penalty, self.settings.penalty_every))
        return tuple(found)

    def weigh(self, networks: Networks, batches: list[Batch]) -> list[str]:
        """Set the weights so that the priors pull at edits of these samples as settings say, those alike sharing their pull; in words."""
        wide = torch.float64 if self.known.run.zero.precision == "fp64" else torch.float32
        residual = networks["residual"].to(batches[0].frames.device, wide)

        def edits() -> Iterator[tuple[Tensor, EditedFrames]]:
            for batch in batches:
                prepared = self.prepared(networks, batch)
                with torch.no_grad():
                    edited = objectives.drawn(residual, self.known.portrait, prepared)["own"]
                edited = edited.unflatten(0, prepared.edited.shape).requires_grad_()
                yield edited, edited_frames(prepared, edited.flatten(0, 1))

        with evaluating(residual):
            said = self.balance.weigh(edits())
        self._kept.clear()
        return said

    def prepared(self, networks: Networks, batch: Batch) -> Prepared:
        """The batch with its codes and pairs, made once for all phases."""
        known = self.known

        def make() -> Prepared:
            order = known.face.topology
            return prepare(batch, known.portrait, known.bank, known.directions, order, self.settings, self.edited)

        return self._kept.of(batch, make)

    def of_residual(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 1: the residual, which the priors reach through the edited picture."""
        prepared = self.prepared(networks, batch)
        found = self._drawn(networks, prepared)
        losses = objectives.residual_losses(self.settings, networks["critic"], prepared, found)
        return losses | self.guidance(prepared, found), {}

    def guidance(self, prepared: Prepared, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the frozen priors say of the edits; nothing where none guides."""
        if not self.balance.guiding:
            return {}
        return self.priors.guidance(edited_frames(prepared, found["own"]), self.balance.weights)

    def of_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 2: the discriminator."""
        prepared = self.prepared(networks, batch)
        if not prepared.made:
            with torch.no_grad():
                self._drawn(networks, prepared)
        return objectives.critic_losses(networks["critic"], prepared), {}

    def of_penalty(self, networks: Networks, batch: Batch) -> Losses:
        """R1 of the discriminator."""
        return objectives.penalty(self.settings, networks["critic"], self.prepared(networks, batch).reference), {}

    def _drawn(self, networks: Networks, prepared: Prepared) -> dict[str, Tensor]:
        """What the residual makes, left for the discriminator too."""
        found = objectives.drawn(networks["residual"], self.known.portrait, prepared)
        prepared.made = [found[name].detach() for name in ("own", "other")]
        return found

    def held_out(self, networks: Networks, batch: Batch) -> Losses:
        """Held-out: the error to pairs where there are any, to the source under its own emotion, and what the priors say of edits."""
        prepared = self.prepared(networks, batch)
        found = objectives.drawn(networks["residual"], self.known.portrait, prepared)
        squared, _ = picture_errors(found["own"], prepared.target, prepared.weights)
        kept, _ = picture_errors(found["same"], prepared.source, prepared.weights)
        pair = (prepared.paired * squared).mean() / max(self.settings.paired_share, 1e-6)
        return {"sserd/pair": pair, "sserd/kept": kept.mean()} | self.guidance(prepared, found), {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`edits`: source, drawn from its code, its pair, its edit by the reference, by another person, the reference."""
        prepared = self.prepared(networks, batch)
        found = objectives.drawn(networks["residual"], self.known.portrait, prepared)
        plain = self.known.portrait.draw(prepared.codes)
        columns = [p[:: self.edited] for p in (prepared.source, plain, prepared.target, found["own"], found["other"])]
        columns.append(prepared.reference)
        count = range(min(4, len(batch)))
        return {"edits": grid([[tile(column[i].float()) for column in columns] for i in count])}


def _check_average(run: GuidedRun, name: str) -> None:
    """Raise ValueError where the average of the weights could not be kept."""
    if run.zero.stage == 3:
        raise ValueError(
            f"{name} keeps an average of its weights, which ZeRO-3 has in parts: give --zero.stage 2 (the job after it may have 3)"
        )
    if run.zero.precision in ("bf16", "fp16"):
        raise ValueError(
            f"{name} keeps an average of its weights, whose steps {run.zero.precision} rounds away: give --zero.precision bf16-mixed"
        )
