"""MEAD's file names (Wang et al., ECCV 2020; https://wywu.github.io/projects/MEAD/MEAD.html).

    <speaker>/video/<view>/<emotion>/level_<k>/NNN.mp4
    <speaker>/audio/<emotion>/level_<k>/NNN.m4a

Numbers count clips of one emotion, so equal numbers of two emotions are mostly different sentences. Sentences 001 to 003
are shared by all emotions; of `disgusted` the partners are 028 to 030 where `disgusted/level_3/030.mp4` exists (the pairs
of CDRL's published `aligned_path36.json`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from spfem_dist.corpora.files import keep_first
from spfem_dist.emotions import Emotion
from spfem_dist.records import Clip, Reject

VIEWS = ("front", "left_30", "left_60", "right_30", "right_60", "top", "down")
EMOTIONS = (
    Emotion.ANGRY,
    Emotion.CONTEMPT,
    Emotion.DISGUSTED,
    Emotion.FEAR,
    Emotion.HAPPY,
    Emotion.NEUTRAL,
    Emotion.SAD,
    Emotion.SURPRISED,
)
SHARED = ("001", "002", "003")
_VIDEO, _AUDIO = (".mp4", ".mov", ".mkv", ".avi"), (".m4a", ".wav")


def find_clips(
    root: Path | str,
    view: str = "front",
    levels: Literal["strongest", "all"] | Collection[int] = "strongest",
    sentences: Literal["shared", "number"] = "shared",
) -> tuple[list[Clip], list[Reject]]:
    """The clips under `root` (the folder of the speakers' folders) in name order, and everything that is not used.

    levels: `strongest` is level 3 and neutral's only level 1 (the papers' choice); `all`, or the levels wanted.
    sentences: `shared` names 001 to 003 (and disgusted's partners) alike for all emotions and every other clip by its
    emotion (`happy017`), which is what the corpus really is; `number` calls equal numbers of a speaker one sentence,
    for edited clips that kept their source's number.
    Raises ValueError for an unknown view or option and FileNotFoundError where `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is not a folder; give the folder that holds MEAD's speaker folders (M003, W009, ...)"
        )
    if view not in VIEWS:
        raise ValueError(f"unknown MEAD view {view!r}; known views: {', '.join(VIEWS)}")
    if sentences not in ("shared", "number"):
        raise ValueError(f"sentences is {sentences!r}; use 'shared' or 'number'")
    if levels not in ("strongest", "all") and not set(levels) <= {1, 2, 3}:
        raise ValueError(f"levels is {levels!r}; use 'strongest', 'all', or some of 1, 2, 3")
    clips: list[Clip] = []
    rejects: list[Reject] = []
    for speaker in sorted(root.iterdir()):
        if speaker.is_dir() and re.fullmatch(r"[MW]\d{3}", speaker.name):
            _speaker_clips(speaker, view, levels, sentences, clips, rejects)
        else:
            rejects.append(_stray(speaker, "a speaker folder such as M003 or W009 is expected here"))
    kept, doubles = keep_first(clips)
    return kept, rejects + doubles


def _speaker_clips(speaker: Path, view, levels, sentences, clips: list[Clip], rejects: list[Reject]) -> None:
    video = speaker / "video" / view
    if not video.is_dir():
        rejects.append(Reject(str(video), "missing-video", f"no folder {video}; unpack {speaker.name}'s video.tar"))
        return
    has_audio = (speaker / "audio").is_dir()
    partners = (video / "disgusted" / "level_3" / "030.mp4").is_file()
    for other in sorted(p for p in (speaker / "video").iterdir() if p != video):
        if other.name in VIEWS:
            rejects.append(Reject(str(other), "not-selected", f"view {other.name}; this run uses view {view}"))
        else:
            rejects.append(_stray(other, f"a view is expected here: {', '.join(VIEWS)}"))
    for path, emotion, level in _levels(video, levels, rejects):
        for file in sorted(path.iterdir()):
            number = re.fullmatch(r"\d{3}", file.stem)
            if not file.is_file() or not number or file.suffix.lower() not in _VIDEO:
                rejects.append(_stray(file, "a clip such as 001.mp4 is expected here"))
                continue
            audio = _audio(speaker, emotion, level, file.stem) if has_audio else None
            if has_audio and audio is None:
                expected = speaker / "audio" / emotion.value / f"level_{level}" / f"{file.stem}.m4a"
                rejects.append(Reject(str(file), "missing-audio", f"no speech at {expected}; unpack audio.tar again"))
                continue
            sentence = file.stem if sentences == "number" else _sentence(file.stem, emotion, partners)
            clips.append(Clip("mead", speaker.name, sentence, emotion, level, 1, file, audio))


def _levels(video: Path, levels, rejects: list[Reject]) -> list[tuple[Path, Emotion, int]]:
    """(folder, emotion, level) of the wanted levels; the rest goes to `rejects`, one row for each folder."""
    found = []
    for folder in sorted(video.iterdir()):
        if not folder.is_dir() or folder.name not in {e.value for e in EMOTIONS}:
            names = ", ".join(e.value for e in EMOTIONS)
            files = sum(p.is_file() for p in folder.rglob("*")) if folder.is_dir() else 0
            reason = "wrong-emotion" if folder.is_dir() else "stray-file"
            detail = f"{folder.name!r} ({files} files) is no MEAD emotion; expected one of {names}: rename it"
            rejects.append(Reject(str(folder), reason, detail))
            continue
        emotion = Emotion(folder.name)
        for path in sorted(folder.iterdir()):
            match = re.fullmatch(r"level_([123])", path.name)
            if not path.is_dir() or not match or (emotion is Emotion.NEUTRAL and match[1] != "1"):
                expected = "level_1" if emotion is Emotion.NEUTRAL else "level_1, level_2 or level_3"
                rejects.append(_stray(path, f"{expected} is expected here"))
            elif _wanted(emotion, int(match[1]), levels):
                found.append((path, emotion, int(match[1])))
            else:
                rejects.append(
                    Reject(str(path), "not-selected", f"{path.name} of {emotion}; this run uses levels {levels}")
                )
    return found


def _wanted(emotion: Emotion, level: int, levels) -> bool:
    if levels == "all":
        return True
    if levels == "strongest":
        return level == (1 if emotion is Emotion.NEUTRAL else 3)
    return level in levels


def _sentence(number: str, emotion: Emotion, partners: bool) -> str:
    if emotion is Emotion.DISGUSTED and partners:
        own = {"028": "001", "029": "002", "030": "003"}
        return own.get(number, f"{emotion.value}{number}")
    return number if number in SHARED else f"{emotion.value}{number}"


def _audio(speaker: Path, emotion: Emotion, level: int, number: str) -> Path | None:
    folder = speaker / "audio" / emotion.value / f"level_{level}"
    return next((path for suffix in _AUDIO if (path := folder / f"{number}{suffix}").is_file()), None)


def _stray(path: Path, expected: str) -> Reject:
    return Reject(str(path), "stray-file" if path.is_file() else "stray-folder", f"{path.name!r}: {expected}")
