"""The network policies let through what the release's own objects need, and nothing else."""

import pytest
from charts import MODES, PRESETS, cluster, merged, of_kind, one, pods, preset, rendered

EVERY = pytest.mark.parametrize(
    "values", [merged(preset(name), {"mode": mode}) for name in sorted(PRESETS) for mode in MODES]
)


def chooses(selector: dict, labels: dict) -> bool:
    """Whether a label selector chooses a pod with these labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def opened(rules: list[dict], side: str, labels: dict, port: int) -> bool:
    """Whether one of the rules opens this TCP port towards a pod of the release with these labels."""
    for rule in rules:
        ports = [one for one in rule["ports"] if one["protocol"] == "TCP"]
        if not any(one["port"] <= port <= one.get("endPort", one["port"]) for one in ports):
            continue
        if any(
            "namespaceSelector" not in peer and chooses(peer.get("podSelector", {"matchLabels": {"": ""}}), labels)
            for peer in rule[side]
        ):
            return True
    return False


def reaches(objects: list[dict], source: str, target: str, port: int) -> bool:
    """Whether a connection from one pod of the release to another by this port passes both pods' policies."""
    found = pods(objects)
    labels = {name: found[name]["metadata"]["labels"] for name in (source, target)}
    policies = of_kind(objects, "NetworkPolicy")
    leaving = [
        rule
        for p in policies
        if chooses(p["spec"]["podSelector"], labels[source])
        for rule in p["spec"].get("egress", [])
    ]
    arriving = [
        rule
        for p in policies
        if chooses(p["spec"]["podSelector"], labels[target])
        for rule in p["spec"].get("ingress", [])
    ]
    return opened(leaving, "to", labels[target], port) and opened(arriving, "from", labels[source], port)


@EVERY
def test_every_pod_is_denied_everything_first(values):
    objects = rendered(values)
    deny = one(objects, "NetworkPolicy", "-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    for name, pod in pods(objects).items():
        assert chooses(deny["podSelector"], pod["metadata"]["labels"]), name


@EVERY
def test_what_the_release_needs_passes(values):
    objects = rendered(values)
    worker = next(name for name in pods(objects) if name.startswith("worker"))
    mlflow, own_database = "demo-spfem-mlflow", bool(of_kind(objects, "StatefulSet"))
    start = cluster(objects)["workerGroupSpecs"][0]["rayStartParams"]
    pinned = [
        int(value) for key, value in start.items() if key.endswith("-port") and "dashboard-agent-listen" not in key
    ]
    assert len(pinned) == 7
    for port in (*pinned, 6379, 8265, 45000):  # 45000: one that gloo, NCCL or torch's store would take
        assert reaches(objects, worker, "head", port), f"{worker} to head by {port}"
        assert reaches(objects, "head", worker, port), f"head to {worker} by {port}"
    for source in ("head", worker, "test"):
        assert reaches(objects, source, mlflow, 5000), f"{source} to MLflow"
    if values["mode"] == "RayJob":
        assert reaches(objects, "submitter", "head", 8265)
    if own_database:
        assert reaches(objects, mlflow, "demo-spfem-postgresql", 5432)


@EVERY
def test_what_nobody_needs_does_not_pass(values):
    objects = rendered(values)
    worker = next(name for name in pods(objects) if name.startswith("worker"))
    closed = [
        ("demo-spfem-mlflow", "head", 8265),
        ("demo-spfem-mlflow", worker, 8080),
        (worker, "head", 22),
        ("test", "head", 10001),
    ]
    if of_kind(objects, "StatefulSet"):
        closed += [
            ("head", "demo-spfem-postgresql", 5432),
            (worker, "demo-spfem-postgresql", 5432),
            ("demo-spfem-postgresql", "demo-spfem-mlflow", 5000),
        ]
    assert [(source, target, port) for source, target, port in closed if reaches(objects, source, target, port)] == []


def test_nothing_but_named_identities_reaches_the_metadata_service():
    objects = rendered({"ray": {"autoscaling": {"enabled": True}}})
    wide = [
        peer["ipBlock"]
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert len(wide) >= 3
    assert all(block["except"] == ["169.254.0.0/16"] for block in wide)


def test_everywhere_of_ipv6_is_an_address_and_leaves_link_local_ones_out():
    everywhere = {"cidrs": ["::/0"]}
    objects = rendered({"networkPolicy": {"storage": everywhere, "dns": {"cidrs": ["fd00:10::a/128"]}}})
    blocks = [
        peer["ipBlock"]
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    wide = [block for block in blocks if block["cidr"] == "::/0"]
    assert wide
    assert all("fe80::/10" in block["except"] for block in wide)
    assert {"cidr": "fd00:10::a/128"} in blocks


@pytest.mark.parametrize("autoscaling", [True, False])
def test_only_an_autoscaling_head_reaches_the_api_server(autoscaling):
    values = {
        "ray": {"autoscaling": {"enabled": autoscaling}},
        "networkPolicy": {"apiServer": {"cidrs": ["10.9.0.1/32"]}},
    }
    objects = rendered(values)
    opens = [
        policy["metadata"]["name"]
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        if {"ipBlock": {"cidr": "10.9.0.1/32"}} in rule["to"]
    ]
    assert opens == (["demo-spfem-head"] if autoscaling else [])
