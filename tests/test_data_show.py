"""`spfem data show` says what is in shards, in 80 columns or as JSON, and shows it as a picture or a film."""

import csv
import json

import av
import boto3
import numpy as np
import pytest
from doors import command, well
from moto_s3 import moto_s3
from PIL import Image

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.shard_format import GroupEntry, ShardEntry, ShardIndex, shards_digest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `shards`: two speakers, one sentence, seven emotions, and one reject."""
    folder = tmp_path_factory.mktemp("look")
    flags = ["--identities", "2", "--synthetic-sentences", "1", "--size", "32", "--local"]
    well(command("spfem", "prepare", "synthetic", "--out", folder / "shards", *flags))
    with open(folder / "shards" / "rejects.csv", "a", newline="") as file:
        csv.writer(file).writerow(["films/a.mp4", "silent", "films/a.mp4: there is no speech in it"])
    return folder


def shown(place, *flags, **environment):
    return command("spfem", "data", "show", "shards", *flags, cwd=place, COLUMNS="80", **environment)


def test_tables_say_what_is_there_in_80_columns(place):
    done = well(shown(place))
    assert max(map(len, done.out.splitlines())) <= 80
    for words in (
        "14 recordings in 2 groups of 1 sentences",
        "frames 32 x 32 at 25 fps",
        "landmarks synthetic",
        "speaker neut angr disg fear happ sad surp all",
        "S00 1 1 1 1 1 1 1 7",
        "all 2 2 2 2 2 2 2 2 14",
        "groups by their emotions: 2 with 7",
        "time-warps of all groups: mean cost",
        "frames with a face, of all groups: 100.0%",
        "not used, silent: 1, such as: films/a.mp4: there is no speech in it",
    ):
        assert words in done.said


def test_json_says_the_same_to_a_program(place):
    found = json.loads(well(shown(place, "--json")).out)
    index = ShardIndex.load(place / "shards")
    frames = [r.frames for shard in index.shards for group in shard.groups for r in group.recordings]
    assert found["seconds"]["total"] == pytest.approx(sum(frames) / 25, abs=0.01)
    assert found["seconds"]["most"] == pytest.approx(max(frames) / 25, abs=0.01)
    assert found["speakers"] == {who: dict.fromkeys(map(str, SEVEN), 1) for who in ("S00", "S01")}
    assert found["rejects"]["silent"]["count"] == 1
    assert 0 <= found["warp_costs"]["least"] <= found["warp_costs"]["median"] <= found["warp_costs"]["most"]
    assert (found["frame_size"], found["digest"], found["lacks"]) == ([32, 32], index.digest, "")


def test_the_contact_sheet_shows_each_speaker_in_each_emotion(place):
    well(shown(place, "--sheet", "sheet.png"))
    with Image.open(place / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    tiles = pixels[14:, -7 * 96 :].reshape(2, 96, 7, 96, 3).swapaxes(1, 2).reshape(14, 96, 96, 3)
    assert all(tile.std() > 10 for tile in tiles)
    assert all(np.abs(a - b).mean() > 1 for n, a in enumerate(tiles) for b in tiles[:n])


def test_a_sample_is_played_out_to_a_film_with_sound(place):
    done = well(shown(place, "--sample", "S01_00/happy-1-1", "--out", "clip.mp4"))
    assert "S01_00/happy-1-1" in done.said
    assert "others of its group: neutral-1-1" in done.said
    index = ShardIndex.load(place / "shards")
    entry = next(g for shard in index.shards for g in shard.groups if g.key == "S01_00")
    frames = next(r.frames for r in entry.recordings if r.emotion is Emotion.HAPPY)
    with av.open(str(place / "clip.mp4")) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert (len(pictures), pictures[0].shape) == (frames, (32, 32, 3))
        assert float(film.streams.video[0].average_rate) == 25.0
    with av.open(str(place / "clip.mp4")) as film:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
        assert len(sound) / film.streams.audio[0].rate == pytest.approx(frames / 25, abs=0.15)
        assert np.abs(sound).max() > 0.05


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sample", "S07_00", "--out", "x.mp4"], ["no group 'S07_00'", "S00_00"]),
        (["--sample", "S00_00/calm-1-1", "--out", "x.mp4"], ["holds neutral-1-1", "S00_00/neutral-1-1"]),
        (["--sample", "S00_00"], ["--sample KEY and --out clip.mp4 belong together"]),
        (["--sample", "S00_00", "--out", "x.gif"], [".mp4 or .mkv"]),
        (["--sheet", "x.pdf"], [".jpg, .png"]),
    ],
)
def test_what_cannot_be_shown_says_what_can(place, flags, words):
    done = shown(place, *flags)
    assert done.code == 1
    assert all(word in done.said for word in words)
    assert "Traceback" not in done.err
    assert not list(place.glob("x.*"))


def test_a_folder_without_shards_is_named(tmp_path):
    done = shown(tmp_path)
    assert (done.code, "no shard index at" in done.said) == (1, True)


def test_shards_in_s3_are_shown(place):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with moto_s3() as address:
        named = {name.lower(): value for name, value in keys.items() if "KEY" in name}
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **named)
        client.create_bucket(Bucket="films")
        for path in (place / "shards").glob("[a-z]*.*"):
            client.upload_file(str(path), "films", f"shards/{path.name}")
        done = well(command("spfem", "data", "show", "s3://films/shards", AWS_ENDPOINT_URL=address, **keys))
    assert "14 recordings in 2 groups" in done.said
    assert "time-warps of all groups" in done.said
    assert "not used, silent: 1" in done.said


def test_many_speakers_in_all_emotions_fit_80_columns(tmp_path):
    groups = [
        GroupEntry(
            key=f"a-speaker-of-a-long-name-{n}_s",
            speaker=f"a-speaker-of-a-long-name-{n}",
            sentence="s",
            offset=512 * n,
            bytes=512,
            recordings=[
                {"name": f"{e.value}-1-1", "emotion": e, "level": 1, "take": 1, "frames": 10} for e in list(Emotion)
            ],
        )
        for n in range(40)
    ]
    from rich.console import Console

    from spfem_dist.data_show import _speakers
    from spfem_dist.inventory import speakers_by_emotion

    shard = ShardEntry(name="shard-000000.tar", bytes=512 * 40, sha256="0" * 64, groups=groups)
    known = {
        "corpus": "mead",
        "fps": 25,
        "size": 64,
        "speech_features": "logmel",
        "feature_dim": 160,
        "landmarks": "none",
    }
    index = ShardIndex(digest=shards_digest([shard]), shards=[shard], **known)
    counts = {who: {e.value: n for e, n in row.items()} for who, row in speakers_by_emotion(index).items()}
    with open(tmp_path / "out", "w") as file:
        Console(file=file, width=200).print(_speakers(counts))
    lines = (tmp_path / "out").read_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "and 16 more" in (tmp_path / "out").read_text()
