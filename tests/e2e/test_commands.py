"""The documented commands, run: word for word, or with a place exchanged and flags added that make them small."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from documented import words_of
from doors import ROOT, command, well
from filmed import film
from flow import BIN, ENVIRONMENT, call, ok

from spfem_dist.emotions import Emotion
from spfem_dist.shard_format import ShardIndex

CLIPS = ROOT / ".." / "shared" / "clips" / "MEAD"

#: What makes any run of the stage-1 recipe a matter of seconds.
BRIEF = ["--local", "--scaling.workers", "1", "--data.size", "32", "--tracking.log-every-steps", "1"]
BRIEF += ["--ccrl.steps", "3", "--ccrl.global-batch", "2", "--cerl.steps", "3", "--cerl.global-batch", "2"]
BRIEF += ["--validation.every-steps", "0", "--tracking.pictures-every-steps", "0"]


def test_the_synthetic_corpus_is_prepared(tmp_path):
    line = "spfem prepare synthetic --out shards/synthetic"
    few = ["--identities", "1", "--synthetic-sentences", "1", "--local"]
    well(command(*words_of(line, {"shards/synthetic": tmp_path / "out"}, *few)))
    assert len(ShardIndex.load(tmp_path / "out").shards[0].groups[0].recordings) == 7


def test_shards_lie_where_runs_look_for_them(tmp_path):
    """In the container the current folder is the program's, and nobody may write there."""
    here, home = tmp_path / "app", tmp_path / "home"
    here.mkdir()
    few = ["--identities", "1", "--synthetic-sentences", "1", "--local"]
    well(command("spfem", "prepare", "synthetic", *few, cwd=here, SPFEM_HOME=str(home)))
    assert ShardIndex.load(home / "shards" / "synthetic").corpus == "synthetic"
    assert list(here.iterdir()) == []


# --- recordings of the recorded corpora, filmed here --------------------------------------------------------------


@pytest.fixture(scope="session")
def ravdess(films, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recordings") / "RAVDESS"
    codes = {Emotion.NEUTRAL: "01", Emotion.HAPPY: "03", Emotion.ANGRY: "05"}
    for emotion, code in codes.items():
        film(root / "Actor_07" / f"01-01-{code}-01-01-01-07.mp4", films[0, emotion])
    return root


@pytest.fixture(scope="session")
def cremad(films, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recordings") / "CREMA-D"
    codes = {Emotion.NEUTRAL: "NEU", Emotion.HAPPY: "HAP", Emotion.ANGRY: "ANG"}
    for emotion, code in codes.items():
        film(root / "VideoFlash" / f"1001_DFA_{code}_XX.flv", films[0, emotion])
    return root


PREPARE = {
    "mead": "spfem prepare mead /data/MEAD --out shards/mead --size 256 --fps 30",
    "ravdess": "spfem prepare ravdess /data/RAVDESS --out shards/ravdess --size 256 --fps 30",
    "cremad": "spfem prepare cremad /data/CREMA-D --out shards/cremad --size 256 --fps 30",
}


@pytest.fixture(scope="session")
def prepared(request, tmp_path_factory):
    """(corpus) -> its shards, made by the documented command from a few films that are crops already."""
    made: dict[str, Path] = {}

    def prepare(corpus: str) -> Path:
        if corpus not in made:
            root, out = request.getfixturevalue(corpus), tmp_path_factory.mktemp("shards") / corpus
            places = {f"/data/{root.name}": root, f"shards/{corpus}": out}
            well(command(*words_of(PREPARE[corpus], places, "--faces", "aligned", "--local")))
            made[corpus] = out
        return made[corpus]

    return prepare


@pytest.mark.parametrize(("corpus", "groups"), [("mead", 2), ("ravdess", 1), ("cremad", 1)])
def test_a_corpus_is_prepared(prepared, corpus, groups):
    index = ShardIndex.load(prepared(corpus))
    found = [group for shard in index.shards for group in shard.groups]
    assert (index.corpus, index.size, index.fps, len(found)) == (corpus, 256, 30.0, groups)
    for group in found:
        assert {recording.emotion for recording in group.recordings} == {Emotion.NEUTRAL, Emotion.HAPPY, Emotion.ANGRY}
    assert (prepared(corpus) / "rejects.csv").read_text() == "path,reason,detail\n"


@pytest.mark.nightly
@pytest.mark.skipif(not CLIPS.is_dir(), reason="real clips are not beside the repository")
def test_real_clips_train_priors_and_a_generator_that_edits_them(tmp_path):
    out = tmp_path / "shards"
    well(command("spfem", "prepare", "mead", CLIPS, "--out", out, "--sentences", "number", "--local"))
    groups = {group.key: len(group.recordings) for shard in ShardIndex.load(out).shards for group in shard.groups}
    assert groups == {"M003_033": 2, "M012_029": 2, "M012_037": 2, "W015_028": 2, "W015_029": 2, "W015_037": 2}
    flags = ["--data.shards", out, "--data.split", "none", "--checkpoint.storage", tmp_path, "--tracking.uri", ""]
    well(command("python", "recipes/cdrl_stage1.py", "--name", "real", *BRIEF, "--data.size", "64", *flags))
    for job in ("ccrl", "cerl"):
        assert (tmp_path / "real" / job / "model" / "model.safetensors").exists()
        history = json.loads((tmp_path / "real" / job / "history.json").read_text())
        assert all(np.isfinite(value) for row in history for value in row["values"].values())
    line = "python recipes/cdrl_stage2.py --preset laptop --priors runs/mead --data.shards shards/mead --data.split mead_stage1 --name mead-ned"
    places = {"shards/mead": out, "runs/mead": tmp_path / "real", "mead_stage1": "none"}
    brief = [
        "--local",
        "--pretraining.steps",
        "2",
        "--ned.steps",
        "2",
        "--ned.global-batch",
        "2",
        "--scaling.workers",
        "1",
        "--data.size",
        "64",
    ]
    well(command(*words_of(line, places, "--checkpoint.storage", tmp_path, "--tracking.uri", "", *brief)))
    line = "spfem edit talk.mp4 --reference angry.mp4 --out edited.mp4 --generator runs/mead-ned"
    films = {
        "talk.mp4": CLIPS / "M012" / "video" / "front" / "neutral" / "level_1" / "029.mp4",
        "angry.mp4": CLIPS.parent / "references" / "angry_for_M012_029.mp4",
        "edited.mp4": tmp_path / "edited.mp4",
        "runs/mead-ned": tmp_path / "mead-ned",
    }
    edited = well(command(*words_of(line, films)))
    assert "104 frames" in edited.said
    assert (tmp_path / "edited.mp4").stat().st_size > 10_000


# --- weights ------------------------------------------------------------------------------------------------------


def test_weights_are_listed_and_checked(tmp_path):
    place = {"SPFEM_WEIGHTS": str(tmp_path)}
    listed = well(command(*words_of("spfem weights list"), **place))
    for word in ("face-mesh", "Apache-2.0", "not here: spfem weights pull face-mesh", "not here: by hand"):
        assert word in listed.said
    checked = well(command(*words_of("spfem weights check"), **place))
    assert "face-mesh: missing" in checked.said


def test_the_face_mesh_is_pulled(tmp_path):
    place = {"SPFEM_WEIGHTS": str(tmp_path)}
    done = command(*words_of("spfem weights pull face-mesh"), **place)
    if "pip could not download" in done.said:
        pytest.skip("the package index cannot be reached")
    well(done)
    assert "face-mesh: ok" in well(command("spfem", "weights", "check", **place)).said


# --- other ways to start ------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_accelerate_starts_the_recipe(small, tmp_path):
    line = "accelerate launch --multi_gpu --num_processes 2 recipes/cdrl_stage1.py"
    flags = ["--name", "r", "--checkpoint.storage", tmp_path, "--tracking.uri", "", "--cerl.enabled", "False"]
    words = words_of(line, {"recipes/cdrl_stage1.py": "recipes/cdrl_stage1.py"}, *flags, *small)
    place = words.index("recipes/cdrl_stage1.py")
    # Its usual port may be taken by another test.
    done = ok(call(*words[:place], "--main_process_port", "0", *words[place:], DS_ACCELERATOR="cpu"))
    assert "2 processes" in done.stdout
    assert (tmp_path / "r" / "ccrl" / "model" / "model.safetensors").exists()


def test_ray_stop_is_a_command():
    # It ends every Ray on the machine, those of other tests too, so it is asked for its help only.
    assert "--force" in ok(call(*words_of("ray stop"), "--help")).stdout


@pytest.mark.nightly
def test_the_mlflow_ui_shows_runs_and_serves_as_a_tracking_server(prepared, tmp_path):
    line = "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
    port = 5600 + int(time.time()) % 300
    words = words_of(
        line, {"sqlite:///runs/mlflow.db": f"sqlite:///{tmp_path}/mlflow.db"}, "--port", port, "--workers", 1
    )
    address = f"http://127.0.0.1:{port}"
    with open(tmp_path / "ui.log", "w") as log:
        server = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]], cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.time() + 180
            while time.time() < deadline and server.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
                    break
                time.sleep(0.5)
            line = "python recipes/cdrl_stage1.py --tracking.uri http://mlflow.example:5000"
            change = {"http://mlflow.example:5000": address}
            flags = ["--name", "r", "--data.shards", prepared("ravdess"), "--data.split", "none", *BRIEF]
            flags += ["--checkpoint.storage", tmp_path / "runs", "--cerl.enabled", "False"]
            well(command(*words_of(line, change, *flags)))
            asked = urllib.request.Request(
                f"{address}/api/2.0/mlflow/experiments/search",
                data=b'{"max_results": 10}',
                headers={"Content-Type": "application/json"},
            )
            names = [e["name"] for e in json.load(urllib.request.urlopen(asked, timeout=60))["experiments"]]
            assert "cdrl" in names
            page = urllib.request.urlopen(address, timeout=60).read().decode()
            assert "MLflow" in page
        finally:
            server.terminate()
            server.wait(60)


# --- make ---------------------------------------------------------------------------------------------------------


def test_make_format_rewrites_to_style(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "untidy.py").write_text("import sys,os\nprint( os.name,sys.path )\n")
    venv = Path(sys.prefix)
    if not (venv / "bin" / "python").exists():
        pytest.skip("the tests do not run in a virtual environment")
    # What the environment holds is taken as installed: -o says that its stamps are never out of date.
    stamps = [f"-o{venv}/.dev", f"-o{venv}/.run", f"-o{venv}/bin/python"]
    ok(call(*words_of("make format"), *stamps, f"VENV={venv}", cwd=tmp_path))
    assert (tmp_path / "untidy.py").read_text() == "import os\nimport sys\n\nprint(os.name, sys.path)\n"


def make_the_demo_small() -> None:
    """Patch the demo's parts: a corpus of three speakers, a few steps, one process."""
    from functools import partial

    sys.path.insert(0, str(ROOT / "recipes"))
    import cdrl_stage1

    from spfem_dist.evaluation import generator_runs, runs
    from spfem_dist.prepare import plan
    from spfem_dist.training import cluster, launch

    split = Path("split.json")
    part = {"train": ["S00"], "validation": ["S01"], "test": ["S02", "S03"]}
    parts = {name: {"speakers": who, "sentences": ["00", "01"]} for name, who in part.items()}
    split.write_text(json.dumps({"corpus": "synthetic", "description": "four speakers", **parts}))
    from importlib import resources

    known = json.loads((resources.files("spfem_dist.evaluation") / "protocols" / "synthetic.json").read_text())
    ring = {"ring": {"S02": "S03", "S03": "S02"}, "split": str(split.resolve()), "emotions": ["angry"]}
    Path("protocol.json").write_text(json.dumps(known | ring))
    few = {"identities": 4, "synthetic_sentences": 2, "local": True}
    plan.PrepareSettings = partial(plan.PrepareSettings, **few)
    start = launch.start

    def shortly(run, stage, local=True):
        run.scaling.workers, run.data.split = 1, str(split.resolve())
        for job in run.jobs().values():
            job.global_batch, job.steps = 2, 3
        run.validation.every_steps = run.tracking.pictures_every_steps = 0
        return start(run, stage, local=True)

    launch.start, cluster.connect = shortly, lambda run: None
    runs.evaluate_run = partial(runs.evaluate_run, probe_groups=2)
    generator_runs.evaluate_generator = partial(generator_runs.evaluate_generator, protocol="protocol.json")
    assert cdrl_stage1


@pytest.mark.nightly
def test_the_demo_made_small_ends_with_its_figures(tmp_path):
    shown = ok(call("make", "--dry-run", f"-o{Path(sys.prefix)}/.run", f"VENV={sys.prefix}", "demo", "SEED=3")).stdout
    assert re.search(r"recipes/demo\.py --seed 3", shown)
    places = ["--runs", "runs", "--shards", "shards"]
    recipe = ROOT / "recipes" / "demo.py"
    done = well(command("python", recipe, "--seed", "3", *places, cwd=tmp_path, before=make_the_demo_small))
    summary = json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text())
    for title in ("priors", "priors_released"):
        assert 0 <= summary[title]["content"]["same_speech_auc"] <= 1
    assert 0 <= summary["priors"]["emotion"]["accuracy"] <= 1
    assert json.loads((tmp_path / "runs" / "demo" / "run.json").read_text())["seed"] == 3
    assert 0 <= summary["stage2"]["both"]["emotion_accuracy"] <= 1
    assert "stage2" in json.loads((tmp_path / "runs" / "demo-stage2" / "summary.json").read_text())
    assert (tmp_path / "runs" / "demo-edit" / "side.mp4").stat().st_size > 1000
    for words in ("summary.json", "report.html", "mlflow ui --backend-store-uri sqlite:///"):
        assert words in done.said
