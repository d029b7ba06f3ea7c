"""Every preset, as a job and as a cluster, renders, lints, and is what Kubernetes' and KubeRay's schemas allow, to the letter."""

import copy
import json
import subprocess
import sys

import helm_python as helm
import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import CHART, CRDS, LOADER, MODES, PRESETS, ROOT, chart, merged, notes, of_kind, preset, rendered

KUBERNETES = "1.34.0"
CUSTOM = {"RayCluster", "RayJob", "PodMonitor", "ServiceMonitor", "PodMonitoring", "Gateway", "HTTPRoute"}
#: A pod's values, all of them.
POD = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}
            ]
        }
    },
    "priorityClassName": "high",
    "labels": {"team": "faces"},
    "annotations": {"example.com/note": "a note"},
    "env": {"TZ": "UTC", "LEVEL": 3},
    "envFromSecrets": ["more-env"],
    "extraVolumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}}],
    "extraVolumeMounts": [{"name": "weights", "mountPath": "/weights", "readOnly": True}],
    "initContainers": [{"name": "first", "image": "registry/first:1", "command": ["true"]}],
    "sidecars": [{"name": "beside", "image": "registry/beside:1", "resources": {"limits": {"cpu": "100m"}}}],
}
#: What `helm test` runs has neither.
TEST_POD = {key: value for key, value in POD.items() if key not in ("initContainers", "sidecars")}
FROM = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
#: What no preset turns on.
EVERYTHING = {
    "monitoring": {
        "enabled": True,
        "always": True,
        "grafanaHost": "http://grafana:3000",
        "prometheusHost": "http://prometheus:9090",
    },
    "mlflow": {
        "metrics": True,
        "auth": {"enabled": True, "existingSecret": "users"},
        "clientSecret": "mlflow-user",
        "ingress": {"enabled": True, "host": "mlflow.example.com", "className": "nginx", "tlsSecret": "cert"},
        "route": {"enabled": True, "host": "mlflow.example.com"},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/mlflow"}},
        "allowedHosts": ["mlflow.example.com"],
        "args": ["--gunicorn-opts=--timeout 60"],
        **POD,
    },
    "job": {"submitter": POD},
    "postgresql": {
        "backup": {"enabled": True, "storageClassName": "backups"},
        "args": ["-c", "shared_buffers=256MB"],
        **POD,
    },
    "minio": {"enabled": True, "args": ["--quiet"], **POD},
    "tests": TEST_POD,
    "gateway": {"enabled": True, "className": "istio", "tlsSecret": "cert", "annotations": {"a.example/b": "c"}},
    "certificates": {"configMap": "authorities"},
    "scheduling": {"gang": "volcano", "queue": "gpu", "priorityClass": "high"},
    "networkPolicy": {
        "dashboardFrom": [{"namespaceSelector": {"matchLabels": {"team": "faces"}}}],
        "mlflowFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        "rayEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 2049, "protocol": "TCP"}]}],
    },
    "image": {"pullSecrets": ["registry"]},
    "ray": {
        "auth": {"existingSecret": "ray-token"},
        "upgradeStrategy": "Recreate",
        "gcs": {
            **{"redis": "redis:6379", "existingSecret": "redis", "usernameKey": "user", "namespace": "faces"},
            "cidrs": ["10.2.0.0/16"],
        },
        "dashboard": {
            "ingress": {"enabled": True, "host": "ray.example.com", "className": "nginx", "tlsSecret": "cert"},
            "route": {
                "enabled": True,
                "host": "ray.example.com",
                "parentRefs": [{"name": "shared", "namespace": "edge"}],
            },
        },
        "head": {**POD, "startParams": {"dashboard-grpc-port": "8266"}},
        "env": {"NCCL_NSOCKS_PERTHREAD": 4},
        "envFromSecrets": ["more"],
        "extraVolumes": [{"name": "books", "persistentVolumeClaim": {"claimName": "books"}}],
        "extraVolumeMounts": [{"name": "books", "mountPath": "/books", "readOnly": True}],
        "workerDefaults": {
            "rayLabels": {"zone": "a"},
            "spreadOver": "kubernetes.io/hostname",
            "packInto": "topology.kubernetes.io/zone",
            "runtimeClassName": "nvidia",
            "scratchClass": "local-nvme",
            "startParams": {"resources": '{"nvme": 1}'},
            **POD,
        },
    },
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}],
}
CASES = {name: preset(name) for name in PRESETS} | {
    "default": {},
    "everything": EVERYTHING,
    "kueue": {"scheduling": {"gang": "kueue", "queue": "gpu"}},
    "sidecar": {"job": {"submissionMode": "SidecarMode"}, "ray": {"auth": {"mode": "disabled"}}},
    "http": {"job": {"submissionMode": "HTTPMode", "shutdownAfterFinished": False, "activeDeadlineSeconds": 60}},
    "bare": {"networkPolicy": {"enabled": False}, "mlflow": {"enabled": False}, "tests": {"enabled": False}},
}
EVERY = pytest.mark.parametrize(
    "values",
    [
        pytest.param(merged(values, {"mode": mode}), id=f"{name}-{mode}")
        for name, values in CASES.items()
        for mode in MODES
    ],
)


@EVERY
def test_helm_finds_nothing_to_say(values):
    report = helm.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [found for found in report["messages"] if found["severity"] >= 2] == []


def test_core_objects_are_valid_to_the_letter():
    """Of all cases together: most of their objects are the same, and each costs a tenth of a second."""
    everything = {json.dumps(item): item for case in EVERY.args[1] for item in rendered(case.values[0])}
    kinds = set()
    for item in everything.values():
        if item["kind"] not in CUSTOM:
            kinds.add(item["kind"])
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
    assert {"Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget", "Pod", "Secret", "Ingress"} <= kinds
    assert {"CronJob", "Job", "ServiceAccount", "PersistentVolumeClaim"} <= kinds
    broken = copy.deepcopy(next(item for item in everything.values() if item["kind"] == "Deployment"))
    broken["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def strict(schema: dict) -> dict:
    """The schema with unknown properties refused, as `kubectl --validate=strict` does."""
    schema = copy.deepcopy(schema)

    def close(node: object) -> None:
        if isinstance(node, dict):
            open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
            if "properties" in node and not open_ended:
                node["additionalProperties"] = False
            for child in node.values():
                close(child)
        elif isinstance(node, list):
            for child in node:
                close(child)

    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@pytest.fixture(scope="module")
def ray_schemas():
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's schemas are not beside the repository ({CRDS})")
    definitions = [yaml.load(path.read_text(), LOADER) for path in sorted(CRDS.glob("*.yaml"))]
    return {
        crd["spec"]["names"]["kind"]: jsonschema.Draft7Validator(
            strict(next(v for v in crd["spec"]["versions"] if v["name"] == "v1")["schema"]["openAPIV3Schema"])
        )
        for crd in definitions
    }


@EVERY
def test_ray_objects_are_valid_to_the_letter(values, ray_schemas):
    [ray] = of_kind(rendered(values), *MODES)
    errors = [
        f"{'/'.join(map(str, error.path))}: {error.message}" for error in ray_schemas[ray["kind"]].iter_errors(ray)
    ]
    assert errors == []
    broken = copy.deepcopy(ray)
    cluster = broken["spec"] if ray["kind"] == "RayCluster" else broken["spec"]["rayClusterSpec"]
    cluster["workerGroupSpecs"][0]["minReplica"] = 1
    assert not ray_schemas[ray["kind"]].is_valid(broken), "the schema would not catch a misspelt field"


@EVERY
def test_names_are_short_enough_for_kuberay(values):
    [ray] = of_kind(rendered(merged(values, {"fullnameOverride": "a" * 60})), *MODES)
    assert len(ray["metadata"]["name"]) <= (47 if ray["kind"] == "RayJob" else 50)


@EVERY
def test_notes_say_what_to_type_next(values):
    text = notes(values)
    assert "kubectl -n ml" in text
    assert "uninstall demo" in text
    assert ("ray job submit" in text) == (values["mode"] == "RayCluster")
    assert ("5000:5000" in text) == values.get("mlflow", {}).get("enabled", True)


def test_defaults_of_the_chart_satisfy_its_schema():
    chart().validate_schema({})
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)


def test_readme_and_schema_say_what_the_values_say():
    check = subprocess.run(
        [sys.executable, ROOT / "k8s" / "document.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert check.returncode == 0, check.stderr


def test_every_value_is_described_and_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    resolved = schema["$defs"]

    def walk(values: dict, node: dict, path: str) -> list[str]:
        missing = []
        for key, value in values.items():
            here = f"{path}{key}"
            found = node["properties"].get(key)
            if found is None:
                missing.append(f"{here}: not in the schema")
                continue
            references = [found.get("$ref"), *(part.get("$ref") for part in found.get("allOf", []))]
            target = next((resolved[ref.rsplit("/", 1)[1]] for ref in references if ref), found)
            if isinstance(value, dict) and value and "properties" in target:
                missing += walk(value, target, f"{here}.")
            elif "description" not in found and here != "ray.workerGroups":
                missing.append(f"{here}: not described")
        return missing

    assert walk(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "") == []
