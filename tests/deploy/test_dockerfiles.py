"""What cluster/ builds and starts on one machine: linted, valid, and with no secret in it."""

import re
import subprocess
import sys
from pathlib import Path

import compose_spec
import pytest
import yaml
from documented import ROOT

CLUSTER = ROOT / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
BIN = Path(sys.executable).parent
#: What a person writes into cluster/.env.
GIVEN = {"POSTGRES_PASSWORD": "canary1", "S3_ACCESS_KEY": "canary2", "S3_SECRET_KEY": "canary3", "RAY_AUTH_TOKEN": "c4"}


def linted(*words) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, timeout=60)


def test_the_dockerfile_passes_the_linter_and_a_bad_one_does_not(tmp_path):
    done = linted("hadolint", CLUSTER / "Dockerfile")
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.replace("USER 1000:1000", "USER root"))
    assert "DL3002" in linted("hadolint", bad).stdout


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, continued lines joined."""
    found, name = {}, ""
    for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = start[2]
            found[name] = []
        elif name and line and not line.startswith("#"):
            found[name].append(line)
    return found


@pytest.mark.parametrize("name", ["train", "mlflow"])
def test_what_runs_is_not_root_and_holds_no_build(name):
    lines = stages()[name]
    assert "USER 1000:1000" in lines
    assert any(line.startswith('ENTRYPOINT ["tini", ') for line in lines)
    assert any(line.startswith("COPY --from=") for line in lines)
    assert not any("pip install" in line for line in lines)
    assert list(stages())[-1] == "train", "the last stage is what is built where none is named"


def test_a_login_shell_finds_ray():
    """Ray's cluster launcher runs everything by `bash --login`, and Debian's /etc/profile begins PATH anew."""
    (written,) = [line for line in stages()["train"] if "/etc/profile.d/" in line]
    script = re.search(r'echo "([^"]+)" > /etc/profile\.d/\w+\.sh$', written)[1].replace("\\$", "$")
    login = f"PATH=/usr/local/bin:/usr/bin:/bin; {script}; echo $PATH"
    shown = subprocess.run(["/bin/sh", "-c", login], capture_output=True, text=True, timeout=10).stdout
    assert shown.startswith("/opt/venv/bin:")


def test_a_stop_of_the_container_reaches_the_head_node_alone():
    """`tini -g` would tell GCS, raylet and workers at once: no worker could write its checkpoint any more."""
    assert 'ENTRYPOINT ["tini", "--"]' in stages()["train"]


def test_everything_is_installed_by_hash_but_what_pypi_has_not():
    text = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    installs = [part.strip() for part in re.split(r"&&|;;|;|\n", re.sub(r"\\\n", " ", text)) if "pip install" in part]
    free = [part for part in installs if "--require-hashes" not in part]
    assert len(installs) - len(free) == 2
    assert [part.split("pip install ")[1].split()[0] for part in free] == ["--no-deps", "-c", "--no-deps"]
    assert "^torch==" in free[0]
    assert "$EXTRA" in free[1]
    assert "--no-build-isolation" in free[2], "else pip fetches what builds it, unseen"


@pytest.mark.parametrize("name", ["cpu", "gpu", "mlflow"])
def test_a_lock_has_the_versions_of_the_constraints_and_a_hash_for_each(name):
    parts = re.split(r"(?m)^(?=\w)", (CLUSTER / "locks" / f"{name}.txt").read_text())[1:]
    locked = {re.match(r"[\w.-]+", part)[0]: re.match(r"[\w.-]+==([^\s;]+)", part)[1] for part in parts}
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", part) for part in parts)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.partition("#")[0].strip().split("==") for line in lines if "==" in line.partition("#")[0])
    pinned = {re.sub(r"[-_.]+", "-", key).lower(): value for key, value in pinned.items()}
    other = {key: value for key, value in locked.items() if pinned.get(key, value) != value}
    assert not other, "run `make lock`"
    wanted = {
        "cpu": {"deepspeed", "ray", "setuptools"},
        "gpu": {"torch", "nvidia-dali-cuda120"},
        "mlflow": {"flask-wtf"},
    }
    assert wanted[name] <= locked.keys()
    assert ("torch" in locked) == (name == "gpu")


def test_the_build_sees_the_source_and_nothing_else():
    seen = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    named = [line for line in seen if not line.startswith("#")]
    assert named[0] == "*"
    kept = {line.removeprefix("!") for line in named if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE))
    assert {word for line in copied for word in line.split()} <= kept
    assert all((ROOT / name).exists() for name in kept)


# --- compose --------------------------------------------------------------------------------------------------------


def composed(name="compose.yaml", **given) -> dict:
    """The file with its variables put in, as `docker compose config` does."""
    values = GIVEN | given

    def put(found: re.Match) -> str:
        variable, default = found[1], found[3]
        return values.get(variable, default or "")

    text = re.sub(r"\$\{(\w+)(:-|:\?)?([^}]*)\}", put, (CLUSTER / name).read_text())
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_files_follow_the_specification(name):
    read = compose_spec.PyCompose.from_yaml(yaml.safe_dump(composed(name)))
    assert "trainer" in read.service_names()
    wrong = composed(name)
    wrong["services"]["trainer"]["imagee"] = "x"
    with pytest.raises(ValueError, match="imagee"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(wrong))


def test_every_variable_without_a_default_is_in_the_example_and_is_asked_for():
    text = (CLUSTER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    example = dict(line.split("=") for line in (CLUSTER / "compose.env").read_text().splitlines() if "=" in line)
    assert asked == {name for name, value in example.items() if not value} == set(GIVEN)
    assert set(re.findall(r"\$\{(\w+):-", text)) <= example.keys()
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_secrets_are_in_environments_and_in_no_command():
    for service in composed()["services"].values():
        shown = {key: value for key, value in service.items() if key != "environment"}
        assert not [value for value in GIVEN.values() if value in yaml.safe_dump(shown)]


def test_mlflow_reaches_its_database_by_the_driver_that_its_image_has():
    """SQLAlchemy takes `postgresql://` for psycopg 3, and the image holds psycopg2."""
    from sqlalchemy import create_engine

    command = composed()["services"]["mlflow"]["command"][-1]
    uri = re.search(r'MLFLOW_BACKEND_STORE_URI="([^"]+)"', command)[1]
    assert create_engine(uri.replace("$$POSTGRES_PASSWORD", "secret")).dialect.driver == "psycopg2"
    assert "psycopg2-binary==" in (CLUSTER / "locks" / "mlflow.txt").read_text()
    for page in [*(ROOT / "k8s").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md"), *CLUSTER.glob("*.yaml")]:
        bare = [line for line in page.read_text().splitlines() if re.search(r"postgresql://\S*[@.]", line)]
        assert not bare, page


def test_nothing_is_open_to_other_machines_and_nothing_gains_privileges():
    for name, service in composed()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["cap_drop"] == ["ALL"]


def test_every_image_is_pinned_and_what_waits_waits_for_something_that_is_asked():
    services = composed()["services"]
    for name, service in services.items():
        assert "build" in service or re.search(r":[\w.-]*\d[\w.-]*$", service["image"]), name
        for other, wait in service.get("depends_on", {}).items():
            asked = "healthcheck" in services[other] or other == "mlflow"  # its image asks
            assert wait["condition"] == "service_completed_successfully" or asked


# --- what `ray job submit` uploads ------------------------------------------------------------------------------------


def test_a_job_uploads_the_source_alone(tmp_path):
    import shutil
    import zipfile

    from ray._private.runtime_env.packaging import create_package
    from ray._private.runtime_env.validation import parse_and_validate_excludes

    settings = yaml.safe_load((CLUSTER / "runtime_env.yaml").read_text())
    assert parse_and_validate_excludes(settings["excludes"]) == settings["excludes"]
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("spfem_dist", "recipes", "cluster"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)
    planted = (".git/objects/pack", ".env", "runs/mead/a", "shards/mead/0.tar", ".venv/lib/x", "runs/mlflow.db")
    for name in (*planted, "talk.mp4", "cluster/.env", "key.pem", "tests/a.py", "model/model.safetensors"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"canary" * 100_000)
    package = tmp_path / "package.zip"
    create_package(str(tree), package, include_gitignore=False, excludes=settings["excludes"])
    names = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    shipped = "spfem_dist/generators/shipped/model.safetensors"
    assert {"recipes/cdrl_stage1.py", "spfem_dist/config.py", "pyproject.toml", shipped} <= names
    assert not [name for name in names if name.split("/")[-1] in {path.split("/")[-1] for path in planted}]
    assert not names & {"talk.mp4", "key.pem", "tests/a.py", "cluster/.env", "model/model.safetensors"}
    assert package.stat().st_size < 12e6, (
        "bytes: the shipped generator and the head of the rendered corpus are most of it"
    )
