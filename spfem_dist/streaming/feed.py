"""A job's data: training batches and held-out ones of its split, as one worker sees them, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch

from spfem_dist.config import JobSettings, Run
from spfem_dist.corpora.splits import Split
from spfem_dist.records import Batch
from spfem_dist.shard_format import GroupEntry
from spfem_dist.shares import held_out_share, share_of
from spfem_dist.streaming.loader import Loader, Source, fixed_batches, reader_of
from spfem_dist.streaming.order import Order
from spfem_dist.streaming.views import View


def check_groups(run: Run, view: View, landmarks: bool = False) -> None:
    """Raise ValueError where the training part of the shards has no group that `view` can draw from, no landmarks where wanted, or a
    speaker that `data.speakers` names is not in the shards.

    Reads the index alone.
    """
    split, index = Split.of(run.data), reader_of(run.data, landmarks).index
    if run.data.speakers:
        there = {entry.speaker for shard in index.shards for entry in shard.groups}
        if absent := sorted((split.part("train").speakers or set()) - there):
            raise ValueError(
                f"data.speakers names {', '.join(absent)}, of whom these shards have no recording; they have {', '.join(sorted(there))}"
            )
    Order(index, lambda g: split.accepts("train", g.speaker, g.sentence), serves=view.serves)


class JobData:
    """What worker `rank` of `size` is fed of the `source`.

    view: makes samples of groups. mixing: `draws_per_group` and `block` of the order, where the job
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
        self.split = Split.of(run.data)
        self.share = share_of(settings.global_batch, rank, size, settings.micro_batch)
        self._loaders: list[Loader] = []

    def part(self, which: str) -> Callable[[GroupEntry], bool]:
        """Whether a group belongs to the split's part `which`: train, validation or test."""
        return lambda entry: self.split.accepts(which, entry.speaker, entry.sentence)

    def batches(self, start_sample: int) -> Iterator[tuple[Batch, float]]:
        """Endless (micro-batch, seconds waited for it) of this worker's share, from that global sample on."""
        return iter(self._loader(start_sample))

    def validation(self) -> list[Batch]:
        """The fixed held-out micro-batches of this worker, made once; none where the split holds nothing out."""
        return self._held_out

    @cached_property
    def _held_out(self) -> list[Batch]:
        held_out, groups = (
            self.part("validation"),
            (g for shard in self.source.reader.index.shards for g in shard.groups),
        )
        if not any(held_out(entry) and self.view.serves(entry) for entry in groups):
            return []
        return fixed_batches(
            self.run.data,
            self.view,
            seed=self.run.seed,
            share=held_out_share(self.settings, self.run.validation.samples, self.rank, self.size),
            accept=held_out,
            source=self.source,
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
            **self.mixing,
        )
        self._loaders.append(made)
        return made
