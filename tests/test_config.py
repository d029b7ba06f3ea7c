"""The configuration refuses what cannot work, and says how to mend it."""

import subprocess
import sys
from pathlib import Path

import pytest
from cdrl_stage1 import CDRLPriors
from doors import command, well
from pydantic import ValidationError

from spfem_dist.config import Data, Zero
from spfem_dist.training.launch import parse

ROOT = Path(__file__).resolve().parents[1]


def recipe() -> CDRLPriors:
    return CDRLPriors(name="test")


def test_every_field_says_what_it_means():
    def walk(model, path=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from walk(field.annotation, f"{path}{name}.")
            else:
                yield f"{path}{name}", field.description

    silent = [name for name, description in walk(CDRLPriors) if not description]
    assert silent == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scaling": {"workers": 13}}, "use at most 12 workers"),
        ({"scaling": {"workers": (2, 13)}}, "use at most 12 workers"),
        ({"scaling": {"workers": (8, 2)}}, "use 2 8"),
        ({"name": "a/b"}, "becomes a folder"),
        ({"zero": {"stage": 7}}, "Input should be 0, 1, 2 or 3"),
        ({"data": {"shard": "x"}}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_are_refused_with_the_fix(change, says):
    base = CDRLPriors(name="x", ccrl={"global_batch": 12}, cerl={"global_batch": 12}).model_dump()
    for key, value in change.items():
        base[key] = base[key] | value if isinstance(value, dict) else value
    with pytest.raises(ValidationError) as refused:
        CDRLPriors.model_validate(base)
    assert says in str(refused.value)


def test_an_even_speech_window_is_refused_with_the_next_odd_one():
    with pytest.raises(ValidationError, match="use 5"):
        Data(speech_window=4)


def test_offload_without_sharding_is_refused():
    with pytest.raises(ValidationError, match=r"zero.stage to 1, 2 or 3"):
        Zero(stage=0, offload="cpu")


def test_any_field_can_be_overridden_on_the_command_line():
    options = parse(recipe, ["--data.shards", "s3://b/x", "--zero.stage", "2", "--ccrl.optimizer.lr", "0.5", "--local"])
    assert (options.run.data.shards, options.run.zero.stage, options.run.ccrl.optimizer.lr) == ("s3://b/x", 2, 0.5)
    assert options.local
    assert options.run.name == "test", "what is not overridden stays as the recipe set it"


@pytest.mark.parametrize(("words", "workers"), [(["2"], 2), (["2", "8"], (2, 8))])
def test_workers_are_one_number_or_two(words, workers):
    run = parse(recipe, ["--ccrl.global-batch", "12", "--cerl.global-batch", "12", "--scaling.workers", *words]).run
    assert run.scaling.workers == workers
    assert (run.scaling.least, run.scaling.most) == (int(words[0]), int(words[-1]))
    assert CDRLPriors.model_validate(run.model_dump(mode="json")) == run


def test_an_unknown_flag_is_answered_with_the_nearest_one(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(recipe, ["--zero.stag", "2"])
    assert ended.value.code == 2
    assert "--zero.stage" in capsys.readouterr().err


def test_an_impossible_override_ends_with_the_fix_and_no_traceback(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(recipe, ["--scaling.workers", "13"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "use at most" in error


def test_local_paths_become_absolute_and_urls_stay():
    run = CDRLPriors(data={"shards": "s3://bucket/mead"}, checkpoint={"storage": "runs"}).absolute()
    assert run.data.shards == "s3://bucket/mead"
    assert Path(run.checkpoint.storage).is_absolute()
    assert run.tracking.uri.startswith("sqlite:////")


def test_a_setting_that_may_be_a_name_or_an_address_becomes_absolute_only_where_it_is_a_path(monkeypatch):
    monkeypatch.setenv("SPFEM_HOME", "/data")
    changes = {"data": {"split": "mine.json", "cache": ""}, "tracking": {"uri": "http://host:5000", "samples": "seen"}}
    run = CDRLPriors(**changes).absolute()
    assert (run.data.split, run.data.cache, run.tracking.samples) == ("/data/mine.json", "", "/data/seen")
    assert (run.tracking.uri, CDRLPriors().absolute().data.split) == ("http://host:5000", "synthetic")


def test_recipes_are_short_and_say_how_they_are_run():
    for file in sorted((ROOT / "recipes").glob("*.py")):
        text = file.read_text()
        # The demo strings recipes together; the leaderboard is an experiment of many runs.
        limit = {"demo.py": 120, "leaderboard.py": 385}.get(file.name, 95)
        assert len(text.splitlines()) < limit, f"{file.name} is longer than a recipe"
        assert f"python recipes/{file.name}" in text, f"{file.name} does not open with the commands that run it"


def test_help_lists_every_section():
    shown = subprocess.run(
        [sys.executable, "recipes/cdrl_stage1.py", "--help-all"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for flag in ("--data.shards", "--zero.stage", "--scaling.workers", "--ccrl.steps", "--dry-run", "--local"):
        assert flag in shown.stdout


def test_every_setting_is_printed_as_json_with_absolute_paths_and_without_passwords():
    uri = "postgresql://ann:canary-7c1/d@db.example/mlflow"
    done = well(command("python", "recipes/cdrl_stage1.py", "--print-config", "--seed", "3", MLFLOW_TRACKING_URI=uri))
    printed = CDRLPriors.model_validate_json(done.out)
    assert (printed.seed, printed.data.shards) == (3, str(ROOT / "shards" / "synthetic"))
    assert "db.example" in printed.tracking.uri
    assert "canary" not in done.said


def test_a_job_in_an_uploaded_folder_must_say_where_relative_paths_start(tmp_path, monkeypatch):
    upload = tmp_path / "working_dir_files" / "x"
    upload.mkdir(parents=True)
    monkeypatch.chdir(upload)
    monkeypatch.delenv("SPFEM_HOME", raising=False)
    with pytest.raises(ValueError, match="export SPFEM_HOME"):
        CDRLPriors().absolute()
    monkeypatch.setenv("SPFEM_HOME", str(tmp_path))
    assert CDRLPriors().absolute().checkpoint.storage == str(tmp_path / "runs")
