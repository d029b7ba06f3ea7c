"""Stage 2 of training: ICface. Both generators alone on pairs of frames, then under the frozen priors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spfem_dist.config import Run
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
from spfem_dist.generators.icface import objectives
from spfem_dist.generators.icface.faces import check_units
from spfem_dist.generators.icface.known import Known, take_over
from spfem_dist.generators.icface.networks import build_networks, halvings
from spfem_dist.generators.icface.pairs import Prepared, prepare
from spfem_dist.generators.icface.saved import save
from spfem_dist.generators.icface.settings import Pretraining, Reenactment, Settings
from spfem_dist.nets.frozen import evaluating
from spfem_dist.pictures import grid, tile
from spfem_dist.priors.frozen import FrozenPriors
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source, reader_of
from spfem_dist.streaming.views import MOTION


class Stage:
    """ICface learns from pairs of frames of one speaker; the priors of stage 1 stand still."""

    name = "stage2"
    reads_shards = True

    def jobs(self, run: Run) -> list[str]:
        """The pre-training, unless the run names another's, and the generator."""
        return jobs_of(run, Pretraining)

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` with its training stream and held-out samples, as worker `rank` of `size` sees it."""
        run, settings = checked(run, name, Reenactment)
        priors = priors_of(run, device) if isinstance(settings, Settings) else FrozenPriors({}, {})
        return guided_job(run, name, priors, rank, size, device)

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep ICface from training: no landmarks, no groups to draw from, priors that are not here, a side that the
        discriminator cannot take, ZeRO-3 with a gradient penalty."""
        run, settings = checked(run, name, Reenactment)
        check_groups(run, MOTION, landmarks=True)
        check_units(settings, name, reader_of(run.data, landmarks=True).index.landmarks, run.data.shards)
        halvings(run.data.size)
        check_penalty(run, name, settings.gradient_penalty)
        if isinstance(settings, Settings):
            check_guided(run, name, settings, Pretraining, ("network", "units"))


def guided_job(run: Run, name: str, priors: FrozenPriors, rank: int, size: int, device: torch.device) -> Job:
    """ICface under `priors`, as worker `rank` of `size` sees it. The export checks that the priors are what they were."""
    run, settings = checked(run, name, Reenactment)
    feed = JobData(run, settings, MOTION, Source(run.data, device, landmarks=True), rank, size, device)
    known = Known(run, settings, feed, device)
    feed.finish = lambda batch: known.measuring(batch)
    losses = ICfaceLosses(settings, known, priors, feed.share.steps)
    networks = build_networks(settings, run.data.size, len(known.people))

    def begin() -> list[str]:
        if known.before is not None:
            take_over(networks, known.before)
        else:
            known.fit_texture()
        return losses.weigh(networks, feed.first_samples(run.validation.samples)) if losses.balance.pulling() else []

    def export(networks: Networks, folder: Path) -> None:
        priors.check_untouched()
        facts = described(run, settings, priors.sources, losses.balance.guiding)
        save(folder, networks, known.face, len(known.people), settings, run.data, facts)

    return Job(
        name,
        networks,
        {"reenactor": settings.optimizer, "critic": settings.critic},
        losses.phases(),
        settings,
        feed.batches,
        feed.validation,
        feed.facts,
        validation_losses=losses.held_out,
        pictures=losses.pictures,
        registers=isinstance(settings, Settings),
        close=feed.close,
        begin=begin,
        export=export,
        judges=frozenset({"critic"}),
    )


class ICfaceLosses:
    """What a step computes: the phases' losses, the held-out judgement, the pictures. balance: of the priors' guidance."""

    def __init__(self, settings: Reenactment, known: Known, priors: FrozenPriors, micro_batches: int):
        self.settings, self.known, self.priors, self.micro_batches = settings, known, priors, micro_batches
        guided = settings if isinstance(settings, Settings) else Settings(guidance={})
        self.balance = Balance(guided.guidance, priors, guided.content_pull, guided.emotion_pull)
        self.edits = isinstance(settings, Settings)
        self.edited = window_of(guided.guidance, priors, known.run.data.frames_per_recording)
        self._kept = Kept[Prepared](micro_batches)

    def phases(self) -> tuple[Phase, ...]:
        """The order in which the networks learn within one step: who makes, then who judges what was made."""
        return Phase("reenactor", self.of_reenactor), Phase("critic", self.of_critic)

    def weigh(self, networks: Networks, batches: list[Batch]) -> list[str]:
        """Set the weights so that the priors pull at edits of these samples as settings say, those alike sharing their pull; in words."""
        wide = torch.float64 if self.known.run.zero.precision == "fp64" else torch.float32
        reenactor = networks["reenactor"].to(batches[0].frames.device, wide)

        def edits() -> Iterator[tuple[Tensor, EditedFrames]]:
            for batch in batches:
                prepared = self.prepared(networks, batch)
                with torch.no_grad():
                    edited = objectives.drawn(reenactor, prepared, True)["edited"]
                edited = edited.unflatten(0, prepared.edited.shape).requires_grad_()
                yield edited, edited_frames(prepared, edited.flatten(0, 1))

        with evaluating(reenactor):
            said = self.balance.weigh(edits())
        self._kept.clear()
        return said

    def prepared(self, networks: Networks, batch: Batch) -> Prepared:
        """The batch's pairs and edits, made once for both phases."""
        dtype = next(networks["reenactor"].parameters()).dtype
        return self._kept.of(batch, lambda: prepare(batch, self.known.face, dtype, self.edited))

    def of_reenactor(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 1: neutraliser and animator, which the priors reach through the edited picture."""
        prepared = self.prepared(networks, batch)
        found = self._drawn(networks, prepared)
        losses = objectives.reenactor_losses(self.settings, networks["critic"], prepared, found)
        return losses | self.guidance(prepared, found), {}

    def guidance(self, prepared: Prepared, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the frozen priors say of the edits; nothing where none guides."""
        if not self.balance.guiding:
            return {}
        edit = edited_frames(prepared, found["edited"])
        return self.priors.guidance(edit, self.balance.weights)

    def of_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 2: the discriminator with its heads."""
        prepared = self.prepared(networks, batch)
        if "made" not in prepared.results:
            with torch.no_grad():
                self._drawn(networks, prepared)
        return objectives.critic_losses(self.settings, networks["critic"], prepared, prepared.results["made"]), {}

    def _drawn(self, networks: Networks, prepared: Prepared) -> dict[str, Tensor]:
        """What the generators make, left for the discriminator too."""
        found = objectives.drawn(networks["reenactor"], prepared, self.edits)
        prepared.results["made"] = [found[name].detach() for name in ("made", "plain", "edited") if name in found]
        return found

    def held_out(self, networks: Networks, batch: Batch) -> Losses:
        """Held-out: the distance to the driving frame, what the priors say of edits."""
        prepared = self.prepared(networks, batch)
        found = objectives.drawn(networks["reenactor"], prepared, self.edits)
        absolute, _ = objectives.reconstruction_errors(prepared, found["made"])
        return {"icface/picture": absolute} | self.guidance(prepared, found), {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`pairs`: a picture, without expression, as the driving frame, that frame. `edits`: source, without expression, edit, reference."""
        prepared = self.prepared(networks, batch)
        found = objectives.drawn(networks["reenactor"], prepared, self.edits)
        shown = [(prepared.picture, found["plain"], found["made"], prepared.driving)]
        if self.edits:
            first = [pictures[:: self.edited] for pictures in (prepared.to_edit, found["calm"], found["edited"])]
            reference = edited_frames(prepared, found["edited"]).reference[:, 0]
            shown.append((*first, reference))
        count = range(min(4, len(batch)))
        pages = [grid([[tile(column[i].float()) for column in columns] for i in count]) for columns in shown]
        return dict(zip(("pairs", "edits"), pages, strict=False))
