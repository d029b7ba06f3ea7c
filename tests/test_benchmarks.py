"""The benchmarks start as a user starts them; those of the steps run in small and print their figures (`make smoke` runs all)."""

import json

import pytest
from doors import ROOT, command, well

NAMES = sorted({file.stem for file in (ROOT / "benchmarks").glob("*.py")} - {"figures"})


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_finds_all_that_it_imports(name):
    assert "usage:" in well(command("python", f"benchmarks/{name}.py", "--help")).out


def test_the_kill_matrix_finds_all_that_it_imports():
    assert "usage:" in well(command("python", "tests/chaos", "--help")).out


def test_a_command_of_the_tests_finds_no_recipe_as_a_module(tmp_path):
    (tmp_path / "script.py").write_text("import cdrl_stage1")
    assert "No module named 'cdrl_stage1'" in command("python", tmp_path / "script.py").err


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["step", "stage2_step"])
def test_a_short_benchmark_compares_both_sides(name):
    done = well(command("python", f"benchmarks/{name}.py", "--smoke"))
    facts = json.loads(done.out.strip().splitlines()[-1])
    assert facts["benchmark"] == name
    assert facts["ratio"] == pytest.approx(facts["ours_s"] / facts["plain_s"])


@pytest.mark.nightly
def test_a_table_of_shards_is_opened_faster_than_a_list_of_fewer():
    done = well(command("python", "benchmarks/index.py", "--smoke"))
    listed, tabled = (json.loads(line) for line in done.out.splitlines() if line.startswith("{"))
    assert tabled["shards"] == 10 * listed["shards"]
    assert tabled["load_s"] < listed["load_s"]
    assert tabled["samples_per_epoch"] == 4 * tabled["groups"]
