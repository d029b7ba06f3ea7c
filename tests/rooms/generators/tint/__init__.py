"""A toy generator as a room: three numbers, a tint of the whole crop, which frozen priors guide. It lives among the tests alone."""

from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from pydantic import Field
from torch import nn

from spfem_dist.generators.card import GeneratorCard
from spfem_dist.generators.generator import Motion
from spfem_dist.generators.rendered import Rendered
from spfem_dist.job_settings import Guidance, JobSettings, Optimizer
from spfem_dist.nets.frozen import freeze
from spfem_dist.priors.frozen import frozen_priors
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.rooms import kinds
from spfem_dist.saved import load_weights, read_config, save_model
from spfem_dist.stage import Job, Phase
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import MOTION

CARD = GeneratorCard("a toy that tints a face", "A tint of crops of {size} pixels by {topology} landmarks.")


class Settings(JobSettings):
    """The toy's settings."""

    kind: Annotated[Literal["tint"], tyro.conf.Suppress] = "tint"
    guidance: Guidance = Field(default_factory=lambda: dict.fromkeys(kinds("priors"), 1.0))
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=1e-3, schedule="constant"))


class Tint(nn.Module):
    """Adds three learnt numbers to every pixel."""

    def __init__(self):
        super().__init__()
        self.colour = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, frames):
        """Frames [..., 3, S, S] in [-1, 1] -> tinted ones."""
        return (frames + self.colour[:, None, None]).clamp(-1, 1)


class Stage:
    """Trains the tint."""

    name = "tint"
    reads_shards = True

    def jobs(self, run):
        """The generator."""
        return list(run.jobs())

    def check(self, run, name):
        """See `Stage`."""
        check_groups(run, MOTION, landmarks=True)

    def job(self, run, name, rank, size, device):
        """The tint under frozen priors."""
        settings, source = run.jobs()[name], Source(run.data, device, landmarks=True)
        feed = JobData(run, settings, MOTION, source, rank, size, device)
        priors = frozen_priors(run.priors, run.tracking.uri, run.data, device)

        def losses(networks, batch):
            frames = batch.frames.float() / 127.5 - 1
            edit = EditedFrames(
                source=frames[:, 0, :1],
                reference=frames[:, 1, :1],
                generated=networks[name](frames[:, 0, :1]),
                emotion=batch.emotion[:, 1],
                speech=batch.speech[:, 0, :1],
                source_emotion=batch.emotion[:, 0],
            )
            own = {"tint/size": networks[name].colour.square().mean()}
            return own | priors.guidance(edit, settings.guidance), {}

        def export(networks, folder):
            """Write the tint."""
            priors.check_untouched()
            facts = {"run": run.name, "seed": run.seed, "steps": settings.steps, "priors": priors.sources}
            described = {"settings": settings.model_dump(mode="json"), "data": run.data.model_dump(mode="json")}
            described |= {"size": run.data.size, "topology": "ibug68", "facts": facts}
            save_model(folder, "generator", "tint", networks[name], described)

        phases, optimizers = (Phase(name, losses),), {name: settings.optimizer}
        data = feed.batches, feed.validation, feed.facts
        networks = {name: Tint()}
        return Job(name, networks, optimizers, phases, settings, *data, losses, export, close=feed.close)


class TrainedTint:
    """The tint at work."""

    def __init__(self, network, config):
        self.network, self.size, self.topology = freeze(network), config["size"], config["topology"]

    def drive(self, source, emotion=None, reference=None, strength=1.0):
        """The face moves as it did."""
        return Motion(source.landmarks, source.landmarks)

    def render(self, frames, motion, first=0, flow_side=None):
        """The crops in their tint."""
        pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2) / 127.5 - 1
        drawn = ((self.network(pictures) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return Rendered.painted(frames, drawn, np.ones(frames.shape[:3]))


def load(folder):
    """The tint saved in `folder`."""
    config, network = read_config(folder, "generator"), Tint()
    load_weights(network, folder, "generator")
    return TrainedTint(network, config)
