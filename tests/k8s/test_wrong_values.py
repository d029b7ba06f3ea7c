"""Wrong values are refused before anything is created, by a message that names the field."""

import helm_python as helm
import pytest
from charts import dotted, merged, rendered

S3 = {"storage": {"shards": "s3://bucket/mead", "runs": "s3://bucket/runs"}}
OPEN = {"networkPolicy": {"dashboardFrom": [{"namespaceSelector": {}}]}}
GROUP = {"name": "gpu", "replicas": 2, "gpus": 1}


def groups(**more: object) -> dict:
    return {"ray": {"workerGroups": [GROUP | more]}}


#: (values, what the message has to name)
WRONG = [
    # unknown and misspelt fields
    ({"jobs": {}}, "jobs"),
    (dotted("job.worker", 4), "worker"),
    (dotted("ray.head.gpu", 1), "gpu"),
    (groups(minReplica=1), "minReplica"),
    (dotted("mlflow.database.uri", "postgresql://u:p@h/d"), "uri"),
    # kinds and ranges
    ({"mode": "RayService"}, "mode"),
    (dotted("job.task", "stage3"), "task"),
    (dotted("job.workers", 0), "workers"),
    (dotted("job.workers", "two"), "workers"),
    (dotted("job.workers", [2]), "workers"),
    (dotted("job.backoffLimit", -1), "backoffLimit"),
    (dotted("job.submissionMode", "InteractiveMode"), "submissionMode"),
    (dotted("job.name", "my run"), "name"),
    (dotted("job.flags", {"ccrl_steps": 3}), "flags"),
    (dotted("job.flags", {"data.cache": "it's"}), "flags"),
    (dotted("storage.runs", "s3:/bucket/runs"), "runs"),
    (dotted("storage.runs", "gs://bucket/runs"), "runs"),
    (dotted("storage.volume.accessMode", "ReadOnlyMany"), "accessMode"),
    (dotted("storage.s3.endpoint", "store:9000"), "endpoint"),
    (dotted("ray.version", "nightly"), "version"),
    (
        merged(dotted("mlflow.database.existingSecret", "db"), dotted("postgresql.enabled", False)),
        "mlflow.database.cidrs",
    ),
    (dotted("ray.auth.mode", "none"), "mode"),
    (dotted("ray.head.memory", "16GB"), "memory"),
    (dotted("ray.head.sharedMemory", "0.5Gi"), "sharedMemory"),
    (dotted("ray.head.cpu", 0), "cpu"),
    (dotted("ray.workerGroups", []), "workerGroups"),
    ({"ray": {"workerGroups": [{"replicas": 1}]}}, "name"),
    (groups(name="GPU nodes"), "name"),
    (groups(gpus=-1), "gpus"),
    (groups(tolerations=[{"key": "spot", "operator": "Is"}]), "operator"),
    (dotted("fabric.preset", "ethernet"), "preset"),
    (dotted("scheduling.gang", "yunikorn"), "gang"),
    (dotted("disruption.workersMinAvailable", "50%"), "workersMinAvailable"),
    (dotted("security.runAsUser", 0), "runAsUser"),
    (dotted("networkPolicy.apiServer.cidrs", ["10.0.0.1"]), "cidrs"),
    (dotted("networkPolicy.dashboardFrom", [{}]), "dashboardFrom"),
    (dotted("mlflow.artifacts", "gs://bucket"), "artifacts"),
    (dotted("mlflow.image.digest", "latest"), "digest"),
    (dotted("postgresql.size", "10GB"), "size"),
    (dotted("image.pullPolicy", "Sometimes"), "pullPolicy"),
    # values that do not go together
    (merged(S3, dotted("job.workers", 16)), "job.workers is 16"),
    (merged(S3, {"job": {"workers": 64, "gpu": False}}), "job.workers is 64"),
    (merged(S3, dotted("job.workers", [16, 32])), "job.workers is 16"),
    (merged(S3, dotted("job.workers", [2, 1])), "job.workers is [2, 1]"),
    (dotted("storage.runs", "runs"), "storage.runs"),
    (
        {"storage": {"runs": "runs", "shards": "shards", "volume": {"enabled": True, "accessMode": "ReadWriteOnce"}}},
        "accessMode",
    ),
    (dotted("ray.terminationGraceSeconds", 30), "ray.terminationGraceSeconds"),
    (groups(objectStore="16Gi"), "objectStore"),
    ({"ray": {"workerGroups": [GROUP, GROUP]}}, "two groups"),
    (merged(groups(minReplicas=3), dotted("ray.autoscaling.enabled", True)), "minReplicas"),
    (dotted("job.flags", {"scaling.workers": 4}), "job.flags.scaling.workers"),
    (dotted("job.flags", {"data.cache": "http://user:word@host"}), "job.flags.data.cache"),
    (dotted("ray.env", {"AWS_SECRET_ACCESS_KEY": "abc"}), "ray.env.AWS_SECRET_ACCESS_KEY"),
    (dotted("storage.s3.endpoint", "http://user:word@store:9000"), "storage.s3.endpoint"),
    ({"mlflow": {"enabled": False, "externalUri": "https://user:word@mlflow"}}, "mlflow.externalUri"),
    (dotted("scheduling.gang", "kueue"), "scheduling.queue"),
    ({"scheduling": {"gang": "kueue", "queue": "q"}, "ray": {"autoscaling": {"enabled": True}}}, "scheduling.elastic"),
    ({"job": {"task": "prepare"}}, "storage.shards"),
    ({"job": {"task": "prepare", "corpus": "mead"}}, "job.recordings"),
    ({"job": {"task": "command"}}, "job.command"),
    ({"job": {"shutdownAfterFinished": False, "suspend": True}}, "shutdownAfterFinished"),
    ({"postgresql": {"enabled": False}}, "postgresql.enabled"),
    ({"mlflow": {"replicas": 2, "artifacts": ""}}, "mlflow.replicas"),
    # pods
    (dotted("mlflow.env", {"MY_TOKEN": "abc"}), "mlflow.env.MY_TOKEN"),
    (dotted("postgresql.env", {"X": "http://user:word@host"}), "postgresql.env.X"),
    (dotted("job.submitter.env", {"AWS_SECRET_ACCESS_KEY": "x"}), "job.submitter.env"),
    (dotted("ray.head.env", {"1BAD": "x"}), "env"),
    (groups(env={"API_TOKEN": "x"}), "ray.workerGroups[gpu].env.API_TOKEN"),
    (groups(sidecar=[]), "sidecar"),
    (groups(sidecars=[{"name": "beside"}]), "image"),
    (groups(sidecars=[{"name": "b", "image": "x", "securityContext": {"privileged": True}}]), "sidecars[b]"),
    (
        dotted("mlflow.sidecars", [{"name": "b", "image": "x", "securityContext": {"runAsUser": 0}}]),
        "mlflow.sidecars[b]",
    ),
    (
        dotted(
            "ray.head.initContainers",
            [{"name": "b", "image": "x", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
        ),
        "ray.head.initContainers[b]",
    ),
    (groups(extraVolumes=[{"name": "d", "hostPath": {"path": "/mnt"}}]), "extraVolumes[d]"),
    (groups(extraVolumeMounts=[{"name": "d"}]), "mountPath"),
    (dotted("mlflow.labels", {"spfem/component": "head"}), "mlflow.labels.spfem/component"),
    (dotted("postgresql.tolerations", [{"operator": "Is"}]), "operator"),
    (groups(scratchClass="Local NVMe"), "scratchClass"),
    (dotted("mlflow.serviceAccount.role", "x"), "role"),
    # what is reached from outside, and Ray's state
    (dotted("mlflow.route.enabled", True), "mlflow.route.host"),
    (dotted("mlflow.route", {"enabled": True, "host": "m.example.com"}), "networkPolicy.mlflowFrom"),
    (
        merged(
            dotted("mlflow.route", {"enabled": True, "host": "m.example.com"}), dotted("networkPolicy.enabled", False)
        ),
        "mlflow.route.parentRefs",
    ),
    (dotted("ray.dashboard.ingress.enabled", True), "ray.dashboard.ingress.host"),
    (
        merged(dotted("ray.dashboard.ingress", {"enabled": True, "host": "r.example.com"}), OPEN),
        "ray.dashboard.ingress.tlsSecret",
    ),
    (
        merged(
            dotted("ray.dashboard.ingress", {"enabled": True, "host": "r.example.com", "tlsSecret": "c"}),
            OPEN,
            dotted("ray.auth.mode", "disabled"),
        ),
        "ray.auth.mode",
    ),
    (dotted("ray.dashboard.route", {"enabled": True, "host": "r.example.com"}), "networkPolicy.dashboardFrom"),
    ({"gateway": {"enabled": True}}, "gateway.className"),
    ({"gateway": {"enabled": True, "className": "istio"}}, "gateway.tlsSecret"),
    ({"gateway": {"enabled": True, "className": "istio", "tlsSecret": "c"}}, "mlflow.route.enabled"),
    (dotted("ray.gcs.redis", "redis"), "redis"),
    (dotted("ray.gcs.redis", "redis:6379"), "ray.gcs.cidrs"),
    (merged(dotted("ray.gcs.usernameKey", "user")), "ray.gcs.usernameKey"),
    (dotted("ray.upgradeStrategy", "Rolling"), "upgradeStrategy"),
    # storage, backups, certificates, images, monitors
    (merged({"minio": {"enabled": True}}, dotted("storage.s3.endpoint", "http://store:9000")), "storage.s3.endpoint"),
    (
        {
            "minio": {"enabled": True},
            "storage": {"runs": "runs", "shards": "shards", "volume": {"enabled": True}},
            "mlflow": {"artifacts": ""},
        },
        "minio.enabled",
    ),
    (
        merged(
            {"postgresql": {"backup": {"enabled": True}}},
            {"mlflow": {"database": {"existingSecret": "db", "cidrs": ["10.0.0.0/8"]}}},
        ),
        "postgresql.backup",
    ),
    (dotted("postgresql.backup.schedule", "daily"), "schedule"),
    (dotted("postgresql.backup.keep", 0), "keep"),
    ({"certificates": {"configMap": "a", "secret": "b"}}, "certificates.configMap"),
    (dotted("security.requireDigests", True), "image.digest"),
    (
        merged(dotted("security.requireDigests", True), dotted("image.digest", f"sha256:{'a' * 64}")),
        "mlflow.image.digest",
    ),
    (dotted("monitoring.operator", "datadog"), "operator"),
    (
        {"monitoring": {"enabled": True, "operator": "google"}, "mlflow": {"metrics": True}},
        "mlflow.metrics",
    ),
    ({"mlflow": {"ingress": {"enabled": True}}}, "mlflow.ingress.host"),
]


@pytest.mark.parametrize(
    ("values", "named"), WRONG, ids=[f"{number}-{named}" for number, (_, named) in enumerate(WRONG)]
)
def test_a_wrong_value_is_refused_by_name(values, named):
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert named in str(refused.value)


def test_enough_kinds_of_mistakes_are_tried():
    assert len(WRONG) >= 80
    rendered(S3)  # and what they are changes of is right
