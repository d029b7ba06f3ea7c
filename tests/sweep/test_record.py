"""What a sweep keeps: its trials by name, what became of them, and the refusal of another search under its name."""

import json

import pytest
from doors import command, well
from planted_recipe import planted
from toy_runs import alone

from spfem_dist.sweep import FAILED, FINISHED, STOPPED
from spfem_dist.sweep.command import Options
from spfem_dist.sweep.record import Plan, Sweep
from spfem_dist.sweep.search import scheduler_of
from spfem_dist.sweep.show import command as again
from spfem_dist.sweep.show import picture, table
from spfem_dist.sweep.space import parse
from spfem_dist.training.lock import RunConflict

RATE = "first.optimizer.lr"
RECIPE = "tests/sweep/planted_recipe.py"


def sweep_in(storage, space=f"{RATE}=loguniform:0.01,0.4", **plan):
    run = planted()
    run.checkpoint.storage = str(storage)
    return Sweep(Plan("search", "val/toy/error", **plan), run, parse(run, [space]))


def ended(storage, *rows):
    """A sweep whose trials ended so: (how, figure, samples)."""
    sweep = sweep_in(storage, trials=len(rows))
    sweep.open()
    for trial, (how, figure, samples) in zip(sweep.trials, rows, strict=True):
        trial.ended, trial.figure, trial.samples = how, figure, samples
    sweep.write()
    return sweep


def test_a_sweep_goes_on_with_what_is_left_and_may_grow(tmp_path):
    first = ended(tmp_path, (FINISHED, 0.2, 96), (FAILED, None, 0), ("", 0.5, 8))
    later = sweep_in(tmp_path, trials=5)
    assert later.open()
    assert [trial.name for trial in later.pending()] == [f"search-t00{k}" for k in (1, 2, 3, 4)]
    assert [trial.values for trial in later.trials[:3]] == [trial.values for trial in first.trials]
    assert later.trials[0].figure == 0.2


@pytest.mark.parametrize(
    ("other", "said"),
    [({"space": f"{RATE}=loguniform:0.01,0.3"}, "space: was"), ({"scheduler": "none"}, "scheduler: was 'asha'")],
)
def test_another_search_under_its_name_is_refused(tmp_path, other, said):
    ended(tmp_path, (FINISHED, 0.2, 96))
    with pytest.raises(RunConflict, match=said):
        sweep_in(tmp_path, **{"trials": 1} | other).open()


def test_another_run_under_its_trials_is_refused_and_where_it_trains_may_change(tmp_path):
    ended(tmp_path, (FINISHED, 0.2, 96))
    changed = sweep_in(tmp_path, trials=1)
    changed.base.data.threads = 7
    assert changed.open()
    changed.base.first.steps = 30
    with pytest.raises(RunConflict, match=r"--first.steps: was 24, now 30"):
        changed.open()


def test_the_best_has_trained_to_its_end_and_its_command_is_the_recipes_own(tmp_path):
    sweep = ended(tmp_path, (FINISHED, 0.2, 96), (STOPPED, 0.1, 16), (FINISHED, 0.3, 96), (FAILED, 0.0, 4))
    best = sweep.best()
    assert best is sweep.trials[0]
    line = again(sweep, "cdrl_stage1", ["--seed", "3", "--tracking.uri", "http://me:secret@host"], local=True)
    rate = best.values[RATE]
    assert line.startswith("python recipes/cdrl_stage1.py --seed 3")
    assert line.endswith(f"--first.optimizer.lr {rate} --name search-best --local")
    assert "secret" not in line
    assert [trial.name[-1] for trial in sweep.ranked()] == ["1", "0", "2", "3"]
    assert table(sweep).row_count == 4
    assert len(picture(sweep).axes) == 1


def test_trials_of_a_later_start_are_held_against_those_of_an_earlier_one(tmp_path):
    """Of three at 16 samples the fourth is the worst: ASHA, which has forgotten nothing, stops it."""
    sweep = ended(tmp_path, *[(STOPPED, figure, 16) for figure in (0.1, 0.2, 0.3)])
    for trial in sweep.trials:
        place = tmp_path / trial.name / "first"
        place.mkdir(parents=True)
        rows = [{"samples": 16, "values": {"val/toy/error": trial.figure}}]
        (place / "validation.json").write_text(json.dumps({"rows": rows}))
    asha = scheduler_of(sweep)
    decisions = []
    for figure in (0.05, 0.9):
        trial = type("New", (), {"trial_id": f"new-{figure}"})
        asha.on_trial_add(None, trial)
        decisions.append(asha.on_trial_result(None, trial, {"samples": 16, "val/toy/error": figure}))
    assert decisions == ["CONTINUE", "STOP"]


def test_a_training_run_is_no_sweep(tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "run.json").write_text("{}")
    with pytest.raises(RunConflict, match="is a training run"):
        sweep_in(tmp_path).open()


def test_a_run_leaves_its_held_out_figures_while_it_trains(tmp_path):
    """Killed before its end, and gone on with: every validation is there once."""
    words = ["--tracking.held-out", "True", "--validation.every-steps", "5", "--first.steps", "15"]
    assert alone(tmp_path, *words, SPFEM_TOY_SIGNAL="12:KILL").code != 0
    file = tmp_path / "toy" / "first" / "validation.json"
    assert [row["samples"] for row in json.loads(file.read_text())["rows"]] == [40, 80]
    well(alone(tmp_path, *words))
    rows = json.loads(file.read_text())["rows"]
    assert [row["samples"] for row in rows] == [40, 80, 120]
    assert set(rows[0]["values"]) == {"val/toy/error", "val/toy/first_sample"}


def test_the_dry_run_shows_the_trials_and_starts_nothing(tmp_path):
    words = ["--space", f"{RATE}=grid:0.1,0.2", "--metric", "val/toy/error", "--checkpoint.storage", tmp_path]
    shown = well(command("python", "recipes/sweep.py", RECIPE, *words, "--local", "--dry-run"))
    assert "2 trials of toy, 0 of them ended" in shown.said
    assert "t001" in shown.said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metric", "train/toy/error"], "is no held-out figure"),
        (["--metric", "val/toy/error", "--validation.every-steps", "0"], "give --validation.every-steps"),
        (["--metric", "val/toy/error", "--scheduler", "pbt", "--second.enabled", "True"], "trains first and second"),
        (["--metric", "val/toy/error", "--trials", "0"], "--trials 0: at least 1"),
        (["--metric", "val/toy/error", "--first.step", "3"], "--first.step"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(tmp_path, words, said):
    space = ["--space", f"{RATE}=grid:0.1,0.2", "--checkpoint.storage", tmp_path]
    done = command("python", "recipes/sweep.py", RECIPE, *space, *words, "--local", "--dry-run")
    assert done.code in (1, 2)
    assert said in done.said
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_the_command_says_what_it_is():
    shown = well(command("python", "recipes/sweep.py", "--help")).said
    assert all(
        f"--{name.replace('_', '-')}" in shown for name in vars(Options)["__dataclass_fields__"] if name != "recipe"
    )
