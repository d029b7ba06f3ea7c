"""MEAD's file names (Wang et al., ECCV 2020; https://wywu.github.io/projects/MEAD/MEAD.html).

    <speaker>/video/<view>/<emotion>/level_<k>/NNN.mp4
    <speaker>/audio/<emotion>/level_<k>/NNN.m4a     (or another kind of sound file; without the folder, the video's own sound)

Numbers count clips of one emotion, so equal numbers of two emotions are mostly different sentences. Sentences 001 to 003
are shared by all emotions; of `disgusted` the partners are 028 to 030 where `disgusted/level_3/030.mp4` exists (the pairs
of CDRL's published `aligned_path36.json`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from os.path import isdir, isfile  # unlike Path's, False where a folder above may not be entered
from pathlib import Path
from typing import Literal

from spfem_dist.corpora.files import AUDIO, VIDEO, displaced, entries, keep_first, stray, visible_files
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
_SPEAKER = re.compile(r"[MW]\d{3}")


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
    if _SPEAKER.fullmatch(root.name) and isdir(root / "video"):
        raise ValueError(f"{root} is one speaker's folder: give the folder that holds it, {root.parent}")
    for speaker in entries(root, rejects):
        if speaker.is_dir() and _SPEAKER.fullmatch(speaker.name):
            _speaker_clips(speaker, view, levels, sentences, clips, rejects)
        elif speaker.is_dir() and (deeper := [p for p in entries(speaker, []) if _SPEAKER.fullmatch(p.name)]):
            detail = f"the speaker folders ({deeper[0].name}, ...) are one folder deeper: give {speaker} as the root"
            rejects.append(Reject(str(speaker), "too-deep", detail))
        else:
            rejects.append(stray(speaker, "a speaker folder such as M003 or W009 is expected here"))
    kept, doubles = keep_first(clips)
    return kept, rejects + doubles


def _speaker_clips(speaker: Path, view, levels, sentences, clips: list[Clip], rejects: list[Reject]) -> None:
    video = speaker / "video" / view
    if not entries(speaker, rejects):
        return  # nothing in it, or a row that says why it may not be read
    if not isdir(video):
        rejects.append(_missing_video(speaker, video, rejects))
        return
    if has_audio := isdir(speaker / "audio"):
        entries(speaker / "audio", rejects)  # a row where it may not be read
    partners = isfile(video / "disgusted" / "level_3" / "030.mp4")
    for other in (p for p in entries(speaker / "video", rejects) if p != video):
        if other.name in VIEWS:
            rejects.append(Reject(str(other), "not-selected", f"view {other.name}; this run uses view {view}"))
        else:
            rejects.append(stray(other, f"a view is expected here: {', '.join(VIEWS)}"))
    for path, emotion, level in _levels(video, levels, rejects):
        sounds = _sounds(speaker / "audio" / emotion.value / f"level_{level}", rejects) if has_audio else {}
        for file in entries(path, rejects):
            number = re.fullmatch(r"\d{3}", file.stem)
            if not file.is_file() or not number or file.suffix.lower() not in VIDEO:
                rejects.append(stray(file, "a clip such as 001.mp4 is expected here"))
                continue
            audio = next((path for path in sounds.get(file.stem, []) if path.suffix.lower() in AUDIO), None)
            if has_audio and audio is None:
                rejects.append(_missing_audio(speaker, file, emotion, level, sounds.get(file.stem, [])))
                continue
            sentence = file.stem if sentences == "number" else _sentence(file.stem, emotion, partners)
            clips.append(Clip("mead", speaker.name, sentence, emotion, level, 1, file, audio))


def _missing_video(speaker: Path, video: Path, rejects: list[Reject]) -> Reject:
    """Why a speaker has no folder of the view, and what to do about it."""
    if elsewhere := displaced(video, speaker):
        detail = f"no folder {video}, but {elsewhere} one deeper: move it there (mv {elsewhere.parent} {video.parent})"
        return Reject(str(video), "too-deep", detail)
    beside = entries(video.parent, rejects) if isdir(video.parent) else entries(speaker, rejects)
    packed = [p.name for p in beside if p.name.startswith("video.")]
    there = ", ".join(p.name for p in beside[:5]) or "nothing"
    fix = f"unpack {packed[0]}" if packed else f"unpack {speaker.name}'s video.tar, or choose another --view"
    return Reject(
        str(video), "missing-video", f"no folder {video}; {there} is there in {video.parent.name or speaker}: {fix}"
    )


def _sounds(folder: Path, rejects: list[Reject]) -> dict[str, list[Path]]:
    """The files of a folder of speech by their number, the usual kinds first."""
    sounds: dict[str, list[Path]] = {}
    kinds = {kind: place for place, kind in enumerate(AUDIO)}
    for file in sorted(
        entries(folder, rejects) if isdir(folder) else [], key=lambda p: kinds.get(p.suffix.lower(), len(kinds))
    ):
        sounds.setdefault(file.stem, []).append(file)
    return sounds


def _missing_audio(speaker: Path, file: Path, emotion: Emotion, level: int, others: list[Path]) -> Reject:
    """Why a clip has no speech, and what to do about it."""
    folder = speaker / "audio" / emotion.value / f"level_{level}"
    if others:
        detail = f"{others[0]} is there, and its speech is expected as one of {', '.join(AUDIO)}: convert it"
    elif not isdir(folder) and (elsewhere := displaced(folder, speaker)):
        deeper = Path(*elsewhere.parts[: len(elsewhere.parts) - 2])
        detail = f"no folder {folder}, but {elsewhere} one deeper: move it there (mv {deeper} {speaker / 'audio'})"
    else:
        detail = f"no speech at {folder / file.stem}.m4a; unpack audio.tar again"
    return Reject(str(file), "missing-audio", detail)


def _levels(video: Path, levels, rejects: list[Reject]) -> list[tuple[Path, Emotion, int]]:
    """(folder, emotion, level) of the wanted levels; the rest goes to `rejects`, one row for each folder."""
    found = []
    for folder in entries(video, rejects):
        if not folder.is_dir() or folder.name not in {e.value for e in EMOTIONS}:
            rejects.append(_no_emotion(folder))
            continue
        emotion = Emotion(folder.name)
        for path in entries(folder, rejects):
            match = re.fullmatch(r"level_([123])", path.name)
            if not path.is_dir() or not match or (emotion is Emotion.NEUTRAL and match[1] != "1"):
                expected = "level_1" if emotion is Emotion.NEUTRAL else "level_1, level_2 or level_3"
                rejects.append(stray(path, f"{expected} is expected here"))
            elif _wanted(emotion, int(match[1]), levels):
                found.append((path, emotion, int(match[1])))
            else:
                rejects.append(
                    Reject(str(path), "not-selected", f"{path.name} of {emotion}; this run uses levels {levels}")
                )
    return found


def _no_emotion(folder: Path) -> Reject:
    names = ", ".join(e.value for e in EMOTIONS)
    if not folder.is_dir():
        return stray(folder, f"a folder of one of MEAD's emotions is expected here: {names}")
    files = len(visible_files(folder, []))
    detail = f"{folder.name!r} ({files} files) is no MEAD emotion; expected one of {names}: rename it"
    return Reject(str(folder), "wrong-emotion", detail)


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
