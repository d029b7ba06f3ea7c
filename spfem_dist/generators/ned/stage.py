"""Stage 2 of training: NED under frozen priors. Four networks, each in its own engine, in four phases of one step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spfem_dist.config import GuidedRun, Run
from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.maps import FaceMaps
from spfem_dist.generators.face.model import FaceModel, TrainingClip, learn_face_model
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.ned import objectives
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.generators.ned.saved import save
from spfem_dist.generators.ned.settings import Settings
from spfem_dist.generators.ned.windows import MATCHED, Prepared, Scene, edited_scene, prepare
from spfem_dist.nets.vgg import VGG19
from spfem_dist.pictures import grid, tile
from spfem_dist.priors.frozen import FrozenPriors, frozen_priors
from spfem_dist.records import Batch
from spfem_dist.shard_format import GroupEntry
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import MOTION


class Stage:
    """NED learns from windows of utterance groups; the priors of stage 1 stand still."""

    name = "stage2"
    reads_shards = True

    def jobs(self, run: Run) -> list[str]:
        """The generator."""
        return list(run.jobs())

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """NED with its training stream and held-out samples, as worker `rank` of `size` sees it."""
        run, _ = _checked(run, name)
        priors = frozen_priors(run.priors, run.tracking.uri, run.data, device, double=run.zero.precision == "fp64")
        return guided_job(run, name, priors, rank, size, device)

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep NED from training: no landmarks, no groups to draw from, priors or weights that are not here."""
        run, settings = _checked(run, name)
        check_groups(run, MOTION, landmarks=True)
        priors = frozen_priors(run.priors, run.tracking.uri, run.data, "cpu")
        priors.check_weights(settings.guidance, f"--{name}.guidance")
        if settings.perceptual_weight:
            VGG19.pretrained()


def guided_job(run: Run, name: str, priors: FrozenPriors, rank: int, size: int, device: torch.device) -> Job:
    """NED under `priors`, as worker `rank` of `size` sees it. The export checks that the priors are what they were."""
    run, settings = _checked(run, name)
    source = Source(run.data, device, landmarks=True)
    feed = JobData(run, settings, MOTION, source, rank, size, device)
    model, neutral_shapes = learnt_face(source, feed.part("train"), settings.speakers, settings.clips_per_speaker)
    perceptual = VGG19.pretrained().to(device) if settings.perceptual_weight else None
    if perceptual is not None and run.zero.precision == "fp64":
        perceptual.double()
    priors.check_weights(settings.guidance, f"--{name}.guidance")
    losses = NEDLosses(settings, model, neutral_shapes, speakers_of(source), priors, feed.share.steps, perceptual)

    def export(networks: Networks, folder: Path) -> None:
        priors.check_untouched()
        facts = {
            "run": run.name,
            "seed": run.seed,
            "steps": settings.steps,
            "samples": settings.steps * settings.global_batch,
            "priors": priors.sources,
        }
        save(folder, networks, model, settings, run.data, facts)

    return Job(
        name,
        build_networks(settings.network),
        {
            "manipulator_critic": settings.manipulator_critic,
            "manipulator": settings.manipulator,
            "renderer_critic": settings.renderer_critic,
            "renderer": settings.optimizer,
        },
        losses.phases(),
        settings,
        feed.batches,
        feed.validation,
        feed.facts,
        validation_losses=losses.held_out,
        export=export,
        pictures=losses.pictures,
        close=feed.close,
    )


class NEDLosses:
    """What a step computes: the phases' losses, the held-out judgement, the pictures."""

    def __init__(
        self,
        settings: Settings,
        model: FaceModel,
        neutral_shapes: dict[str, np.ndarray],
        speakers: dict[str, str],
        priors: FrozenPriors,
        micro_batches: int,
        perceptual: VGG19 | None = None,
    ):
        self.settings, self.model, self.neutral_shapes = settings, model, neutral_shapes
        self.speakers, self.priors = speakers, priors
        self.maps, self.micro_batches = FaceMaps(model), micro_batches
        self.perceptual = perceptual
        self._kept: OrderedDict[int, tuple[Batch, Prepared]] = OrderedDict()

    def phases(self) -> tuple[Phase, ...]:
        """The order in which the networks learn within one step: who makes, then who judges what was made."""
        return (
            Phase("manipulator", self.of_manipulator),
            Phase("manipulator_critic", self.of_manipulator_critic),
            Phase("renderer", self.of_renderer),
            Phase("renderer_critic", self.of_renderer_critic),
        )

    def prepared(self, networks: Networks, batch: Batch) -> Prepared:
        """The batch's windows and scenes, made once for all phases."""
        if (kept := self._kept.get(id(batch))) is not None and kept[0] is batch:
            return kept[1]
        dtype = next(networks["renderer"].parameters()).dtype
        neutral_shapes = [self.neutral_shapes.get(self.speakers[key]) for key in batch.keys]
        made = prepare(batch, self.model, self.maps, neutral_shapes, dtype)
        self._kept[id(batch)] = (batch, made)
        while len(self._kept) > self.micro_batches:
            self._kept.popitem(last=False)
        return made

    def of_manipulator(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 1: the manipulator, which the priors reach through the renderer."""
        prepared = self.prepared(networks, batch)
        edited, style = objectives.edited_windows(networks["manipulator"], prepared)
        prepared.results["edited"] = edited.detach()
        losses = objectives.manipulator_losses(
            self.settings, networks["manipulator"], networks["manipulator_critic"], prepared, edited, style
        )
        compared = "reference" if self.settings.guidance_placement == "released" else ""
        if not self.priors.guiding(self.settings.guidance, compared):
            return losses, {}
        scene, source = edited_scene(prepared, self.model, self.maps, edited)
        prepared.results["scene"] = scene.detached(), source
        picture = scene.composed(networks["renderer"](scene.maps, scene.source), source)
        guided = self.guidance(prepared, picture, compared)
        return losses | {f"{name}_manipulator": value for name, value in guided.items()}, {}

    def guidance(self, prepared: Prepared, generated: Tensor, compared_with: str = "") -> dict[str, Tensor]:
        """What the frozen priors say of generated frames [B, 3, S, S]; see `FrozenPriors.guidance`."""
        edit = objectives.edited_frames(prepared, generated)
        return self.priors.guidance(edit, self.settings.guidance, compared_with)

    def of_manipulator_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 2: the discriminator of windows."""
        prepared = self.prepared(networks, batch)
        edited = self._edited(networks, prepared)
        return objectives.window_critic_losses(self.settings, networks["manipulator_critic"], prepared, edited), {}

    def of_renderer(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 3: the renderer."""
        prepared, settings = self.prepared(networks, batch), self.settings
        scene, source = self._scene(networks, prepared)
        # One call for both: half the overhead of small layers.
        maps, sources = (
            torch.cat([getattr(prepared.redrawn, name), getattr(scene, name)]) for name in ("maps", "source")
        )
        picture, painted = networks["renderer"](maps, sources).split([len(prepared.wanted), len(source)])
        generated = scene.composed(painted, source)
        prepared.results["drawn"] = picture.detach(), generated.detach()
        critic = networks["renderer_critic"]
        losses = objectives.renderer_losses(settings, critic, prepared, picture, self.perceptual)
        losses |= objectives.edit_tone(settings, scene, painted)
        released = settings.guidance_placement == "released"

        def judged(frames: Tensor) -> dict[str, Tensor]:
            edit = objectives.edit_adversarial(settings, critic, scene, frames)
            return edit if released else edit | self.guidance(prepared, frames)

        of_edit, norms = objectives.measured(judged, generated)
        if released:
            of_edit |= self._released_content(prepared, picture)
        return losses | of_edit, norms

    def of_renderer_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 4: the discriminator of pictures."""
        prepared = self.prepared(networks, batch)
        scene, source = self._scene(networks, prepared)
        if "drawn" not in prepared.results:
            with torch.no_grad():
                picture = networks["renderer"](prepared.redrawn.maps, prepared.redrawn.source)
                generated = scene.composed(networks["renderer"](scene.maps, scene.source), source)
            prepared.results["drawn"] = picture, generated
        picture, generated = prepared.results["drawn"]
        critic = networks["renderer_critic"]
        return objectives.picture_critic_losses(self.settings, critic, prepared, picture, (scene, generated)), {}

    def _edited(self, networks: Networks, prepared: Prepared) -> Tensor:
        """The edited windows as this step made them, without gradient."""
        if "edited" not in prepared.results:
            with torch.no_grad():
                prepared.results["edited"], _ = objectives.edited_windows(networks["manipulator"], prepared)
        return prepared.results["edited"]

    def _scene(self, networks: Networks, prepared: Prepared) -> tuple[Scene, Tensor]:
        """The scene of one edited frame of each sample, and that frame as it was, without gradient."""
        if "scene" not in prepared.results:
            edited = self._edited(networks, prepared)
            prepared.results["scene"] = edited_scene(prepared, self.model, self.maps, edited)
        return prepared.results["scene"]

    def _released_content(self, prepared: Prepared, picture: Tensor) -> dict[str, Tensor]:
        """Content guidance where the published code has it: on frames redrawn from another moment, against the frame itself."""
        redrawn = objectives.redrawn_frames(prepared, picture)
        return self.priors.guidance(redrawn, self.settings.guidance, "source")

    def held_out(self, networks: Networks, batch: Batch) -> Losses:
        """Held-out: the reconstruction, the distance to matched windows, what the priors say of edits."""
        prepared = self.prepared(networks, batch)
        edited, _ = objectives.edited_windows(networks["manipulator"], prepared)
        picture = networks["renderer"](prepared.redrawn.maps, prepared.redrawn.source)
        distance = (edited - prepared.windows[:, MATCHED]).abs().mean(-1) * prepared.paired
        losses = {"ned/picture": objectives.reconstruction_error(prepared, picture), "ned/pair": distance.mean()}
        scene, source = edited_scene(prepared, self.model, self.maps, edited)
        generated = scene.composed(networks["renderer"](scene.maps, scene.source), source)
        return losses | self.guidance(prepared, generated), {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`edits`: source, its landmarks moved, the edit, a real frame of the wanted emotion; one row for each sample."""
        prepared = self.prepared(networks, batch)
        edited, _ = objectives.edited_windows(networks["manipulator"], prepared)
        scene, source = edited_scene(prepared, self.model, self.maps, edited)
        generated = scene.composed(networks["renderer"](scene.maps, scene.source), source)
        rows = []
        for i in range(min(4, len(batch))):
            frame = int(prepared.edited[i])
            shown = (prepared.frames[i, 0, frame], scene.source[i, 3:6], generated[i], prepared.frames[i, 1, frame])
            rows.append([tile(picture.float()) for picture in shown])
        return {"edits": grid(rows)}


def _checked(run: Run, name: str) -> tuple[GuidedRun, Settings]:
    settings = run.jobs()[name]
    if not isinstance(run, GuidedRun) or not isinstance(settings, Settings):
        raise TypeError(f"{name} of run {run.name!r} is a {type(settings).__module__}.Settings: it has another stage")
    return run, settings


def speakers_of(source: Source) -> dict[str, str]:
    """Who speaks in each group, by the group's key."""
    return {entry.key: entry.speaker for shard in source.reader.index.shards for entry in shard.groups}


def learnt_face(
    source: Source, accept: Callable[[GroupEntry], bool], speakers: int, clips: int
) -> tuple[FaceModel, dict[str, np.ndarray]]:
    """The face model of the accepted groups, and every speaker's neutral shape: a function of the shards alone, so equal on every worker."""
    index = source.reader.index
    places = [
        (entry.speaker, s, g)
        for s, shard in enumerate(index.shards)
        for g, entry in enumerate(shard.groups)
        if accept(entry)
    ]
    chosen = set(sorted({speaker for speaker, _, _ in places})[:speakers])
    taken: dict[str, int] = dict.fromkeys(chosen, 0)
    found: list[TrainingClip] = []
    for speaker, s, g in places:
        if speaker not in chosen or taken[speaker] >= clips:
            continue
        group = source.reader.read(s, g, whole=False, landmarks=True)
        scale = source.data.size / group.size
        for recording in group.recordings:
            if recording.landmarks is not None and recording.valid.any():
                seen = recording.landmarks[recording.valid.astype(bool)].astype(np.float32) * scale
                found.append(TrainingClip(speaker, recording.emotion == Emotion.NEUTRAL, seen))
                taken[speaker] += 1
    return learn_face_model(found, topology(index.landmarks))
