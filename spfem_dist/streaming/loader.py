"""Batches for training: samples in the order's order, read, drawn, decoded and collated ahead of the step.

Step s of a run covers global samples [s * G, (s + 1) * G). Rank r of W takes its contiguous share of them, cut into
micro-batches in order (`shares.py`): put together over ranks and accumulation, every world size sees the same samples in
the same order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from spfem_dist.config import Data
from spfem_dist.records import Batch, Recording, UtteranceGroup
from spfem_dist.shard_format import DamagedShard
from spfem_dist.shares import Share, share_of
from spfem_dist.streaming.cache import MemoryCache
from spfem_dist.streaming.decode import choose_decoder, decode_many
from spfem_dist.streaming.encoded import DamagedVideo, Request
from spfem_dist.streaming.order import Accept, Order, SampleRef
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.store import RemoteStore
from spfem_dist.streaming.views import Choice, Unservable, View, collate, plain_view, resize

log = logging.getLogger(__name__)
Finish = Callable[[Batch], Batch]


def reader_of(data: Data, landmarks: bool = False) -> ShardReader:
    """The reader of a data section's shards. Raises ValueError where landmarks are wanted and they hold none."""
    reader = ShardReader.of(data)
    if landmarks and reader.index.landmarks == "none":
        raise ValueError(
            f"the shards in {data.shards} hold no landmarks, which this stage needs: run `spfem prepare` "
            "again with --faces mesh (aligned-mesh for face crops) and a new --out"
        )
    return reader


class Source:
    """Groups and decoded frames of one data section: reader, decoder and memory, shared by several loaders.

    Whole recordings are decoded and kept, at the run's size and where the decoder puts them (on the GPU: GPU memory),
    while data.decoded_cache_mb has room; of the others only the part that a sample needs is decoded, every time.
    landmarks: batches have them too. Raises ValueError where they are wanted and the shards hold none.
    """

    def __init__(self, data: Data, device: torch.device | str | None = None, landmarks: bool = False):
        self.data, self.device, self.landmarks = data, device, landmarks
        self.reader = reader_of(data, landmarks)
        self.decoder = choose_decoder(data.decoder, device)
        self.cache = MemoryCache(data.decoded_cache_mb)

    def group(self, shard: int, group: int) -> UtteranceGroup:
        """The group as training needs it: without sound and truth, landmarks in pixels of data.size or none.

        Raises DamagedShard where it is broken.
        """
        key = (shard, group)
        if (kept := self.cache.get(key)) is not None:
            return kept
        found = self.reader.read(shard, group, whole=False, landmarks=self.landmarks)
        found.recordings = [replace(_at(r, self.data.size / found.size), speech=b"") for r in found.recordings]
        size = sum(
            len(r.video) + sum(a.nbytes for a in (r.features, r.valid, r.landmarks) if a is not None)
            for r in found.recordings
        )
        self.cache.put(key, found, size + sum(path.nbytes for path in found.warps.values()))
        return found

    def frames(self, wanted: Sequence[tuple[tuple[int, int], Recording, np.ndarray]]) -> list[torch.Tensor]:
        """uint8 [K, S, S, 3] for each (place of the group, recording, positions), S = data.size.

        Raises DamagedVideo with the number of the entry at fault.
        """
        size = self.data.size
        result: list[torch.Tensor | None] = [None] * len(wanted)
        requests: dict[int, Request] = {}
        whole: set[int] = set()
        for number, (place, recording, positions) in enumerate(wanted):
            if (kept := self.cache.get((*place, recording.name))) is not None:
                result[number] = kept[torch.from_numpy(positions).to(kept.device)]
                continue
            if self.cache.has_room(recording.frames * size * size * 3):
                whole.add(number)
            shown = range(recording.frames) if number in whole else positions.tolist()
            requests[number] = Request(recording.video, shown, f"{self._name(place)} {recording.name}")
        for number, frames in self._decoded(requests, whole, wanted).items():
            place, recording, positions = wanted[number]
            frames = resize(frames, size)
            if number in whole:
                self.cache.put((*place, recording.name), frames, frames.nbytes)
                frames = frames[torch.from_numpy(positions).to(frames.device)]
            result[number] = frames
        return [frames for frames in result if frames is not None]

    def _decoded(
        self,
        requests: dict[int, Request],
        whole: set[int],
        wanted: Sequence[tuple[tuple[int, int], Recording, np.ndarray]],
    ) -> dict[int, torch.Tensor]:
        while requests:
            numbers = list(requests)
            try:
                return dict(zip(numbers, decode_many(list(requests.values()), self.decoder, self.device), strict=True))
            except DamagedVideo as error:
                number = numbers[error.request]
                if number not in whole:
                    raise DamagedVideo(str(error), number) from None
                # Broken somewhere: it is used all the same where the frames asked for are whole, as it would be
                # without the memory for decoded frames.
                whole.discard(number)
                requests[number] = requests[number]._replace(frames=wanted[number][2].tolist())
        return {}

    def _name(self, place: tuple[int, int]) -> str:
        return f"{self.reader.index.shards[place[0]].name}: {self.reader.entry(*place).key}"


@dataclass
class _Drawn:
    """One sample on its way: where it comes from (after `attempt` substitutions), its group, its choice, and the place of the
    group that each recording of it belongs to."""

    ref: SampleRef
    attempt: int
    group: UtteranceGroup
    choice: Choice
    places: list[tuple[int, int]]

    @property
    def origins(self) -> tuple[tuple[int, int, str] | None, ...]:
        """`Batch.origins` of the sample."""
        named = zip(self.places, self.choice.recordings, strict=True)
        return tuple(None if recording is None else (*place, recording.name) for place, recording in named)


class Loader:
    """An iterator of (Batch, seconds waited for it): this rank's micro-batches, in order, without end.

    view: makes samples of groups. accept: keeps a group of the split. global_batch: samples for each step over
    all ranks; micro_batch: samples for each Batch at most (None: this rank's whole share). start_sample: samples already seen,
    so a resumed run goes on where it was, also under another world size. stop_sample: end after the last whole step
    before it. device: where batches go (None leaves them on the CPU). source: what is read from, to share its memory.
    finish: adds to a batch what the job computes on the host; called in the background threads.
    decode: False leaves videos alone, and frames without pixels: for jobs that have something in their stead.
    Groups that cannot be read or drawn from are substituted by the next one, the same on every world size, and
    counted: `reader.bad`, `unserved`. Errors of the background threads are raised to the consumer.
    Close it, or use it in a `with`.
    """

    def __init__(
        self,
        data: Data,
        view: View,
        seed: int,
        rank: int,
        world: int,
        global_batch: int,
        micro_batch: int | None = None,
        start_sample: int = 0,
        device: torch.device | str | None = None,
        accept: Accept | None = None,
        stop_sample: int | None = None,
        draws_per_group: int = 4,
        block: int = 4,
        source: Source | None = None,
        finish: Finish | None = None,
        decode: bool = True,
    ):
        self.data, self.view, self.finish, self.decode = data, view, finish, decode
        self.rank, self.world, self.global_batch = rank, world, global_batch
        self.share = share_of(global_batch, rank, world, micro_batch)
        self.device = torch.device(device) if device is not None else None
        self.source = source or Source(data, device)
        self.reader = self.source.reader
        self.order = Order(self.reader.index, accept, seed, draws_per_group, block, serves=self.view.serves)
        self.unserved: dict[str, str] = {}
        self._start, self._stop = start_sample, stop_sample
        self._threads: ThreadPoolExecutor | None = None
        self._fetching: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._block: set[int] = set()
        self._closed = False

    def __iter__(self) -> Iterator[tuple[Batch, float]]:
        """This rank's micro-batches from start_sample on; one iteration at a time."""
        pending: deque[Future[Batch]] = deque()
        spans = self._spans()
        try:
            while not self._closed:
                began = time.perf_counter()
                if self.data.prefetch == 0:
                    span = next(spans, None)
                    batch = self._make(span) if span is not None else None
                else:
                    self._fill(pending, spans)
                    coming = pending.popleft() if pending else None
                    self._fill(pending, spans)
                    batch = coming.result() if coming is not None else None
                if batch is None:
                    return
                if self.device is not None:
                    batch = batch.to(self.device)
                yield batch, time.perf_counter() - began
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End the background threads (waits for the one micro-batch each may be at)."""
        self._closed = True
        for threads in (self._threads, self._fetching):
            if threads is not None:
                threads.shutdown(wait=True, cancel_futures=True)
        self._threads = self._fetching = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def samples(self, step: int) -> range:
        """Global sample numbers of this rank in step `step`, counted from start_sample."""
        first = self._start + step * self.global_batch + self.share.first
        return range(first, first + self.share.samples)

    def _spans(self) -> Iterator[range]:
        step = 0
        while self._stop is None or self._start + (step + 1) * self.global_batch <= self._stop:
            first = self._start + step * self.global_batch
            yield from (range(first + span.start, first + span.stop) for span in self.share.spans())
            step += 1

    def _fill(self, pending: deque[Future[Batch]], spans: Iterator[range]) -> None:
        if self._closed:
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.data.threads, thread_name_prefix="spfem-loader")
        while len(pending) < self.data.prefetch and (span := next(spans, None)) is not None:
            self._fetch_ahead(span[0])
            pending.append(self._threads.submit(self._make, span))

    def _make(self, span: Sequence[int]) -> Batch:
        drawn = [self._draw(self.order.sample(k), 0) for k in span]
        nothing: list[list[torch.Tensor | None]] = [[None] * len(d.choice.recordings) for d in drawn]
        frames = self._decode(drawn) if self.decode else nothing
        batch = collate(
            [d.choice for d in drawn],
            frames,
            self.data,
            samples=[d.ref.sample for d in drawn],
            seeds=[d.ref.seed for d in drawn],
            keys=[d.group.key for d in drawn],
            speakers=[d.group.speaker for d in drawn],
            origins=[d.origins for d in drawn],
        )
        batch = self.finish(batch) if self.finish is not None else batch
        return _pinned(batch) if self.device is not None and self.device.type == "cuda" else batch

    def _draw(self, ref: SampleRef, attempt: int) -> _Drawn:
        """The sample from its group, or from the first substitute (from number `attempt` on) that can be used."""
        for number in range(attempt, self.order.groups):
            place = self.order.substitute(ref, number)
            try:
                group = self.source.group(place.shard, place.group)
                rng = np.random.Generator(np.random.PCG64(ref.seed))
                if self.view.companion is None:
                    choice, beside = self.view.choose(group, rng, self.data), None
                else:
                    beside, other = self._companion(place)
                    choice = self.view.choose(group, rng, self.data, other)
                places = [(place.shard, place.group)] * (len(choice.recordings) - choice.beside)
                places += [beside or places[0]] * choice.beside
                return _Drawn(ref, number, group, choice, places)
            except DamagedShard as error:
                self.reader.count_bad(place.shard, place.group, error, of=self.order.groups)
            except Unservable as error:
                self._count_unserved(self.reader.entry(place.shard, place.group).key, str(error))
        raise RuntimeError(
            f"no utterance group of {self.data.shards} can be used for the {self.view.name} view: "
            f"{len(self.reader.bad)} damaged, {len(self.unserved)} without anything to draw "
            f"(last: {next(reversed(self.unserved.values()), 'none')})"
        )

    def _companion(self, place: SampleRef) -> tuple[tuple[int, int] | None, UtteranceGroup | None]:
        """The companion group of a sample's place and where it is; none where there is no other or it is damaged."""
        assert self.view.companion is not None
        if (found := self.order.companion(place, self.view.companion)) is None:
            return None, None
        try:
            return (found.shard, found.group), self.source.group(found.shard, found.group)
        except DamagedShard as error:
            self.reader.count_bad(found.shard, found.group, error, of=self.order.groups)
            return None, None

    def _decode(self, drawn: list[_Drawn]) -> list[list[torch.Tensor | None]]:
        """The frames of every sample; a sample whose video is broken is drawn again from a substitute, in place."""
        while True:
            places = [
                (b, r) for b, d in enumerate(drawn) for r, rec in enumerate(d.choice.recordings) if rec is not None
            ]
            wanted = []
            for b, r in places:
                recording = drawn[b].choice.recordings[r]
                assert recording is not None
                wanted.append((drawn[b].places[r], recording, drawn[b].choice.positions[r]))
            try:
                decoded = self.source.frames(wanted)
            except DamagedVideo as error:
                b, r = places[error.request]
                self.reader.count_bad(*drawn[b].places[r], error, of=self.order.groups)
                drawn[b] = self._draw(drawn[b].ref, drawn[b].attempt + 1)
                continue
            frames: list[list[torch.Tensor | None]] = [[None] * len(d.choice.recordings) for d in drawn]
            for (b, r), pictures in zip(places, decoded, strict=True):
                frames[b][r] = pictures
            return frames

    def _count_unserved(self, key: str, reason: str) -> None:
        with self._lock:
            if key not in self.unserved:
                self.unserved[key] = reason
                log.warning("group %s is left out of the %s view: %s", key, self.view.name, reason)

    def _fetch_ahead(self, k: int) -> None:
        """Start fetching the next block's shards from S3, where the local folder has room for both blocks."""
        store = self.reader.store
        if not isinstance(store, RemoteStore):
            return
        if self.order.sample(k).shard in self._block:
            return
        self._block = set(self.order.block_of(k))
        coming = self.order.shards_after(k)
        entries = self.reader.index.shards
        # A folder that cannot hold two blocks would lose the one in use.
        if sum(entries[s].bytes for s in self._block.union(coming)) > store.limit:
            return
        if self._fetching is None:
            self._fetching = ThreadPoolExecutor(1, thread_name_prefix="spfem-fetch")
        for shard in coming:
            # A failure is met again, and raised, by the read that needs the shard.
            self._fetching.submit(store.fetch, entries[shard])


def fixed_batches(
    data: Data,
    view: View,
    seed: int,
    share: Share,
    accept: Accept | None = None,
    device: torch.device | str | None = None,
    source: Source | None = None,
    finish: Finish | None = None,
) -> list[Batch]:
    """The first `share.batch` samples of a split part, always the same: this worker's share of them, for validation.

    Every group comes once before any comes twice. Batches stay on the CPU unless `device` is given.
    """
    loader = Loader(
        data,
        view,
        seed,
        0,
        1,
        1,
        device=device,
        accept=accept,
        draws_per_group=1,
        block=1 << 30,
        source=source,
        finish=finish,
    )
    with loader:
        batches = [loader._make(span) for span in share.spans()]
    return [batch.to(device) for batch in batches] if device is not None else batches


def whole_recordings(
    data: Data, accept: Accept | None = None, source: Source | None = None
) -> Iterator[tuple[UtteranceGroup, Recording, Batch]]:
    """Every recording of the accepted groups in index order, whole: (group, recording, Batch with B = R = 1, K = frames).

    The group and recording keep their speech, landmarks and truth. Damaged groups are counted in `source.reader.bad`.
    """
    source = source or Source(data)
    for s, shard in enumerate(source.reader.index.shards):
        for g, entry in enumerate(shard.groups):
            if accept is not None and not accept(entry):
                continue
            try:
                group = source.reader.read(s, g)
                choices = [plain_view(_at(r, data.size / group.size)) for r in group.recordings]
                frames = source.frames(
                    [((s, g), r, c.positions[0]) for r, c in zip(group.recordings, choices, strict=True)]
                )
            except (DamagedShard, DamagedVideo) as error:
                source.reader.count_bad(s, g, error)
                continue
            for recording, choice, pictures in zip(group.recordings, choices, frames, strict=True):
                yield group, recording, collate([choice], [[pictures]], data, [-1], [0], [group.key], [group.speaker])


def _at(recording: Recording, scale: float) -> Recording:
    """The recording with its landmarks in pixels of frames `scale` times as large."""
    if recording.landmarks is None:
        return recording
    return replace(recording, landmarks=(recording.landmarks.astype(np.float32) * np.float32(scale)))


def _pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, so that its copy to the GPU runs beside the computation."""
    return batch.each(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())
