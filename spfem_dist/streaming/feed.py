"""A job's data: training batches and held-out ones of its split, as one worker sees them, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch

from spfem_dist.config import Data, JobSettings, Run
from spfem_dist.corpora.splits import Part, Split
from spfem_dist.records import Batch
from spfem_dist.shares import Share, held_out_share, share_of
from spfem_dist.streaming.accepted import Accepted, longest_recording, speakers_of
from spfem_dist.streaming.loader import Loader, Source, fixed_batches, reader_of
from spfem_dist.streaming.order import Order
from spfem_dist.streaming.views import View, serves_content


def check_groups(run: Run, view: View, landmarks: bool = False) -> None:
    """Raise ValueError where the training part of the shards has no group that `view` can draw from, no landmarks where wanted, or a
    speaker that `data.speakers` names is not in the shards; where every recording is too short for `data.minimum_gap` and the view
    wants negatives so far away.

    Reads the index alone.
    """
    split, index = Split.of(run.data), reader_of(run.data, landmarks).index
    if run.data.speakers:
        there = speakers_of(index)
        if absent := sorted((split.part("train").speakers or set()) - there):
            raise ValueError(
                f"data.speakers names {', '.join(absent)}, of whom these shards have no recording; they have {', '.join(sorted(there))}"
            )
    Order(index, split.part("train"), serves=view.serves)
    longest = longest_recording(index)
    if view.serves is serves_content and longest <= run.data.minimum_gap:
        raise ValueError(
            f"data.minimum_gap is {run.data.minimum_gap} frames, and the longest recording of these shards has {longest}: no frame would "
            f"have a negative, and nothing would be learnt. Give less, such as the default of {Data().minimum_gap}"
        )


class JobData:
    """What worker `rank` of `size` is fed of the `source`.

    view: makes samples of groups. finish: what the job adds to each batch in the loader's threads. mixing: `draws_per_group` and `block` of the order, where the job
    wants others than the loader's.
    """

    def __init__(
        self,
        run: Run,
        settings: JobSettings,
        view: View,
        source: Source,
        rank: int,
        size: int,
        device: torch.device,
        **mixing: int,
    ):
        self.run, self.settings, self.view, self.source = run, settings, view, source
        self.rank, self.size, self.device, self.mixing = rank, size, device, mixing
        self.finish: Callable[[Batch], Batch] | None = None
        #: Gives training batches what stands for their frames, which are not decoded then.
        self.instead: Callable[[Batch], Batch] | None = None
        self.split = Split.of(run.data)
        self.share = share_of(settings.global_batch, rank, size, settings.micro_batch)
        self._loaders: list[Loader] = []

    def part(self, which: str) -> Part:
        """Whether a group belongs to the split's part `which`: train, validation or test."""
        return self.split.part(which)

    def batches(self, start_sample: int) -> Iterator[tuple[Batch, float]]:
        """Endless (micro-batch, seconds waited for it) of this worker's share, from that global sample on."""
        return iter(self._loader(start_sample))

    def validation(self) -> list[Batch]:
        """The fixed held-out micro-batches of this worker, made once; none where the split holds nothing out."""
        return self._held_out

    @cached_property
    def _held_out(self) -> list[Batch]:
        if not self._serves(self.part("validation")):
            return []
        share = held_out_share(self.settings, self.run.validation.samples, self.rank, self.size)
        return self._fixed("validation", share)

    def first_samples(self, count: int) -> list[Batch]:
        """The first `count` samples of the validation part, or of the training part where nothing is held out: all of them, on every
        worker, on its device, in micro-batches."""
        part = "validation" if self._serves(self.part("validation")) else "train"
        largest = share_of(self.settings.global_batch, self.size - 1, self.size, self.settings.micro_batch).micro_batch
        return [batch.to(self.device) for batch in self._fixed(part, share_of(count, 0, 1, largest))]

    def _serves(self, part: Part) -> bool:
        return len(Accepted.of(self.source.reader.index, part, self.view.serves).groups) > 0

    def _fixed(self, part: str, share: Share) -> list[Batch]:
        return fixed_batches(
            self.run.data,
            self.view,
            seed=self.run.seed,
            share=share,
            accept=self.part(part),
            source=self.source,
            finish=self.finish,
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Name, digest and source of the shards, and what an epoch takes from them; for tracking and the dry run."""
        loader = self._loader(0)
        index, coverage = loader.reader.index, loader.order.coverage
        counts = {
            "groups": coverage.accepted,
            "groups_in_index": coverage.groups,
            "recordings": coverage.recordings,
            "frames": coverage.frames,
            "samples_per_epoch": coverage.samples_per_epoch,
            "bytes_per_epoch": coverage.group_bytes,
            "shard_bytes_per_epoch": coverage.shard_bytes,
        }
        return {"name": index.corpus, "digest": index.digest, "source": self.run.data.shards, "counts": counts}

    def close(self) -> None:
        """Give the loaders' threads and files back."""
        for loader in self._loaders:
            loader.close()

    def _loader(self, start_sample: int) -> Loader:
        made = Loader(
            self.run.data,
            self.view,
            seed=self.run.seed,
            rank=self.rank,
            world=self.size,
            global_batch=self.settings.global_batch,
            micro_batch=self.settings.micro_batch,
            start_sample=start_sample,
            accept=self.part("train"),
            device=self.device,
            source=self.source,
            finish=self.instead or self.finish,
            decode=self.instead is None,
            **self.mixing,
        )
        self._loaders.append(made)
        return made
