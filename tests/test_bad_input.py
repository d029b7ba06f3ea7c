"""Bad input ends in one clear message that names the thing and the fix, with a status that says so, and loses nothing.

Every case goes through a command that a user types.
"""

import csv
import ctypes
import errno
import json
import os
import shutil
import socket
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
from doors import command, well

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.shards import encode_video
from spfem_dist.training.lock import RunLock

RECIPE = "recipes/cdrl_stage1.py"
TINY = ["--local", "--scaling.workers", "1", "--data.split", "none", "--data.size", "32", "--cerl.enabled", "False"]
TINY += ["--ccrl.steps", "2", "--ccrl.global-batch", "2", "--validation.every-steps", "0"]
TINY += ["--tracking.pictures-every-steps", "0"]
PREPARE = ["spfem", "prepare", "synthetic", "--identities", "2", "--synthetic-sentences", "1", "--size", "32"]
PREPARE += ["--groups-per-shard", "1", "--local", "--out"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Shards of two speakers saying one sentence, one group in each of two tars."""
    out = tmp_path_factory.mktemp("bad-input") / "shards"
    well(command(*PREPARE, out))
    return out


@pytest.fixture
def shards(whole, tmp_path):
    """A copy of those shards that a test may break."""
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def train(shards, storage, *flags, tracking="", **environment):
    """The smallest training run on `shards`."""
    places = ["--data.shards", shards, "--checkpoint.storage", storage, "--tracking.uri", tracking]
    return command("python", RECIPE, *places, "--name", "r", *TINY, *flags, **environment)


def refused(done, *phrases, code=1):
    """The message of a command that must have ended with `code`, must say all `phrases`, and show no traceback."""
    assert done.code == code, f"{done.command} ended with {done.code}\n{done.out[-2000:]}\n{done.err[-2000:]}"
    assert "Traceback" not in done.out + done.err, done.err[-3000:]
    for phrase in phrases:
        assert str(phrase) in done.said, f"{phrase!r} is not said:\n{done.out[-1500:]}\n{done.err[-3000:]}"
    return done


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which counts the starts."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- recordings ---------------------------------------------------------------------------------------------------


def write_clip(root: Path, emotion: str, audio: bool = True) -> Path:
    """A clip in MEAD's layout, a face crop already."""
    corpus = SyntheticCorpus.small(identities=1, sentences=1, size=64)
    known = Emotion.parse(emotion) if emotion != "hapy" else Emotion.HAPPY
    raw = corpus.render(corpus.clips()[list(Emotion).index(known)])
    level = "level_1" if emotion == "neutral" else "level_3"
    video = root / "M003" / "video" / "front" / emotion / level / "001.mp4"
    sound = root / "M003" / "audio" / emotion / level / "001.wav"
    video.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(encode_video(raw.frames, 25.0))
    if audio:
        sound.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(sound, raw.speech, 16_000)
    return video


def prepare_mead(root: Path, out: Path, *flags, **more):
    return command("spfem", "prepare", "mead", root, "--out", out, "--faces", "aligned", "--local", *flags, **more)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def harm(root: Path) -> dict[str, tuple[str, ...]]:
    """Three bad recordings: a cut video, one without sound, a folder that is no emotion. Part of path -> known reasons."""
    cut_in_half(write_clip(root, "sad"))
    write_clip(root, "angry", audio=False)
    write_clip(root, "hapy")
    return {
        "sad/level_3/001.mp4": ("truncated", "unreadable"),
        "angry/level_3/001.mp4": ("missing-audio",),
        "front/hapy": ("wrong-emotion",),
    }


def rejects(out: Path) -> dict[str, tuple[str, str]]:
    with open(out / "rejects.csv", newline="") as file:
        return {row["path"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}


def test_a_cut_video_a_missing_sound_and_a_wrong_emotion_are_named_and_the_rest_is_used(tmp_path):
    root, out = tmp_path / "MEAD", tmp_path / "out"
    for emotion in ("neutral", "happy"):
        write_clip(root, emotion)
    wanted = harm(root)
    before = contents(root)
    done = well(prepare_mead(root, out))
    assert "3 not used" in done.said
    assert "rejects.csv" in done.said
    found = rejects(out)
    assert len(found) == 3
    for part, reasons in wanted.items():
        ((path, (reason, detail)),) = [row for row in found.items() if row[0].endswith(part)]
        assert reason in reasons
        assert Path(part).stem in detail, f"{path}: the reason does not name the file: {detail}"
    assert json.loads((out / "index.json").read_text())["shards"][0]["groups"][0]["key"] == "M003_001"
    assert contents(root) == before


def test_a_corpus_of_bad_recordings_only_is_refused(tmp_path):
    root, out = tmp_path / "MEAD", tmp_path / "out"
    harm(root)
    refused(prepare_mead(root, out), "no usable clip of mead", root, "is it the corpus's top folder?", "rejects.csv")
    assert {reason for reason, _ in rejects(out).values()} >= {"missing-audio", "wrong-emotion", "empty-group"}
    assert not (out / "index.json").exists()


def test_a_missing_corpus_folder_is_named(tmp_path):
    refused(prepare_mead(tmp_path / "nowhere", tmp_path / "out"), tmp_path / "nowhere", "give the folder that holds")


def test_a_corpus_without_its_folder_is_refused_with_the_command(tmp_path):
    refused(command("spfem", "prepare", "mead"), "needs the folder of its recordings", "ROOT --out", code=2)


def disk_full_at_the_second_shard() -> None:
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # the first tar and its sidecar had room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


def test_a_full_disk_ends_with_what_is_needed_and_the_same_command_goes_on(whole, tmp_path):
    out = tmp_path / "out"
    refused(
        command(*PREPARE, out, before=disk_full_at_the_second_shard), "shard-000001.tar", "bytes", "free some space"
    )
    assert {p.name for p in out.glob("*shard-*")} == {"shard-000000.tar", "shard-000000.json"}
    kept = (out / "shard-000000.tar").stat().st_mtime_ns
    well(command(*PREPARE, out))
    assert (out / "shard-000000.tar").stat().st_mtime_ns == kept
    assert (out / "index.json").read_bytes() == (whole / "index.json").read_bytes()


def test_shards_of_other_settings_are_not_overwritten(shards):
    before = contents(shards)
    refused(command(*PREPARE, shards, "--crf", "30"), "crf 18 there, 30 now", "choose another --out")
    assert contents(shards) == before


# --- shards -------------------------------------------------------------------------------------------------------


def test_a_tar_cut_in_the_middle_is_named_with_the_command_that_mends_it(shards, tmp_path):
    cut_in_half(shards / "shard-000001.tar")
    refused(train(shards, tmp_path / "runs"), "shard-000001.tar", "it is cut", "`spfem prepare` again")
    well(command(*PREPARE, shards))
    well(train(shards, tmp_path / "runs"))


def test_a_path_out_of_the_tar_is_refused_and_nothing_is_written_there(shards, tmp_path):
    tar = shards / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as opened:
        member = opened.getmembers()[1]
    member.name = "../../escaped.mp4"
    content[member.offset : member.offset + tarfile.BLOCKSIZE] = member.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(content)
    refused(train(shards, tmp_path / "runs"), "shard-000000.tar", "../../escaped.mp4", "S00_00")
    assert not list(tmp_path.rglob("escaped*"))


def test_an_emotion_that_is_none_is_named_with_the_known_ones(shards, tmp_path):
    index = shards / "index.json"
    index.write_text(index.read_text().replace('"happy"', '"joyous"'))
    refused(train(shards, tmp_path / "runs"), "index.json", "joyous", "happy")


def test_a_folder_without_index_is_refused_with_the_command_that_makes_one(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(train(tmp_path / "empty", tmp_path / "runs"), tmp_path / "empty" / "index.json", "spfem prepare CORPUS")


def test_a_missing_shard_is_named(shards, tmp_path):
    (shards / "shard-000001.tar").unlink()
    refused(train(shards, tmp_path / "runs"), "shard-000001.tar", "missing", "`spfem prepare` again")


def test_a_shard_missing_from_a_bucket_is_named_with_the_bucket(whole, tmp_path):
    import boto3
    from moto_s3 import moto_s3

    with moto_s3() as address:
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_DEFAULT_REGION": "us-east-1"}
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="sesame",
        )
        client.create_bucket(Bucket="faces")
        for name in ("index.json", "shard-000000.tar"):
            client.upload_file(str(whole / name), "faces", f"mead/{name}")
        cache = ["--data.cache", tmp_path / "cache"]
        done = train("s3://faces/mead", tmp_path / "runs", *cache, AWS_ENDPOINT_URL=address, **keys)
    refused(done, "shard-000001.tar", "bucket faces", "Upload it again", "aws s3 sync")
    assert "sesame" not in done.out + done.err


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "phrases", "code"),
    [
        (["--zero.stag", "2"], ["--zero.stag", "--zero.stage"], 2),
        (["--zero.stage", "7"], ["--zero.stage", "7", "0", "1", "2", "3"], 2),
        (["--zero.stage", "0", "--zero.offload", "cpu"], ["zero.offload cpu", "set zero.stage to 1, 2 or 3"], 2),
        (["--scaling.workers", "13"], ["ccrl.global_batch 12", "scaling.workers 13", "use at most 12 workers"], 2),
        (["--scaling.workers", "4", "2"], ["scaling.workers 4 2", "use 2 4"], 2),
        (["--data.speech-window", "4"], ["speech_window is 4", "use 5"], 2),
        (["--name", "a/b"], ["name 'a/b'", "letters, digits"], 2),
        (["--local", "--data.split", "nobody"], ["nobody", "known splits", "mead_stage1"], 1),
        (["--local", "--data.split", "mine.json"], ["mine.json", "does not exist"], 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) and value and value[0].startswith("--") else "",
)
def test_impossible_settings_are_refused_with_the_fix(whole, tmp_path, flags, phrases, code):
    places = ["--data.shards", whole, "--checkpoint.storage", tmp_path, "--tracking.uri", ""]
    refused(command("python", RECIPE, *places, *flags), *phrases, code=code)


def test_a_mistake_that_is_mended_does_not_cost_the_name(whole, tmp_path):
    refused(train(whole, tmp_path, "--data.split", "nobody"), "nobody")
    well(train(whole, tmp_path))


def test_an_unreachable_tracking_server_is_named_with_the_way_out(whole, tmp_path):
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        uri = f"http://me:sesame@127.0.0.1:{taken.getsockname()[1]}"
        done = refused(train(whole, tmp_path, tracking=uri), "127.0.0.1", "does not answer", "--tracking.uri ''")
    assert "sesame" not in done.out + done.err


def test_a_storage_that_cannot_be_written_is_named(whole, tmp_path):
    (tmp_path / "file").write_text("")
    refused(train(whole, tmp_path / "file" / "runs"), tmp_path / "file")


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(whole, tmp_path_factory):
    """A storage with one finished run `r`."""
    storage = tmp_path_factory.mktemp("runs")
    well(train(whole, storage))
    return storage


def test_other_settings_under_a_used_name_are_refused_and_the_run_stays(whole, finished):
    before = contents(finished)
    refused(
        train(whole, finished, "--ccrl.temperature", "0.5"), "ccrl.temperature: was 0.07, now 0.5", "another --name"
    )
    assert contents(finished) == before


def test_a_second_run_under_one_name_is_refused(whole, finished, tmp_path):
    storage = Path(shutil.copytree(finished, tmp_path / "runs"))
    with RunLock(str(storage / "r")).held():
        before = contents(storage)
        refused(train(whole, storage), "run 'r'", f"process {os.getpid()}", "give another --name")
        assert contents(storage) == before


def test_evaluating_a_folder_that_is_no_run_is_refused(tmp_path):
    refused(command("spfem", "evaluate", "priors", tmp_path), tmp_path, "no run.json", "folder of a training run")


def test_evaluating_a_run_that_holds_nobody_out_is_refused(finished):
    refused(command("spfem", "evaluate", "priors", finished / "r"), "split 'none'", "choose another --data.split")


# --- weights ------------------------------------------------------------------------------------------------------


def test_weights_with_a_wrong_hash_are_refused_and_kept(tmp_path):
    folder = tmp_path / "weights" / "face-mesh"
    folder.mkdir(parents=True)
    names = (
        "face_landmark.tflite",
        "face_detection_short_range.tflite",
        "iris_landmark.tflite",
        "selfie_segmentation.tflite",
    )
    for name in names:
        (folder / name).write_bytes(b"not a network")
    place = {"SPFEM_WEIGHTS": str(tmp_path / "weights")}
    checked = refused(command("spfem", "weights", "check", **place), "face-mesh: wrong", "expected sha256", "remove it")
    assert str(folder) in checked.said
    write_clip(tmp_path / "MEAD", "neutral")
    used = prepare_mead(tmp_path / "MEAD", tmp_path / "out", "--faces", "mesh", **place)
    refused(used, "wrong hash", "expected sha256", "remove it and fetch it again")
    assert all((folder / name).read_bytes() == b"not a network" for name in names)


def test_unknown_weights_are_answered_with_the_known_ones():
    refused(command("spfem", "weights", "pull", "face-mash"), "face-mash", "face-mesh")


def test_weights_that_must_be_fetched_by_hand_say_where_from(tmp_path):
    place = {"SPFEM_WEIGHTS": str(tmp_path)}
    refused(command("spfem", "weights", "pull", "cdrl-descriptors", **place), "source:", "licence:", "put:")


def test_a_mesh_that_cannot_be_fetched_ends_prepare_with_both_ways_out(tmp_path):
    write_clip(tmp_path / "MEAD", "neutral")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}
    nowhere |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "SPFEM_WEIGHTS": str(tmp_path / "weights")}
    done = command("spfem", "prepare", "mead", tmp_path / "MEAD", "--out", tmp_path / "out", "--local", **nowhere)
    refused(done, "check the network", "spfem weights pull face-mesh", "--faces cascade", "neither stage 2 nor edits")
    assert not (tmp_path / "out").exists()


def test_the_dry_run_says_that_shards_without_landmarks_serve_stage_one_alone(tmp_path):
    root, out = tmp_path / "MEAD", tmp_path / "out"
    for emotion in ("neutral", "happy"):
        write_clip(root, emotion)
    well(prepare_mead(root, out))
    done = well(train(out, tmp_path / "runs", "--dry-run"))
    assert "note: the shards in" in done.said
    assert "hold no landmarks" in done.said
    assert "--faces mesh" in done.said


def held_by_permissions() -> None:
    """From now on permissions hold root back too: the capabilities that let it read everything are given up (capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for word in range(3):  # effective, permitted, inheritable
        sets[word] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_what_a_user_may_not_read_is_a_row_and_the_rest_is_prepared(tmp_path):
    root, out = tmp_path / "MEAD", tmp_path / "out"
    for emotion in ("neutral", "happy"):
        write_clip(root, emotion)
    shutil.copytree(root / "M003", root / "M009")
    refused = [root / "M003/video/front/happy/level_3/001.mp4", root / "M009"]
    for path in refused:
        path.chmod(0)
    try:
        well(prepare_mead(root, out, before=held_by_permissions))
    finally:
        refused[1].chmod(0o755)  # so that it can be removed
    assert {path: reason for path, (reason, _) in rejects(out).items()} == dict.fromkeys(
        map(str, refused), "no-permission"
    )
