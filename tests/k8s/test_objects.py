"""What the objects say: resources, secrets, security, disruption, and the command that trains."""

import json
import shlex

import pytest
import yaml
from cdrl_stage1 import CDRLPriors
from cdrl_stage2 import CDRLGenerator
from charts import (
    MODES,
    PRESETS,
    ROOT,
    cluster,
    containers,
    environment,
    mebibytes,
    merged,
    of_kind,
    one,
    pods,
    preset,
    rendered,
)
from test_valid import EVERYTHING

from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.training.launch import parse

PRESET = pytest.mark.parametrize("name", sorted(PRESETS))
CANARY = "canary-7f3a"
#: Containers that EVERYTHING adds.
GIVEN = {"first", "beside"}


# --- nodes ------------------------------------------------------------------------------------------------------------


@PRESET
def test_gpus_are_asked_for_and_given_to_ray(name):
    values = preset(name)
    for given, group in zip(values["ray"]["workerGroups"], cluster(rendered(values))["workerGroupSpecs"], strict=True):
        resources = group["template"]["spec"]["containers"][0]["resources"]
        gpus = given.get("gpus", 0)
        assert resources["limits"] == resources["requests"]
        assert resources["limits"].get("nvidia.com/gpu") == (str(gpus) if gpus else None)
        assert group["rayStartParams"]["num-gpus"] == str(gpus)


@PRESET
def test_the_head_runs_no_worker(name):
    spec = cluster(rendered(preset(name)))["headGroupSpec"]
    assert spec["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in spec["template"]["spec"]["containers"][0]["resources"]["limits"]


@PRESET
def test_shared_memory_is_sized_and_counted_in_the_pods_memory(name):
    spec = cluster(rendered(preset(name)))
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        [shm] = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "dshm"]
        assert shm["medium"] == "Memory"
        assert {"name": "dshm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        limit = mebibytes(pod["containers"][0]["resources"]["limits"]["memory"])
        processes = int(group["rayStartParams"]["memory"]) // 2**20
        assert limit == processes + mebibytes(shm["sizeLimit"])
        assert int(group["rayStartParams"]["object-store-memory"]) <= mebibytes(shm["sizeLimit"]) * 2**20


@PRESET
def test_a_node_is_given_longer_to_end_than_it_takes_to_drain(name):
    for label, pod in pods(rendered(preset(name))).items():
        if label == "head" or label.startswith("worker"):
            drain = float(environment(pod["spec"]["containers"][0])["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert pod["spec"]["terminationGracePeriodSeconds"] > drain


def test_a_group_of_no_pods_stays_one():
    group = {"name": "later", "replicas": 0, "minReplicas": 0, "maxReplicas": 4, "gpus": 8}
    values = {"mode": "RayCluster", "ray": {"autoscaling": {"enabled": True}, "workerGroups": [group]}}
    [found] = cluster(rendered(values))["workerGroupSpecs"]
    assert (found["replicas"], found["minReplicas"], found["maxReplicas"]) == (0, 0, 4)


def test_without_an_autoscaler_a_group_has_one_size():
    spec = cluster(rendered({"ray": {"workerGroups": [{"name": "gpu", "replicas": 2, "gpus": 1, "maxReplicas": 9}]}}))
    assert "enableInTreeAutoscaling" not in spec
    assert [spec["workerGroupSpecs"][0][key] for key in ("minReplicas", "replicas", "maxReplicas")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("fabric", "expected"),
    [("tcp", "NCCL_IB_DISABLE"), ("efa", "FI_PROVIDER"), ("infiniband", "NCCL_IB_HCA"), ("roce", "NCCL_IB_GID_INDEX")],
)
def test_a_fabric_sets_nccls_environment(fabric, expected):
    values = {"fabric": {"preset": fabric, "resources": {"rdma/ib": 8}, "env": {"NCCL_DEBUG": "INFO"}}}
    found = pods(rendered(values))
    worker = found["worker-gpu"]["spec"]["containers"][0]
    assert expected in environment(worker)
    assert environment(worker)["NCCL_DEBUG"] == "INFO"
    assert environment(worker)["GLOO_SOCKET_IFNAME"] == "eth0"
    assert worker["resources"]["limits"]["rdma/ib"] == "8"
    assert "add" not in worker["securityContext"]["capabilities"], "refused in a restricted namespace"
    assert "rdma/ib" not in found["head"]["spec"]["containers"][0]["resources"]["limits"]


# --- security ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "values", [*(preset(name) for name in sorted(PRESETS)), EVERYTHING], ids=[*sorted(PRESETS), "everything"]
)
def test_every_container_runs_as_a_user_on_a_root_that_it_cannot_write(values, mode):
    for label, pod in pods(rendered(merged(values, {"mode": mode}))).items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, label
        assert pod["spec"]["securityContext"]["runAsUser"] >= 999, label
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"]["drop"] == ["ALL"]
            if container["name"] in GIVEN:  # what a user's own container writes is the user's to say
                continue
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in written
            home = environment(container).get("HOME", "/tmp")
            assert any(home == place or home.startswith(f"{place}/") for place in written), f"{label} has no home"


@pytest.mark.parametrize("autoscaling", [True, False])
def test_only_the_autoscaler_is_given_a_token_for_the_api_server(autoscaling):
    objects = rendered({"ray": {"autoscaling": {"enabled": autoscaling}}})
    given = {label for label, pod in pods(objects).items() if pod["spec"]["automountServiceAccountToken"]}
    assert given == ({"head"} if autoscaling else set())


def planted(value: object) -> object:
    """The values with the canary wherever a name of a Secret stands."""
    if isinstance(value, dict):
        return {
            key: (CANARY if isinstance(inner, str) and key in ("existingSecret", "clientSecret") else planted(inner))
            for key, inner in value.items()
        }
    return value


def test_secrets_are_only_referred_to():
    """Planted names of Secrets turn up in references and nowhere else; the one Secret made here is a Secret's data."""
    values = merged(
        EVERYTHING,
        planted({"mlflow": {"clientSecret": "", "auth": {"existingSecret": ""}, "database": {"existingSecret": ""}}}),
        {
            "storage": {"s3": {"existingSecret": CANARY}},
            "ray": {"auth": {"existingSecret": CANARY}, "envFromSecrets": [CANARY]},
            "mlflow": {"database": {"cidrs": ["10.0.0.0/8"]}},
            "postgresql": {"backup": {"enabled": False}},
        },
    )
    places: list[str] = []

    def look(node: object, path: str) -> None:
        if isinstance(node, dict):
            for key, inner in node.items():
                look(inner, f"{path}.{key}")
        elif isinstance(node, list):
            for inner in node:
                look(inner, path)
        elif isinstance(node, str) and CANARY in node:
            places.append(path)

    objects = rendered(values)
    for item in objects:
        look(item, item["kind"])
    assert len(places) > 8
    assert {place.rsplit(".", 2)[-2] + "." + place.rsplit(".", 1)[-1] for place in places} <= {
        "secretKeyRef.name",
        "secretRef.name",
        "authOptions.secretName",
        "username.name",  # of a monitor's basicAuth
        "password.name",
    }


def test_the_databases_password_is_in_its_secret_alone():
    objects = rendered({"mode": "RayJob"})
    secret = one(objects, "Secret", "-postgresql")
    password = yaml.safe_dump(secret["data"]["password"]).strip()
    assert len(password) >= 32
    rest = json.dumps([item for item in objects if item is not secret])
    assert password not in rest
    [uri] = {
        environment(container)["MLFLOW_BACKEND_STORE_URI"]
        for container in containers(pods(objects)["demo-spfem-mlflow"])
    }
    assert uri == "postgresql+psycopg2://mlflow:$(POSTGRES_PASSWORD)@demo-spfem-postgresql:5432/mlflow"


@PRESET
def test_no_environment_says_a_secret(name):
    for label, pod in pods(rendered(preset(name))).items():
        for container in containers(pod):
            for variable, value in environment(container).items():
                if any(word in variable for word in ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")):
                    assert isinstance(value, dict), f"{label}: {variable}"
                    assert "secretKeyRef" in value, f"{label}: {variable}"


def test_ray_asks_for_a_token_unless_told_not_to():
    assert cluster(rendered())["authOptions"] == {"mode": "token"}
    named = cluster(rendered({"ray": {"auth": {"existingSecret": "ray-token"}}}))
    assert named["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    off = rendered({"ray": {"auth": {"mode": "disabled"}}})
    assert {
        environment(pods(off)[name]["spec"]["containers"][0])["RAY_AUTH_MODE"]
        for name in ("head", "worker-gpu", "submitter")
    } == {"disabled"}


def test_s3_is_reached_by_the_pods_identity_or_by_a_secret():
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/spfem"}
    objects = rendered({"serviceAccount": {"annotations": annotations}})
    account = one(objects, "ServiceAccount", "demo-spfem")
    assert account["metadata"]["annotations"] == annotations
    server = one(objects, "ServiceAccount", "demo-spfem-mlflow")
    assert "annotations" not in server["metadata"], "MLflow has a role of its own, or none"
    for name in ("head", "worker-gpu", "demo-spfem-mlflow", "test"):
        pod = pods(objects)[name]
        owner = server if name == "demo-spfem-mlflow" else account
        assert pod["spec"]["serviceAccountName"] == owner["metadata"]["name"]
        assert "AWS_ACCESS_KEY_ID" not in environment(pod["spec"]["containers"][0])
    keys = pods(rendered({"storage": {"s3": {"existingSecret": "keys", "endpoint": "http://store:9000"}}}))
    for name in ("head", "worker-gpu", "demo-spfem-mlflow"):
        found = environment(keys[name]["spec"]["containers"][0])
        assert found["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "keys", "key": "AWS_SECRET_ACCESS_KEY"}}
        assert found["AWS_ENDPOINT_URL_S3"] == found["MLFLOW_S3_ENDPOINT_URL"] == "http://store:9000"


# --- staying up, being seen -------------------------------------------------------------------------------------------


def test_budgets_are_integers_and_choose_the_pods():
    objects = rendered(merged(EVERYTHING, {"mlflow": {"replicas": 2}}))
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert {budget["metadata"]["name"] for budget in budgets} == {
        "demo-spfem-head",
        "demo-spfem-gpu",
        "demo-spfem-mlflow",
    }
    for budget in budgets:
        assert type(budget["spec"]["minAvailable"]) is int
        assert "maxUnavailable" not in budget["spec"]
    worker = one(objects, "PodDisruptionBudget", "-gpu")["spec"]
    assert worker["minAvailable"] == 2
    # KubeRay writes ray.io/group onto the pods itself.
    labels = pods(objects)["worker-gpu"]["metadata"]["labels"] | {"ray.io/group": "gpu"}
    assert worker["selector"]["matchLabels"].items() <= labels.items()


def test_selectors_choose_the_pods_that_they_mean():
    objects = rendered(EVERYTHING)
    found = pods(objects)
    for service, pod in (("-mlflow", "demo-spfem-mlflow"), ("-postgresql", "demo-spfem-postgresql")):
        selector = one(objects, "Service", service)["spec"]["selector"]
        chosen = [
            name for name, template in found.items() if selector.items() <= template["metadata"]["labels"].items()
        ]
        assert chosen == [pod]
    for monitor, pod in (("-head", "head"), ("-worker", "worker-gpu")):
        spec = one(objects, "PodMonitor", monitor)["spec"]
        ports = {port["name"] for port in found[pod]["spec"]["containers"][0]["ports"]}
        assert spec["selector"]["matchLabels"].items() <= found[pod]["metadata"]["labels"].items()
        assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports


def test_mlflow_is_probed_by_a_name_that_it_knows():
    spec = one(rendered(), "Deployment", "-mlflow")["spec"]["template"]["spec"]
    [server] = spec["containers"]
    [hosts] = [word.removeprefix("--allowed-hosts=") for word in server["args"] if word.startswith("--allowed-hosts=")]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"] == "/health"
        [header] = server[probe]["httpGet"]["httpHeaders"]
        assert header["value"] in hosts.split(",")
    uri = environment(pods(rendered())["head"]["spec"]["containers"][0])["MLFLOW_TRACKING_URI"]
    assert uri == "http://demo-spfem-mlflow.ml.svc:5000"
    assert "demo-spfem-mlflow.ml.svc:*" in hosts.split(",")


def test_helms_test_asks_the_doctor_without_a_shells_quotes():
    values = {"mode": "RayCluster", "mlflow": {"enabled": False, "externalUri": ""}}
    pod = next(item for item in of_kind(rendered(values), "Pod") if "helm.sh/hook" in item["metadata"]["annotations"])
    (doctor,) = [c["args"] for c in pod["spec"]["containers"] if c["name"] == "cluster"]
    assert doctor[doctor.index("--tracking.uri") + 1] == ""
    assert not [word for word in doctor if "'" in word]


def mlflow_option(values, name):
    [server] = one(rendered(values), "Deployment", "-mlflow")["spec"]["template"]["spec"]["containers"]
    found = [word.removeprefix(f"--{name}=") for word in server["args"] if word.startswith(f"--{name}=")]
    return found[0].split(",") if found else []


@pytest.mark.parametrize(("secret", "scheme"), [("", "http"), ("cert", "https")])
def test_the_page_behind_an_ingress_may_change_what_it_shows(secret, scheme):
    from mlflow.server.security_utils import should_block_cors_request

    ingress = {"enabled": True, "host": "mlflow.example.com", "className": "nginx", "tlsSecret": secret}
    values = {"mlflow": {"ingress": ingress, "allowedOrigins": ["https://lab.example.org"]}}
    values["networkPolicy"] = {"mlflowFrom": [{"namespaceSelector": {}}]}
    origins = mlflow_option(values, "cors-allowed-origins")
    blocked = [
        should_block_cors_request(origin, "POST", origins)
        for origin in (f"{scheme}://mlflow.example.com", "https://lab.example.org", "https://elsewhere.example.com")
    ]
    assert blocked == [False, False, True]
    assert mlflow_option({}, "cors-allowed-origins") == []


def test_prometheus_may_ask_mlflow_by_the_pods_address():
    import fnmatch

    def known(host, values):
        return any(fnmatch.fnmatch(host, allowed) for allowed in mlflow_option(values, "allowed-hosts"))

    scraped = {"mlflow": {"metrics": True}}
    for host in ("10.42.0.7:5000", "172.20.1.2:5000", "192.168.3.4:5000"):
        assert known(host, scraped)
        assert not known(host, {})
    assert not known("8.8.8.8:5000", scraped)


def test_an_image_that_was_loaded_by_hand_says_nothing_of_the_others():
    """`pullPolicy: Never` is for the image that a laptop's kind was given; MLflow and PostgreSQL come from their registries."""
    found = pods(rendered(preset("laptop")))
    policies = {
        container["image"].split("/")[-1].split(":")[0]: container["imagePullPolicy"]
        for pod in found.values()
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    }
    assert policies == {
        "spfem": "Never",
        "mlflow": "IfNotPresent",
        "postgres": "IfNotPresent",
        "minio": "IfNotPresent",
        "mc": "IfNotPresent",
    }


@pytest.mark.parametrize("wanted", [True, False])
def test_grafana_finds_the_dashboard_that_lies_in_the_project(wanted):
    """Grafana's sidecar loads ConfigMaps with this label; cluster/grafana leads to the chart's file."""
    found = of_kind(rendered({"monitoring": {"enabled": True, "dashboards": wanted}}), "ConfigMap")
    assert len(found) == wanted
    for item in found:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(item["data"]["spfem.json"]) == json.loads((ROOT / "cluster/grafana/spfem.json").read_text())


# --- what is run ------------------------------------------------------------------------------------------------------


def entrypoint(**job: object) -> list[str]:
    values = merged({"storage": {"volume": {"enabled": True}, "shards": "shards/mead", "runs": "runs"}}, {"job": job})
    [ray] = of_kind(rendered(values), "RayJob")
    return shlex.split(ray["spec"]["entrypoint"])


@PRESET
def test_the_entrypoint_of_a_preset_is_understood_by_its_recipe(name):
    values = merged(preset(name), {"mode": "RayJob"})
    [ray] = of_kind(rendered(values), "RayJob")
    words = shlex.split(ray["spec"]["entrypoint"])
    assert words[:2] == ["python", "/app/recipes/cdrl_stage1.py"]
    run = parse(lambda: CDRLPriors(), words[2:]).run
    workers = values["job"]["workers"]
    assert run.scaling.workers == (tuple(workers) if isinstance(workers, list) else workers)
    assert run.scaling.gpu == values["job"].get("gpu", True)
    places = [values["storage"][key] for key in ("shards", "runs")]
    assert [run.data.shards, run.checkpoint.storage] == [p if "://" in p else f"/data/{p}" for p in places]
    assert run.tracking.uri == "http://demo-spfem-mlflow.ml.svc:5000"
    for flag, value in values["job"].get("flags", {}).items():
        found: object = run
        for field in flag.replace("-", "_").split("."):
            found = getattr(found, field)
        assert found == value


def test_stage_two_takes_the_priors_and_flags_of_every_kind():
    words = entrypoint(
        task="stage2",
        name="ned",
        priors=["models:/ccrl", "models:/cerl"],
        workers=2,
        flags={
            "ned.optimizer.lr": 0.00002,
            "ned.steps": 1000000,
            "ned.optimizer.milestones": [10, 20],
            "ned.enabled": True,
        },
    )
    run = parse(lambda: CDRLGenerator(), words[2:]).run
    assert run.name == "ned"
    assert run.priors == ("models:/ccrl", "models:/cerl")
    assert (run.ned.optimizer.lr, run.ned.steps, run.ned.optimizer.milestones) == (2e-5, 1_000_000, (10, 20))


def test_preparing_and_scoring_are_jobs_too():
    words = entrypoint(task="prepare", corpus="mead", recordings="raw/MEAD", flags={"size": 256, "fps": 30})
    assert words == [
        "spfem",
        "prepare",
        "mead",
        "/data/raw/MEAD",
        "--out",
        "/data/shards/mead",
        "--fps",
        "30",
        "--size",
        "256",
    ]
    assert {"fps", "size", "out"} <= set(PrepareSettings.model_fields)
    assert entrypoint(task="evaluate") == ["spfem", "evaluate", "priors", "/data/runs/cdrl-stage1"]
    assert entrypoint(task="evaluate", evaluate="generator", run="ned") == (
        ["spfem", "evaluate", "generator", "/data/runs/ned", "--judges", "/data/runs/judges"]
    )
    assert entrypoint(task="judges")[1] == "/app/recipes/metric_nets.py"
    assert entrypoint(task="doctor")[:3] == ["spfem", "doctor", "/app/recipes/cdrl_stage1.py"]
    assert entrypoint(task="command", command=["python", "-c", "print(1, 2)"]) == ["python", "-c", "print(1, 2)"]


def test_another_job_has_another_name_and_the_same_run_goes_on():
    [first] = of_kind(rendered({"job": {"name": "faces"}}), "RayJob")
    [again] = of_kind(rendered({"job": {"name": "faces"}}), "RayJob")
    [more] = of_kind(rendered({"job": {"name": "faces", "flags": {"checkpoint.every-steps": 50}}}), "RayJob")
    assert first["metadata"]["name"] == again["metadata"]["name"] != more["metadata"]["name"]
    assert "--name faces" in first["spec"]["entrypoint"]
    assert "--name faces" in more["spec"]["entrypoint"]
    assert first["spec"]["backoffLimit"] >= 2


@pytest.mark.parametrize(
    ("gang", "label"), [("kueue", "kueue.x-k8s.io/queue-name"), ("volcano", "volcano.sh/queue-name")]
)
@pytest.mark.parametrize("mode", MODES)
def test_gangs_are_labelled_on_the_ray_object(gang, label, mode):
    [ray] = of_kind(rendered({"mode": mode, "scheduling": {"gang": gang, "queue": "gpu"}}), mode)
    assert ray["metadata"]["labels"][label] == "gpu"


def test_mlflow_elsewhere_is_told_to_every_node_and_to_the_run():
    elsewhere = {"mlflow": {"enabled": False, "externalUri": "https://mlflow.example.com", "clientSecret": "user"}}
    objects = rendered(elsewhere)
    assert not of_kind(objects, "Deployment", "StatefulSet", "Secret")
    for name in ("head", "worker-gpu"):
        container = pods(objects)[name]["spec"]["containers"][0]
        assert environment(container)["MLFLOW_TRACKING_URI"] == "https://mlflow.example.com"
        assert container["envFrom"] == [{"secretRef": {"name": "user"}}]
    assert "--tracking.uri https://mlflow.example.com" in of_kind(objects, "RayJob")[0]["spec"]["entrypoint"]
    assert "--tracking.uri '' " in of_kind(rendered({"mlflow": {"enabled": False}}), "RayJob")[0]["spec"]["entrypoint"]
