"""RAVDESS's file names (Livingstone and Russo, PLOS ONE 2018; Zenodo 1188976, CC BY-NC-SA 4.0).

    Actor_NN/MM-VC-EM-IN-ST-RE-AC.mp4

modality (01 audio and video, 02 video, 03 audio), vocal channel (01 speech, 02 song), emotion, intensity (01 normal,
02 strong), statement (01 "Kids are talking by the door", 02 "Dogs are sitting by the door"), repetition, actor.
"""

from __future__ import annotations

import re
from pathlib import Path

from spfem_dist.corpora.files import VIDEO, keep_first, stray, visible_files
from spfem_dist.emotions import Emotion
from spfem_dist.records import Clip, Reject

EMOTIONS = {
    "01": Emotion.NEUTRAL,
    "02": Emotion.CALM,
    "03": Emotion.HAPPY,
    "04": Emotion.SAD,
    "05": Emotion.ANGRY,
    "06": Emotion.FEAR,
    "07": Emotion.DISGUSTED,
    "08": Emotion.SURPRISED,
}
STATEMENTS = {"01": "kids", "02": "dogs"}
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_AUDIO = (".wav",)


def find_clips(root: Path | str, songs: bool = False) -> tuple[list[Clip], list[Reject]]:
    """The audio-video speech clips anywhere under `root`, in name order, and everything that is not used.

    Speakers are named `actor01` to `actor24`, sentences `kids` and `dogs`. songs: take sung clips too, as sentences of
    their own (`kids-song`). Raises FileNotFoundError where `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the folder that holds RAVDESS's Actor_NN folders")
    clips: list[Clip] = []
    rejects: list[Reject] = []
    for path in visible_files(root, rejects):
        clip = _read_name(path, songs)
        (clips if isinstance(clip, Clip) else rejects).append(clip)  # type: ignore[arg-type]
    kept, doubles = keep_first(clips)
    return kept, rejects + doubles


def _read_name(path: Path, songs: bool) -> Clip | Reject:
    match = _NAME.fullmatch(path.stem)
    if not match or path.suffix.lower() not in (*VIDEO, *_AUDIO):
        return stray(path, "no RAVDESS name; expected MM-VC-EM-IN-ST-RE-AC.mp4")
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    known = {
        "modality": (modality, {"01", "02", "03"}),
        "vocal channel": (channel, {"01", "02"}),
        "intensity": (intensity, {"01", "02"}),
        "statement": (statement, set(STATEMENTS)),
        "repetition": (repetition, {"01", "02"}),
        "actor": (actor, {f"{n:02d}" for n in range(1, 25)}),
    }
    if emotion not in EMOTIONS:
        return Reject(str(path), "wrong-emotion", f"emotion code {emotion}; expected one of {', '.join(EMOTIONS)}")
    for field, (code, codes) in known.items():
        if code not in codes:
            return Reject(str(path), "wrong-code", f"{field} code {code}; expected one of {', '.join(sorted(codes))}")
    if EMOTIONS[emotion] is Emotion.NEUTRAL and intensity == "02":
        return Reject(str(path), "wrong-code", "neutral has no strong intensity; the name is wrong")
    if modality == "03" or path.suffix.lower() in _AUDIO:
        return Reject(str(path), "audio-only", "no pictures (modality 03); only audio-video clips (01) are used")
    if modality == "02":
        return Reject(str(path), "video-only", "no speech (modality 02); only audio-video clips (01) are used")
    if channel == "02" and not songs:
        return Reject(str(path), "song", "sung (vocal channel 02); only speech (01) is used unless songs are asked for")
    folder = re.fullmatch(r"Actor_(\d\d)", path.parent.name)
    if folder and folder[1] != actor:
        return Reject(
            str(path), "wrong-folder", f"actor {actor} by name, Actor_{folder[1]} by folder; move it or remove it"
        )
    sentence = STATEMENTS[statement] + ("-song" if channel == "02" else "")
    return Clip("ravdess", f"actor{actor}", sentence, EMOTIONS[emotion], int(intensity), int(repetition), path)
