"""What KubeRay 1.7 makes of a RayJob: the cluster's pods, service and token, and the pod that submits the entrypoint.

Written after its controllers (ray-operator/controllers/ray: common/pod.go, common/service.go, common/job.go and
rayjob_controller.go). Left out is what the chart does not ask for: an autoscaler, fault tolerance of the GCS, TLS, Ray Serve.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import secrets
from typing import Any

Object = dict[str, Any]
GCS_PORT, DASHBOARD_PORT, AGENT_PORT = "6379", "8265", "52365"
#: Labels of a pod template that KubeRay overwrites; it gives way to all others.
OWN_LABELS = ("ray.io/node-type", "ray.io/group", "ray.io/cluster")


def cluster_of(job: Object) -> Object:
    """The RayCluster of a RayJob."""
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    spec = copy.deepcopy(job["spec"]["rayClusterSpec"])
    unknown = {"enableInTreeAutoscaling", "gcsFaultToleranceOptions", "tlsOptions"} & spec.keys()
    assert not unknown, f"{unknown} are not emulated"
    return {"metadata": {"name": f"{name}-x7k2m", "namespace": namespace}, "spec": spec}


def objects_of(cluster: Object) -> list[Object]:
    """Token, service and pods of a RayCluster, in the order in which KubeRay creates them."""
    spec = cluster["spec"]
    found = [] if spec["authOptions"].get("secretName") or spec["authOptions"]["mode"] != "token" else [_token(cluster)]
    found += [_service(cluster), _head(cluster)]
    for group in spec["workerGroupSpecs"]:
        found += [_worker(cluster, group, number) for number in range(group["replicas"])]
    return found


def submitter_of(job: Object, cluster: Object) -> Object:
    """The pod of the Kubernetes Job that hands the entrypoint to Ray (K8sJobMode)."""
    assert job["spec"]["submissionMode"] == "K8sJobMode"
    pod = copy.deepcopy(job["spec"]["submitterPodTemplate"])
    name, container = job["metadata"]["name"], pod["spec"]["containers"][0]
    dashboard, submission = f"{_address(cluster)}:{DASHBOARD_PORT}", f"{name}-q9w4t"
    address = f"http://{dashboard}"
    container["command"] = ["/bin/bash", "-ce", "--"]
    container["args"] = [
        f"if ! ray job status --address {address} {submission} >/dev/null 2>&1 ; "
        f"then ray job submit --address {address} --no-wait --submission-id {submission} -- "
        f"{job['spec']['entrypoint'].strip()} ; fi ; ray job logs --address {address} --follow {submission}"
    ]
    container["env"] = [
        *container.get("env", []),
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": "RAY_DASHBOARD_ADDRESS", "value": dashboard},
        {"name": "RAY_JOB_SUBMISSION_ID", "value": submission},
    ]
    _authenticate(cluster, container)
    return _pod(f"{name}-m5b8z", job["metadata"]["namespace"], pod["metadata"]["labels"], pod["spec"])


def submission_of(pod: Object) -> str:
    """The id under which a submitter's pod submits."""
    [found] = [item["value"] for item in pod["spec"]["containers"][0]["env"] if item["name"] == "RAY_JOB_SUBMISSION_ID"]
    return found


def token_name(cluster: Object) -> str:
    """The Secret with the cluster's token, under the key `auth_token`."""
    return cluster["spec"]["authOptions"].get("secretName", cluster["metadata"]["name"])


def _token(cluster: Object) -> Object:
    data = {"auth_token": base64.b64encode(secrets.token_urlsafe(32).encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": copy.deepcopy(cluster["metadata"]), "data": data}


def _address(cluster: Object) -> str:
    return "{name}-head-svc.{namespace}.svc.cluster.local".format(**cluster["metadata"])


def _labels(cluster: Object, kind: str, group: str, given: dict[str, str]) -> dict[str, str]:
    mine = {
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": cluster["metadata"]["name"],
        "ray.io/node-type": kind,
        "ray.io/group": group,
        "ray.io/identifier": f"{cluster['metadata']['name']}-{kind}",
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    return mine | {key: value for key, value in given.items() if key not in OWN_LABELS}


def _service(cluster: Object) -> Object:
    """The head's service: headless, named by the cluster, its ports those of the head's container."""
    template = cluster["spec"]["headGroupSpec"]["template"]
    labels = _labels(cluster, "head", "headgroup", {})
    chosen = {key: labels[key] for key in labels if key not in ("ray.io/is-ray-node", "ray.io/group")}
    chosen["app.kubernetes.io/name"] = template["metadata"]["labels"].get("app.kubernetes.io/name", "kuberay")
    ports = template["spec"]["containers"][0]["ports"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": cluster["metadata"] | {"name": f"{cluster['metadata']['name']}-head-svc"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": chosen,
            "ports": [{"name": port["name"], "port": port["containerPort"]} for port in ports],
        },
    }


def _head(cluster: Object) -> Object:
    spec = cluster["spec"]["headGroupSpec"]
    template = copy.deepcopy(spec["template"])
    container = template["spec"]["containers"][0]
    if cluster["spec"]["authOptions"]["mode"] == "token":
        _authenticate(cluster, container)
    start = _start_command("ray start --head", {"dashboard-host": "0.0.0.0"} | spec["rayStartParams"], container)
    tags = {"name": "RAY_USAGE_STATS_EXTRA_TAGS", "value": "kuberay_version=v1.7.0;kuberay_crd=RayJob"}
    _ray_container(container, start, "127.0.0.1", [tags])
    labels = _labels(cluster, "head", "headgroup", template["metadata"]["labels"])
    name = f"{cluster['metadata']['name']}-head"
    return _pod(name, cluster["metadata"]["namespace"], labels, template["spec"])


def _worker(cluster: Object, group: Object, number: int) -> Object:
    template, address = copy.deepcopy(group["template"]), _address(cluster)
    container = template["spec"]["containers"][0]
    wait = {
        "name": "wait-gcs-ready",
        **{key: copy.deepcopy(container[key]) for key in ("image", "securityContext", "env", "volumeMounts")},
        "command": ["/bin/bash", "-c", "--"],
        "args": [
            f"while true; do if ray health-check --address {address}:{GCS_PORT} > /dev/null 2>&1; "
            'then echo "GCS is ready."; break; fi; '
            'echo "$SECONDS seconds elapsed: Waiting for GCS to be ready."; sleep 5; done'
        ],
    }
    names = [{"name": "FQ_RAY_IP", "value": address}, {"name": "RAY_IP", "value": address.split(".")[0]}]
    if cluster["spec"]["authOptions"]["mode"] == "token":
        for one in (wait, container):
            _authenticate(cluster, one)
    wait["env"] += names
    template["spec"].setdefault("initContainers", []).append(wait)
    params = {"address": f"{address}:{GCS_PORT}"} | group["rayStartParams"]
    _ray_container(container, _start_command("ray start", params, container), address, names)
    labels = _labels(cluster, "worker", group["groupName"], template["metadata"]["labels"])
    name = f"{cluster['metadata']['name']}-{group['groupName']}-worker-{number}"
    return _pod(name, cluster["metadata"]["namespace"], labels, template["spec"])


def _authenticate(cluster: Object, container: Object) -> None:
    given = {item["name"] for item in container.setdefault("env", [])}
    reference = {"secretKeyRef": {"name": token_name(cluster), "key": "auth_token"}}
    for item in ({"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": reference}):
        if item["name"] not in given:
            container["env"].append(item)


def _start_command(words: str, params: dict[str, str], container: Object) -> str:
    """`ray start` of a node: its rayStartParams, and what follows from the container's limits."""
    limits = container["resources"]["limits"]
    said = {"num-cpus": str(_cores(limits["cpu"])), "dashboard-agent-listen-port": AGENT_PORT} | params
    said["block"] = "true"
    assert "memory" in said, "KubeRay would take the pod's limit, /dev/shm and all"
    flags = [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in sorted(said.items())
        if value != "false"
    ]
    return f"{words} {' '.join(flags)}"


def _cores(quantity: str | int) -> int:
    text = str(quantity)
    return math.ceil(float(text[:-1]) / 1000) if text.endswith("m") else math.ceil(float(text))


def _ray_container(container: Object, start: str, head: str, more: list[Object]) -> None:
    """Command, environment and probes that KubeRay gives the Ray container."""
    assert not {"command", "args"} & container.keys()
    container["command"] = ["/bin/bash", "-c", "--"]
    container["args"] = [f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"]
    fields = {
        "RAY_CLUSTER_NAME": "metadata.labels['ray.io/cluster']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_CLOUD_INSTANCE_ID": "metadata.name",
        "RAY_NODE_TYPE_NAME": "metadata.labels['ray.io/group']",
    }
    container["env"] += [
        *more,
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        {"name": "KUBERAY_GEN_RAY_START_CMD", "value": start},
    ]
    given = {item["name"] for item in container["env"]}
    defaults = {
        "RAY_PORT": GCS_PORT,
        "RAY_ADDRESS": f"{head}:{GCS_PORT}",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    container["env"] += [{"name": name, "value": value} for name, value in defaults.items() if name not in given]
    health = {"httpGet": {"path": "/api/healthz", "port": int(AGENT_PORT)}, "timeoutSeconds": 5, "periodSeconds": 5}
    container.setdefault("readinessProbe", health | {"initialDelaySeconds": 10, "failureThreshold": 10})
    container.setdefault("livenessProbe", health | {"initialDelaySeconds": 30, "failureThreshold": 120})


def _pod(name: str, namespace: str, labels: dict[str, str], spec: Object) -> Object:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}}
    return json.loads(json.dumps(pod | {"spec": spec}))
