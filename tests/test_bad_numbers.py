"""Settings, files and addresses that make no sense are refused in one line that names them, before anything is trained or allocated."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from doors import command, well
from pydantic import ValidationError
from test_bad_input import PREPARE, contents, refused, train

from spfem_dist.config import Run, Tracking
from spfem_dist.editing.landmark_file import read_landmarks
from spfem_dist.editing.video import EditError
from spfem_dist.errors import readable
from spfem_dist.shard_format import DamagedShard, _from_npy
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.training.runfolder import RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Shards of two speakers saying one sentence."""
    out = tmp_path_factory.mktemp("bad-numbers") / "shards"
    well(command(*PREPARE, out))
    return out


def test_a_gap_that_no_recording_has_is_refused_and_not_trained_on_nothing(whole, tmp_path):
    refused(
        train(whole, tmp_path, "--data.minimum-gap", "100000"),
        "data.minimum_gap is 100000 frames, and the longest recording",
        "no frame would have a negative",
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("flag", ["--data.frames-per-recording", "--seed", "--ccrl.steps"])
def test_a_number_that_nothing_counts_to_is_refused(flag, whole, tmp_path):
    refused(train(whole, tmp_path, flag, "1" * 40), "less than or equal to", code=2)


@pytest.mark.parametrize("size", ["1", "15", "100000"])
def test_frames_of_a_side_that_no_network_takes_are_refused(size, whole, tmp_path):
    refused(train(whole, tmp_path, "--data.size", size), "run.data", "size", "equal to", code=2)


def test_shards_whose_features_are_not_the_indexs_are_named(whole, tmp_path):
    shards = Path(shutil.copytree(whole, tmp_path / "shards"))
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps(index | {"feature_dim": 80}))
    with pytest.raises(DamagedShard, match="has 160 speech features a frame where the index says 80"):
        ShardReader(str(shards)).read(0, 0)


def test_a_generator_of_other_landmarks_than_the_shards_is_named(whole, tmp_path):
    words = ["python", "recipes/cdrl_stage2.py", "--local", "--data.shards", whole, "--data.split", "none"]
    words += ["--data.size", "64", "--tracking.uri", "", "--checkpoint.storage", tmp_path, "--pretrained", "shipped"]
    words += ["--pretraining.enabled", "False", "--ned.renderer", "residual"]
    refused(command(*words), "knows landmarks in the order mesh478", "have ibug68")


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (["--ccrl.global-batch", "1000000000"], "a micro-batch of 1,000,000,000 samples needs"),
        (["--data.frames-per-recording", "100000000"], "GB for its frames alone"),
    ],
)
def test_sizes_that_no_memory_holds_are_refused_by_an_estimate(flags, phrase, whole, tmp_path):
    refused(train(whole, tmp_path, *flags), phrase, "lower --ccrl.micro-batch")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("flags", [("--workers", "0"), ("--workers", "2", "-3"), ("--per-worker", "0")])
def test_a_plan_for_no_workers_is_refused(flags, whole):
    words = ["spfem", "plan", "cdrl_stage1", "--assume", "h100", "--data.shards", whole, "--data.split", "none"]
    refused(
        command(*words, "--data.size", "32", *flags), f"{flags[0]} {' '.join(flags[1:])}: give numbers of 1 or more"
    )


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["nonsense", "http://", "http://[::bad", "ftp://host", "http://host:99999", "http://host:0"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_no_address_is_named_by_its_variable(name, said, monkeypatch):
    monkeypatch.setenv(name, said)
    with pytest.raises(ValueError, match=f"{name} is .*give http://HOST:PORT or https://HOST"):
        open_filesystem("s3://bucket/runs")


def test_an_endpoint_never_shows_its_password(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://me:sesame@host")
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL") as error:
        open_filesystem("s3://bucket/runs")
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "phrase"),
    [
        ("s3://me:se%2Fsame@bucket/runs", "holds no user and no password"),
        ("s3://:se//same@127.0.0.1/x", "names no bucket"),
    ],
)
def test_an_address_of_s3_with_a_password_is_refused_and_does_not_show_it(place, phrase):
    with pytest.raises(ValueError, match=phrase) as error:
        open_filesystem(place)
    assert "same" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "phrase"),
    [
        ("gs://bucket/runs", "gcsfs"),
        ("nowhere://x/runs", "is no storage that is known"),
        ("hf://x/y", "is no storage that is known"),
        ("s3://", "names no bucket"),
        ("s3://two words/x", "names no bucket"),
    ],
)
def test_storage_that_cannot_be_had_here_is_named(place, phrase):
    with pytest.raises(ValueError, match=f"{place}.*{phrase}"):
        open_filesystem(place)


def test_a_run_on_such_storage_is_refused_in_words(whole, tmp_path):
    refused(train(whole, "gs://bucket/runs"), "gs://bucket/runs", "gcsfs", "use s3:// or a folder")


def test_an_experiment_that_is_named_by_an_address_with_a_password_is_refused():
    with pytest.raises(ValidationError, match="holds a password") as error:
        Tracking(experiment="ftp://:sesame@host/x")
    assert "sesame" not in readable(error.value.errors()[0]["msg"])


def test_a_home_elsewhere_is_refused_and_does_not_show_its_password(monkeypatch):
    monkeypatch.setenv("SPFEM_HOME", "redis://me:sesame@host/runs")
    with pytest.raises(ValueError, match=r"SPFEM_HOME is .*give a folder") as error:
        Run().absolute()
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize("words", [("spfem", "plan"), ("spfem", "train")])
def test_a_recipe_that_is_no_python_is_named(words):
    refused(command(*words, "/proc/version"), "/proc/version is no recipe: line 1 is no Python")


# --- files of a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"cut": ', "17", '{"data_digest": {}}', '{"step": "x"}', '{"mlflow_run": 7}']
)
def test_a_damaged_file_of_a_run_is_named(content, tmp_path):
    folder = RunFolder(Run(name="r", checkpoint={"storage": str(tmp_path)}))
    folder.write("state.json", {})
    Path(tmp_path, "r", "state.json").write_text(content)
    with pytest.raises(ValueError, match=r"r/state.json is damaged .*bring a copy of it back"):
        folder.read("state.json", {})


def test_every_command_names_it(whole, tmp_path):
    well(train(whole, tmp_path))
    run = tmp_path / "r"
    for name in ("run.json", "state.json", "ccrl/state.json"):
        before = (run / name).read_text()
        (run / name).write_text("")
        left = contents(run)
        refused(train(whole, tmp_path), f"r/{name} is damaged")
        assert contents(run) == left
        (run / name).write_text(before)
    (run / "run.json").write_text("null")
    for words in (["spfem", "evaluate", "priors", run], ["spfem", "export", run, "--out", tmp_path / "out"]):
        refused(command(*words), "r/run.json is damaged")


@pytest.mark.parametrize("flag", ["--constants", "--cluster"])
def test_a_file_without_an_end_is_refused(flag):
    words = (
        ["spfem", "plan", "cdrl_stage1", "--assume", "h100"]
        if flag == "--cluster"
        else ["spfem", "plan", "cdrl_stage1"]
    )
    refused(command(*words, flag, "/dev/zero"), "/dev/zero has more than 256 MiB, or no end")


def test_a_folder_is_not_made_of_an_address(whole, tmp_path):
    with pytest.raises(ValueError, match="is no storage that is known here"):
        open_filesystem("mysql+pymysql://host/x")


# --- landmarks ----------------------------------------------------------------------------------------------------


def test_an_array_whose_header_ends_nowhere_is_refused(tmp_path):
    """numpy reads it with Python's own tokenizer, whose error is of a kind of its own."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 68, 2), ((".ljust(117) + b"\n"
    file = tmp_path / "x.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(EditError, match=r"x.npy: no landmarks can be read"):
        read_landmarks(file)
    with pytest.raises(DamagedShard, match="is not a whole array"):
        _from_npy(file.read_bytes(), "x.npy")


def test_landmarks_that_claim_more_than_there_is_are_refused_without_allocating_it(tmp_path):
    bomb = tmp_path / "bomb.npy"
    with bomb.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**10, 478, 2)})
    with pytest.raises(EditError, match=r"bomb.npy: no landmarks can be read"):
        read_landmarks(bomb)
    with bomb.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**62, 68, 2)})
    with pytest.raises(EditError, match=r"bomb.npy: no landmarks can be read"):  # more than can be counted
        read_landmarks(bomb)
    with bomb.open("r+b") as file:  # a file with a hole of the size that it claims
        file.truncate(128 + 10**7 * 68 * 2)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 68, 2)})
    with pytest.raises(EditError, match="landmarks of 10,000,000 frames"):
        read_landmarks(bomb)
