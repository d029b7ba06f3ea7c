"""What both jobs of ICface know before they train: faces in units, who speaks, and what a pre-training exported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import nn

from spfem_dist.config import GuidedRun
from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.recordings import (
    FittedRecordings,
    Recorded,
    fitted_texture,
    learnt_model,
    read_recordings,
    rests_of,
)
from spfem_dist.generators.face.texture import ExpressionTexture, side_of
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.face.unit_model import UnitModel
from spfem_dist.generators.guided import exported_before
from spfem_dist.generators.icface import saved
from spfem_dist.generators.icface.faces import count_of
from spfem_dist.generators.icface.head_units import HeadUnits, learnt_head_units
from spfem_dist.generators.icface.pairs import Face, Measuring
from spfem_dist.generators.icface.settings import Pretraining, Reenactment
from spfem_dist.generators.icface.units import Measured, Units, learnt_units
from spfem_dist.streaming.feed import JobData


class Known:
    """Reads what it is asked for once, when it is asked for."""

    def __init__(self, run: GuidedRun, settings: Reenactment, feed: JobData, device: torch.device):
        self.run, self.settings, self.feed, self.device = run, settings, feed, device
        self._fits: FittedRecordings | None = None

    @cached_property
    def before(self) -> saved.Parts | None:
        """What the pre-training of the run, or of the run that it names, exported; None where there is none (yet)."""
        return exported_before(self.run, self.settings, Pretraining, saved.load_parts)

    @cached_property
    def recordings(self) -> list[Recorded]:
        """Of the training part."""
        s = self.settings
        return read_recordings(self.feed.source, self.feed.part("train"), s.speakers, s.clips_per_speaker)

    @cached_property
    def people(self) -> list[str]:
        """The training speakers, sorted."""
        train = self.feed.part("train")
        shards = self.feed.source.reader.index.shards
        return sorted({entry.speaker for shard in shards for entry in shard.groups if train(entry)})

    @cached_property
    def face(self) -> Face:
        """The pre-training's units and lines, else those of the training part, without lines until `fit_texture`; with its speakers at rest."""
        if self.before is not None:
            units: Units = self.before.units
            texture = self.before.texture
            rests = rests_of(units.model, self.recordings)
        else:
            order = self.feed.source.reader.index.landmarks
            if self.settings.units == "head":
                head = UnitModel(topology(order))
                rests = rests_of(head, self.recordings)
                units = learnt_head_units(head, self._fitted(head, rests))
            else:
                model = learnt_model(self.recordings, order)
                rests = rests_of(model, self.recordings)
                units = learnt_units(model, self.recordings, rests)
            texture = ExpressionTexture.empty(side_of(self.run.data.size), count_of(self.settings))
        return Face.of(units, texture, rests, self.device)

    def fit_texture(self) -> None:
        """Learn the lines that units draw, from frames of the training part. A collective."""
        face = self.face

        face.texture = fitted_texture(
            self.feed.source, self.recordings, face.maps, lambda recorded: self.measured(recorded).values
        )

    def measured(self, recorded: Recorded) -> Measured:
        """A recording of the training part in units."""
        units = self.face.units
        if isinstance(units, HeadUnits):
            return units.told(recorded.landmarks, self._fitted(units.model, self.face.rests).of(recorded))
        return units.measured(recorded.landmarks, self.face.rests[recorded.speaker])

    def window(self, group: str, frames: np.ndarray, landmarks: np.ndarray, rest: np.ndarray | None) -> Measured:
        """Frames [T] of a recording of the group with this key, by their landmarks [T, L, 2]."""
        units = self.face.units
        if isinstance(units, HeadUnits):
            fitted = self._fitted(units.model, self.face.rests)
            return units.told(landmarks, fitted.window(group, frames, landmarks, rest))
        return units.measured(landmarks, rest)

    def _fitted(self, model: UnitModel, rests: Mapping[str, np.ndarray]) -> FittedRecordings:
        """The training part's recordings, each fitted once."""
        if self._fits is None:
            self._fits = FittedRecordings(model, self.recordings, rests, self.feed.source.reader.index)
        return self._fits

    @cached_property
    def measuring(self) -> Measuring:
        """What is added to each batch."""
        index = self.feed.source.reader.index
        found: dict[tuple[str, int], list[np.ndarray]] = {}
        for recorded in self.recordings:
            shard, group = recorded.place
            name = index.shards[shard].groups[group].key, list(Emotion).index(recorded.emotion)
            found.setdefault(name, []).append(self.measured(recorded).values[recorded.valid].mean(0))
        levels = {name: np.mean(values, 0) for name, values in found.items()}
        return Measuring(self.face, self.people, levels, self.settings.across, self.run.data.size, self.window)


def take_over(networks: dict[str, nn.Module], before: saved.Parts) -> None:
    """Give fresh networks what a pre-training learnt; a head for other speakers begins anew."""
    for key, network in networks.items():
        own, learnt = network.state_dict(), before.networks[key].state_dict()
        network.load_state_dict({n: learnt[n] if learnt[n].shape == own[n].shape else own[n] for n in own})
