"""What every pod may be given, what each is kept from, and the parts that a release can have beside Ray and MLflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from charts import (
    CHART,
    MODES,
    PRESETS,
    ROOT,
    cluster,
    containers,
    environment,
    merged,
    notes,
    of_kind,
    one,
    pods,
    preset,
    rendered,
)
from test_network import reaches
from test_valid import EVERYTHING, FROM, POD, TEST_POD

#: What is rendered of EVERYTHING, by pod: where its values are.
GIVEN = {
    "head": POD,
    "worker-gpu": POD,
    "submitter": POD,
    "demo-spfem-mlflow": POD,
    "demo-spfem-postgresql": POD,
    "demo-spfem-minio": POD,
    "test": TEST_POD,
}


# --- every pod ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GIVEN)
def test_a_pod_takes_all_that_its_values_say(name):
    values, pod = GIVEN[name], pods(rendered(EVERYTHING))[name]
    spec, first = pod["spec"], pod["spec"]["containers"][0]
    assert spec["nodeSelector"] == values["nodeSelector"]
    assert spec["tolerations"] == values["tolerations"]
    assert spec["priorityClassName"] == values["priorityClassName"]
    assert "podAntiAffinity" in spec["affinity"]
    assert pod["metadata"]["labels"]["team"] == "faces"
    assert pod["metadata"]["annotations"]["example.com/note"] == "a note"
    assert {"TZ": "UTC", "LEVEL": "3"}.items() <= environment(first).items()
    assert {"secretRef": {"name": "more-env"}} in first["envFrom"]
    assert values["extraVolumes"][0] in spec["volumes"]
    assert values["extraVolumeMounts"][0] in first["volumeMounts"]
    if "sidecars" in values:
        assert spec["containers"][-1]["name"] == "beside"
        assert spec["initContainers"][0]["name"] == "first"
        assert spec["containers"][-1]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_further_arguments_reach_the_commands():
    objects = rendered(EVERYTHING)
    assert pods(objects)["demo-spfem-mlflow"]["spec"]["containers"][0]["args"][-1] == "--gunicorn-opts=--timeout 60"
    database = pods(objects)["demo-spfem-postgresql"]["spec"]["containers"][0]
    assert database["args"] == ["-c", "shared_buffers=256MB"]
    spec = cluster(objects)
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-grpc-port"] == "8266"
    assert spec["workerGroupSpecs"][0]["rayStartParams"]["resources"] == '{"nvme": 1}'


def test_a_group_says_more_than_all_groups():
    values = {
        "ray": {
            "env": {"A": "all", "B": "all"},
            "workerGroups": [{"name": "gpu", "replicas": 2, "gpus": 1, "env": {"B": "own"}}],
        }
    }
    found = environment(pods(rendered(values))["worker-gpu"]["spec"]["containers"][0])
    assert (found["A"], found["B"]) == ("all", "own")


def violations(pod: dict) -> list[str]:
    """What Kubernetes' restricted profile has against a pod (pod-security.kubernetes.io, v1.34)."""
    spec, found = pod["spec"], []
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec.get("volumes", []):
        found += [f"volume {volume['name']} is {kind}" for kind in volume.keys() - {"name"} - kinds]
    found += [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    whole = spec.get("securityContext", {})
    for container in containers(pod):
        own = container.get("securityContext", {})
        name = container["name"]
        checks = {
            "privileged": not own.get("privileged", False),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True,
            "runAsUser": own.get("runAsUser", whole.get("runAsUser", 1)) != 0,
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"]
            and set(own["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"},
            "seccompProfile": own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
            in ("RuntimeDefault", "Localhost"),
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{name}: {check}" for check, well in checks.items() if not well]
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*sorted(PRESETS), "default", "everything"])
def test_a_restricted_namespace_takes_every_pod(name, mode):
    values = preset(name) if name in PRESETS else EVERYTHING if name == "everything" else {}
    found = pods(rendered(merged(values, {"mode": mode})))
    assert {label: wrong for label, pod in found.items() if (wrong := violations(pod))} == {}
    loose = dict(
        found["head"], spec=found["head"]["spec"] | {"hostNetwork": True, "volumes": [{"name": "x", "hostPath": {}}]}
    )
    assert violations(loose) == ["volume x is hostPath", "hostNetwork"], "the check would not see it"


# --- passwords that the chart makes -------------------------------------------------------------------------------


def test_mlflow_asks_for_a_password():
    server = pods(rendered())["demo-spfem-mlflow"]["spec"]["containers"][0]
    assert "--app-name=basic-auth" in server["args"]
    assert {"secretRef": {"name": "demo-spfem-mlflow-auth"}} in server["envFrom"]


def test_mlflow_can_be_left_open():
    objects = rendered({"mlflow": {"auth": {"enabled": False}}})
    assert "--app-name=basic-auth" not in pods(objects)["demo-spfem-mlflow"]["spec"]["containers"][0]["args"]
    assert "MLFLOW_TRACKING_PASSWORD" not in environment(pods(objects)["head"]["spec"]["containers"][0])
    assert [item["metadata"]["name"] for item in of_kind(objects, "Secret")] == ["demo-spfem-postgresql"]


def test_certificates_of_ones_own_are_where_every_client_looks():
    objects = rendered({"certificates": {"secret": "authorities", "key": "all.pem"}})
    for name in ("head", "worker-gpu", "submitter", "demo-spfem-mlflow", "test"):
        pod = pods(objects)[name]
        for container in pod["spec"]["containers"]:
            found = environment(container)
            assert {found[v] for v in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")} == {
                "/etc/spfem/ca/all.pem"
            }
            assert {"name": "authorities", "mountPath": "/etc/spfem/ca", "readOnly": True} in container["volumeMounts"]
        assert {"name": "authorities", "secret": {"secretName": "authorities"}} in pod["spec"]["volumes"]


def test_images_can_be_held_to_their_digests():
    digest = f"sha256:{'a' * 64}"
    values = merged(preset("laptop"), {"security": {"requireDigests": True}})
    for image in (
        {"image": {"digest": digest}},
        *({part: {"image": {"digest": digest}}} for part in ("mlflow", "postgresql", "minio")),
    ):
        values = merged(values, image)
    values = merged(values, {"minio": {"client": {"digest": digest}}})
    images = {container["image"] for pod in pods(rendered(values)).values() for container in containers(pod)}
    assert len(images) == 5
    assert all(image.endswith(f"@{digest}") for image in images)


# --- storage ------------------------------------------------------------------------------------------------------


def test_a_laptops_minio_has_the_buckets_and_everybody_who_needs_it_reaches_it():
    objects = rendered(preset("laptop"))
    job = one(objects, "Job", "-buckets")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["spfem", "mlflow"]
    head = environment(pods(objects)["head"]["spec"]["containers"][0])
    assert head["AWS_ENDPOINT_URL_S3"] == "http://demo-spfem-minio.ml.svc:9000"
    assert head["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "demo-spfem-minio"
    for name in ("head", "worker-cpu", "demo-spfem-mlflow", "test", "demo-spfem-minio-buckets"):
        assert reaches(objects, name, "demo-spfem-minio", 9000), name
    assert not reaches(objects, "demo-spfem-postgresql", "demo-spfem-minio", 9000)
    assert not reaches(objects, "demo-spfem-minio", "head", 8265)


def test_scratch_can_lie_on_a_nodes_nvme():
    pod = pods(rendered(preset("nvme")))["worker-gpu"]["spec"]
    [scratch] = [volume["ephemeral"] for volume in pod["volumes"] if volume["name"] == "scratch"]
    claim = scratch["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("local-nvme", "2Ti")
    assert pod["containers"][0]["resources"]["limits"]["ephemeral-storage"] == "10Gi"
    plain = pods(rendered())["worker-gpu"]["spec"]
    assert [volume["emptyDir"] for volume in plain["volumes"] if volume["name"] == "scratch"] == [{"sizeLimit": "40Gi"}]


def test_dumps_of_the_database_are_whole_and_the_oldest_go(tmp_path):
    objects = rendered({"postgresql": {"backup": {"enabled": True, "keep": 2}}})
    pod = pods(objects)["demo-spfem-postgresql-backup"]
    assert reaches(objects, "demo-spfem-postgresql-backup", "demo-spfem-postgresql", 5432)
    assert not reaches(objects, "demo-spfem-postgresql-backup", "demo-spfem-mlflow", 5000)
    [container] = pod["spec"]["containers"]
    programs, backups = tmp_path / "bin", tmp_path / "backups"
    programs.mkdir()
    backups.mkdir()
    for day in ("20260101", "20260102", "20260103"):
        (backups / f"mlflow-{day}T000000Z.dump").write_text("old")
    (backups / "other.txt").write_text("not a dump")
    fake = programs / "pg_dump"
    fake.write_text(
        """#!/bin/sh\nfor word in "$@"; do case $word in --file=*) printf whole > "${word#--file=}";; esac; done\nexit ${FAILS:-0}\n"""
    )
    fake.chmod(0o755)
    settings = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KEEP": environment(container)["KEEP"],
        "BACKUPS": str(backups),
    }

    def dump(**more: str) -> int:
        return subprocess.run(container["command"], env=settings | more, timeout=60).returncode

    assert dump(FAILS="1") != 0
    assert len(list(backups.glob("*.dump"))) == 3, "a dump that failed costs none of the others"
    assert dump() == 0
    left = sorted(path.name for path in backups.iterdir())
    assert len(left) == 3
    assert left[0] == "mlflow-20260103T000000Z.dump"
    assert (backups / left[1]).read_text() == "whole"
    assert left[2] == "other.txt"


# --- doors, state, monitors ---------------------------------------------------------------------------------------


def test_a_gateway_serves_both_pages_by_tls():
    objects = rendered(merged(preset("redis"), {"fullnameOverride": "spfem"}))
    gateway = one(objects, "Gateway")
    listeners = {listener["name"]: listener for listener in gateway["spec"]["listeners"]}
    assert {name: listener["hostname"] for name, listener in listeners.items()} == {
        "dashboard": "ray.example.com",
        "mlflow": "mlflow.example.com",
    }
    assert all(listener["tls"]["certificateRefs"] == [{"name": "example-com-tls"}] for listener in listeners.values())
    for suffix, service, port in (("-dashboard", "spfem-head-svc", 8265), ("-mlflow", "spfem-mlflow", 5000)):
        route = one(objects, "HTTPRoute", suffix)["spec"]
        assert route["rules"] == [{"backendRefs": [{"name": service, "port": port}]}]
        assert route["parentRefs"] == [{"name": gateway["metadata"]["name"]}]


def test_the_dashboard_has_an_ingress_with_tls():
    values = {"ray": {"dashboard": {"ingress": {"enabled": True, "host": "ray.example.com", "tlsSecret": "cert"}}}}
    spec = one(rendered(merged(values, {"networkPolicy": {"dashboardFrom": FROM}})), "Ingress", "-dashboard")["spec"]
    assert spec["tls"] == [{"hosts": ["ray.example.com"], "secretName": "cert"}]
    assert spec["rules"][0]["http"]["paths"][0]["backend"]["service"] == {
        "name": "demo-spfem-head-svc",
        "port": {"number": 8265},
    }


def test_a_head_comes_back_with_its_state_from_redis():
    objects = rendered(preset("redis"))
    found = cluster(objects)["gcsFaultToleranceOptions"]
    assert found["redisAddress"] == "redis.example.internal:6379"
    assert found["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "ray-redis", "key": "password"}}}
    rules = one(objects, "NetworkPolicy", "-ray")["spec"]["egress"]
    wanted = {"to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}], "ports": [{"port": 6379, "protocol": "TCP"}]}
    assert wanted in rules
    assert cluster(objects)["upgradeStrategy"] == {"type": "Recreate"}
    assert "gcsFaultToleranceOptions" not in cluster(rendered())


@pytest.mark.parametrize(
    ("operator", "kinds"), [("prometheus", {"PodMonitor", "ServiceMonitor"}), ("google", {"PodMonitoring"})]
)
def test_monitors_are_made_where_the_cluster_has_their_kinds(operator, kinds):
    """Helm asks no cluster here, so it has none of them; `always` says that it is known to."""
    everyone = {"PodMonitor", "ServiceMonitor", "PodMonitoring"}
    values = {"monitoring": {"enabled": True, "operator": operator}, "mlflow": {"metrics": operator == "prometheus"}}
    assert of_kind(rendered(values), *everyone) == []
    assert "no kind" in notes(values)
    always = merged(values, {"monitoring": {"always": True}})
    assert {item["kind"] for item in of_kind(rendered(always), *everyone)} == kinds
    assert "no kind" not in notes(always)


def test_prometheus_logs_in_where_mlflow_asks_for_it():
    values = {"monitoring": {"enabled": True, "always": True}, "mlflow": {"metrics": True}}
    [endpoint] = one(rendered(values), "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["basicAuth"]["password"] == {"name": "demo-spfem-mlflow-auth", "key": "MLFLOW_AUTH_ADMIN_PASSWORD"}
    open_ = merged(values, {"mlflow": {"auth": {"enabled": False}}})
    assert "basicAuth" not in one(rendered(open_), "ServiceMonitor")["spec"]["endpoints"][0]


def test_googles_collectors_may_scrape():
    objects = rendered(preset("gcp"))
    rules = one(objects, "NetworkPolicy", "-ray")["spec"]["ingress"]
    collectors = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gmp-system"}}}
    assert any(collectors in rule["from"] and {"port": 8080, "protocol": "TCP"} in rule["ports"] for rule in rules)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_no_preset_opens_a_metadata_server(name):
    blocks = [
        peer["ipBlock"]["cidr"]
        for policy in of_kind(rendered(preset(name)), "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert [block for block in blocks if block.startswith("169.254.") and block != "169.254.20.10/32"] == []


def test_volcano_takes_the_queue_and_the_operator_is_told_of_it_in_words():
    values = {"scheduling": {"gang": "volcano", "queue": "gpu", "priorityClass": "high"}}
    [ray] = of_kind(rendered(values), *MODES)
    assert ray["metadata"]["labels"]["volcano.sh/queue-name"] == "gpu"
    assert "ray.io/scheduler-name" not in ray["metadata"]["labels"], "since KubeRay 1.6 it does nothing"
    assert "batchScheduler.name=volcano" in notes(values)
    assert "batchScheduler" not in notes({})


def test_every_file_of_the_chart_is_yaml_as_chart_testing_wants_it():
    """`ct lint` is `helm lint` (test_valid), a schema of Chart.yaml and yamllint with these rules."""
    rules = ROOT / "k8s" / "lintconf.yaml"
    files = [CHART / "Chart.yaml", *sorted(CHART.glob("values*.yaml")), *sorted((CHART / "tests").glob("*.yaml"))]
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-c", rules, *files], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    assert Path(files[0]).exists()
