"""The rendered manifests, run: a job that trains stage 1 and is found in MLflow on PostgreSQL, by the doors that the policies open."""

from __future__ import annotations

import json
import shlex
import subprocess

import psycopg2
import pytest
import requests
from charts import containers, of_kind, one
from forward import forward
from mlflow import MlflowClient
from release import MORE, NAMESPACE, RUN, S3_KEY, Release, logs
from test_network import reaches

PRIORS = ("ccrl", "cerl")


@pytest.fixture(scope="module")
def mlflow(release):
    """A client of MLflow's server, by a forwarded port, as its first user."""
    with forward(release.pod("mlflow").network, 5000) as port, pytest.MonkeyPatch.context() as patch:
        first = release.pod("head").values("Secret", "demo-spfem-mlflow-auth")
        for variable in ("USERNAME", "PASSWORD"):
            patch.setenv(f"MLFLOW_TRACKING_{variable}", first[f"MLFLOW_AUTH_ADMIN_{variable}"])
        yield MlflowClient(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def runs(release, mlflow) -> dict:
    """The MLflow run of each prior, as the run's folder in S3 names it."""
    states = {prior: json.loads(release.read("runs", f"{RUN}/{prior}/state.json")) for prior in PRIORS}
    return {prior: mlflow.get_run(state["mlflow_run"]) for prior, state in states.items()}


def files_of(mlflow: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of every file of a run."""
    found = []
    for entry in mlflow.list_artifacts(run_id, folder):
        found += files_of(mlflow, run_id, entry.path) if entry.is_dir else [entry.path]
    return found


def said(release: Release, part: str, *words: str) -> str:
    """What these words print in the first container of a part's pod, as `kubectl exec` runs them."""
    [container] = list(release.pod(part).running.values())[:1]
    done = subprocess.run(
        container.inside(*words), env=container.environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


# --- the job ----------------------------------------------------------------------------------------------------------


def test_the_job_trains_stage_one_to_its_end(release):
    print(f"seconds: { {what: round(value) for what, value in release.seconds.items()} }")
    print(
        f"containers started again: { {pod.name: pod.restarts for pod in release.pods.pods.values() if pod.restarts} }"
    )
    assert release.status["status"] == "SUCCEEDED"
    assert release.status["entrypoint"] == one(release.objects, "RayJob")["spec"]["entrypoint"]
    followed = release.pod("submitter").text()
    assert "ccrl 8/8" in followed
    assert "cerl 6/6" in followed


def test_a_worker_trained_in_each_worker_pod(release):
    for pod in release.all("worker"):
        folder = pod.volume("tmp") / "ray"
        assert any(
            "RayTrainWorker" in file.read_text(errors="replace") for file in folder.glob("session_*/logs/worker-*.out")
        ), pod.name


@pytest.mark.parametrize("prior", PRIORS)
def test_checkpoints_and_exported_priors_are_in_s3(release, prior):
    keys = release.keys("runs")
    assert f"{RUN}/{prior}/model/model.safetensors" in keys
    assert any(key.startswith(f"{RUN}/{prior}/checkpoint_") for key in keys)


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS)
def test_mlflow_has_the_run_and_its_metrics(release, mlflow, runs, prior):
    assert runs[prior].info.status == "FINISHED"
    history = json.loads(release.read("runs", f"{RUN}/{prior}/history.json"))
    wanted = {name for row in history for name in row["values"] if name.startswith(("train/", "val/"))}
    assert wanted
    assert wanted <= runs[prior].data.metrics.keys()
    name = sorted(wanted)[0]
    points = {point.step: point.value for point in mlflow.get_metric_history(runs[prior].info.run_id, name)}
    assert points == {row["samples"]: pytest.approx(row["values"][name]) for row in history if name in row["values"]}


@pytest.mark.parametrize("prior", PRIORS)
def test_its_artifacts_lie_in_s3(release, mlflow, runs, prior):
    run_id = runs[prior].info.run_id
    files = files_of(mlflow, run_id)
    assert files
    keys = release.keys("mlflow")
    assert [file for file in files if not any(key.endswith(f"{run_id}/artifacts/{file}") for key in keys)] == []


def test_the_pods_user_of_mlflow_is_no_administrator(release):
    secret = release.pod("head").values("Secret", "demo-spfem-mlflow-client")
    login = (secret["MLFLOW_TRACKING_USERNAME"], secret["MLFLOW_TRACKING_PASSWORD"])
    with forward(release.pod("mlflow").network, 5000) as port:

        def ask(name: str, login: tuple[str, str] | None) -> requests.Response:
            address = f"http://127.0.0.1:{port}/api/2.0/mlflow/users/get"
            return requests.get(address, params={"username": name}, auth=login, timeout=60)

        assert ask(login[0], login).json()["user"]["is_admin"] is False
        assert ask("spfem", login).status_code == 403
        assert ask(login[0], None).status_code == 401


def test_postgresql_keeps_the_runs(release, runs):
    password = release.secrets["demo-spfem-postgresql/password"]
    with forward(release.pod("postgresql").network, 5432) as port:
        place = {"host": "127.0.0.1", "port": port, "user": "mlflow", "dbname": "mlflow"}
        with psycopg2.connect(**place, password=password) as connection, connection.cursor() as cursor:
            cursor.execute("select run_uuid from runs where status = 'FINISHED'")
            assert {run.info.run_id for run in runs.values()} <= {row[0] for row in cursor.fetchall()}
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(**place, password="another")


# --- pods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["head", "worker", "mlflow", "postgresql"])
def test_containers_are_users_without_capabilities_on_a_root_that_they_cannot_write(release, part):
    user = release.pod(part).spec["securityContext"]["runAsUser"]
    status = said(release, part, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(user)] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert "Read-only file system" in said(release, part, "touch", "/usr/local/here")
    assert said(release, part, "touch", "/tmp/here") == ""


@pytest.mark.parametrize("part", ["head", "worker"])
def test_shared_memory_has_the_size_that_the_manifest_gives(release, part):
    [size] = [v["emptyDir"]["sizeLimit"] for v in release.pod(part).spec["volumes"] if v["name"] == "dshm"]
    assert said(release, part, "df", "--output=size", "-m", "/dev/shm").split()[-1] == size.removesuffix("Mi")


def test_every_probe_was_asked_and_answered_well(release):
    for part in ("head", "worker", "mlflow", "postgresql"):
        for pod in release.all(part):
            for container in pod.running.values():
                kinds = {kind for kind in container.manifest if kind.endswith("Probe")}
                assert {"readinessProbe", "livenessProbe"} <= kinds
                assert {kind for kind, answers in container.probes.items() if answers} == kinds, pod.name


def test_services_have_their_names(release):
    head = f"{release.cluster['metadata']['name']}-head-svc"
    for service, part in ((head, "head"), ("demo-spfem-mlflow", "mlflow"), ("demo-spfem-postgresql", "postgresql")):
        for name in (
            service,
            f"{service}.{NAMESPACE}",
            f"{service}.{NAMESPACE}.svc",
            f"{service}.{NAMESPACE}.svc.cluster.local",
        ):
            assert said(release, "worker", "getent", "hosts", name).split()[0] == release.pod(part).address, name


# --- networks ---------------------------------------------------------------------------------------------------------


def test_the_policies_refused_nothing_that_the_release_wanted(release):
    """But Ray's head asks whether it is on a cloud, and the metadata service would hand out the node's own role."""
    assert [flow for flow in release.refused if flow.target != "169.254.169.254"] == []


def test_every_connection_is_one_that_the_policies_name(release):
    """What the rules of the kernel let through is read again, by what reads the policies in tests/k8s."""
    names = {
        pod.name: "worker-cpu" if pod in release.all("worker") else pod.labels.get("spfem/component", pod.name)
        for pod in release.pods.pods.values()
    }
    names |= {pod.name: f"demo-spfem-{part}" for part in ("mlflow", "postgresql") for pod in release.all(part)}
    store, operator = release.store.address, release.operator.name
    inside = [flow for flow in release.passed if flow.target != store and flow.source not in (store, operator)]
    told = {(names[flow.source], names[flow.target], flow.port) for flow in inside}
    assert [flow for flow in sorted(told) if not reaches(release.objects, *flow)] == []
    for wanted in (
        ("worker-cpu", "head", 6379),
        ("head", "worker-cpu", 6380),
        ("head", "demo-spfem-mlflow", 5000),
        ("demo-spfem-mlflow", "demo-spfem-postgresql", 5432),
        ("submitter", "head", 8265),
    ):
        assert wanted in told, wanted
    assert any(source == target == "worker-cpu" and port >= 32768 for source, target, port in told), (
        "gradients went nowhere"
    )
    assert {names[flow.source] for flow in release.passed if flow.target == store} == {
        "head",
        "worker-cpu",
        "demo-spfem-mlflow",
    }


@pytest.mark.parametrize(
    ("part", "port"), [("postgresql", 5432), ("mlflow", 5000), ("head", 8265), ("head", 6379), ("worker", 6380)]
)
def test_a_stranger_in_the_namespace_reaches_nothing(release, part, port):
    assert not release.reaches(release.stranger, release.pod(part), port)


def test_ray_does_not_reach_the_database_and_the_operator_reaches_the_dashboard_alone(release):
    assert not release.reaches(release.pod("head"), release.pod("postgresql"), 5432)
    assert not release.reaches(release.operator, release.pod("head"), 6379)
    assert release.reaches(release.operator, release.pod("head"), 8265)
    assert release.reaches(release.pod("mlflow"), release.pod("postgresql"), 5432)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_without_the_token_the_head_says_nothing(release):
    for token in ("", "another"):
        with pytest.raises(AssertionError, match=r"returned error: 40[13]"):
            release.ask_head(token)


def test_secrets_reach_the_containers_that_name_them(release):
    for part in ("head", "worker", "mlflow"):
        [container] = release.pod(part).running.values()
        assert S3_KEY.items() <= container.environment.items()
    assert said(release, "worker", "cat", "/etc/more/WORKERS_OWN_SECRET") == MORE["WORKERS_OWN_SECRET"]
    assert "Read-only" in said(release, "worker", "touch", "/etc/more/another")
    assert MORE.items() <= next(iter(release.pod("worker").running.values())).environment.items()


def test_no_secret_is_printed_logged_or_in_an_object(release):
    secrets = release.secrets
    assert len(secrets) >= 5
    assert all(len(value) > 12 for value in secrets.values())
    texts = {str(file): text for file, text in logs(release).items()}
    assert len(texts) > 20
    texts |= {
        f"{item['kind']} {item['metadata']['name']}": json.dumps(item)
        for item in release.objects
        if item["kind"] != "Secret"
    }
    texts["the job's status"] = json.dumps(release.status)
    found = [(name, place) for place, text in texts.items() for name, value in secrets.items() if value in text]
    assert found == []


def test_no_secret_was_an_argument_of_a_process(release):
    """From the first pod's start on, the migration of the database among them."""
    assert release.looks > 50
    assert release.told == set()


def test_no_secret_is_in_mlflow_or_in_the_runs_folder(release, mlflow, runs, tmp_path):
    bodies = {
        f"s3://{bucket}/{key}": release.read(bucket, key)
        for bucket in ("runs", "mlflow")
        for key in release.keys(bucket)
    }
    for prior, run in runs.items():
        data = run.data
        bodies[f"MLflow's run of {prior}"] = json.dumps([data.params, data.tags, sorted(data.metrics)]).encode()
        assert data.params
    assert len(bodies) > 10
    found = [
        (name, place)
        for place, body in bodies.items()
        for name, value in release.secrets.items()
        if value.encode() in body
    ]
    assert found == []


def test_the_entrypoint_and_every_image_are_the_manifests_own(release):
    """Nothing was exchanged on the way: what ran is what the chart rendered."""
    [job] = of_kind(release.objects, "RayJob")
    assert shlex.quote("/app/recipes/cdrl_stage1.py") in job["spec"]["entrypoint"]
    for pod in release.pods.pods.values():
        for container in containers(pod.manifest):
            assert container["image"].split(":")[0].rsplit("/", 1)[-1] in ("spfem", "mlflow", "postgres")
