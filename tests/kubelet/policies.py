"""NetworkPolicies as rules of nftables in each pod's own network, and what these rules have seen."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A pod as policies see it."""

    name: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    address: str


@dataclass(frozen=True)
class Flow:
    """A first packet of a connection: who opened it towards whom, by which port, and whether it passed."""

    source: str
    target: str
    protocol: str
    port: int


def rules_of(pod: Peer, peers: list[Peer], policies: list[Object], node: str) -> str:
    """The table that holds a pod to the policies. `node` is the kubelet's own address, which may always come in."""
    mine = [
        p for p in policies if p["metadata"]["namespace"] == pod.namespace and _chooses(p["spec"]["podSelector"], pod)
    ]
    chains = [
        _chain("input", "saddr", "from", "ingress", mine, peers, ["iif lo accept", f"ip saddr {node} accept"]),
        _chain("output", "daddr", "to", "egress", mine, peers, ["oif lo accept"]),
    ]
    seen = "".join(
        f"set {verdict}_{hook} {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }}\n"
        for hook in ("input", "output")
        for verdict in ("passed", "refused")
    )
    return f"table inet policies {{\n{seen}{''.join(chains)}}}\n"


def enforce(network: str, rules: str) -> None:
    """Put the table into a network namespace."""
    done = subprocess.run(
        ["ip", "netns", "exec", network, "nft", "-f", "-"], input=rules, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stderr}\n{rules}"


def seen(network: str, pod: Peer, names: dict[str, str]) -> tuple[set[Flow], set[Flow]]:
    """What passed and what was refused at a pod so far; `names` are those of addresses."""
    command = ["ip", "netns", "exec", network, "nft", "-j", "list", "table", "inet", "policies"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["nftables"]
    found: dict[str, set[Flow]] = {"passed": set(), "refused": set()}
    for entry in (item["set"] for item in listed if "set" in item):
        verdict, hook = entry["name"].split("_")
        for element in entry.get("elem", []):
            address, protocol, port = (element.get("elem", {}).get("val") or element)["concat"]
            ends = (names.get(address, address), pod.name)
            found[verdict].add(Flow(*(ends if hook == "input" else ends[::-1]), protocol, port))
    return found["passed"], found["refused"]


def _chain(
    hook: str, side: str, key: str, direction: str, mine: list[Object], peers: list[Peer], first: list[str]
) -> str:
    isolated = [p for p in mine if direction.capitalize() in p["spec"]["policyTypes"]]
    lines = [*first, "ct state established,related accept"]
    for policy in isolated:
        for rule in policy["spec"].get(direction, []):
            ends = _ends(rule[key], side, policy["metadata"]["namespace"], peers) if key in rule else [""]
            for end in ends:
                for protocol, ports in _ports(rule).items():
                    lines.append(f"{end} {protocol} dport {{ {ports} }} {_note('passed', hook, side)} accept")
    if not isolated:
        lines.append(f"{_note('passed', hook, side)} accept")
    lines.append(_note("refused", hook, side))
    body = "".join(f"    {line.strip()}\n" for line in lines)
    return f"chain {hook} {{\n    type filter hook {hook} priority 0; policy drop;\n{body}}}\n"


def _note(verdict: str, hook: str, side: str) -> str:
    return f"meta l4proto {{ tcp, udp }} add @{verdict}_{hook} {{ ip {side} . meta l4proto . th dport }}"


def _ends(entries: list[Object], side: str, namespace: str, peers: list[Peer]) -> list[str]:
    """The other side of a rule, as conditions of which one has to hold."""
    found = []
    for entry in entries:
        if block := entry.get("ipBlock"):
            without = f" ip {side} != {{ {', '.join(block['except'])} }}" if block.get("except") else ""
            found.append(f"ip {side} {block['cidr']}{without}")
            continue
        chosen = [peer.address for peer in peers if _is_meant(entry, namespace, peer)]
        if chosen:
            found.append(f"ip {side} {{ {', '.join(chosen)} }}")
    return found


def _is_meant(entry: Object, namespace: str, peer: Peer) -> bool:
    if "namespaceSelector" in entry:
        # Kubernetes labels each namespace with its name; no other label is known here.
        known = Peer(peer.namespace, "", (("kubernetes.io/metadata.name", peer.namespace),), "")
        if not _chooses(entry["namespaceSelector"], known):
            return False
    elif peer.namespace != namespace:
        return False
    return _chooses(entry.get("podSelector", {}), peer)


def _ports(rule: Object) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for port in rule["ports"]:
        assert isinstance(port["port"], int), "ports by name are not emulated"
        last = f"-{port['endPort']}" if "endPort" in port else ""
        found.setdefault(port["protocol"].lower(), []).append(f"{port['port']}{last}")
    return {protocol: ", ".join(dict.fromkeys(ports)) for protocol, ports in found.items()}


def _chooses(selector: Object, pod: Peer) -> bool:
    labels = dict(pod.labels)
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", "other operators are not emulated"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
