"""Who may do what on the chart's MLflow: its first user everything, the Ray pods' user what is their own."""

import base64
import configparser
import os
import subprocess
import sys

import mlflow
import pytest
from charts import environment, of_kind, one, pods, rendered
from mlflow.exceptions import MlflowException
from mlflow_server import mlflow_server

ADMIN = {
    "MLFLOW_AUTH_ADMIN_USERNAME": "spfem",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "a-first-users-password",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
}
RAY = {"RAY_USERNAME": "ray", "RAY_PASSWORD": "a-ray-users-password"}


def make_users(folder, uri: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    """The init container's own command, with those variables and `python` on its PATH."""
    pod = pods(rendered())["demo-spfem-mlflow"]["spec"]
    [users] = [container for container in pod["initContainers"] if container["name"] == "users"]
    given = {"PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin", "HOME": str(folder)}
    given |= {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"), **variables}
    return subprocess.run(users["command"], env=given, capture_output=True, text=True, timeout=240)


def test_the_ray_pods_log_in_as_a_user_of_their_own_whose_password_is_made_once():
    objects = rendered()
    first, ray = (one(objects, "Secret", f"-mlflow-{name}") for name in ("auth", "client"))
    for secret in (first, ray):
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    passwords = [
        base64.b64decode(secret["data"][key]).decode()
        for secret, key in ((first, "MLFLOW_AUTH_ADMIN_PASSWORD"), (ray, "MLFLOW_TRACKING_PASSWORD"))
    ]
    assert all(len(password) >= 32 for password in passwords)
    assert passwords[0] != passwords[1]
    for name in ("head", "worker-gpu", "test"):
        container = pods(objects)[name]["spec"]["containers"][0]
        for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            assert environment(container)[key] == {"secretKeyRef": {"name": "demo-spfem-mlflow-client", "key": key}}
        assert first["metadata"]["name"] not in str(container)
    shown = str([item for item in objects if item["kind"] != "Secret"])
    assert [password for password in passwords if password in shown] == []


def test_a_secret_of_ones_own_names_the_ray_pods_user():
    objects = rendered({"mlflow": {"auth": {"existingSecret": "users"}, "clientSecret": "me"}})
    assert [item["metadata"]["name"] for item in of_kind(objects, "Secret")] == ["demo-spfem-postgresql"]
    head = pods(objects)["head"]["spec"]["containers"][0]
    assert "MLFLOW_TRACKING_PASSWORD" not in environment(head)
    assert {"secretRef": {"name": "me"}} in head["envFrom"]
    users = pods(objects)["demo-spfem-mlflow"]["spec"]["initContainers"][-1]
    assert {"secretRef": {"name": "users"}} in users["envFrom"]
    assert environment(users)["RAY_PASSWORD"]["secretKeyRef"]["name"] == "me"


def test_the_servers_settings_name_its_database(tmp_path):
    uri = "postgresql+psycopg2://mlflow:p%40ss@host:5432/mlflow"
    said = make_users(tmp_path, uri, ADMIN)
    assert said.returncode == 0, said.stderr
    assert "no user is made" in said.stdout
    file = tmp_path / "basic_auth.ini"
    assert file.stat().st_mode & 0o777 == 0o600
    settings = configparser.ConfigParser()
    settings.read(file)
    assert settings["mlflow"]["database_uri"] == uri
    assert settings["mlflow"]["default_permission"] == "READ"


@pytest.mark.nightly
def test_a_run_writes_what_is_its_own_and_overwrites_no_model_of_others(tmp_path, monkeypatch):
    """MLflow itself with its users, made by the rendered command: of a new database, again, and with another password."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    short = make_users(tmp_path, uri, {**ADMIN, **RAY, "RAY_PASSWORD": "short"})
    assert short.returncode == 1
    assert "the user ray could not be made" in short.stderr
    assert "Traceback" not in short.stderr
    for password in ("an-older-password", RAY["RAY_PASSWORD"]):
        said = make_users(tmp_path, uri, {**ADMIN, **RAY, "RAY_PASSWORD": password})
        assert (said.returncode, said.stdout) == (0, "the Ray pods log in as ray, who is no administrator\n"), (
            said.stderr
        )
    for key, value in {**ADMIN, "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "basic_auth.ini")}.items():
        monkeypatch.setenv(key, value)
    with mlflow_server(uri, tmp_path, "--app-name", "basic-auth") as address:

        def login(name: str, password: str) -> mlflow.MlflowClient:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            return mlflow.MlflowClient(address)

        first = login(ADMIN["MLFLOW_AUTH_ADMIN_USERNAME"], ADMIN["MLFLOW_AUTH_ADMIN_PASSWORD"])
        theirs = first.create_experiment("theirs")
        first.create_registered_model("released")
        with pytest.raises(MlflowException):
            login("ray", "an-older-password").search_experiments()
        ray = login(RAY["RAY_USERNAME"], RAY["RAY_PASSWORD"])
        run = ray.create_run(ray.create_experiment("runs"))
        ray.log_metric(run.info.run_id, "loss", 1.0)
        ray.log_dict(run.info.run_id, {"a": 1}, "a.json")
        ray.create_registered_model("ccrl")
        ray.create_model_version("ccrl", f"runs:/{run.info.run_id}/a.json", run.info.run_id)
        assert ray.get_experiment(theirs).name == "theirs"
        for forbidden in (
            lambda: ray.create_run(theirs),
            lambda: ray.create_model_version("released", f"runs:/{run.info.run_id}/a.json", run.info.run_id),
            lambda: ray.set_registered_model_alias("released", "champion", "1"),
            lambda: ray.delete_registered_model("released"),
        ):
            with pytest.raises(MlflowException, match=r"(?i)permission"):
                forbidden()
