"""From facts to findings: what is judged, and the fix. Pure functions, so that each judgement can be tested without its fault."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from spfem_dist.config import Run
from spfem_dist.doctor import node
from spfem_dist.doctor.allreduce import AllReduce
from spfem_dist.doctor.finding import Finding, Status
from spfem_dist.doctor.node import NodeFacts

#: Docker gives 64 MB of shared memory unless told otherwise; NCCL and Ray's object store want far more.
SHM_NEEDED_GB = 1.0
#: Ray opens a socket for each worker of each node; its own documentation asks for 65536.
OPEN_FILES_NEEDED = 4096
#: Clocks further apart than this put log lines and MLflow points out of order; S3 refuses signatures beyond 15 minutes.
SKEW_WARNING_S, SKEW_FAILED_S = 2.0, 300.0
#: Free space below which checkpoints on their way, or Ray's spilling, run out.
DISK_FAILED_GB, DISK_WARNING_GB = 1.0, 10.0


def nodes(facts: Sequence[NodeFacts], resources: Mapping[str, float], unanswered: Mapping[str, str]) -> Finding:
    """Which nodes there are, and whether each answered."""
    found = (
        f"{len(facts)} of {len(facts) + len(unanswered)} answer: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs; "
        + "; ".join(f"{f.name} {f.cpus} cores {f.memory_gb:.0f} GB" for f in facts[:4])
    )
    if len(facts) > 4:
        found += f" and {len(facts) - 4} more"
    if unanswered:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(unanswered.items())[:3])
        return Finding(
            "nodes",
            "failed",
            f"{found}. No answer: {listed}",
            "install spfem-dist on each node (or submit with --working-dir .), and see that Ray runs there: ray status",
        )
    return Finding("nodes", "ok", found, figures={"nodes": len(facts)})


def room(run: Run, resources: Mapping[str, float], gpu: bool) -> Finding:
    """Whether the workers fit."""
    least, most = workers_of(run)
    wanted = f"{most} workers" if least == most else f"{least} to {most} workers"
    each = "one GPU" if gpu else f"{run.scaling.cpus_per_worker:g} CPUs"
    have = resources.get("GPU", 0) if gpu else resources.get("CPU", 0) / run.scaling.cpus_per_worker
    found = f"{wanted} with {each} each; room for {int(have)}"
    if have < least:
        fix = "add nodes, or lower --scaling.workers" + (", or train on CPUs with --scaling.gpu False" if gpu else "")
        return Finding("room", "failed", found, fix)
    if have < most:
        return Finding("room", "warning", found, "the run starts smaller and grows when nodes are added")
    return Finding("room", "ok", found)


def workers_of(run: Run) -> tuple[int, int]:
    """Fewest and most workers of the run; equal where its size is fixed."""
    return run.scaling.least, run.scaling.most


def versions(facts: Sequence[NodeFacts], here: Mapping[str, str]) -> Finding:
    """Whether every node has the versions of this process."""
    differing = []
    for fact in facts:
        wrong = [f"{k} {v} (here {here[k]})" for k, v in fact.versions.items() if v != here.get(k)]
        if wrong:
            differing.append(f"{fact.name}: {', '.join(wrong)}")
    said = ", ".join(f"{k} {v}" for k, v in here.items())
    if differing:
        return Finding(
            "versions",
            "failed",
            "; ".join(differing[:4]) + (f" and {len(differing) - 4} nodes more" if len(differing) > 4 else ""),
            "install the same image or `pip install -c constraints.txt -e .` on every node; with --working-dir the code is the job's own",
        )
    return Finding("versions", "ok", f"equal everywhere: {said}")


def shared_memory(facts: Sequence[NodeFacts], gpu: bool) -> Finding:
    """Room in /dev/shm."""
    low = [f for f in facts if f.shm_gb < SHM_NEEDED_GB]
    smallest = min(facts, key=lambda f: f.shm_gb)
    if low:
        return Finding(
            "shared memory",
            "failed" if gpu else "warning",
            "; ".join(f"{f.name}: /dev/shm has {f.shm_gb:.2f} GB" for f in low[:4]),
            "docker run --shm-size=8g; in Kubernetes an emptyDir with medium: Memory at /dev/shm (it counts to the memory limit)",
        )
    return Finding("shared memory", "ok", f"/dev/shm has {smallest.shm_gb:.1f} GB or more")


def gpus(facts: Sequence[NodeFacts], expected: float) -> Finding:
    """Names, driver and CUDA of the GPUs."""
    if not expected:
        return Finding("GPUs", "ok", "none: workers train on CPUs")
    silent = [f for f in facts if f.driver.startswith("nvidia-smi")]
    if silent:
        return Finding(
            "GPUs",
            "failed",
            "; ".join(f"{f.name}: {f.driver}" for f in silent),
            "Ray counts GPUs there, the driver does not answer: install the NVIDIA driver, or start the container with --gpus all",
        )
    with_gpu = [f for f in facts if f.gpus]
    kinds = Counter(gpu for f in with_gpu for gpu in f.gpus)
    stacks = Counter((f.driver, f.cuda) for f in with_gpu)
    found = (
        ", ".join(f"{n} x {name}" for name, n in kinds.items())
        + "; "
        + "; ".join(f"driver {driver}, CUDA {cuda}" for driver, cuda in stacks)
    )
    if any(f.cuda.startswith("None") for f in with_gpu):
        return Finding(
            "GPUs",
            "failed",
            f"{found}: torch was built without CUDA",
            "install torch with CUDA: pip install -c constraints.txt -e '.[gpu]'",
        )
    if len(kinds) > 1 or len(stacks) > 1:
        return Finding("GPUs", "warning", found, "workers wait for the slowest: use one kind of GPU and one driver")
    return Finding("GPUs", "ok", found)


def authentication(facts: Sequence[NodeFacts], here: str) -> Finding:
    """RAY_AUTH_MODE, which Ray turns on by itself in some processes when it finds a token file."""
    others = {f.authentication for f in facts} - {here}
    if others:
        return Finding(
            "authentication",
            "warning",
            f"RAY_AUTH_MODE is {here!r} here and {', '.join(map(repr, sorted(others)))} on nodes",
            "export RAY_AUTH_MODE=token, with the same RAY_AUTH_TOKEN or ~/.ray/auth_token, before every `ray start` and every driver",
        )
    return Finding("authentication", "ok", f"RAY_AUTH_MODE is {here!r} everywhere")


def clocks(skews: Mapping[str, float]) -> Finding:
    """Clock of each node against the driver's, seconds."""
    name, worst = max(skews.items(), key=lambda item: abs(item[1]))
    found = f"within {abs(worst):.2f} s of this machine's" + (f" ({name})" if abs(worst) > SKEW_WARNING_S else "")
    if abs(worst) <= SKEW_WARNING_S:
        return Finding("clocks", "ok", found, figures={"largest_skew_s": abs(worst)})
    status: Status = "failed" if abs(worst) > SKEW_FAILED_S else "warning"
    return Finding(
        "clocks",
        status,
        found,
        "start chrony or systemd-timesyncd on that node; S3 refuses requests signed 15 minutes off",
    )


def disk(facts: Sequence[NodeFacts], cache_mb: int, remote_shards: bool) -> Finding:
    """Free space in the temporary folder, and in the cache folder where shards are fetched."""
    problems, failed = [], False
    for f in facts:
        folder, free = f.temporary
        if free < DISK_WARNING_GB:
            problems.append(f"{f.name}: {free:.1f} GB free in {folder}")
            failed |= free < DISK_FAILED_GB
        folder, free = f.cache
        if remote_shards and free * 1e9 < cache_mb << 20:
            problems.append(
                f"{f.name}: {free:.1f} GB free for the cache of {(cache_mb << 20) / 1e9:.0f} GB in {folder}"
            )
    if problems:
        fix = "free space, set TMPDIR to a larger disk before `ray start`" + (
            ", lower --data.cache-mb or move --data.cache" if remote_shards else ""
        )
        return Finding("disk", "failed" if failed else "warning", "; ".join(problems[:4]), fix)
    least = min(f.temporary[1] for f in facts)
    return Finding("disk", "ok", f"{least:.0f} GB or more free for checkpoints on their way and Ray's files")


def open_files(facts: Sequence[NodeFacts]) -> Finding:
    """The limit of open files of Ray's processes."""
    low = [f for f in facts if 0 <= f.open_files < OPEN_FILES_NEEDED]
    if low:
        return Finding(
            "open files",
            "warning",
            "; ".join(f"{f.name}: at most {f.open_files}" for f in low[:4]),
            "ulimit -n 65536 before `ray start` (in a container: --ulimit nofile=65536)",
        )
    return Finding("open files", "ok", f"limit {min(f.open_files for f in facts):,} or more")


def stale_clusters(facts: Sequence[NodeFacts], running_here: str) -> Finding:
    """Files of a dead cluster, and a live one that this command did not join."""
    stale = [f for f in facts if f.stale_cluster]
    if stale:
        return Finding(
            "left over",
            "warning",
            "; ".join(
                f"{f.name}: {node.current_cluster()} names {f.stale_cluster}, where nobody answers" for f in stale[:4]
            ),
            f"rm {node.current_cluster()}: Ray would try to join that cluster",
        )
    if running_here:
        return Finding(
            "left over",
            "warning",
            f"a Ray cluster runs at {running_here}, and this command started a Ray of its own beside it",
            "export RAY_ADDRESS=auto, or submit: ray job submit --working-dir . -- ...",
        )
    return Finding("left over", "ok", "no dead cluster's files")


def interfaces(facts: Sequence[NodeFacts], gpu: bool) -> Finding:
    """The network interface that collectives would use; loopback is right on one node and wrong on several."""
    used = Counter(f"{f.gloo.name or '?'} by {f.gloo.how}" for f in facts)
    found = "gloo: " + ", ".join(f"{what} on {n} node{'s' if n > 1 else ''}" for what, n in used.items())
    if gpu:
        chosen = Counter(f.nccl or "its own choice" for f in facts)
        found += "; NCCL: " + ", ".join(chosen)
    if len(facts) == 1:
        return Finding("interface", "ok", found)
    wrong = [f for f in facts if f.gloo.loopback or not f.gloo.address]
    if wrong:
        return Finding(
            "interface",
            "failed",
            f"{found}; on {', '.join(f.name for f in wrong[:4])} the host's name leads to loopback, so processes of other nodes are not met",
            f"export GLOO_SOCKET_IFNAME={_suggested(wrong[0])} (and NCCL_SOCKET_IFNAME) before `ray start` on every node",
        )
    return Finding("interface", "ok", found)


def _suggested(fact: NodeFacts) -> str:
    return fact.extra.get("interface") or "eth0"


def reduction(measured: AllReduce, between: str) -> Finding:
    """The probe's figures."""
    found = f"{measured.backend}, {measured.processes} processes {between}: latency {measured.latency_s * 1e6:.0f} us, bus bandwidth {measured.bandwidth / 1e6:,.0f} MB/s"
    figures = {
        "processes": measured.processes,
        "latency_s": measured.latency_s,
        "bandwidth_bytes_per_s": measured.bandwidth,
    }
    return Finding("all-reduce", "ok", found, figures=figures)


def storage(
    location: str, written: Mapping[str, dict[str, Any]], seen: Mapping[str, dict[str, Any]], left: int
) -> Finding:
    """Whether each node wrote, sees what every other wrote, and removed it again."""
    flag = "--checkpoint.storage"
    if broken := {n: r["error"] for n, r in written.items() if "error" in r}:
        return Finding(
            "storage",
            "failed",
            f"{location} cannot be written: {_listed(broken)}",
            f"give {flag} a place that every node may write (credentials and AWS_ENDPOINT_URL_S3 are each node's own)",
        )
    if broken := {n: r["error"] for n, r in seen.items() if "error" in r}:
        return Finding(
            "storage", "failed", f"{location} cannot be read: {_listed(broken)}", f"let every node read {flag}"
        )
    unseen = {n: [w for w in written if marker_of(w) not in r["seen"]] for n, r in seen.items()}
    missing = {n: names for n, names in unseen.items() if names}
    if missing:
        name, others = next(iter(missing.items()))
        more = f" ({len(missing)} of {len(seen)} nodes see too little)" if len(missing) > 1 else ""
        return Finding(
            "storage",
            "failed",
            f"{location} is not one place: {name} does not see what {', '.join(others[:3])} wrote{more}",
            f"a folder of each node's own cannot hold a checkpoint: give {flag} s3://bucket/prefix or a folder on a shared file system",
        )
    write, read = (min(r["mb_s"] for r in found.values()) for found in (written, seen))
    found = f"{location}: written, listed, read by {len(written)} node{'s' if len(written) > 1 else ''}; write {write:,.0f} MB/s, read {read:,.0f} MB/s (slowest node)"
    if left:
        return Finding(
            "storage",
            "warning",
            f"{found}; it cannot delete",
            "allow deleting there: old checkpoints would stay for ever",
        )
    return Finding("storage", "ok", found, figures={"write_mb_per_s": write, "read_mb_per_s": read})


def marker_of(name: str) -> str:
    """File name of the marker that the node `name` writes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def shards(location: str, read: Mapping[str, dict[str, Any]]) -> Finding:
    """Whether each node reads the same shards."""
    if broken := {n: r["error"] for n, r in read.items() if "error" in r}:
        return Finding(
            "shards", "failed", _listed(broken), "give --data.shards s3://bucket/prefix or a folder that every node has"
        )
    digests = {r["digest"] for r in read.values()}
    if len(digests) > 1:
        return Finding(
            "shards",
            "failed",
            f"{location} has different contents on different nodes: "
            + "; ".join(f"{n} {r['digest'][:10]}" for n, r in list(read.items())[:4]),
            "copy one set of shards to every node, or read them from s3://",
        )
    first, slowest = next(iter(read.values())), min(r["mb_s"] for r in read.values())
    found = f"{location}: {first['groups']} groups, {slowest:,.0f} MB/s on the slowest of {len(read)} nodes"
    return Finding("shards", "ok", found, figures={"read_mb_per_s": slowest})


def tracking(uri: str, token: str, answers: Mapping[str, dict[str, Any]]) -> Finding:
    """Whether each node reaches the tracking store, and the same one. `uri` is redacted."""
    if broken := {n: r["error"] for n, r in answers.items() if "error" in r}:
        return Finding(
            "tracking",
            "failed",
            _listed(broken),
            "let every node reach --tracking.uri, or turn it off with --tracking.uri ''",
        )
    others = [n for n, r in answers.items() if r["token"] != token]
    if others:
        return Finding(
            "tracking",
            "failed",
            f"{uri} is another store on {', '.join(others[:4])}",
            "a file of each node's own is no tracking store: give --tracking.uri http://server:5000",
        )
    if uri.startswith("sqlite") and len(answers) > 1:
        return Finding(
            "tracking",
            "warning",
            f"{uri}: one SQLite file for {len(answers)} nodes",
            "its locks are not safe on network file systems: mlflow server, and --tracking.uri http://server:5000",
        )
    return Finding("tracking", "ok", f"{uri}: written by one node, read by {len(answers)}")


def decoding(answers: Mapping[str, dict[str, Any]]) -> Finding:
    """DALI on each node's GPU."""
    if broken := {n: r["error"] for n, r in answers.items() if "error" in r}:
        return Finding(
            "GPU decode",
            "failed",
            _listed(broken),
            "pip install -c constraints.txt -e '.[gpu]', or --data.decoder pyav",
        )
    first = next(iter(answers.values()))
    return Finding("GPU decode", "ok", f"DALI decodes a clip of {first['frames']} frames on {len(answers)} nodes")


def _listed(broken: Mapping[str, str]) -> str:
    """Equal reasons once, with the nodes that gave them."""
    reasons: dict[str, list[str]] = {}
    for name, reason in broken.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names[:4])}: {reason}" for reason, names in list(reasons.items())[:3])
