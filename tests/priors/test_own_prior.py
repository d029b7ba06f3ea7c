"""A prior that no file of the project names goes the whole way: trained, registered, scored, exported, and it guides a generator."""

import json

import pytest
from doors import ROOMS, command, well
from toy_stage2 import losses, toy_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_of(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Where its run, its MLflow store and the run folder are."""
    place = tmp_path_factory.mktemp("runs")
    words = ["--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32", "--bright.global-batch", "2"]
    words += [
        "--checkpoint.storage",
        place,
        "--tracking.uri",
        f"sqlite:///{place}/mlflow.db",
        "--validation.every-steps",
        "0",
    ]
    words += ["--tracking.system-metrics", "False"]
    well(command("python", "tests/rooms/stage1.py", "--local", *words, **ROOMS))
    return place


def test_it_is_trained_and_registered_by_its_kind(trained):
    config = json.loads((trained / "bright" / "bright" / "model" / "config.json").read_text())
    assert config["kind"] == "brightness"
    assert not config["hears"]
    from mlflow import MlflowClient

    (version,) = MlflowClient(f"sqlite:///{trained}/mlflow.db").search_model_versions("name = 'bright'")
    assert version.tags["kind"] == "prior"


def test_it_is_scored_by_its_own_scores(trained):
    done = well(command("spfem", "evaluate", "priors", trained / "bright", **ROOMS))
    assert "priors/brightness/error" in done.said
    summary = json.loads((trained / "bright" / "summary.json").read_text())
    assert summary["priors"]["brightness"]["error"] >= 0
    assert "mean distance to the true brightness" in (trained / "bright" / "report.html").read_text()


def test_it_is_exported_with_its_card(trained, tmp_path):
    well(command("spfem", "export", trained / "bright", "--out", tmp_path / "out", **ROOMS))
    assert "a prior of brightness" in (tmp_path / "out" / "bright" / "README.md").read_text()


def test_it_guides_a_generator_by_its_weight(toy, trained, tmp_path):
    flags = toy.flags(tmp_path, "--priors", trained / "bright", "--ned.steps", "1", "--ned.guidance.brightness", "0.5")
    well(command("python", "recipes/cdrl_stage2.py", "--local", *flags, **ROOMS))
    names = {name for _, name in losses(tmp_path)}
    assert "train/guidance/brightness/apart" in names


def test_without_its_folder_it_is_named_as_unknown(trained, tmp_path):
    done = command("spfem", "evaluate", "priors", trained / "bright", SPFEM_ROOMS="")
    assert done.code != 0
    assert "brightness" in done.said
    assert "Traceback" not in done.said


def test_weights_of_a_prior_that_is_not_given_are_refused(toy, tmp_path):
    flags = toy.flags(tmp_path, "--priors", toy.stage1, "--ned.guidance.brightness", "0.5")
    done = command("python", "recipes/cdrl_stage2.py", "--dry-run", *flags, **ROOMS)
    assert done.code != 0
    assert "--ned.guidance.brightness is 0.5, and --priors gives" in done.said
