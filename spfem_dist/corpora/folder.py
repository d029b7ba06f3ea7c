"""Any recordings: a folder for each speaker, or a table (.csv, .tsv, .jsonl) that says what is in which file.

    ROOT/<speaker>/<sentence>_<emotion>.mp4           or, where that does not fit, ROOT/<speaker>/<emotion>/<sentence>.mp4
    path,speaker,sentence,emotion[,start,end,audio,level,take]

Recordings of one speaker with the same sentence in several emotions are what content is learned from: call equal words the same.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spfem_dist.corpora.files import VIDEO, keep_first, stray, visible_files
from spfem_dist.emotions import Emotion
from spfem_dist.files import read_small
from spfem_dist.records import Clip, Reject

#: Tried in this order where no pattern is given.
PATTERNS = ("{speaker}/{sentence}_{emotion}", "{speaker}/{emotion}/{sentence}")
#: Further names of the emotions, as corpora and people spell them.
SYNONYMS = {
    **{"anger": Emotion.ANGRY, "ang": Emotion.ANGRY, "disgust": Emotion.DISGUSTED, "dis": Emotion.DISGUSTED},
    **{"fearful": Emotion.FEAR, "afraid": Emotion.FEAR, "fea": Emotion.FEAR, "happiness": Emotion.HAPPY},
    **{"joy": Emotion.HAPPY, "hap": Emotion.HAPPY, "neu": Emotion.NEUTRAL, "sadness": Emotion.SAD},
    **{"surprise": Emotion.SURPRISED, "sur": Emotion.SURPRISED, "contemptuous": Emotion.CONTEMPT},
}
_NEEDED, _OPTIONAL = ("path", "speaker", "sentence", "emotion"), ("start", "end", "audio", "level", "take")
_FIELDS = {"speaker": "[^/]+", "sentence": "[^/]+", "emotion": "[A-Za-z]+", "level": r"\d{1,2}", "take": r"\d{1,3}"}
#: Speaker and sentence make a key of at most 64 characters together.
_LONGEST = 31


def find_clips(root: Path | str, pattern: str = "") -> tuple[list[Clip], list[Reject]]:
    """The clips under the folder `root`, or in the table `root`, and everything that is not used.

    pattern: how a file's path under `root`, without its suffix, is to be read: {speaker}, {sentence}, {emotion}, and perhaps {level}
    and {take} (numbers); * stands for anything within a name. Names become letters, digits and hyphens. Equal recordings are
    takes, numbered in order, where no take is given.
    Raises FileNotFoundError where there is no `root`, ValueError for a pattern or columns that cannot be understood.
    """
    root = Path(root)
    if root.is_file():
        clips, rejects = _from_table(root, pattern)
    elif root.is_dir():
        clips, rejects = _from_folder(root, pattern)
    else:
        raise FileNotFoundError(
            f"{root} does not exist; give a folder of speakers' folders, or a .csv, .tsv or .jsonl file"
        )
    kept, doubles = keep_first(_with_takes(clips))
    return kept, rejects + doubles


def _from_folder(root: Path, pattern: str) -> tuple[list[Clip], list[Reject]]:
    patterns = [(text, _compiled(text)) for text in ([pattern] if pattern else PATTERNS)]
    rejects: list[Reject] = []
    names, clips = _Names(), []
    for path in visible_files(root, rejects):
        if path.suffix.lower() not in VIDEO:
            rejects.append(stray(path, "no film; expected .mp4, .mov, .mkv, .avi, .mts or the like"))
            continue
        inside = path.relative_to(root).with_suffix("").as_posix()
        for _, expression in patterns:
            if (match := expression.fullmatch(inside)) and _emotion(match["emotion"]):
                break
        else:
            expected = " or ".join(text for text, _ in patterns)
            emotions = ", ".join(Emotion)
            detail = f"{inside!r} is not {expected} with an emotion of {emotions}: rename it, give --pattern, or give a table"
            rejects.append(Reject(str(path), "no-match", detail))
            continue
        parts = match.groupdict()
        clips.append(_clip(path, names, parts, str(path)))
    return clips, rejects


def _compiled(pattern: str) -> re.Pattern[str]:
    fields = re.findall(r"\{(\w*)\}", pattern)
    lacking = [f"{{{name}}}" for name in ("speaker", "sentence", "emotion") if fields.count(name) != 1]
    if lacking or set(fields) - set(_FIELDS) or len(set(fields)) < len(fields):
        raise ValueError(
            f"pattern {pattern!r}: it names {{speaker}}, {{sentence}} and {{emotion}} once each, and perhaps {{level}} and {{take}}, "
            f"such as {PATTERNS[0]!r}" + (f"; {', '.join(lacking)} is not there once" if lacking else "")
        )
    expression = ""
    for piece in re.split(r"(\{\w+\}|\*)", pattern.strip("/")):
        name = piece.strip("{}")
        if piece == "*":
            expression += "[^/]*"
        elif piece.startswith("{"):
            expression += f"(?P<{name}>{_FIELDS[name]})"
        else:
            expression += re.escape(piece)
    return re.compile(expression)


# --- tables -------------------------------------------------------------------------------------------------------


def _from_table(table: Path, pattern: str) -> tuple[list[Clip], list[Reject]]:
    if pattern:
        raise ValueError(f"--pattern reads the names of a folder's files, and {table} is a table: leave it out")
    names, clips, rejects = _Names(), [], []
    for number, row in _rows(table):
        try:
            clips.append(_row_clip(table, names, row))
        except ValueError as error:
            rejects.append(Reject(f"{table}:{number}", "bad-row", f"{table.name}, row {number}, {error}"))
    return clips, rejects


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, values by column) of every row; raises ValueError for a table that is none or lacks columns."""
    try:
        text = read_small(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{table} is no text in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None
    suffix = table.suffix.lower()
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",", restkey="beyond")
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        _check_columns(table, columns)
        for row in reader:
            yield reader.line_num, {str(k): str(v or "").strip() for k, v in row.items()}
    elif suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{table}, row {number}: not JSON ({error.msg}); one object on each line is expected"
                ) from None
            if not isinstance(found, dict):
                raise ValueError(
                    f'{table}, row {number}: expected an object such as {{"path": ..}}, found {line[:40]!r}'
                )
            _check_columns(table, list(found), f", row {number}")
            yield number, {key: "" if value is None else str(value).strip() for key, value in found.items()}
    else:
        raise ValueError(f"{table}: a table ends in .csv, .tsv or .jsonl")


def _check_columns(table: Path, columns: list[str], where: str = "") -> None:
    known = ", ".join(_NEEDED) + ", and perhaps " + ", ".join(_OPTIONAL)
    if lacking := [name for name in _NEEDED if name not in columns]:
        found = ", ".join(columns) or "none"
        raise ValueError(f"{table}{where}: no column {', '.join(lacking)}; expected {known}; found {found}")
    for name in columns:
        absent = [optional for optional in _OPTIONAL if optional not in columns]
        if name not in _NEEDED + _OPTIONAL and (close := difflib.get_close_matches(name, absent, 1, 0.7)):
            raise ValueError(f"{table}{where}: column {name!r} is not known; is it {close[0]!r}? Known: {known}")


def _row_clip(table: Path, names: _Names, row: Mapping[str, str]) -> Clip:
    if "beyond" in row:
        raise ValueError("it has more values than there are columns: put a value that holds a comma in quotes")
    for column in _NEEDED:
        if not row.get(column):
            raise ValueError(f"column {column}: empty; a value is needed")
    if _emotion(row["emotion"]) is None:
        raise ValueError(f"column emotion: {row['emotion']!r} is none; use one of {', '.join(Emotion)}")
    start, end = (_seconds(row.get(column, ""), column) for column in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"column end: {end:g} s is not after start, {start or 0:g} s")
    for column, most in (("level", 99), ("take", 999)):
        if row.get(column) and not (row[column].isdecimal() and 1 <= int(row[column]) <= most):
            raise ValueError(f"column {column}: {row[column]!r}; use a whole number from 1 to {most}")
    files = {column: table.parent / Path(row[column]).expanduser() for column in ("path", "audio") if row.get(column)}
    for column, path in files.items():
        if not path.is_file():
            raise ValueError(f"column {column}: no file {path} (paths are relative to {table.parent})")
    clip = _clip(files["path"], names, row, f"{table.name}, column")
    return replace(clip, audio=files.get("audio"), start=start or 0.0, end=end)


def _seconds(text: str, column: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"column {column}: {text!r}; use seconds from the film's beginning, such as 12.48")
    return value


# --- names --------------------------------------------------------------------------------------------------------


def _emotion(name: str) -> Emotion | None:
    name = name.strip().lower()
    return SYNONYMS.get(name) or (Emotion(name) if name in list(Emotion) else None)


def _clip(path: Path, names: _Names, parts: Mapping[str, Any], where: str) -> Clip:
    emotion = _emotion(parts["emotion"])
    assert emotion is not None
    speaker, sentence = (names.plain(kind, parts[kind], where) for kind in ("speaker", "sentence"))
    level, take = (int(parts.get(kind) or 0) for kind in ("level", "take"))
    return Clip("folder", speaker, sentence, emotion, level or 1, take, path)


class _Names:
    """Speakers and sentences as letters, digits and hyphens, of which the shards' keys are made; two names never become one."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}

    def plain(self, kind: str, name: str, where: str) -> str:
        ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-")
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        if not plain or len(plain) > _LONGEST:  # another alphabet, or a whole sentence
            plain = f"{plain[: _LONGEST - 9].strip('-') or kind}-{digest}"
        first = self._given.setdefault((kind, plain), name)
        if first != name:
            plain = f"{plain[: _LONGEST - 9]}-{digest}"
        return plain


def _with_takes(clips: list[Clip]) -> list[Clip]:
    """Clips without a take get the numbers that are free in their group, in order."""
    taken = {(c.group, c.emotion, c.level, c.take) for c in clips if c.take}
    done = []
    for clip in clips:
        take = clip.take or 1
        while not clip.take and (clip.group, clip.emotion, clip.level, take) in taken:
            take += 1
        taken.add((clip.group, clip.emotion, clip.level, take))
        done.append(replace(clip, take=take))
    return done
