"""Clusters without Kubernetes: what Ray's launcher reads, and the Slurm script down to its `ray start`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from documented import ROOT

CLUSTER = ROOT / "cluster"
LAUNCHERS = ("aws", "gcp", "onprem")


def launcher(name) -> dict:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


@pytest.fixture
def valid(tmp_path, monkeypatch):
    """Ray's own reading of a launcher file: defaults filled in, then its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    def check(config):
        made = prepare_config(config)
        validate_config(made)
        return made

    return check


@pytest.mark.parametrize("name", LAUNCHERS)
def test_rays_own_schema_takes_the_file_and_refuses_a_slip(name, valid):
    made = valid(launcher(name))
    assert made["cluster_name"] == "spfem"
    assert made["max_workers"] >= sum(node["min_workers"] for node in made["available_node_types"].values())
    with pytest.raises(Exception, match="max_worker"):
        valid(launcher(name) | {"max_worker": 3})


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_node_has_the_token_and_the_shared_memory(name):
    config = launcher(name)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert any(option.startswith("--shm-size=") for option in config["docker"]["run_options"])
    assert config["file_mounts"] == {"/spfem/.ray/auth_token": "~/.ray/auth_token"}
    (head,) = (line for line in config["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in head, "reached by `ray dashboard`, not from outside"
    assert any("--address=$RAY_HEAD_IP:6379" in line for line in config["worker_start_ray_commands"])


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_the_head_trains_nothing_and_workers_are_spot(name):
    config = launcher(name)
    nodes = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert nodes["head"]["resources"] == {"CPU": 0}
    assert "spot" in yaml.safe_dump(nodes["gpu"]["node_config"]).lower()
    assert config["provider"]["cache_stopped_nodes"] is False


#: What Ray's provider calls on the head, by the name of the call, and the action that lets it.
CALLS = {
    "create_instances": "ec2:RunInstances",
    "create_tags": "ec2:CreateTags",
    "instances.filter": "ec2:DescribeInstances",
    "start_instances": "ec2:StartInstances",
    "stop_instances": "ec2:StopInstances",
    "terminate_instances": "ec2:TerminateInstances",
    "describe_instance_types": "ec2:DescribeInstanceTypes",
}


def actions(name: str) -> dict[str, list[dict]]:
    """Action -> the statements of a policy that allow it."""
    found: dict[str, list[dict]] = {}
    for statement in json.loads((ROOT / "cluster" / "aws" / name).read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        named = statement["Action"]
        for action in [named] if isinstance(named, str) else named:
            found.setdefault(action, []).append(statement)
    return found


def test_the_head_on_aws_may_launch_nodes_and_a_worker_may_not():
    from ray.autoscaler._private import aws

    provider = (Path(aws.__file__).parent / "node_provider.py").read_text()
    head, bucket = actions("head-policy.json"), actions("bucket-policy.json")
    missed = [action for call, action in CALLS.items() if call in provider and action not in head]
    assert missed == []
    assert sum(call in provider for call in CALLS) >= 6, "the provider calls other things now: look again"
    assert not [action for action in bucket if not action.startswith("s3:")]
    assert not [action for action in {**head, **bucket} if action.endswith("*")]
    for action in ("ec2:TerminateInstances", "ec2:StopInstances"):  # of this cluster's machines alone
        assert all("ray-cluster-name" in json.dumps(s["Condition"]) for s in head[action])
    assert [s["Resource"] for s in head["iam:PassRole"]] == ["arn:aws:iam::ACCOUNT:role/spfem-worker"]
    types = launcher("aws")["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"]["Arn"].split("/")[-1] for name, kind in types.items()}
    assert profiles == {"head": "spfem-head", "gpu": "spfem-worker"}
    assert f'"{launcher("aws")["cluster_name"]}"' in json.dumps(head["ec2:StopInstances"])


def test_the_slurm_script_passes_the_linter():
    check = [Path(sys.executable).parent / "shellcheck", CLUSTER / "slurm.sbatch"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


# --- Slurm, played by scripts that write down how they were called ----------------------------------------------------

SPEAK = 'echo "$(basename "$0") $*" >> "$CALLS"; env | grep -E "^(RAY_|SPFEM_HOME|GLOO)" | sort > "$CALLS.$(basename "$0").env"\n'
FAKES = {
    "scontrol": '[ "$1" = show ] && printf "n1\\nn2\\nn3\\n"; exit 0\n',
    "srun": 'while [ $# -gt 0 ]; do case "$1" in --*) shift;; *) break;; esac; done; exec "$@"\n',
    "hostname": "echo 10.1.2.3 fe80::1\n",
    "ray": '[ "$1" = start ] && exec sleep 60; exit 0\n',
    # The driver: an optimiser step, then what the test asks for; on SIGTERM a checkpoint, and status 130 as launch.py has it.
    "python": '[ "$1" = - ] && exit 0; trap "exit 130" TERM; touch "$CALLS.driving"; '
    'for _ in $(seq "$STEPS"); do sleep 0.1; done; exit "$ENDS"\n',
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the script in a pretended allocation of three nodes; returns (process, calls so far)."""
    fakes, calls = tmp_path / "bin", tmp_path / "calls"
    fakes.mkdir()
    for name, does in FAKES.items():
        (fakes / name).write_text(f"#!/bin/bash\n{SPEAK}{does}")
        (fakes / name).chmod(0o755)
    started = []

    def start(*words, steps=1, ends=0, **more):
        allocation = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "8"}
        allocation |= {"SLURM_GPUS_ON_NODE": "2", "SLURM_SUBMIT_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
        allocation |= {"CALLS": str(calls), "STEPS": str(steps), "ENDS": str(ends)}
        environment = os.environ | allocation | more | {"PATH": f"{fakes}:{os.environ['PATH']}", "SPFEM_HOME": ""}
        process = subprocess.Popen(
            ["bash", CLUSTER / "slurm.sbatch", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start, calls
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process) -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


RECIPE = ("recipes/cdrl_stage1.py", "--name", "mead", "--scaling.workers", "6")


def test_an_allocation_becomes_a_cluster_and_the_recipe_runs_on_it(slurm, tmp_path):
    start, calls = slurm
    code, said = ended(start(*RECIPE))
    assert code == 0, said
    lines = calls.read_text().splitlines()
    (head,) = (line for line in lines if line.startswith("ray start --head"))
    (worker,) = (line for line in lines if line.startswith("ray start --block --address"))
    assert "--node-ip-address 10.1.2.3 --port 24242" in head
    assert "--num-cpus 8 --num-gpus 2" in head
    assert worker == "ray start --block --address 10.1.2.3:24242 --num-cpus 8 --num-gpus 2"
    (others,) = (line for line in lines if line.startswith("srun") and "--exclude=n1" in line)
    assert "--nodes=2 --ntasks-per-node=1" in others
    assert "python recipes/cdrl_stage1.py --name mead --scaling.workers 6" in lines
    assert lines.index(head) < lines.index("python - 3") < lines.index(next(x for x in lines if "recipes/" in x))
    given = dict(line.split("=", 1) for line in (tmp_path / "calls.python.env").read_text().splitlines())
    assert (given["RAY_ADDRESS"], given["RAY_AUTH_MODE"]) == ("10.1.2.3:24242", "token")
    assert re.fullmatch(r"[0-9a-f]{64}", given["RAY_AUTH_TOKEN"])
    assert given["SPFEM_HOME"] == str(tmp_path)
    assert given["RAY_AUTH_TOKEN"] not in calls.read_text() + said
    assert not any(line.startswith("scontrol requeue") for line in lines)


def test_rays_folder_goes_on_every_node_and_its_sockets_have_room(slurm, tmp_path):
    start, calls = slurm
    for long in (False, True):
        scratch = tmp_path / ("a-folder-with-a-long-name" * 2) if long else Path("/tmp")
        scratch.mkdir(exist_ok=True)
        code, said = ended(start(*RECIPE, TMPDIR=str(scratch)))
        assert code == 0, said
    lines = calls.read_text().splitlines()
    assert [line.split("--temp-dir ")[1].split()[0] for line in lines if line.startswith("ray start --head")] == [
        "/tmp/ray-4242"
    ] * 2
    removed = [line for line in lines if line.startswith("srun") and line.endswith("rm -rf /tmp/ray-4242")]
    assert len(removed) == 2
    assert all("--nodes=3 --ntasks-per-node=1" in line for line in removed)


def wait_for(path):
    deadline = time.time() + 120
    while not path.exists():
        assert time.time() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "code", "again"), [(signal.SIGUSR1, 0, True), (signal.SIGTERM, 130, False)])
def test_a_run_whose_time_is_up_stops_with_a_checkpoint_and_is_queued_again(slurm, tmp_path, sent, code, again):
    start, calls = slurm
    process = start(*RECIPE, steps=600)
    wait_for(tmp_path / "calls.driving")
    process.send_signal(sent)
    found, said = ended(process)
    assert found == code, said
    assert "a checkpoint is being written" in said
    assert ("scontrol requeue 4242" in calls.read_text().splitlines()) is again


def test_a_failed_run_fails_the_job_and_a_missing_recipe_is_asked_for(slurm):
    start, calls = slurm
    assert ended(start(*RECIPE, ends=1))[0] == 1
    assert "scontrol requeue" not in calls.read_text()
    code, said = ended(start())
    assert code == 2
    assert "name a recipe" in said
