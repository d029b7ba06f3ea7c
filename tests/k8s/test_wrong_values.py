"""Wrong values are refused before anything is created, by a message that names the field."""

import helm_python as helm
import pytest
from charts import dotted, merged, rendered

S3 = {"storage": {"shards": "s3://bucket/mead", "runs": "s3://bucket/runs"}}
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
    ({"mlflow": {"auth": {"enabled": True}}}, "mlflow.auth.existingSecret"),
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
    assert len(WRONG) >= 25
    rendered(S3)  # and what they are changes of is right
