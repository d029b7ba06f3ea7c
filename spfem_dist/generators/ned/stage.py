"""Stage 2 of training: NED. A pre-training of the manipulator on coefficients, then all networks under the frozen priors."""

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
    checked,
    described,
    edited_frames,
    jobs_of,
    priors_of,
    window_of,
)
from spfem_dist.generators.ned import objectives
from spfem_dist.generators.ned.faces import check_face
from spfem_dist.generators.ned.known import Known, take_over
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.generators.ned.pretraining import pretraining_job
from spfem_dist.generators.ned.saved import save
from spfem_dist.generators.ned.settings import Manipulation, Pretraining, Settings
from spfem_dist.generators.ned.windows import Fitting, Prepared, Scene, edited_scene, prepare
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.vgg import VGG19
from spfem_dist.pictures import grid, tile
from spfem_dist.priors.frozen import FrozenPriors
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source, reader_of
from spfem_dist.streaming.views import MOTION

#: Settings that say how the networks are built.
BUILT = ("network", "regime", "coefficients")


class Stage:
    """NED learns from windows of coefficients, then of utterance groups; the priors of stage 1 stand still."""

    name = "stage2"
    reads_shards = True

    def jobs(self, run: Run) -> list[str]:
        """The pre-training, unless the run names another's, and the generator."""
        return jobs_of(run, Pretraining)

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` with its training stream and held-out samples, as worker `rank` of `size` sees it."""
        run, settings = checked(run, name, Manipulation)
        if isinstance(settings, Pretraining):
            return pretraining_job(run, name, settings, rank, size, device)
        return guided_job(run, name, priors_of(run, device), rank, size, device)

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep NED from training: no landmarks, no groups to draw from, priors or weights that are not here."""
        run, settings = checked(run, name, Manipulation)
        check_groups(run, MOTION, landmarks=True)
        check_face(settings, name, reader_of(run.data, landmarks=True).index.landmarks, run.data.shards)
        if not isinstance(settings, Settings):
            return
        priors = check_guided(run, name, settings, Pretraining, BUILT)
        losses_fit(settings, priors, run.data.frames_per_recording)
        if settings.perceptual_weight:
            VGG19.pretrained()


def guided_job(run: Run, name: str, priors: FrozenPriors, rank: int, size: int, device: torch.device) -> Job:
    """NED under `priors`, as worker `rank` of `size` sees it. The export checks that the priors are what they were."""
    run, settings = checked(run, name, Manipulation)
    assert isinstance(settings, Settings)
    priors.check_weights(settings.guidance, f"--{name}.guidance")
    perceptual = VGG19.pretrained().to(device) if settings.perceptual_weight else None
    if perceptual is not None and run.zero.precision == "fp64":
        perceptual.double()
    source = Source(run.data, device, landmarks=True)
    feed = JobData(run, settings, MOTION, source, rank, size, device)
    known = Known(run, settings, feed, device)
    speakers = {entry.key: entry.speaker for shard in source.reader.index.shards for entry in shard.groups}
    count = -(-settings.windows // settings.global_batch)
    feed.finish = lambda batch: Fitting(known.face, known.fitted, known.windows, speakers, count)(batch)
    losses = NEDLosses(settings, known, priors, feed.share.steps, perceptual)
    networks = build_networks(settings)

    def begin() -> list[str]:
        if known.before is None:
            known.fit_texture()
        else:
            take_over(networks, known.before)
        return losses.weigh(networks, feed.first_samples(run.validation.samples))

    def export(networks: Networks, folder: Path) -> None:
        priors.check_untouched()
        facts = described(run, settings, priors.sources, losses.balance.guiding)
        save(folder, networks, known.face, settings, run.data, facts)

    optimizers = {
        "manipulator_critic": settings.manipulator_critic,
        "manipulator": settings.manipulator,
        "renderer": settings.optimizer,
    }
    return Job(
        name,
        networks,
        {key: optimizers[key] for key in networks},
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
        judges=frozenset({"manipulator_critic"}),
    )


def losses_fit(settings: Settings, priors: FrozenPriors, frames: int) -> int:
    """Neighbouring frames that the guiding priors judge at once; ValueError where windows of `frames` frames hold fewer."""
    longest = window_of(settings.guidance, priors, frames)
    if settings.guidance_placement == "released":
        if settings.renderer == "none":
            raise ValueError(
                "guidance_placement released guides a renderer, and renderer is none: give --ned.renderer residual"
            )
        if longest > 1:
            raise ValueError(
                f"guidance_placement released redraws single frames, and a prior judges windows of {longest}: leave it out, or guide clean"
            )
    return longest


class NEDLosses:
    """What a step computes: the phases' losses, the held-out judgement, the pictures. balance: of the priors' guidance."""

    def __init__(
        self,
        settings: Settings,
        known: Known,
        priors: FrozenPriors,
        micro_batches: int,
        perceptual: VGG19 | None = None,
    ):
        self.settings, self.known, self.priors = settings, known, priors
        self.micro_batches, self.perceptual = micro_batches, perceptual
        self.edited = losses_fit(settings, priors, known.run.data.frames_per_recording)
        self.balance = Balance(settings.guidance, priors, settings.content_pull, settings.emotion_pull)
        self._kept = Kept[Prepared](micro_batches)

    def phases(self) -> tuple[Phase, ...]:
        """The order in which the networks learn within one step: who makes, then who judges what was made."""
        phases = (Phase("manipulator", self.of_manipulator), Phase("manipulator_critic", self.of_manipulator_critic))
        return phases if self.settings.renderer == "none" else (*phases, Phase("renderer", self.of_renderer))

    def weigh(self, networks: Networks, batches: list[Batch]) -> list[str]:
        """Set the weights so that the priors pull at edits of these samples as settings say, those alike sharing their pull; in words."""
        if not self.balance.pulling():
            return []
        wide = torch.float64 if self.known.run.zero.precision == "fp64" else torch.float32
        manipulator = networks["manipulator"].to(batches[0].frames.device, wide)

        def edits() -> Iterator[tuple[Tensor, EditedFrames]]:
            for batch in batches:
                prepared = self.prepared(networks, batch)
                with torch.no_grad():
                    edited = objectives.edited_windows(manipulator, prepared)
                edited.requires_grad_()
                scene, source = edited_scene(prepared, self.known.face, edited)
                yield edited, edited_frames(prepared, scene.composed(scene.moved, source))

        with evaluating(manipulator):
            said = self.balance.weigh(edits())
        self._kept.clear()
        return said

    def prepared(self, networks: Networks, batch: Batch) -> Prepared:
        """The batch's windows and scenes, made once for all phases."""
        dtype = next(networks["manipulator"].parameters()).dtype
        return self._kept.of(batch, lambda: prepare(batch, self.known.face, dtype, self.edited))

    def of_manipulator(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 1: the manipulator, which the priors reach through warp and texture."""
        prepared, settings, manipulator = self.prepared(networks, batch), self.settings, networks["manipulator"]
        learnt, style = objectives.learnt_windows(manipulator, prepared.learnt)
        prepared.results["learnt"] = learnt.detach()
        critic = networks["manipulator_critic"]
        speech = self.known.face.model.speech
        losses = objectives.manipulator_losses(settings, manipulator, critic, prepared.learnt, learnt, style, speech)
        compared = "reference" if settings.guidance_placement == "released" else ""
        if not self.priors.guiding(self.balance.weights, compared):
            return losses, {}
        edited = objectives.edited_windows(manipulator, prepared)
        prepared.results["edited"] = edited.detach()
        scene, source = edited_scene(prepared, self.known.face, edited)
        prepared.results["scene"] = scene.detached(), source
        return losses | self.guidance(prepared, scene.composed(scene.moved, source), compared), {}

    def guidance(self, prepared: Prepared, generated: Tensor, compared_with: str = "") -> dict[str, Tensor]:
        """What the frozen priors say of generated frames [B * F, 3, S, S]; see `FrozenPriors.guidance`."""
        edit = edited_frames(prepared, generated)
        return self.priors.guidance(edit, self.balance.weights, compared_with)

    def of_manipulator_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 2: the discriminator of windows."""
        prepared = self.prepared(networks, batch)
        if "learnt" not in prepared.results:
            with torch.no_grad():
                prepared.results["learnt"], _ = objectives.learnt_windows(networks["manipulator"], prepared.learnt)
        return objectives.critic_losses(networks["manipulator_critic"], prepared.learnt, prepared.results["learnt"]), {}

    def of_renderer(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 3: the renderer, which priors of content guide: told of an emotion it would paint streaks."""
        prepared, settings = self.prepared(networks, batch), self.settings
        scene, source = self._scene(networks, prepared)
        # One call for both: half the overhead of small layers.
        maps, sources = (
            torch.cat([getattr(prepared.redrawn, name), getattr(scene, name)]) for name in ("maps", "source")
        )
        picture, painted = networks["renderer"](maps, sources).split([len(prepared.wanted), len(source)])
        losses = objectives.renderer_losses(settings, prepared, picture, self.perceptual)
        losses |= objectives.edit_tone(settings, scene, painted)
        if settings.guidance_placement == "released":
            redrawn = objectives.redrawn_frames(prepared, picture)
            guided = self.priors.guidance(redrawn, self.balance.weights, "source")
        else:
            guided = self.guidance(prepared, scene.composed(painted, source), "source")
        return losses | {f"{name}_renderer": value for name, value in guided.items()}, {}

    def _scene(self, networks: Networks, prepared: Prepared) -> tuple[Scene, Tensor]:
        """The scenes of the edited frames, and those frames as they were, without gradient."""
        if "scene" not in prepared.results:
            with torch.no_grad():
                if "edited" not in prepared.results:
                    prepared.results["edited"] = objectives.edited_windows(networks["manipulator"], prepared)
                prepared.results["scene"] = edited_scene(prepared, self.known.face, prepared.results["edited"])
        return prepared.results["scene"]

    def held_out(self, networks: Networks, batch: Batch) -> Losses:
        """Held-out: the reconstruction, the distance to matched windows, what the priors say of edits."""
        prepared = self.prepared(networks, batch)
        edited = objectives.edited_windows(networks["manipulator"], prepared)
        losses = {"ned/pair": objectives.pair_distance(prepared, edited)}
        picture = self._painted(networks, prepared.redrawn)
        losses["ned/picture"] = objectives.reconstruction_errors(prepared, picture)[0]
        scene, source = edited_scene(prepared, self.known.face, edited)
        return losses | self.guidance(prepared, scene.composed(self._painted(networks, scene), source)), {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`edits`: source, its face moved and textured, the edit, a real frame of the wanted emotion; one row for each sample."""
        prepared = self.prepared(networks, batch)
        edited = objectives.edited_windows(networks["manipulator"], prepared)
        scene, source = edited_scene(prepared, self.known.face, edited)
        generated = scene.composed(self._painted(networks, scene), source)
        rows = []
        for i in range(min(4, len(batch))):
            first = i * self.edited
            shown = (
                source[first],
                scene.moved[first],
                generated[first],
                prepared.frames[i, 1, int(prepared.edited[i, 0])],
            )
            rows.append([tile(picture.float()) for picture in shown])
        return {"edits": grid(rows)}

    def _painted(self, networks: Networks, scene: Scene) -> Tensor:
        """The face as it is shown: the renderer's, or moved and textured where there is none."""
        return networks["renderer"](scene.maps, scene.source) if "renderer" in networks else scene.moved
