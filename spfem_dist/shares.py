"""How the samples of a global batch are shared out among workers and micro-batches: the one place that knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spfem_dist.config import JobSettings


@dataclass(frozen=True)
class Share:
    """What one worker does of every batch of `batch` samples.

    first: its first sample, counted within the batch. samples: how many follow. micro_batches: sizes of its micro-batches, in order,
    as many on every worker. weights: what each micro-batch's mean counts, so that the mean over micro-batches and workers is the mean
    over samples: exactly 1 where all are of one size.
    """

    batch: int
    first: int
    samples: int
    micro_batches: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def micro_batch(self) -> int:
        """The largest micro-batch, samples."""
        return max(self.micro_batches)

    @property
    def steps(self) -> int:
        """Micro-batches for each batch."""
        return len(self.micro_batches)

    def spans(self) -> Iterator[range]:
        """The samples of each micro-batch, counted within the batch."""
        first = self.first
        for size, weight in zip(self.micro_batches, self.weights, strict=True):
            # A worker that has run out repeats a sample that does not count: collectives want all of them.
            at = first if weight else min(max(first - 1, 0), self.batch - 1)
            yield range(at, at + size)
            first += size if weight else 0


def share_of(batch: int, rank: int, size: int, micro_batch: int | None = None) -> Share:
    """The share of worker `rank` of `size` in batches of `batch` samples; contiguous, and at most one sample from any other's.

    micro_batch: the largest number of samples that a worker may hold at once; None: its whole share.
    Raises ValueError for a rank that there is not.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} is not one of the {size} workers 0 to {size - 1}")
    first, last = batch * rank // size, batch * (rank + 1) // size
    samples, largest = last - first, -(-batch // size)
    steps = -(-largest // (micro_batch or largest))
    parts = [samples * (n + 1) // steps - samples * n // steps for n in range(steps)]
    if 0 in parts:  # fewer samples than steps: one in each, then repetitions that do not count
        parts = [1] * samples + [0] * (steps - samples)
    weights = tuple(1.0 if n * steps * size == batch else n * steps * size / batch for n in parts)
    return Share(batch, first, samples, tuple(max(n, 1) for n in parts), weights)


def held_out_share(settings: JobSettings, samples: int, rank: int, size: int) -> Share:
    """The share of worker `rank` of `size` in the `samples` of a validation, in micro-batches at most as large as in training."""
    return share_of(
        samples, rank, size, share_of(settings.global_batch, size - 1, size, settings.micro_batch).micro_batch
    )
