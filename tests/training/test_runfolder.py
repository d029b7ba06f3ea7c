"""A run's name means one run: it resumes what it started, and refuses what would give other losses."""

import json
from typing import Annotated

import pytest
from cdrl_stage1 import CDRLPriors
from cdrl_stage2 import CDRLGenerator

from spfem_dist.config import JobSettings, Operational, Run
from spfem_dist.evaluation.judges.settings import JudgesRun
from spfem_dist.training.runfolder import RunConflict, RunFolder, binding_changes, changed_fields, set_aside


def run_in(tmp_path, **changes) -> CDRLPriors:
    return CDRLPriors.model_validate({"name": "r", "checkpoint": {"storage": str(tmp_path)}} | changes)


def test_a_new_name_starts_and_a_known_name_resumes(tmp_path):
    assert RunFolder(run_in(tmp_path)).open() is False
    assert RunFolder(run_in(tmp_path)).open() is True


def test_other_losses_under_one_name_are_refused_with_the_field(tmp_path):
    folder = RunFolder(run_in(tmp_path))
    folder.open()
    folder.write("ccrl/state.json", {"status": "running"})
    with pytest.raises(RunConflict, match=r"--ccrl.temperature: was 0.07, now 0.5"):
        RunFolder(run_in(tmp_path, ccrl={"temperature": 0.5})).open()
    assert CDRLPriors.model_validate(RunFolder(run_in(tmp_path)).read("run.json")).ccrl.temperature == 0.07, (
        "nothing was lost"
    )


def test_a_start_that_failed_before_training_does_not_bind_the_name(tmp_path):
    RunFolder(run_in(tmp_path, data={"split": "nobody"})).open()
    assert RunFolder(run_in(tmp_path)).open() is True
    assert RunFolder(run_in(tmp_path)).read("run.json")["data"]["split"] == "synthetic"


def test_where_a_run_trains_may_change(tmp_path):
    RunFolder(run_in(tmp_path)).open()
    assert RunFolder(run_in(tmp_path, scaling={"workers": 1}, tracking={"uri": ""})).open() is True


@pytest.mark.parametrize("kind", [CDRLPriors, CDRLGenerator, JudgesRun])
def test_how_any_job_is_cut_and_whether_it_trains_may_change(kind, tmp_path):
    known = kind.model_validate({"name": "r", "checkpoint": {"storage": str(tmp_path)}})
    for job in known.jobs():
        other = known.model_copy(deep=True)
        getattr(other, job).enabled, getattr(other, job).micro_batch = False, 2
        assert len(changed_fields(known, other)) == 2
        assert binding_changes(known, other) == []
        getattr(other, job).global_batch *= 2
        assert [field for field, _, _ in binding_changes(known, other)] == [f"{job}.global_batch"]


def test_a_setting_says_itself_whether_it_may_change(tmp_path):
    class Method(JobSettings):
        readers: Annotated[int, Operational] = 1
        width: int = 1

    class MethodRun(Run):
        method: Method = Method()

    known, other = MethodRun(name="r"), MethodRun(name="r", method={"readers": 2, "width": 2})
    assert [field for field, _, _ in binding_changes(known, other)] == ["method.width"]


def test_a_name_that_another_recipe_used_is_refused(tmp_path):
    RunFolder(run_in(tmp_path)).open()
    other = CDRLGenerator.model_validate({"name": "r", "checkpoint": {"storage": str(tmp_path)}})
    with pytest.raises(RunConflict, match=r"is of another recipe or version .*: give another --name"):
        RunFolder(other).open()


def test_changed_fields_are_named_with_dots():
    old, new = CDRLPriors(), CDRLPriors(zero={"stage": 3}, seed=4)
    assert changed_fields(old, new) == [("seed", 0, 4), ("zero.stage", 1, 3)]


def test_a_demo_of_another_seed_is_set_aside_and_comes_back(tmp_path):
    RunFolder(run_in(tmp_path, seed=3)).open()
    set_aside(tmp_path, "r", 4)
    assert not (tmp_path / "r").exists()
    RunFolder(run_in(tmp_path, seed=4)).open()
    set_aside(tmp_path, "r", 3)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["seed"] == 3
    assert json.loads((tmp_path / "r-seed4" / "run.json").read_text())["seed"] == 4
