"""A checkpoint's files are data: whoever can write to the storage of runs still runs nothing where one is resumed or exported."""

import json
import os
from pathlib import Path

import pytest
import torch
from doors import command, well
from test_bad_input import PREPARE, refused, train

from spfem_dist.files import file_sha256
from spfem_dist.training import universal


class Order:
    """What an attacker puts into a file: whoever unpickles it calls `os.mkdir`."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_load_that_would_run_code_is_refused_however_it_is_asked_for(tmp_path):
    torch.save({"states": torch.ones(2), "order": Order(tmp_path / "run")}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="more than tensors and plain values"), universal.no_code():
        torch.load(tmp_path / "x.pt", weights_only=False)
    assert not (tmp_path / "run").exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "run").exists(), "the file would have done nothing"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("no-code") / "shards"
    well(command(*PREPARE, out))
    return out


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_checkpoint_with_an_order_in_it_runs_nothing(stage, shards, tmp_path):
    flags = ["--zero.stage", stage, "--checkpoint.allow-other", "True"]
    well(train(shards, tmp_path, *flags))
    well(train(shards, tmp_path, *flags, "--ccrl.steps", "3"))  # a sound one is gone on from
    [checkpoint] = [path for path in (tmp_path / "r" / "ccrl").glob("*3") if path.is_dir()]
    for states in checkpoint.rglob("*_states.pt"):
        saved = torch.load(states, weights_only=False)
        torch.save(saved | {"order": Order(tmp_path / "run")}, states)
    for manifest in checkpoint.glob("*manifest*"):  # as somebody would who can write there
        said = json.loads(manifest.read_text())
        for name in said["files"]:
            path = checkpoint / name
            entry = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            said["files"][name] = {key: entry.get(key, value) for key, value in said["files"][name].items()}
        manifest.write_text(json.dumps(said))
    done = refused(train(shards, tmp_path, *flags, "--ccrl.steps", "4"), "more than tensors and plain values")
    assert "sha256" not in done.said, "refused for another reason"
    out = ["spfem", "export", tmp_path / "r", "--checkpoint", "3", "--out", tmp_path / "out"]
    refused(command(*out), "more than tensors")
    assert not (tmp_path / "run").exists()
