"""The first stage as one job: a StyleGAN2 of the training part's faces learns beside the encoder of its codes.

Published are a StyleGAN2 that others trained on FFHQ and then its encoder. Here both learn at once, and the generator also draws what
the encoder coded: some thousand pictures of one corpus make no generator whose codes could hold any face of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spfem_dist.config import GuidedRun
from spfem_dist.generators.face.topology import Topology, topology
from spfem_dist.generators.guided import Kept, described
from spfem_dist.generators.sserd import objectives
from spfem_dist.generators.sserd.known import Known
from spfem_dist.generators.sserd.networks import (
    Averaged,
    build_critic,
    build_portrait,
    build_residual,
    pictures_of,
)
from spfem_dist.generators.sserd.pairs import attention, picture_errors
from spfem_dist.generators.sserd.saved import save
from spfem_dist.generators.sserd.settings import Pretraining
from spfem_dist.generators.sserd.stylegan2 import adversarial_loss, discriminator_loss, path_lengths
from spfem_dist.nets.augment import normal, uniform
from spfem_dist.pictures import grid, tile
from spfem_dist.records import Batch
from spfem_dist.stage import Job, Losses, Networks, Phase
from spfem_dist.streaming.feed import JobData
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import MOTION, REFERENCE, SOURCE

#: Rows of a sample whose first frame is learnt from.
ROWS = (SOURCE, REFERENCE)


def pretraining_job(
    run: GuidedRun, name: str, settings: Pretraining, rank: int, size: int, device: torch.device
) -> Job:
    """Generator, encoder and discriminator, as worker `rank` of `size` sees them."""
    feed = JobData(run, settings, MOTION, Source(run.data, device, landmarks=True), rank, size, device)
    known = Known(run, settings, feed, device)
    losses = PortraitLosses(settings, topology(feed.source.reader.index.landmarks), feed.share.steps)
    portrait = Averaged(build_portrait(settings, run.data.size))
    networks = {"portrait": portrait, "critic": build_critic(settings, run.data.size)}
    residual = build_residual(settings, run.data.size)

    def export(networks: Networks, folder: Path) -> None:
        portrait = networks["portrait"]
        portrait = (portrait.average if settings.half_life else portrait.now).float()
        trained = {"portrait": portrait, "residual": residual, "critic": networks["critic"]}
        save(
            folder, trained, known.face, known.codes_of(portrait), settings, run.data, described(run, settings, {}, {})
        )

    return Job(
        name,
        networks,
        {"portrait": settings.optimizer, "critic": settings.critic},
        losses.phases(),
        settings,
        feed.batches,
        feed.validation,
        feed.facts,
        validation_losses=losses.held_out,
        pictures=losses.pictures,
        registers=False,
        close=feed.close,
        export=export,
        judges=frozenset({"critic"}),
    )


@dataclass
class Shown:
    """What the phases of one step share; 2 B pictures. weights: of their pixels. z, crossing: noise [B, 2, D], and from which layer on the
    second counts, [B]. direction: [B, 3, S, S], in which the path length is looked at. made: what one phase leaves for the next."""

    pictures: Tensor
    weights: Tensor
    z: Tensor
    crossing: Tensor
    direction: Tensor
    made: list[Tensor] = field(default_factory=list)


class PortraitLosses:
    """What a step computes: the phases' losses, the held-out judgement, the pictures."""

    def __init__(self, settings: Pretraining, order: Topology, micro_batches: int):
        self.settings, self.order, self.micro_batches = settings, order, micro_batches
        pictures = len(ROWS) * settings.global_batch
        self.share = 1 - 0.5 ** (pictures / settings.half_life) if settings.half_life else 1.0
        self._kept = Kept[Shown](micro_batches)
        self._seen = 0

    def phases(self) -> tuple[Phase, ...]:
        """The order in which the networks learn within one step: who draws what was coded, who draws for the judge, then the judge; now and
        then what keeps both smooth."""
        s = self.settings
        found = [Phase("portrait", self.of_coding)]
        found += [
            Phase("portrait", self.of_drawing, s.adversarial_every),
            Phase("critic", self.of_critic, s.adversarial_every),
        ]
        if s.gradient_penalty:
            found.append(Phase("critic", self.of_penalty, s.penalty_every))
        if s.path_weight:
            found.append(Phase("portrait", self.of_path, s.path_every))
        return tuple(found)

    def shown(self, networks: Networks, batch: Batch) -> Shown:
        """The batch's pictures and noise, made once for all phases."""
        portrait = networks["portrait"].now
        dtype, codes = portrait.encoder.out.weight.dtype, portrait.generator.codes

        def make() -> Shown:
            assert batch.landmarks is not None, "the loader's source was asked for landmarks"
            rows = list(ROWS)
            pictures = pictures_of(batch.frames[:, rows, 0], dtype).flatten(0, 1)
            landmarks = batch.landmarks[:, rows, 0].flatten(0, 1).to(dtype)
            z = normal(batch.seed, "sserd/z", 2, portrait.encoder.style)
            draws = uniform(batch.seed, "sserd/mixing", 2)
            crossing = torch.where(draws[:, 0] < self.settings.mixing, (draws[:, 1] * codes).long() + 1, codes)
            direction = normal(batch.seed, "sserd/path", *pictures.shape[1:])
            weights = attention(landmarks, self.order, pictures.shape[-1])
            return Shown(pictures, weights, z.to(dtype), crossing, direction.to(dtype))

        return self._kept.of(batch, make)

    def of_coding(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 1: encoder and generator, of what is drawn again from a frame's codes. The average follows once a step."""
        if self._seen % self.micro_batches == 0 and torch.is_grad_enabled():
            networks["portrait"].follow(self.share)
        self._seen += 1
        shown, portrait = self.shown(networks, batch), networks["portrait"].now
        again = portrait.draw(portrait.encode(shown.pictures))
        squared, absolute = picture_errors(again, shown.pictures, shown.weights)
        s = self.settings
        return {
            "sserd/squared": s.picture_weight * squared.mean() + 0 * objectives.of_all(networks["portrait"]),
            "sserd/absolute": s.absolute_weight * absolute.mean(),
        }, {}

    def of_drawing(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 2: mapping, generator and encoder, of what the discriminator says."""
        scores = networks["critic"](self._drawn(networks, self.shown(networks, batch)))
        loss = self.settings.adversarial_weight * adversarial_loss(scores)
        return {"sserd/adversarial": loss + 0 * objectives.of_all(networks["portrait"])}, {}

    def _drawn(self, networks: Networks, shown: Shown) -> Tensor:
        """Pictures [3 B, 3, S, S] drawn from noise, and drawn again from their codes; left for the discriminator too."""
        portrait = networks["portrait"].now
        codes = torch.cat([portrait.imagined(*shown.z.unbind(1), shown.crossing), portrait.encode(shown.pictures)])
        made = portrait.draw(codes)
        shown.made = [made.detach()]
        return made

    def of_critic(self, networks: Networks, batch: Batch) -> Losses:
        """Phase 3: the discriminator."""
        shown = self.shown(networks, batch)
        if not shown.made:
            with torch.no_grad():
                self._drawn(networks, shown)
        critic = networks["critic"]
        return {"sserd/critic": discriminator_loss(critic(shown.pictures), critic(shown.made[0]))}, {}

    def of_penalty(self, networks: Networks, batch: Batch) -> Losses:
        """R1 of the discriminator."""
        return objectives.penalty(self.settings, networks["critic"], self.shown(networks, batch).pictures), {}

    def of_path(self, networks: Networks, batch: Batch) -> Losses:
        """The path length of one drawing of each sample, against the usual one, which is learnt: each worker would have a running mean of its own."""
        shown, averaged = self.shown(networks, batch), networks["portrait"]
        portrait = averaged.now
        codes = portrait.imagined(*shown.z.unbind(1), shown.crossing)
        lengths = path_lengths(portrait.draw(codes), codes, shown.direction)
        s = self.settings
        loss = (lengths - averaged.usual_length).square().mean()
        return {"sserd/path": s.path_weight * s.path_every * loss + 0 * objectives.of_all(averaged)}, {
            "sserd/path_length": lengths.detach().mean()
        }

    def held_out(self, networks: Networks, batch: Batch) -> Losses:
        """Held-out: the error of what the average draws from the codes of frames."""
        shown, portrait = self.shown(networks, batch), networks["portrait"].average
        squared, absolute = picture_errors(
            portrait.draw(portrait.encode(shown.pictures)), shown.pictures, shown.weights
        )
        return {"sserd/squared": squared.mean(), "sserd/absolute": absolute.mean()}, {}

    def pictures(self, networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        """`portraits`: a frame, drawn again from its code, and drawn from noise."""
        shown, portrait = self.shown(networks, batch), networks["portrait"].average
        again = portrait.draw(portrait.encode(shown.pictures))
        drawn = portrait.draw(portrait.imagined(*shown.z.unbind(1), shown.crossing))
        columns = [p[:: len(p) // len(drawn)] for p in (shown.pictures, again, drawn)]
        count = range(min(4, len(drawn)))
        return {"portraits": grid([[tile(p[i].float()) for p in columns] for i in count])}
