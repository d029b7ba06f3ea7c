"""Values that make no sense, and files with something wrong in them."""

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from verdict import CANARY

NUMBERS = ["0", "1", "-1", "2", "3", "7", "-0", "1e9", "1e309", "nan", "inf", "-inf", "0.5", "1.5", "1e-320", "0x10"]
NUMBERS += ["1_000", "٣", "65536", "2147483648", "9223372036854775808", "1" * 40]
NAMES = ["", " ", ".", "..", "-", "--", "a/b", "a" * 300, "a" * 5000, "None", "null", "True", "none", "auto", "all"]
NAMES += ["[red]x[/red]", "[/]", "[", "[/red]", ":smile:", "a\nb", "a\tb", "\x1b[31m", "\udcff", "é", "日本", "\u202ea"]
NAMES += ["%s%d", "{0}", "{speaker}/{emotion}", "${HOME}", "~", "~/x", "*", "?", "$(id)", "'", '"', "\\", "@", "#"]
# Commands write to what they are given, as root where tests are: nothing here can be written to or replaced outside of the command's folder.
PLACES = ["zero", "full", "mem", "circle", "pipe", "/proc/version", "/proc/nowhere/x", "/proc", "nowhere/x"]
PLACES += ["s3://", "s3:///", "s3://bucket", "s3://bucket/x", "gs://b/x", "hf://x/y", "memory://x", "file:///proc/x"]
PLACES += ["http://", "http://127.0.0.1:9/x", "http://127.0.0.1:99999", "http://[::1", "ftp://host/x", "s3://[red]/x"]
PLACES += ["models:/", "models:/x", "models:/x/1", "models:/x@champion", "models:/a/b/c/d", "sqlite:///", "sqlite:////"]
PLACES += [
    "sqlite:///nowhere/x.db",
    "sqlite://x",
    "postgresql://h/d",
    "mysql://h",
    "databricks",
    "file:x",
    "uc:x",
    "://",
]


def secret(chance: random.Random) -> str:
    """An address with a password in it, as no two people write them."""
    inside = chance.choice(["", "/", ":", "@", " ", "#", "?", "%2F", "[", "//", "&", "\\"])
    password = f"{CANARY}{inside}{CANARY}"
    scheme = chance.choice(["postgresql", "http", "https", "s3", "mysql+pymysql", "sqlite", "ftp", "gs", "redis", "x"])
    user = chance.choice(["me", "", "me@home.org", "me%40home"])
    host = chance.choice(["127.0.0.1:9", "127.0.0.1", "[::1]:9", "127.0.0.1:port", "bucket"])
    path = chance.choice(["", "/x", "/x?a=b", f"/x?password={CANARY}", f"/x?X-Amz-Signature={CANARY}&b=c"])
    return f"{scheme}://{user}:{password}@{host}{path}"


def value(chance: random.Random) -> str:
    """A word of a command line."""
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(NUMBERS)
    if kind < 0.7:
        return chance.choice(NAMES)
    return chance.choice(PLACES) if kind < 0.9 else secret(chance)


def json_value(chance: random.Random, old: Any) -> Any:
    """In place of `old`: often of its kind."""
    if isinstance(old, bool) or old is None or chance.random() < 0.3:
        return chance.choice([None, True, [], {}, "", "x", 0, -1, 1.5, [[]], {"": None}, 1e300, [None], "NaN"])
    if isinstance(old, int | float):
        return chance.choice(
            [0, -1, 1, old + 1, old * 2, -old, old + 0.5, 10**18, 2**63, 1e300, float("nan"), str(old), [old]]
        )
    if isinstance(old, str):
        return chance.choice(
            ["", old + "x", old[:-1], old * 50, "../" + old, "[/red]", "\x00", "é", old.upper(), "/proc/x", [old]]
        )
    if isinstance(old, list):
        return chance.choice(
            [[], old[:-1], old + old, old[::-1], {str(n): v for n, v in enumerate(old)}, [old], old[:1] * 1000]
        )
    return chance.choice(
        [{}, list(old), {**old, "more": 1}, {str(key).upper(): value for key, value in old.items()}, [old]]
    )


def bent(chance: random.Random, whole: Any) -> Any:
    """A JSON value with one place in it changed, removed or added."""
    if not isinstance(whole, dict | list) or not whole or chance.random() < 0.15:
        return json_value(chance, whole)
    if isinstance(whole, list):
        at = chance.randrange(len(whole))
        if chance.random() < 0.1:
            return [*whole[:at], *whole[at + 1 :]]
        return [*whole[:at], bent(chance, whole[at]), *whole[at + 1 :]]
    key = chance.choice(list(whole))
    if chance.random() < 0.2:
        return {name: item for name, item in whole.items() if name != key}
    return {**whole, key: bent(chance, whole[key])}


def damaged(chance: random.Random, content: bytes) -> bytes:
    """Bytes that are cut, altered, empty or something else."""
    size = len(content)
    at, end = sorted(chance.randrange(size + 1) for _ in range(2))
    changes: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + content[end:],
        lambda: content[:at] + chance.randbytes(end - at) + content[end:],
        lambda: content[:at] + bytes(end - at) + content[end:],
        lambda: chance.randbytes(min(size, 4096)),
        lambda: bytes(size),
        lambda: content + content,
        lambda: _bits(chance, content),
        lambda: _bits(chance, content),
        lambda: chance.choice(
            [b"ffconcat version 1.0\nfile '/etc/hostname'\n", b"#EXTM3U\n/etc/hostname\n", b"\x00", b"{", b"null"]
        ),
    ]
    return chance.choice(changes)()


def _bits(chance: random.Random, content: bytes) -> bytes:
    if not content:
        return b"\xff"
    changed = bytearray(content)
    near = chance.choice([64, 4096, len(content)])  # headers are at the beginning
    for _ in range(chance.choice([1, 3, 30])):
        changed[chance.randrange(min(near, len(changed)))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def spoil(chance: random.Random, file: Path) -> None:
    """Something wrong with a file: with what it says where it is JSON, else with its bytes; or it is no file any more."""
    kind = chance.random()
    if file.is_symlink() or not file.is_file():  # spoilt before
        return
    if kind < 0.06:
        file.unlink()
        other = chance.choice(["gone", "folder", "circle", "closed", "zero"])
        if other == "folder":
            file.mkdir()
        elif other == "circle":
            file.symlink_to(file)
        elif other == "closed":
            file.symlink_to("/proc/self/mem")
        elif other == "zero":
            file.symlink_to("/dev/zero")
        return
    content = file.read_bytes()
    try:
        file.write_bytes(_misread(chance, file, content) if kind < 0.75 else damaged(chance, content))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):  # spoilt before
        file.write_bytes(damaged(chance, content))


def _misread(chance: random.Random, file: Path, content: bytes) -> bytes:
    """Content that can be read, and says something else."""
    if file.suffix == ".json":
        return json.dumps(bent(chance, json.loads(content))).encode()
    if file.suffix == ".safetensors":
        return _bent_tensors(chance, content)
    if file.suffix == ".npy":
        return array(chance, np.load(io.BytesIO(content), allow_pickle=False))
    return damaged(chance, content)


def _bent_tensors(chance: random.Random, content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    kind = chance.random()
    if kind < 0.2:
        return chance.choice([0, 1, size - 1, size + 1, 2**32, 2**63, 2**64 - 1]).to_bytes(8, "little") + content[8:]
    if kind < 0.4:  # numbers that are none
        body = bytearray(content)
        at = 8 + size + 4 * chance.randrange(max(1, (len(content) - 8 - size) // 4))
        body[at : at + 4] = np.float32(chance.choice([np.nan, np.inf, 3e38, -3e38])).tobytes()
        return bytes(body)
    header = json.dumps(bent(chance, json.loads(content[8 : 8 + size]))).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def array(chance: random.Random, points: np.ndarray) -> bytes:
    """An .npy file that is not what `points` [frames, landmarks, 2] are."""
    frames = len(points)
    changes: list[Callable[[], np.ndarray]] = [
        lambda: points[: chance.randrange(frames)],
        lambda: np.concatenate([points] * 3),
        lambda: points[:, :68],
        lambda: points[:, : chance.randrange(points.shape[1])],
        lambda: points[:, :, :1],
        lambda: points.T,
        lambda: points[0],
        lambda: np.zeros_like(points),
        lambda: points * 0 + points[:, :1],
        lambda: points * [1, 0],
        lambda: points * chance.choice([1e-9, 1e9, 1e38, -1, 100]),
        lambda: points + chance.choice([1e4, -1e4, 1e30]),
        lambda: np.full_like(points, chance.choice([np.nan, np.inf, 1e38])),
        lambda: np.where(np.random.default_rng(chance.randrange(99)).random(points.shape) < 0.3, np.nan, points),
        lambda: np.random.default_rng(chance.randrange(99)).normal(64, 30, points.shape),
        lambda: points.astype(chance.choice(["i1", "u1", "f2", "f8", "c16", "?", "S4", "U3", "M8[s]", "i8"])),
        lambda: np.array(chance.choice([0.0, "x", 1 + 2j])),
    ]
    if chance.random() < 0.25:
        shape = chance.choice(
            [(10**12, 68, 2), (10**9, 478, 2), (2**62, 68, 2), (-1, 68, 2), (0, 68, 2), (10**5, 478, 2), ()]
        )
        return header(shape, chance.choice(["<f4", "<f8", "|O", "|u1", "<U99999999", "|V0"]))
    written = io.BytesIO()
    with np.errstate(all="ignore"):
        np.save(written, np.asarray(chance.choice(changes)()), allow_pickle=False)
    return written.getvalue() if chance.random() < 0.85 else damaged(chance, written.getvalue())


def header(shape: tuple[int, ...], kind: str) -> bytes:
    """The beginning of an .npy file that claims this, and nothing else."""
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": kind, "fortran_order": False, "shape": shape})
    return written.getvalue()


def spoil_shards(chance: random.Random, folder: Path) -> None:
    """Something wrong with shards: within a tar, where the index knows of it or not, or with the index."""
    import hashlib

    from spfem_dist.shard_format import ShardIndex, shards_digest

    if chance.random() < 0.45:
        spoil(chance, chance.choice([folder / "index.json", *sorted(folder.glob("*.tar"))]))
        return
    index = json.loads((folder / "index.json").read_text())
    if chance.random() < 0.35:
        index = bent(chance, index)
    else:
        shard = chance.choice(index["shards"])
        tar = folder / shard["name"]
        tar.write_bytes(_bent_tar(chance, tar, shard))
        shard["sha256"], shard["bytes"] = hashlib.sha256(tar.read_bytes()).hexdigest(), tar.stat().st_size
    try:
        whole = {**index, "digest": shards_digest(ShardIndex.model_validate({**index}).shards)}
    except (TypeError, ValueError):
        whole = index
    (folder / "index.json").write_text(json.dumps(whole))


def _bent_tar(chance: random.Random, tar: Path, shard: dict) -> bytes:
    """One member of the tar changed, in its place and length where that can be."""
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as opened:
        member = chance.choice(opened.getmembers())
    begin, end = member.offset_data, member.offset_data + member.size
    inner = bytes(content[begin:end])
    if member.name.endswith(".json") and chance.random() < 0.8:
        inner = json.dumps(bent(chance, json.loads(inner)), separators=(",", ":")).encode()
    elif member.name.endswith(".npy") and chance.random() < 0.7:
        inner = _bent_array(chance, inner)
    elif chance.random() < 0.2:
        member.name = chance.choice(["../x.mp4", "/etc/x", "", "x" * 90, member.name.upper(), "a.json", "S00_00.json"])
    elif chance.random() < 0.2:
        member.type = chance.choice(
            [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE]
        )
    else:
        inner = damaged(chance, inner)
    room = -(-member.size // 512) * 512
    inner = inner[:room]
    member.size = chance.choice([len(inner)] * 8 + [0, 2**33 - 1])
    content[member.offset : member.offset + 512] = member.tobuf(tarfile.USTAR_FORMAT, errors="replace")[:512]
    content[begin : begin + room] = inner.ljust(room, b"\0")
    return bytes(content)


def _bent_array(chance: random.Random, content: bytes) -> bytes:
    """Numbers of an array changed, and its shape kept, so that only who looks at them sees it."""
    values = np.load(io.BytesIO(content), allow_pickle=False).copy()
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        wrong = np.array([np.nan, np.inf, -np.inf, 1e30, -1, 0, 255]).astype(values.dtype)
    if len(flat):
        flat[chance.randrange(len(flat)) :: chance.choice([1, 2, 7, len(flat)])] = chance.choice(wrong)
    written = io.BytesIO()
    np.save(written, values)
    return written.getvalue()
