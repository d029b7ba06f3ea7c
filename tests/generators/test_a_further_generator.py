"""A generator that lives among the tests alone goes the whole way: found, trained under a frozen prior, exported, registered, editing."""

import json
from pathlib import Path

import numpy as np
import pytest
from doors import ROOMS, command, well
from toy_generator import film, shown, talking_head

from spfem_dist import generators
from spfem_dist.generators.generator import find
from spfem_dist.rooms import kinds


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """(run folder, tracking store) of the finished toy."""
    folder = tmp_path_factory.mktemp("tint")
    store = f"sqlite:///{folder}/mlflow.db"
    flags = ["--priors", toy.stage1, "--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32"]
    flags += ["--checkpoint.storage", folder, "--tint.steps", "3", "--tint.global-batch", "2"]
    flags += ["--tint.guidance.ccrl", "0.5", "--tracking.uri", store, "--tracking.log-every-steps", "1"]
    flags += ["--tracking.system-metrics", "False", "--validation.samples", "2", "--validation.every-steps", "3"]
    well(command("python", "tests/rooms/stage2.py", "--local", *flags, **ROOMS))
    return folder / "tinted", store


def test_a_room_is_found_by_its_kind_and_an_unknown_one_lists_those_there_are(monkeypatch):
    monkeypatch.setenv("SPFEM_ROOMS", ROOMS["SPFEM_ROOMS"])
    monkeypatch.setattr(generators, "__path__", list(generators.__path__))
    assert find("tint").CARD.title
    assert "face" not in kinds("generators")
    with pytest.raises(ValueError, match=r"no 'nothing' among the generators; there are icface, ned, sserd, tint"):
        find("nothing")


def test_frozen_priors_guide_it_with_weights_by_kind(trained):
    rows = json.loads((trained[0] / "tint" / "history.json").read_text())
    names = {name for row in rows for name in row["values"]}
    assert {"train/tint/size", "train/guidance/ccrl/content", "train/guidance/cerl/emotion"} <= names
    config = json.loads((trained[0] / "tint" / "model" / "config.json").read_text())
    assert set(config["facts"]["priors"]) == {"ccrl", "cerl"}


def test_it_is_exported_with_the_card_of_its_room(trained, tmp_path):
    well(command("spfem", "export", trained[0], "--out", tmp_path / "model", **ROOMS))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "a toy that tints a face" in card
    assert "A tint of crops of 32 pixels by ibug68 landmarks." in card


def test_it_is_registered_and_edits_a_clip_by_the_name_of_its_model(trained, tmp_path):
    head = talking_head(frames=8)
    clip = film(tmp_path / "talk.mp4", head.frames)
    np.save(tmp_path / "talk.npy", head.landmarks)
    words = [
        "spfem",
        "edit",
        clip,
        "--emotion",
        "happy",
        "--out",
        tmp_path / "out.mp4",
        "--landmarks",
        tmp_path / "talk.npy",
    ]
    done = well(command(*words, "--generator", "models:/tint", MLFLOW_TRACKING_URI=trained[1], **ROOMS))
    before, after = shown(clip)[1], shown(tmp_path / "out.mp4")[1]
    assert len(after) == len(before), done.out
    assert after[4].astype(int).mean() > before[4].astype(int).mean() + 5, "the face is tinted"


def test_the_package_does_not_know_its_name():
    package = Path(__file__).resolve().parents[2] / "spfem_dist"
    assert not [
        path for path in package.rglob("*.py") if '"tint"' in path.read_text() or "generators.tint" in path.read_text()
    ]
