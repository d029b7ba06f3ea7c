"""Training DGAD: the geometry network alone, then what brings a head's looks, the geometry network standing still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spfem_dist.compositors.dgad.diffusion import drawn_by, loss
from spfem_dist.compositors.dgad.networks import Condition, check
from spfem_dist.compositors.dgad.placing import FRAMES, sample_of, with_holes
from spfem_dist.compositors.dgad.saved import Parts, build, load_parts, save
from spfem_dist.compositors.dgad.settings import Composition, Geometry
from spfem_dist.config import Run
from spfem_dist.generators.load import local_copy
from spfem_dist.nets.augment import normal
from spfem_dist.nets.frozen import freeze
from spfem_dist.pictures import grid, tile
from spfem_dist.records import Batch
from spfem_dist.saved import CONFIG, parameters_sha256
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source


class Stage:
    """DGAD learns from single frames, whose faces are taken out, displaced and relit."""

    name = "composition"
    reads_shards = True

    def jobs(self, run: Run) -> list[str]:
        """The geometry network, and what asks for the head's looks."""
        return list(run.jobs())

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep it from training: no landmarks, no groups, weights that are not there, two jobs of different networks."""
        settings = _settings(run, name)
        check_groups(run, FRAMES, landmarks=True)
        check(settings, run.data.size)
        first = _first(run)
        if isinstance(settings, Geometry):
            return
        if first not in run.jobs() and _exported(run) is None:
            raise ValueError(
                f"{name} goes on from the job {first or 'of a Geometry'}, which is turned off and was not trained before: enable it"
            )
        for field in ("network", "noise_steps", "prediction"):
            mine, other = getattr(settings, field), getattr(run, first).model_dump()[field]
            if mine != other:
                raise ValueError(f"--{name}.{field} is {mine}, --{first}.{field} is {other}: give both the same")

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` with its training stream and held-out samples, as worker `rank` of `size` sees it."""
        return composition_job(run, name, rank, size, device)


def composition_job(run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
    """One of the two jobs, as worker `rank` of `size` sees it. The second's export holds the first's network too."""
    settings = _settings(run, name)
    feed = JobData(run, settings, FRAMES, Source(run.data, device, landmarks=True), rank, size, device)
    feed.finish = lambda batch: with_holes(batch, settings.grow)
    landmarks = feed.source.reader.index.landmarks
    losses = CompositionLosses(settings, build(settings, run.data.size), device)

    def begin() -> list[str]:
        if isinstance(settings, Geometry):
            return []
        return losses.stand_on(_exported(run))

    def export(networks: Networks, folder: Path) -> None:
        losses.check_untouched()
        facts = {
            "run": run.name,
            "seed": run.seed,
            "steps": settings.steps,
            "samples": settings.steps * settings.global_batch,
        }
        whole = losses.frozen | dict(networks)
        save(folder, whole, settings, run.data, "ibug68" if landmarks == "synthetic" else landmarks, facts)

    (phase,) = losses.phases()
    return Job(
        name,
        losses.trained,
        {phase.trains: settings.optimizer},
        (phase,),
        settings,
        feed.batches,
        feed.validation,
        feed.facts,
        validation_losses=losses.of,
        pictures=losses.pictures,
        # Neither can be named by what takes registered models: they are named by their folders.
        registers=False,
        close=feed.close,
        begin=begin,
        export=export,
    )


class CompositionLosses:
    """What a step computes. trained, frozen: the networks of the job, and what stands still in it."""

    def __init__(self, settings: Composition, parts: Parts, device: torch.device):
        self.settings = settings
        self.codec = freeze(parts.codec.to(device))
        networks = dict(parts.networks.items())
        key = "geometry" if isinstance(settings, Geometry) else "appearance"
        self.trained = {key: networks.pop(key)}
        self.frozen = {name: freeze(network.to(device)) for name, network in networks.items()}
        self._dtype, self._sha = torch.float32, self._parameters()

    def stand_on(self, before: Parts | None) -> list[str]:
        """Take the first job's network; returns a line to tell. None: it stays as it was built."""
        if before is None:
            raise FileNotFoundError("the first job left no geometry network: train it to its end first")
        geometry = self.frozen["geometry"]
        geometry.load_state_dict(before.networks["geometry"].state_dict())
        self._sha = self._parameters()
        return [f"goes on from a geometry network of {before.config['facts']['samples']:,} samples, which stands still"]

    def check_untouched(self) -> None:
        """Raise RuntimeError where what stands still is not bit for bit what was loaded."""
        if self._parameters() != self._sha:
            raise RuntimeError(
                "the geometry network changed in the second job; nothing was exported: this is a defect, report it"
            )

    def phases(self) -> tuple[Phase, ...]:
        """The one phase of a step."""
        (key,) = self.trained
        return (Phase(key, self.of),)

    def of(self, networks: Networks, batch: Batch) -> Losses:
        """The error of the prediction; held-out too."""
        sample = sample_of(batch, self.settings, self._matched(networks))
        return {"composition/error": loss(self._predict(networks), self.codec, self.settings, sample, batch.seed)}, {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`composed`: the scene with its hole, the displaced head, what is drawn, the true frame."""
        sample = sample_of(batch.part(slice(6)), self.settings, self._matched(networks))
        with torch.no_grad():
            condition = self.codec.condition(sample.picture, sample.hole, sample.head, sample.cover)
        noise = normal(batch.seed[:6], "composition/noise", *condition.scene.shape[1:]).to(condition.scene.dtype)
        drawn = drawn_by(self._predict(networks), self.codec, self.settings, condition, noise)
        whole = drawn * sample.hole + sample.picture * (1 - sample.hole)
        scene = sample.picture * (1 - sample.hole)
        rows = zip(scene, sample.head * sample.cover, whole, sample.picture, strict=True)
        return {"composed": grid([[tile(shown) for shown in row] for row in rows])}

    def _predict(self, networks: Networks) -> Any:
        if "appearance" not in networks:
            return networks["geometry"]

        def predict(noisy: Tensor, steps: Tensor, condition: Condition) -> Tensor:
            return networks["appearance"](self.frozen["geometry"], noisy, steps, condition)

        return predict

    def _matched(self, networks: Networks) -> torch.dtype:
        """The precision that the networks train in; what stands still is brought to it."""
        dtype = next(next(iter(networks.values())).parameters()).dtype
        if dtype != self._dtype:
            for network in (self.codec, *self.frozen.values()):
                network.to(dtype)
            self._dtype, self._sha = dtype, self._parameters()
        return dtype

    def _parameters(self) -> str:
        return "".join(parameters_sha256(network.state_dict()) for network in self.frozen.values())


def _settings(run: Run, name: str) -> Composition:
    settings = run.jobs()[name]
    assert isinstance(settings, Composition)
    return settings


def _first(run: Run) -> str:
    """The name of the run's first job, also where it is turned off; '' where it has none."""
    return next((name for name in type(run).model_fields if isinstance(getattr(run, name), Geometry)), "")


def _exported(run: Run) -> Parts | None:
    """What the run's first job left; None where it did not end yet."""
    location = f"{run.folder()}/{_first(run)}/model"
    fs, root = open_filesystem(location)
    if not (_first(run) and fs.exists(f"{root}/{CONFIG}")):
        return None
    with local_copy(location) as folder:
        return load_parts(folder)
