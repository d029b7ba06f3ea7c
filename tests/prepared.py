"""Preparing in tests: recordings in MEAD's layout that are rendered on the spot, and a look into what was made of them."""

import csv
import io
from pathlib import Path

import soundfile
from rich.console import Console

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.prepare.shards import encode_video
from spfem_dist.shard_format import ShardIndex, decode_group, members_of


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def mead(root: Path, out: Path, **changes) -> PrepareSettings:
    basic = {"corpus": "mead", "root": root, "out": out, "size": 64, "faces": "aligned", "groups_per_shard": 1}
    return PrepareSettings.model_validate({**basic, "local": True, **changes})


def write_clip(root: Path, emotion: str, number: str, seed: int, audio: bool = True) -> Path:
    """A clip in MEAD's layout that is a face crop already, rendered by the synthetic corpus."""
    corpus = SyntheticCorpus.small(identities=1, sentences=1, size=64, seed=seed)
    raw = corpus.render(corpus.clips()[list(Emotion).index(Emotion.parse(emotion))])
    level = "level_1" if emotion == "neutral" else "level_3"
    video = root / "M003" / "video" / "front" / emotion / level / f"{number}.mp4"
    sound = root / "M003" / "audio" / emotion / level / f"{number}.wav"
    for path in (video, sound):
        path.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(encode_video(raw.frames, 25.0))
    if audio:
        soundfile.write(sound, raw.speech, 16_000)
    return video


def reasons(folder: Path) -> dict[str, str]:
    """File name or group key -> reason, from rejects.csv."""
    with open(folder / "rejects.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def groups_of(folder: Path):
    for shard in ShardIndex.load(folder).shards:
        content = (folder / shard.name).read_bytes()
        for entry in shard.groups:
            yield entry, decode_group(members_of(content[entry.offset : entry.offset + entry.bytes]))
