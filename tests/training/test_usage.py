"""The help of a recipe fits a screen, and `spfem train` finds recipes without a checkout."""

import subprocess
import sys
import zipfile

import pytest
from doors import ROOT, command, well


@pytest.mark.parametrize("recipe", ["cdrl_stage1", "cdrl_stage2", "asccl_stage1", "family_stage1", "metric_nets"])
def test_help_shows_what_people_use_first_and_fits_80_columns(recipe):
    shown = well(command("python", f"recipes/{recipe}.py", "--help", COLUMNS="80"))
    options = shown.out[shown.out.index("\n--") :]
    for option in ("--data.shards", "--scaling.workers", "--checkpoint.storage", "--tracking.uri", "--dry-run"):
        assert f"\n{option} " in options
    assert all(len(line) <= 80 for line in options.splitlines())
    assert len(options.splitlines()) < 45
    assert "--help-all" in options


def test_help_all_shows_every_option():
    shown = well(command("python", "recipes/cdrl_stage1.py", "--help-all"))
    assert "--data.decoded-cache-mb" in shown.out
    assert "--checkpoint.keep-best" in shown.out


@pytest.mark.parametrize("asked", ["--help", "--help-all"])
def test_help_shows_no_password_of_the_environment(asked):
    uri = "postgresql://ann:canary-7c1/d@db.example/mlflow"
    shown = well(command("python", "recipes/cdrl_stage1.py", asked, MLFLOW_TRACKING_URI=uri))
    assert "db.example" in shown.said
    assert "canary" not in shown.said


def test_train_runs_a_recipe_by_name_from_any_folder(tmp_path):
    here = command("python", str(ROOT / "recipes/cdrl_stage2.py"), "--help", cwd=tmp_path)
    named = command("spfem", "train", "cdrl_stage2", "--help", cwd=tmp_path)
    assert well(named).out.split("\n", 1)[1] == well(here).out.split("\n", 1)[1]


def test_train_without_a_recipe_lists_those_that_there_are_and_a_wrong_name_is_refused_with_them():
    listed = well(command("spfem", "train"))
    wrong = command("spfem", "train", "cdrl_stage9")
    for recipe in (ROOT / "recipes").glob("*.py"):
        assert recipe.stem in listed.out
        assert recipe.stem in wrong.err
    assert wrong.code == 1
    assert "there is no recipe cdrl_stage9" in wrong.said


def test_the_wheel_holds_the_recipes(tmp_path):
    """Built as pip builds it from a checkout, but with what is installed here."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*build, "-w", tmp_path, ROOT], capture_output=True, text=True)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("no setuptools here to build with")
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for recipe in (ROOT / "recipes").glob("*.py"):
        assert f"spfem_dist/recipes/{recipe.name}" in names
    assert not any(name.startswith(("recipes/", "tests/")) for name in names)


def test_the_shell_can_complete_commands_and_options():
    script = well(command("spfem", "--tyro-print-completion", "bash")).out
    for word in ("evaluate", "weights", "--strength"):
        assert word in script


def test_version_is_said():
    assert well(command("spfem", "--version")).out.startswith("spfem-dist ")
