"""The examination: an actor on every node, the checks in turn, a table or JSON."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.text import Text

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.doctor import checks, node
from spfem_dist.doctor.allreduce import AllReduce, Reducer
from spfem_dist.doctor.finding import Finding, as_json, guarded, public, table_of
from spfem_dist.doctor.probe import NodeProbe, decode_on_gpu
from spfem_dist.redact import redact

#: Seconds after which a node that does not answer counts as silent.
PATIENCE_S = 90.0
#: MB written and read for a speed.
STORAGE_MB, SHARDS_MB = 16, 64


class Cluster:
    """The nodes of the cluster that the run would join, each with a probe."""

    def __init__(self, run: Run) -> None:
        import ray

        from spfem_dist.training.cluster import connect
        from spfem_dist.training.worker import worker_environment

        connect(run)
        self.run, self.resources = run, ray.cluster_resources()
        self.gpu = run.scaling.gpu if run.scaling.gpu is not None else self.resources.get("GPU", 0) > 0
        alive = [n for n in ray.nodes() if n["Alive"]]
        self.nodes: dict[str, dict[str, Any]] = {}
        for n in alive:
            name = f"{n['NodeManagerHostname']} ({n['NodeManagerAddress']})"
            self.nodes[name if name not in self.nodes else f"{name} {n['NodeID'][:6]}"] = n
        self._environment = {"env_vars": worker_environment(1, self.gpu)}
        self.probes = {name: self.actor(NodeProbe, n["NodeID"]).remote() for name, n in self.nodes.items()}

    def actor(self, kind: type, node_id: str, **resources: Any) -> Any:
        """`kind` as an actor class on one node."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return ray.remote(num_cpus=0, runtime_env=self._environment, **resources)(kind).options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        )

    def ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        """The answer of every node at once, by name; a node that fails answers {"error"}."""
        return self.gather({n: getattr(p, method).remote(*arguments) for n, p in self.probes.items()})

    def gather(self, references: dict[str, Any], patience: float = PATIENCE_S) -> dict[str, Any]:
        """What the references hold, or {"error"} for those that fail or do not come in time."""
        import ray

        answers, deadline = {}, time.monotonic() + patience
        for name, reference in references.items():
            try:
                answers[name] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                answers[name] = {"error": f"no answer within {patience:.0f} s"}
            except Exception as error:
                answers[name] = {"error": public(str(error).splitlines()[-1] if str(error) else repr(error))}
        return answers


def examine(run: Run, megabytes: int = 64, say: Callable[[str], None] = lambda _line: None) -> list[Finding]:
    """Every check of the cluster on which `run` (with absolute paths) would train.

    megabytes: size of the all-reduce probe. say: hears what is being done.
    """
    say("joining the cluster")
    running = "" if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID") else node.running_cluster()
    cluster = Cluster(run)
    say(f"asking {len(cluster.probes)} node{'s' if len(cluster.probes) > 1 else ''}")
    answers = cluster.gather(
        {
            name: probe.facts.remote(
                cluster.nodes[name]["NodeManagerAddress"],
                run.data.cache,
                cluster.nodes[name]["Resources"].get("GPU", 0) > 0,
            )
            for name, probe in cluster.probes.items()
        }
    )
    facts = [a for a in answers.values() if isinstance(a, node.NodeFacts)]
    unanswered = {name: a["error"] for name, a in answers.items() if isinstance(a, dict)}
    found = [checks.nodes(facts, cluster.resources, unanswered)]
    if not facts:
        return found
    cluster.probes = {name: p for name, p in cluster.probes.items() if name not in unanswered}
    interface = cluster.gather(
        {n: p.interface_of.remote(cluster.nodes[n]["NodeManagerAddress"]) for n, p in cluster.probes.items()}
    )
    facts = [
        replace(f, extra={"interface": str(i) if isinstance(i, str) else ""})
        for f, i in zip(facts, interface.values(), strict=True)
    ]
    found += [
        checks.room(run, cluster.resources, cluster.gpu),
        checks.versions(facts, node.versions()),
        checks.gpus(facts, cluster.resources.get("GPU", 0)),
        checks.shared_memory(facts, cluster.gpu),
        checks.open_files(facts),
        checks.disk(facts, run.data.cache_mb, "://" in run.data.shards),
        checks.authentication(facts, os.environ.get("RAY_AUTH_MODE", "")),
        checks.stale_clusters(facts, running),
        guarded("clocks", "see that every node answers", lambda: checks.clocks(_skews(cluster))),
        checks.interfaces(facts, cluster.gpu),
    ]
    say(f"all-reduce of {megabytes} MB between processes")
    fix = "open all TCP ports between the nodes, and name the interface between them: GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME"
    found.append(guarded("all-reduce", fix, lambda: _reduction(cluster, megabytes)))
    say(f"writing to {redact(run.checkpoint.storage)}")
    found.append(guarded("storage", "set --checkpoint.storage", lambda: _storage(cluster)))
    say(f"reading {redact(run.data.shards)}")
    found.append(guarded("shards", "set --data.shards", lambda: _shards(cluster)))
    say("asking the tracking store")
    found.append(guarded("tracking", "set --tracking.uri", lambda: _tracking(cluster)))
    if cluster.resources.get("GPU", 0) and cluster.gpu and run.data.decoder in ("auto", "dali-gpu"):
        say("decoding a clip on the GPU")
        found.append(guarded("GPU decode", "--data.decoder pyav", lambda: _decoding(cluster)))
    return found


def _skews(cluster: Cluster) -> dict[str, float]:
    """Seconds by which each node's clock is ahead, with half a round trip as the error."""
    import ray

    skews = {}
    for name, probe in cluster.probes.items():
        before = time.time()
        theirs = ray.get(probe.now.remote(), timeout=PATIENCE_S)
        after = time.time()
        skews[name] = theirs - (before + after) / 2 if not before <= theirs <= after else 0.0
    return skews


def _reduction(cluster: Cluster, megabytes: int) -> Finding:
    """Between one process of each node; on a single node between two of its own."""
    with_gpu = [n for n in cluster.nodes.values() if n["Resources"].get("GPU", 0)] if cluster.gpu else []
    places = with_gpu or [cluster.nodes[name] for name in cluster.probes]
    between = f"on {len(places)} nodes"
    if len(places) == 1:
        room = int(places[0]["Resources"]["GPU"]) if with_gpu else 2
        if room == 1:
            return Finding("all-reduce", "ok", "one GPU: nothing to exchange")
        places, between = places * min(room, 8), "of one node"
    backend, resources = ("nccl", {"num_gpus": 1}) if with_gpu else ("gloo", {})
    reducers = [cluster.actor(Reducer, place["NodeID"], **resources).remote() for place in places]
    meeting = cluster.gather({"first": reducers[0].address.remote()})["first"]
    if isinstance(meeting, dict):
        raise RuntimeError(meeting["error"])
    references = {
        str(rank): r.measure.remote(meeting, rank, len(reducers), backend, megabytes << 20, PATIENCE_S / 3)
        for rank, r in enumerate(reducers)
    }
    answers = cluster.gather(references)
    for answer in answers.values():
        if "error" in answer:
            raise RuntimeError(answer["error"])
    return checks.reduction(AllReduce(**answers["0"]), between)


def _storage(cluster: Cluster) -> Finding:
    """Every node writes its marker, then every node looks for all of them, then they are removed."""
    location, token = cluster.run.checkpoint.storage, secrets.token_hex(6)
    probes = cluster.probes
    markers = {name: checks.marker_of(name) for name in probes}
    written = cluster.gather({n: p.write.remote(location, token, markers[n], STORAGE_MB) for n, p in probes.items()})
    seen = cluster.gather({n: p.see.remote(location, token, markers[n]) for n, p in probes.items()})
    left = cluster.ask("clean", location, token)
    return checks.storage(redact(location), written, seen, sum(a.get("left", 1) for a in left.values()))


def _shards(cluster: Cluster) -> Finding:
    data = cluster.run.data
    return checks.shards(redact(data.shards), cluster.ask("shards", data.model_dump(mode="json"), SHARDS_MB))


def _tracking(cluster: Cluster) -> Finding:
    settings, token = cluster.run.tracking, secrets.token_hex(6)
    if not settings.uri:
        return Finding("tracking", "ok", "turned off (tracking.uri is empty)")
    first, *rest = cluster.probes.items()
    answers = cluster.gather({first[0]: first[1].tracking.remote(settings.uri, settings.experiment, token, True)})
    answers |= cluster.gather({n: p.tracking.remote(settings.uri, settings.experiment, token, False) for n, p in rest})
    return checks.tracking(redact(settings.uri), token, answers)


def _decoding(cluster: Cluster) -> Finding:
    import ray

    data = cluster.run.data.model_dump(mode="json")
    task = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(decode_on_gpu)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    references = {
        name: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)).remote(data)
        for name, n in cluster.nodes.items()
        if n["Resources"].get("GPU", 0)
    }
    return checks.decoding(cluster.gather(references))


def report(run: Run, megabytes: int, as_a_program: bool) -> int:
    """Examine and print; returns the exit status, 1 where a check failed."""
    quiet = plain_console(soft_wrap=False, stderr=True)
    with quiet.status("looking around") as status:
        findings = examine(run, megabytes, lambda line: status.update(Text(line)))
    if as_a_program:
        print(json.dumps(as_json(findings), indent=2))
    else:
        console = plain_console(soft_wrap=False)
        console.print(table_of(findings))
        console.print(_verdict(findings))
    return 1 if any(f.status == "failed" for f in findings) else 0


def _verdict(findings: Sequence[Finding]) -> Text:
    failed, warned = ([f.check for f in findings if f.status == s] for s in ("failed", "warning"))
    if failed:
        also = f" (and look at {', '.join(warned)})" if warned else ""
        return Text.assemble(("not ready", "red"), f": {', '.join(failed)}{also}")
    return Text.assemble(("ready", "green"), f", with a look at {', '.join(warned)}" if warned else "")
