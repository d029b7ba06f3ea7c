"""The package's generator, gone on from on somebody's recordings."""

import json

import pytest
import torch
from doors import ROOT, command, well
from safetensors.torch import load_file

from spfem_dist.generators.load import SHIPPED_FOLDER, load_generator

RECIPE = ROOT / "recipes" / "cdrl_stage2.py"
pytestmark = pytest.mark.nightly  # renders heads first
TUNED = (
    "--local",
    "--pretrained",
    "shipped",
    "--data.shards",
    "shards/mine",
    "--data.split",
    "none",
    "--ned.pairs",
    "20",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the shards of one speaker who says one sentence in seven emotions."""
    place = tmp_path_factory.mktemp("tuning")
    few = ("--identities", "1", "--synthetic-sentences", "1", "--local", "--size", "64", "--seed", "7")
    well(command("spfem", "prepare", "heads", "--out", "shards/mine", *few, cwd=place))
    return place


def test_the_packages_generator_learns_on_from_recordings(folder):
    few = (
        "--name",
        "mine",
        "--ned.steps",
        "2",
        "--ned.global-batch",
        "2",
        "--scaling.workers",
        "1",
        "--tracking.register-models",
        "False",
    )
    well(command("python", RECIPE, *TUNED, *few, cwd=folder))
    made = folder / "runs" / "mine" / "ned" / "model"
    assert load_generator(folder / "runs" / "mine").topology == "mesh478"
    assert json.loads((made / "config.json").read_text())["facts"]["pretrained"] == "shipped"
    before, after = (load_file(place / "model.safetensors") for place in (SHIPPED_FOLDER, made))
    changed = [name for name in before if name in after and not torch.equal(before[name], after[name])]
    assert changed
    # Coefficients mean what they meant before.
    face, own = (load_file(place / "face.safetensors") for place in (SHIPPED_FOLDER, made))
    assert all(torch.equal(face[name], own[name]) for name in face)


def test_faces_of_another_size_are_refused_before_a_step(folder):
    refused = command("python", RECIPE, *TUNED, "--name", "large", "--data.size", "128", cwd=folder)
    assert refused.code == 1
    assert "--pretrained shipped was trained on faces of 64 pixels, data.size is 128" in refused.said
