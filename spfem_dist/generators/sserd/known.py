"""What both jobs of SSERD know before they train: a face model, what a pre-training exported, and the codes of the training part."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from spfem_dist.config import GuidedRun
from spfem_dist.emotions import SEVEN
from spfem_dist.generators.face.model import FaceModel
from spfem_dist.generators.face.recordings import Recorded, learnt_model, read_recordings, rests_of
from spfem_dist.generators.guided import exported_before
from spfem_dist.generators.sserd import saved
from spfem_dist.generators.sserd.bank import (
    Bank,
    Directions,
    boundary_directions,
    joined,
    level_of,
    mean_directions,
)
from spfem_dist.generators.sserd.networks import Portrait, pictures_of
from spfem_dist.generators.sserd.settings import Portraits, Pretraining
from spfem_dist.nets.frozen import freeze
from spfem_dist.streaming.feed import JobData

#: Frames of each recording whose codes are kept.
FRAMES = 2


class Known:
    """Reads what it is asked for once, when it is asked for. fresh: stands in where there is no pre-training."""

    def __init__(
        self,
        run: GuidedRun,
        settings: Portraits,
        feed: JobData,
        device: torch.device,
        fresh: Portrait | None = None,
    ):
        self.run, self.settings, self.feed, self.device, self.fresh = run, settings, feed, device, fresh

    @cached_property
    def before(self) -> saved.Parts | None:
        """What the pre-training of the run, or of the run that it names, exported; None where there is none (yet)."""
        return exported_before(self.run, self.settings, Pretraining, saved.load_parts)

    @cached_property
    def portrait(self) -> Portrait:
        """The pre-training's generator and encoder, frozen; those that stand in where there is none. ValueError without either."""
        found = self.fresh if self.before is None else self.before.portrait
        if found is None:
            raise ValueError(
                f"{self.run.pretrained or self.run.folder()} holds no finished pre-training of this generator"
            )
        wide = torch.float64 if self.run.zero.precision == "fp64" else torch.float32
        freeze(found.to(self.device, wide))
        return found

    @cached_property
    def recordings(self) -> list[Recorded]:
        """Of the training part."""
        s = self.settings
        return read_recordings(self.feed.source, self.feed.part("train"), s.speakers, s.clips_per_speaker)

    @cached_property
    def face(self) -> FaceModel:
        """The pre-training's face model, else that of the training part."""
        if self.before is not None:
            return self.before.face
        return learnt_model(self.recordings, self.feed.source.reader.index.landmarks)

    @cached_property
    def bank(self) -> Bank:
        """The codes of `portrait`."""
        return self.codes_of(self.portrait)

    @cached_property
    def directions(self) -> Directions:
        """Of the bank: what pairs are made by, where they are made."""
        by = getattr(self.settings, "pairs", "boundary")
        return mean_directions(self.bank) if by == "mean" else boundary_directions(self.bank)

    @torch.no_grad()
    def codes_of(self, portrait: Portrait) -> Bank:
        """The codes that `portrait` has for frames of the recordings in one of the seven emotions."""
        rests = rests_of(self.face, self.recordings)
        like = next(portrait.parameters())
        found = []
        for recorded in (r for r in self.recordings if r.emotion in SEVEN):
            at = np.flatnonzero(recorded.valid)
            at = np.unique(at[np.linspace(0, len(at) - 1, FRAMES + 2).round().astype(int)[1:-1]])
            group = self.feed.source.group(*recorded.place)
            recording = next(r for r in group.recordings if r.name == recorded.name)
            (frames,) = self.feed.source.frames([(recorded.place, recording, at)])
            codes = portrait.encode(pictures_of(frames.permute(0, 3, 1, 2).to(like.device), like.dtype))
            level = level_of(self.face, recorded.landmarks[recorded.valid], rests[recorded.speaker])
            emotion = torch.full((len(at),), SEVEN.index(recorded.emotion))
            speakers = (recorded.speaker,) * len(at)
            found.append(Bank(codes.float().cpu(), emotion, speakers, np.repeat(level[None], len(at), 0)))
        if not found:
            raise ValueError(
                f"no recording of the training part shows one of {', '.join(SEVEN)}: there is no code to learn from"
            )
        return joined(found)
