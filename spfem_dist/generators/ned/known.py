"""What both jobs of NED know before they train: faces, windows, and what a pre-training exported."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.config import GuidedRun
from spfem_dist.generators.face.recordings import (
    FittedRecordings,
    Recorded,
    fitted_texture,
    read_recordings,
    rests_of,
)
from spfem_dist.generators.face.texture import ExpressionTexture, side_of
from spfem_dist.generators.guided import exported_before
from spfem_dist.generators.ned import saved
from spfem_dist.generators.ned.faces import count_of, face_model
from spfem_dist.generators.ned.motions import Face, Windows
from spfem_dist.generators.ned.settings import Manipulation, Pretraining
from spfem_dist.streaming.feed import JobData


class Known:
    """Reads what it is asked for once, when it is asked for. `texture` says whether the face has learnt its lines."""

    def __init__(self, run: GuidedRun, settings: Manipulation, feed: JobData, device: torch.device):
        self.run, self.settings, self.feed, self.device = run, settings, feed, device

    @cached_property
    def before(self) -> saved.Parts | None:
        """What the pre-training of the run, or of the run that it names, exported; None where there is none (yet)."""
        return exported_before(self.run, self.settings, Pretraining, saved.load_parts)

    @cached_property
    def recordings(self) -> list[Recorded]:
        """Of the training part."""
        s = self.settings
        train = self.feed.part("train")
        return read_recordings(self.feed.source, train, s.speakers, s.clips_per_speaker, matched=s.pairs > 0)

    @cached_property
    def face(self) -> Face:
        """The pre-training's face and texture, else the face of the training part, without a texture until `fit_texture`."""
        index = self.feed.source.reader.index
        if self.before is not None:
            model, texture = self.before.model, self.before.texture
        else:
            model = face_model(self.settings, self.recordings, index.landmarks)
            texture = ExpressionTexture.empty(side_of(self.run.data.size), count_of(self.settings))
        return Face.of(model, texture, rests_of(model, self.recordings), self.device)

    def fit_texture(self) -> None:
        """Learn the lines that expressions draw, from frames of the training part. A collective."""
        face = self.face

        def coefficients(recorded: Recorded) -> np.ndarray:
            return self.fitted.of(recorded).coefficients

        face.texture = fitted_texture(self.feed.source, self.recordings, face.maps, coefficients)

    @cached_property
    def fitted(self) -> FittedRecordings:
        """The training part's recordings in the face's terms."""
        return self._fitted(self.recordings, self.face.rests)

    @cached_property
    def windows(self) -> Windows:
        """Windows of the training part."""
        return Windows(self.fitted)

    @cached_property
    def held_out_windows(self) -> Windows | None:
        """Windows of the validation part, whose speakers' rest is guessed; None where nothing is held out."""
        s = self.settings
        found = read_recordings(self.feed.source, self.feed.part("validation"), s.speakers, s.clips_per_speaker)
        return Windows(self._fitted(found, {})) if found else None

    def _fitted(self, recordings: list[Recorded], rests: dict[str, np.ndarray]) -> FittedRecordings:
        return FittedRecordings(self.face.model, recordings, rests, self.feed.source.reader.index)


def take_over(networks: dict[str, nn.Module], before: saved.Parts) -> None:
    """Give fresh networks what a pre-training learnt."""
    for key, network in networks.items():
        if key in before.networks:
            state: dict[str, Tensor] = before.networks[key].state_dict()
            network.load_state_dict(state)
