"""The chart rendered by Helm itself, without a cluster, and looked at as objects."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "k8s" / "spfem"
PRESETS = {path.stem.removeprefix("values-"): path for path in sorted(CHART.glob("values-*.yaml"))}
MODES = ("RayJob", "RayCluster")
#: KubeRay's schemas lie beside the repository.
CRDS = ROOT.parent / "shared" / "reference" / "kuberay-crds"

Values = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there


@functools.cache
def chart() -> helm.Chart:
    return helm.Chart.load(CHART)


def merged(*many: Values) -> Values:
    """Values on top of values, as `helm -f a.yaml -f b.yaml` has it."""
    found: Values = {}
    for values in many:
        for key, value in copy.deepcopy(values).items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def dotted(path: str, value: Any) -> Values:
    """`a.b=1` of the command line: {"a": {"b": 1}}."""
    for name in reversed(path.split("/" if "/" in path else ".")):
        value = {name: value}
    return value


def preset(name: str) -> Values:
    return yaml.safe_load(PRESETS[name].read_text())


def files(values: Values | None = None) -> dict[str, str]:
    """Template -> text of the release `demo` in the namespace `ml`. Raises helm.HelmError with Helm's own message."""
    return _files(json.dumps(values or {}))


@functools.cache
def _files(values: str) -> dict[str, str]:
    return chart().render(values=json.loads(values), name="demo", namespace="ml")


def rendered(values: Values | None = None) -> list[Values]:
    """Every object of that release."""
    texts = [text for path, text in files(values).items() if path.endswith(".yaml")]
    return [item for text in texts for item in yaml.load_all(text, LOADER) if item]


def notes(values: Values | None = None) -> str:
    return next(text for path, text in files(values).items() if path.endswith("NOTES.txt"))


def one(objects: list[Values], kind: str, suffix: str = "") -> Values:
    """The only object of this kind whose name ends so."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} named *{suffix}"
    return found[0]


def of_kind(objects: list[Values], *kinds: str) -> list[Values]:
    return [item for item in objects if item["kind"] in kinds]


def cluster(objects: list[Values]) -> Values:
    """The specification of the Ray cluster, alone or within its job."""
    [ray] = of_kind(objects, *MODES)
    return ray["spec"] if ray["kind"] == "RayCluster" else ray["spec"]["rayClusterSpec"]


def pods(objects: list[Values]) -> dict[str, Values]:
    """Every pod that the objects would make, by a name of its own: {"metadata":, "spec":}."""
    found: dict[str, Values] = {}
    for item in objects:
        if item["kind"] == "Pod":
            found["test"] = item
        elif item["kind"] in ("Deployment", "StatefulSet") or item["kind"] == "Job":
            found[item["metadata"]["name"]] = item["spec"]["template"]
        elif item["kind"] == "CronJob":
            found[item["metadata"]["name"]] = item["spec"]["jobTemplate"]["spec"]["template"]
        elif item["kind"] == "RayJob" and "submitterPodTemplate" in item["spec"]:
            found["submitter"] = item["spec"]["submitterPodTemplate"]
    spec = cluster(objects)
    found["head"] = spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        found[f"worker-{group['groupName']}"] = group["template"]
    return found


def containers(pod: Values) -> list[Values]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Values) -> dict[str, Any]:
    """Name -> value, or what it is taken from."""
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", [])}


def mebibytes(quantity: str) -> int:
    number, unit = int(quantity[:-2]), quantity[-2:]
    return number * {"Mi": 1, "Gi": 1024, "Ti": 1024**2}[unit]
