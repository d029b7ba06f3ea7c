"""`spfem prepare folder`: recordings that belong to no corpus become shards that train, by folder or by table."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
from doors import command, well

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.shards import encode_video
from spfem_dist.shard_format import ShardIndex

WANTED = (Emotion.NEUTRAL, Emotion.HAPPY)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Face crops of two people, <name>-<emotion>.mkv and .wav."""
    place = tmp_path_factory.mktemp("clips")
    corpus = SyntheticCorpus.small(identities=2, sentences=1, size=64)
    for clip in corpus.clips():
        if clip.emotion in WANTED:
            raw, name = corpus.render(clip), f"{['anna', 'ben'][int(clip.speaker[1:])]}-{clip.emotion.value}"
            (place / f"{name}.mp4").write_bytes(encode_video(raw.frames, 25.0))
            soundfile.write(place / f"{name}.wav", raw.speech, 16_000)
    return place


def prepared(root: Path, out: Path, *flags, code=0):
    done = command("spfem", "prepare", "folder", root, "--out", out, "--faces", "aligned", "--local", *flags)
    assert done.code == code, done.err[-2000:]
    assert "Traceback" not in done.err
    return done


def table(path: Path, clips: Path, changes=None, **more) -> Path:
    rows = [
        {
            "path": f"{who}-{e.value}.mp4",
            "audio": f"{who}-{e.value}.wav",
            "speaker": who,
            "sentence": "hello",
            "emotion": e,
        }
        for who in ("anna", "ben")
        for e in WANTED
    ]
    rows = [{**row, **more, "path": clips / row["path"], "audio": clips / row["audio"]} for row in rows]
    rows[0].update(changes or {})
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_becomes_shards_with_a_split_that_trains(clips, tmp_path):
    out = tmp_path / "shards"
    done = prepared(table(tmp_path / "mine.csv", clips), out)
    assert f"--data.split {out / 'split.json'}" in done.said
    (shard,) = ShardIndex.load(out).shards
    assert {g.key: {str(r.emotion) for r in g.recordings} for g in shard.groups} == {
        "anna_hello": {"neutral", "happy"},
        "ben_hello": {"neutral", "happy"},
    }
    split = json.loads((out / "split.json").read_text())
    assert len(split["train"]["speakers"]) == len(split["test"]["speakers"]) == 1
    tiny = ["--local", "--scaling.workers", "1", "--data.size", "32", "--ccrl.steps", "2", "--ccrl.global-batch", "2"]
    tiny += ["--cerl.enabled", "False", "--tracking.uri", "", "--checkpoint.storage", tmp_path / "runs"]
    flags = ["--data.shards", out, "--data.split", out / "split.json", "--name", "r", *tiny]
    well(command("python", "recipes/cdrl_stage1.py", *flags))
    split["description"] = "mine"
    (out / "split.json").write_text(json.dumps(split))
    prepared(tmp_path / "mine.csv", out)
    assert json.loads((out / "split.json").read_text())["description"] == "mine"


def test_parts_of_one_film_are_recordings_and_other_parts_make_other_shards(clips, tmp_path):
    done = prepared(table(tmp_path / "mine.csv", clips, start="0.2", end="1.2"), tmp_path / "shards")
    assert "4 recordings in 2 groups, 100 frames" in done.said
    done = prepared(table(tmp_path / "mine.csv", clips, start="0.2", end="1.0"), tmp_path / "shards")
    assert "1 shards written and 0 kept" in done.said


def test_a_folder_of_speakers_is_read_by_its_names(clips, tmp_path):
    for who in ("anna", "ben"):
        for emotion in WANTED:
            target = tmp_path / "root" / who / f"hello_{emotion.value}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((clips / f"{who}-{emotion.value}.mp4").read_bytes())
    # Its films are silent, which is a row for each, and the error says the reason.
    done = prepared(tmp_path / "root", tmp_path / "shards", code=1)
    assert "no-audio" in done.said
    assert "no usable clip" in done.said


def test_a_bad_row_is_a_row_of_rejects_and_bad_columns_end_the_call(clips, tmp_path):
    path = table(tmp_path / "mine.csv", clips, {"emotion": "hapy"})
    prepared(path, tmp_path / "shards")
    with open(tmp_path / "shards" / "rejects.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["reason"]) == (f"{path}:2", "bad-row")
    assert "row 2, column emotion: 'hapy' is none; use one of neutral, angry" in row["detail"]
    path.write_text(path.read_text().replace("emotion", "mood", 1))
    assert "no column emotion; expected path, speaker" in prepared(path, tmp_path / "other", code=1).said


def test_a_pattern_of_another_corpus_is_refused(tmp_path):
    done = command("spfem", "prepare", "mead", tmp_path, "--out", tmp_path / "o", "--pattern", "{speaker}")
    assert done.code == 2
    assert "pattern reads the file names of `spfem prepare folder`" in done.said
