"""CREMA-D's file names (Cao et al., IEEE Transactions on Affective Computing 2014; ODbL and DbCL).

    VideoFlash/1001_DFA_ANG_XX.flv
    AudioWAV/1001_DFA_ANG_XX.wav

actor, sentence, emotion and level: LO, MD, HI (sentence IEO), or XX where none was asked for.
"""

from __future__ import annotations

import re
from os.path import isdir
from pathlib import Path

from spfem_dist.corpora.files import AUDIO, VIDEO, keep_first, stray, visible_files
from spfem_dist.emotions import Emotion
from spfem_dist.records import Clip, Reject

EMOTIONS = {
    "ANG": Emotion.ANGRY,
    "DIS": Emotion.DISGUSTED,
    "FEA": Emotion.FEAR,
    "HAP": Emotion.HAPPY,
    "NEU": Emotion.NEUTRAL,
    "SAD": Emotion.SAD,
}
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
#: XX (no level asked for) is 1, as in every corpus with one level; one published name has a single X.
LEVELS = {"LO": 1, "MD": 2, "HI": 3, "XX": 1, "X": 1}
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
_AUDIO = (".wav", ".mp3")


def find_clips(root: Path | str) -> tuple[list[Clip], list[Reject]]:
    """The video clips anywhere under `root`, in name order, and everything that is not used.

    Where `root` holds a folder AudioWAV, speech is taken from it and a clip without its .wav is rejected; otherwise
    speech is the video's own sound track. The files of AudioWAV and AudioMP3 are no clips and no rejects, unless their
    video is missing. Raises FileNotFoundError where `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the folder that holds CREMA-D's VideoFlash")
    clips: list[Clip] = []
    rejects: list[Reject] = []
    files = visible_files(root, rejects)
    videos = {p.stem for p in files if p.suffix.lower() in VIDEO}
    wav = root / "AudioWAV"
    sounds = {p.stem: p for p in files if p.parent == wav and p.suffix.lower() in AUDIO} if isdir(wav) else None
    for path in files:
        if path.suffix.lower() in AUDIO and path.stem in videos:
            continue
        clip = _read_name(path, wav, sounds)
        (clips if isinstance(clip, Clip) else rejects).append(clip)  # type: ignore[arg-type]
    kept, doubles = keep_first(clips)
    return kept, rejects + doubles


def _read_name(path: Path, wav: Path, sounds: dict[str, Path] | None) -> Clip | Reject:
    match = _NAME.fullmatch(path.stem)
    if not match or path.suffix.lower() not in (*VIDEO, *_AUDIO):
        return stray(path, "no CREMA-D name; expected such as 1001_DFA_ANG_XX.flv")
    actor, sentence, emotion, level = match.groups()
    if path.suffix.lower() in AUDIO:
        return Reject(
            str(path), "audio-only", f"no video {path.stem}.flv belongs to it; fetch VideoFlash (git lfs pull)"
        )
    if emotion not in EMOTIONS:
        return Reject(str(path), "wrong-emotion", f"emotion code {emotion}; expected one of {', '.join(EMOTIONS)}")
    if sentence not in SENTENCES:
        return Reject(str(path), "wrong-code", f"sentence code {sentence}; expected one of {', '.join(SENTENCES)}")
    if level not in LEVELS:
        return Reject(str(path), "wrong-code", f"level code {level}; expected one of {', '.join(LEVELS)}")
    if sounds is not None and path.stem not in sounds:
        expected = wav / f"{path.stem}.wav"
        return Reject(str(path), "missing-audio", f"no speech at {expected}; fetch AudioWAV again (git lfs pull)")
    audio = sounds[path.stem] if sounds is not None else None
    return Clip("cremad", actor, sentence, EMOTIONS[emotion], LEVELS[level], 1, path, audio)
