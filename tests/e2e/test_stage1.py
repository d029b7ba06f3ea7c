"""Stage 1 from prepared shards to scored priors, each way to start it, through the commands that a user types."""

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from documented import words_of
from doors import command, well
from flow import BIN, ENVIRONMENT, EXACT, call, losses, ok

from spfem_dist.training.world import PlainWorld

RECIPE = "recipes/cdrl_stage1.py"


def locally(storage, tracking=True):
    """Words that train run `r` in one process, with its own store beside it."""
    places = ["--checkpoint.storage", storage, "--tracking.uri", f"sqlite:///{storage}/mlflow.db" if tracking else ""]
    return ["python", RECIPE, "--local", "--name", "r", *places]


def signal_to_itself_after_step_six(number):
    show = PlainWorld.show

    def show_and_signal(world, status):
        show(world, status)
        if (status.job, status.step) == ("ccrl", 6):
            os.kill(os.getpid(), number)

    PlainWorld.show = show_and_signal


def killed_after_step_six():
    signal_to_itself_after_step_six(signal.SIGKILL)


def stopped_after_step_six():
    signal_to_itself_after_step_six(signal.SIGTERM)


@pytest.fixture(scope="module")
def local(small, tmp_path_factory):
    """A finished local run: (storage, process)."""
    storage = tmp_path_factory.mktemp("local")
    done = well(command(*locally(storage), *small))
    return storage, done


def test_both_priors_train_and_leave_what_stage_two_needs(local):
    storage, done = local
    for job in ("ccrl", "cerl"):
        assert (storage / "r" / job / "model" / "model.safetensors").exists()
        assert json.loads((storage / "r" / job / "state.json").read_text())["status"] == "finished"
        assert all(value == value for value in losses(storage, "r", job).values())
    assert json.loads((storage / "r" / "run.json").read_text())["ccrl"]["steps"] == 8
    assert "starting run 'r'" in done.out
    assert "data wait" in done.out


@pytest.mark.nightly
def test_torchrun_repeats_the_local_losses_at_zero_three(exact, small, tmp_path):
    launcher = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", RECIPE]
    flags = ["--name", "r", "--checkpoint.storage", tmp_path, "--tracking.uri", "", "--zero.stage", "3", *EXACT]
    ok(call(*launcher, *flags, *small))
    for job in ("ccrl", "cerl"):
        assert losses(tmp_path, "r", job) == pytest.approx(exact[job], abs=1e-5)


def test_the_first_step_is_the_same_in_single_precision_too(local, exact):
    storage, _ = local
    for job in ("ccrl", "cerl"):
        first = {key: value for key, value in losses(storage, "r", job).items() if key[0] == 1}
        assert first == pytest.approx({key: exact[job][key] for key in first}, abs=1e-5)


@pytest.mark.nightly  # in small: chaos/test_chaos.py, faults/test_inject.py
def test_killed_and_started_again_repeats_the_losses_exactly(local, small, tmp_path):
    storage, _ = local
    assert command(*locally(tmp_path), *small, before=killed_after_step_six).code == -signal.SIGKILL
    again = well(command(*locally(tmp_path), *small))
    assert "resuming run 'r'" in again.out
    assert "at step 4" in again.out
    for job in ("ccrl", "cerl"):
        assert losses(tmp_path, "r", job) == losses(storage, "r", job)
    points = sqlite3.connect(tmp_path / "mlflow.db").execute(
        "select run_uuid, key, step, count(*) from metrics where key like 'train/%' group by run_uuid, key, step having count(*) > 1"
    )
    assert points.fetchall() == [], "no point is logged twice"


def test_the_store_holds_a_parent_and_a_child_for_each_prior_with_samples_on_the_axis(local):
    from mlflow import MlflowClient

    storage, _ = local
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("cdrl")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    parent = runs["r"]
    for job, steps in (("ccrl", 8), ("cerl", 6)):
        child = runs[f"r-{job}"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        loss = next(key for key in child.data.metrics if key.startswith(f"train/{job}/"))
        assert [m.step for m in client.get_metric_history(child.info.run_id, loss)] == [
            4 * s for s in range(1, steps + 1)
        ]
        assert child.data.params["zero.stage"] == "1"
        for run in (child, parent):  # MLflow writes ~ for / in a picture's key
            assert any(f.path.startswith(f"images/{job}~") for f in client.list_artifacts(run.info.run_id, "images"))
    assert parent.info.status == "FINISHED"


def test_finished_priors_are_registered_as_models_that_stage_two_can_name(local):
    from mlflow import MlflowClient

    storage, _ = local
    store = f"sqlite:///{storage}/mlflow.db"
    client = MlflowClient(store, registry_uri=store)
    assert {m.name for m in client.search_registered_models()} >= {"ccrl", "cerl"}


def test_the_dry_run_says_what_would_happen_and_trains_nothing(local, small, tmp_path):
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = ok(
        call(
            sys.executable,
            RECIPE,
            "--dry-run",
            "--name",
            "fresh",
            "--checkpoint.storage",
            tmp_path,
            "--tracking.uri",
            f"sqlite:///{tmp_path}/m.db",
            *small,
        )
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = spent.ru_utime + spent.ru_stime - began.ru_utime - began.ru_stime
    for part in (
        "4 = 2 x 1 x 2",
        "GFLOP",
        "under ZeRO-1",
        "groups used",
        "writable",
        "would start a run",
        "nothing was trained",
    ):
        assert part in " ".join(done.stdout.split()), part
    assert not (tmp_path / "fresh").exists()
    assert seconds < 40, "of processor time, which a busy machine stretches little; an idle one needs under 20"
    storage, _ = local
    known = well(command(*locally(storage, tracking=False), "--dry-run", *small))
    assert "it would resume" in known.out


def test_the_priors_are_scored_and_reported(local):
    storage, _ = local
    done = well(command("spfem", "evaluate", "priors", storage / "r", "--probe-groups", "4"))
    summary = json.loads((storage / "r" / "summary.json").read_text())
    for path in (
        "content/same_speech_auc",
        "content/same_speech_top1",
        "content/own_speech_top1",
        "content/viseme_r2",
        "emotion/accuracy",
        "emotion/mouth_opening_r2",
    ):
        node = summary["priors"]
        for key in path.split("/"):
            node = node[key]
        assert isinstance(node, float), path
    assert summary["corpus"]["dtw_within_2"] > 0.8
    assert "same_speech_auc" in done.out
    assert "<svg" in (storage / "r" / "report.html").read_text()


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


def secured(home):
    """The variables that the pages set for a cluster, with a home of its own for the token."""
    (setting,) = [word for word in words_of("export SPFEM_HOME=$PWD RAY_AUTH_MODE=token") if word.startswith("RAY")]
    return {"HOME": str(home)} | dict([setting.split("=")])


def start_head(home, folder):
    """(process, dashboard's address) of a new Ray head node that takes jobs, or (process, None) where it ended instead."""
    port, dashboard, client, agent = free_ports(4)
    words = ["start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--port", port]
    # A folder of its own: the usual one goes on naming a head that is gone to every Ray on this machine. Short, since
    # the paths of sockets may have 107 characters at most.
    words += ["--temp-dir", folder]
    words += ["--dashboard-port", dashboard, "--ray-client-server-port", client, "--dashboard-agent-listen-port", agent]
    environment = ENVIRONMENT | {"SPFEM_HOME": str(home), **secured(home)}
    token = ok(call(*words_of("ray get-auth-token --generate > /dev/null")[:-2], **secured(home))).stdout.strip()
    head = subprocess.Popen(
        [str(BIN / "ray"), *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and head.poll() is None:
        asked = urllib.request.Request(f"{address}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"})
        with suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            if '"ALIVE"' in answer.read().decode():
                return head, address
        time.sleep(0.5)
    return head, None


@pytest.fixture
def cluster(tmp_path):
    """A head node of its own, started as a user starts it; ended by its process, since `ray stop` would end every Ray here.

    Ray gives the parts of a node 15 s to start and ends it otherwise, which a busy machine may need: hence the attempts.
    """
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            head, address = start_head(tmp_path, folder)
            try:
                if address:
                    yield address
                    return
            finally:
                parts = psutil.Process(head.pid).children(recursive=True)  # asked kindly, they take half a minute to go
                for part in (psutil.Process(head.pid), *parts):
                    with suppress(psutil.NoSuchProcess):
                        part.kill()
                head.wait(60)
    pytest.fail("the head node did not start in three attempts")


@pytest.mark.nightly
def test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder(cluster, exact, small, tmp_path):
    words = words_of("ray job submit --working-dir . -- python recipes/cdrl_stage1.py")
    submit = [*words[:3], "--address", cluster, *words[3:]]
    stranger = call(*submit[:5], "--", "true", RAY_AUTH_MODE="disabled", HOME=str(tmp_path / "stranger"))
    assert stranger.returncode != 0, "who has no token runs nothing"
    flags = ["--name", "job", "--ccrl.enabled", "False", "--tracking.uri", "", *EXACT, *small]
    done = ok(call(*submit, *flags, **secured(tmp_path)))
    assert "starting run 'job'" in done.stdout
    assert "cerl 6/6" in done.stdout, "the status line reaches the person who submitted the job"
    assert (tmp_path / "runs" / "job" / "cerl" / "model" / "model.safetensors").exists()
    assert losses(tmp_path / "runs", "job", "cerl") == pytest.approx(exact["cerl"], abs=1e-5)


def test_sigterm_leaves_a_checkpoint_and_a_run_marked_as_stopped(small, tmp_path):
    stopped = command(*locally(tmp_path), *small, "--ccrl.steps", "5000", before=stopped_after_step_six)
    assert stopped.code == 130, stopped.said
    state = json.loads(Path(tmp_path / "r" / "ccrl" / "state.json").read_text())
    assert state["status"] == "stopped"
    statuses = dict(sqlite3.connect(tmp_path / "mlflow.db").execute("select name, status from runs").fetchall())
    assert statuses == {"r": "KILLED", "r-ccrl": "KILLED"}
