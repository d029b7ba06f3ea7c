"""`spfem plan`: measured on this machine by real short runs, from a file, from assumptions."""

import json
from pathlib import Path

import pytest
from documented import words_of
from doors import command, well

from spfem_dist.planning.constants import read

TOY = Path(__file__).parents[1] / "training" / "toy_recipe.py"
RECIPE = "recipes/cdrl_stage1.py"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(constants file, what the command printed): two processes measured on the toy recipe."""
    folder = tmp_path_factory.mktemp("plan")
    file, line = folder / "constants.json", f"spfem plan {RECIPE} --measure --save constants.json --workers 1 2 8 64"
    places = {RECIPE: TOY, "constants.json": file}
    small = ["--shares", "2", "4", "8", "--steps", "6", "--checkpoint.storage", folder / "runs", "--json"]
    done = well(command(*words_of(line, places), *small, timeout=500))
    assert list((folder / "runs").iterdir()) == []
    return file, done


@pytest.mark.nightly
def test_a_machine_is_measured_alone_side_by_side_and_together(measured):
    constants = read(measured[0])
    job = constants.jobs["first"]
    assert (constants.kind, constants.processes, sorted(job.measured)) == ("measured", 2, [2, 4, 8])
    assert job.fixed_s + job.sample_s > 0
    assert job.contention[2] >= 1
    assert constants.latency_s > 0
    assert constants.storage_write > 0
    # ZeRO-1 sums the gradients of all 1,153 parameters and gathers what each worker updated.
    assert job.collectives["all_reduce"].bytes >= 4 * 1153
    assert job.collectives["all_gather"].calls >= 1


@pytest.mark.nightly
def test_the_plan_says_which_sizes_cannot_be_and_predicts_the_others(measured):
    _, done = measured
    rows = json.loads(done.out)["predictions"]["first"]
    assert [row["workers"] for row in rows] == [1, 2, 8]
    assert rows[0]["exchange_s"] == 0
    assert 0 < rows[1]["exchange_s"] < rows[1]["step_s"]
    assert rows[0]["samples_per_s"] == pytest.approx(rows[0]["global_batch"] / rows[0]["step_s"])
    assert "cannot be shared by 64 workers" in done.said


@pytest.mark.nightly
def test_a_plan_from_a_file_keeps_each_workers_share(measured):
    line = f"spfem plan {RECIPE} --constants constants.json --workers 64 1024 --per-worker 8"
    done = well(command(*words_of(line, {RECIPE: TOY, "constants.json": measured[0]}), "--json"))
    rows = json.loads(done.out)["predictions"]["first"]
    assert [(row["global_batch"], row["share"]) for row in rows] == [(512, 8), (8192, 8)]


@pytest.mark.nightly
def test_the_largest_size_is_simulated_and_what_breaks_first_is_said(tmp_path):
    line = f"spfem plan {RECIPE} --assume h100 --workers 64 1024 --per-worker 8 --simulate --graphs scale.svg"
    words = words_of(line, {RECIPE: TOY, "scale.svg": tmp_path / "scale.svg"})
    done = well(command(*words, "--hours", "0.2", "--lost", "0.1", "--until", "128", "--json", timeout=500))
    facts = json.loads(done.out)
    found, planned = facts["simulated"]["first"], facts["predictions"]["first"][-1]
    assert found["lost_hosts"] == 1
    assert found["step_s"] == pytest.approx(planned["step_s"], rel=0.1)
    assert found["samples_per_s"] < planned["samples_per_s"]
    assert {64, 128} == {int(n) for n in found["limits"]["S3 refuses requests of checkpoints (503)"]["values"]}
    assert "1,024 workers, 0.2 hours simulated" in done.said
    assert (tmp_path / "scale-first.svg").stat().st_size > 1000


def test_assumptions_are_called_so_and_a_missing_constant_is_named():
    done = well(command(*words_of(f"spfem plan {RECIPE} --assume h100 --workers 8 64 --per-worker 8", {RECIPE: TOY})))
    assert "assumed, not measured" in done.said
    assert "data sheet" in done.said
    refused = command("spfem", "plan", TOY)
    assert (refused.code, "--measure" in refused.err) == (1, True)
    assert command("spfem", "plan", "README.md").code == 1
    nowhere = command("spfem", "plan", "no/recipe.py")
    assert "there is no recipe no/recipe.py" in nowhere.err
