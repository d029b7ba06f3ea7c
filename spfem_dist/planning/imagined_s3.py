"""What the project's own code asks of S3, found by letting it ask: an S3 in memory that answers and writes the requests down."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from spfem_dist.s3 import PatientS3
from spfem_dist.training.manifest import CheckpointStore, checkpoint_name, fetched, manifest_name

#: Keys on one page of a listing.
PAGE = 1000
#: Methods that S3 counts as writes.
WRITES = {
    "put_object",
    "delete_objects",
    "delete_object",
    "create_multipart_upload",
    "upload_part",
    "complete_multipart_upload",
}
_LOCATION = "s3://imagined/run"


@dataclass(frozen=True)
class Request:
    """One request: S3's method, and the name of the file that it is about ('' of a listing)."""

    method: str
    name: str

    @property
    def writes(self) -> bool:
        """Whether S3 counts it among its writes."""
        return self.method in WRITES


#: Requests that are made side by side, round after round.
Rounds = list[list[Request]]


@dataclass
class ImaginedS3:
    """Objects by key, and the rounds of requests so far. Answers what `PatientS3` asks (`PatientS3.instead`)."""

    objects: dict[str, bytes] = field(default_factory=dict)
    rounds: Rounds = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)
    _under_way: int = 0

    async def __call__(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request. NotImplementedError for a method that the project has not used so far."""
        if not self._under_way:
            self.rounds.append([])
        self._under_way += 1
        self.rounds[-1].append(Request(method, str(request.get("Key", "")).rsplit("/", 1)[-1]))
        await asyncio.sleep(0)  # others that were started together are counted to the same round
        self._under_way -= 1
        answer = getattr(self, f"_{method}", None)
        if answer is None:
            raise NotImplementedError(f"{method} is not imagined")
        return {"ResponseMetadata": {"HTTPStatusCode": 200}} | answer(request)

    def _put_object(self, request: dict[str, Any]) -> dict[str, Any]:
        self.objects[request["Key"]] = bytes(request.get("Body", b""))
        self._keys = []
        return {"ETag": '"0"'}

    def _get_object(self, request: dict[str, Any]) -> dict[str, Any]:
        content = self._found("GetObject", request)
        return {"Body": _Body(content), "ContentLength": len(content), "ETag": '"0"'}

    def _head_object(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ContentLength": len(self._found("HeadObject", request)), "ETag": '"0"', "LastModified": None}

    def _delete_objects(self, request: dict[str, Any]) -> dict[str, Any]:
        for entry in request["Delete"]["Objects"]:
            self.objects.pop(entry["Key"], None)
        self._keys = []
        return {}

    def _list_objects_v2(self, request: dict[str, Any]) -> dict[str, Any]:
        self._keys = self._keys or sorted(self.objects)
        prefix, delimiter = request.get("Prefix", ""), request.get("Delimiter", "")
        after = request.get("ContinuationToken", "")
        entries: dict[str, int | None] = {}  # of a folder None
        for key in self._keys[bisect.bisect_left(self._keys, prefix) :]:
            if not key.startswith(prefix):
                break
            rest = key[len(prefix) :]
            name = prefix + rest.split(delimiter, 1)[0] + delimiter if delimiter and delimiter in rest else key
            if name > after and name not in entries:
                if len(entries) == PAGE:
                    return _page(entries) | {"IsTruncated": True, "NextContinuationToken": max(entries)}
                entries[name] = len(self.objects[key]) if name == key else None
        return _page(entries) | {"IsTruncated": False}

    def _found(self, operation: str, request: dict[str, Any]) -> bytes:
        try:
            return self.objects[request["Key"]]
        except KeyError:
            raise ClientError(
                {"Error": {"Code": "NoSuchKey", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 404}}, operation
            ) from None


def _page(entries: dict[str, int | None]) -> dict[str, Any]:
    return {
        "Contents": [{"Key": name, "Size": size} for name, size in entries.items() if size is not None],
        "CommonPrefixes": [{"Prefix": name} for name, size in entries.items() if size is None],
    }


class _Body:
    """The bytes of an answer, as a stream."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    async def read(self, amount: int | None = None) -> bytes:
        amount = len(self._left) if amount is None else amount
        chunk, self._left = self._left[:amount], self._left[amount:]
        return chunk

    def close(self) -> None:
        return


@contextmanager
def imagined() -> Iterator[ImaginedS3]:
    """Within, every S3 of this process is this one."""
    before, PatientS3.instead = PatientS3.instead, ImaginedS3()
    try:
        yield PatientS3.instead
    finally:
        PatientS3.instead = before


@dataclass(frozen=True)
class Traffic:
    """The requests of the checkpoints of `workers` workers, by what they are for.

    put: of one worker's part, of rank 0 and of any other. look: rank 0 looks whether all manifests are there. note: after the commit.
    retire: an old one is removed. choose: a start looks for the newest. own: a worker reads its part, of rank 0 and of any other.
    whole: the first worker of a host reads all, for another number of workers.
    """

    put: tuple[Rounds, Rounds]
    look: Rounds
    note: Rounds
    retire: Rounds
    choose: Rounds
    own: tuple[Rounds, Rounds]
    whole: Rounds


@cache
def traffic(workers: int, networks: int, kept: int, sharded: bool) -> Traffic:
    """What `workers` ask when a checkpoint of so many `networks` is written, committed, retired and read, and `kept` older ones lie there.

    sharded: every worker has a file of each network (ZeRO 1 to 3); otherwise rank 0 alone has.
    The project's own `CheckpointStore` asks; the other workers' files are put there beforehand, as it would.
    """
    with imagined() as s3, tempfile.TemporaryDirectory(prefix="spfem-plan-") as scratch:
        store = CheckpointStore(_LOCATION)
        folders = [_part(Path(scratch) / str(rank), rank, networks, sharded) for rank in range(min(2, workers))]
        names = [checkpoint_name(step) for step in range(kept + 1)]
        for name in names:
            _fill(s3, store, folders, name, workers, networks, sharded)
        newest = names[-1]

        def asked(call: Callable[[], Any]) -> Rounds:
            s3.rounds = []
            call()
            return s3.rounds

        put = tuple(asked(partial(store.put, folders[r], newest, r, workers, {})) for r in range(len(folders)))

        def read(patterns: list[str], ranks: set[int]) -> None:
            with fetched(f"{_LOCATION}/{newest}", patterns, ranks):
                pass

        own = []
        for rank in range(len(folders)):
            patterns = [
                "state.json",
                "history.jsonl",
                "*/mp_rank_00_model_states.pt",
                f"*/*zero_pp_rank_{rank}_mp_rank_*",
            ]
            own.append(asked(partial(read, patterns, {0, rank})))
        return Traffic(
            put=(put[0], put[-1]),
            look=asked(lambda: store.files(newest)),
            note=asked(lambda: store.note_last(newest, 1)),
            choose=asked(lambda: [store.standing(name) for name in store.names()]),
            own=(own[0], own[-1]),
            whole=asked(lambda: read(["*"], set(range(workers)))),
            retire=asked(lambda: store.remove(names[0])),
        )


def _part(folder: Path, rank: int, networks: int, sharded: bool) -> Path:
    """Files as DeepSpeed and `Saver` write them for one worker, small ones."""
    for number in range(networks):
        place = folder / f"network{number}"
        place.mkdir(parents=True)
        if sharded:
            (place / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(b"0" * 8)
        if rank == 0:
            (place / "mp_rank_00_model_states.pt").write_bytes(b"0" * 8)
    folder.mkdir(exist_ok=True)
    if rank == 0:
        (folder / "state.json").write_bytes(b"{}")
        (folder / "history.jsonl").write_bytes(b"")
    return folder


def _fill(
    s3: ImaginedS3, store: CheckpointStore, folders: list[Path], name: str, workers: int, networks: int, sharded: bool
) -> None:
    """The checkpoint `name` as all workers leave it: two of them really put it there, the others' files are theirs under other numbers."""
    for rank, folder in enumerate(folders):
        store.put(folder, name, rank, workers, {})
    digest = hashlib.sha256(b"0" * 8).hexdigest()
    for rank in range(len(folders), workers):
        files = [f"network{n}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for n in range(networks) if sharded]
        manifest = {"world": workers, "rank": rank, "files": {f: {"bytes": 8, "sha256": digest} for f in files}}
        s3.objects |= {f"run/{name}/{file}": b"0" * 8 for file in files}
        s3.objects[f"run/{name}/{manifest_name(rank)}"] = json.dumps(manifest).encode()
    s3._keys = []
