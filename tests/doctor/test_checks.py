"""What the doctor judges, fault by fault: each fault fails (or warns), says where, and says what to do."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from spfem_dist.config import Run, Scaling
from spfem_dist.doctor import checks, node
from spfem_dist.doctor.allreduce import AllReduce
from spfem_dist.doctor.finding import as_json, guarded, public, table_of

HERE = {"python": "3.11.7", "torch": "2.13.0", "code": "0123456789"}


def fact(host: str, **changes) -> node.NodeFacts:
    made = node.NodeFacts(
        host=host,
        address=f"10.0.0.{host[-1]}",
        versions=dict(HERE),
        cpus=16,
        memory_gb=128,
        shm_gb=64,
        open_files=65536,
        temporary=("/scratch", 500.0),
        cache=("/cache", 500.0),
        authentication="disabled",
        gloo=node.Interface("eth0", f"10.0.0.{host[-1]}", "the host's name"),
        nccl="",
        stale_cluster="",
        gpus=("NVIDIA H100 80GB HBM3, 81559 MiB",) * 8,
        driver="570.1",
        cuda="12.9, NCCL 2.27.3",
    )
    return replace(made, **changes)


TWO = [fact("n1"), fact("n2")]


def with_second(**changes):
    return [fact("n1"), fact("n2", **changes)]


def test_a_sound_cluster_passes_every_judgement():
    found = [
        checks.nodes(TWO, {"CPU": 32, "GPU": 16}, {}),
        checks.versions(TWO, HERE),
        checks.gpus(TWO, 16),
        checks.shared_memory(TWO, gpu=True),
        checks.open_files(TWO),
        checks.disk(TWO, 20_480, remote_shards=True),
        checks.authentication(TWO, "disabled"),
        checks.stale_clusters(TWO, ""),
        checks.clocks({"n1": 0.0, "n2": 0.004}),
        checks.interfaces(TWO, gpu=True),
        checks.room(Run(scaling=Scaling(workers=16)), {"GPU": 16}, gpu=True),
        checks.reduction(AllReduce(2, "nccl", 2e-5, 4e10), "on 2 nodes"),
    ]
    assert {f.check: f.status for f in found if f.status != "ok"} == {}
    assert as_json(found)["ok"]


@pytest.mark.parametrize(
    ("finding", "status", "found", "fix"),
    [
        (checks.nodes(TWO, {}, {"n3": "no module spfem_dist"}), "failed", "n3: no module", "install"),
        (
            checks.versions(with_second(versions=HERE | {"torch": "2.12.0"}), HERE),
            "failed",
            "n2 (10.0.0.2): torch 2.12.0 (here 2.13.0)",
            "same image",
        ),
        (checks.versions(with_second(versions=HERE | {"code": "ffff"}), HERE), "failed", "code ffff", "--working-dir"),
        (checks.gpus(with_second(driver="nvidia-smi: not found", gpus=()), 16), "failed", "n2", "driver"),
        (checks.gpus(with_second(cuda="None, NCCL none"), 16), "failed", "without CUDA", "[gpu]"),
        (checks.gpus(with_second(gpus=("A100",) * 8), 16), "warning", "8 x A100", "slowest"),
        (checks.shared_memory(with_second(shm_gb=0.064), gpu=True), "failed", "0.06 GB", "--shm-size"),
        (checks.shared_memory(with_second(shm_gb=0.064), gpu=False), "warning", "n2", "emptyDir"),
        (checks.open_files(with_second(open_files=1024)), "warning", "at most 1024", "ulimit"),
        (checks.disk(with_second(temporary=("/scratch", 0.4)), 100, False), "failed", "0.4 GB free", "TMPDIR"),
        (checks.disk(with_second(cache=("/cache", 5.0)), 20_480, True), "warning", "cache of 21 GB", "--data.cache-mb"),
        (checks.authentication(with_second(authentication=""), "disabled"), "warning", "''", "RAY_AUTH_MODE"),
        (checks.stale_clusters(with_second(stale_cluster="10.0.0.9:6379"), ""), "warning", "10.0.0.9:6379", "rm "),
        (checks.stale_clusters(TWO, "10.0.0.1:6379"), "warning", "of its own beside it", "RAY_ADDRESS"),
        (checks.clocks({"n1": 0.0, "n2": -40.0}), "warning", "40.00 s", "chrony"),
        (checks.clocks({"n1": 0.0, "n2": 1000.0}), "failed", "(n2)", "15 minutes"),
        (
            checks.interfaces(
                with_second(gloo=node.Interface("lo", "127.0.1.1", "the host's name"), extra={"interface": "ens5"}),
                gpu=False,
            ),
            "failed",
            "leads to loopback",
            "GLOO_SOCKET_IFNAME=ens5",
        ),
        (
            checks.room(Run(scaling=Scaling(workers=16)), {"GPU": 8}, gpu=True),
            "failed",
            "room for 8",
            "--scaling.workers",
        ),
    ],
)
def test_a_fault_is_named_with_its_place_and_its_fix(finding, status, found, fix):
    assert finding.status == status, finding
    assert found in finding.found
    assert fix in finding.fix


def marked(*names):
    return {"seen": [checks.marker_of(n) for n in names], "mb_s": 100.0}


def test_a_folder_that_is_each_nodes_own_is_no_storage():
    written = {"n1 (10.0.0.1)": {"mb_s": 50.0}, "n2 (10.0.0.2)": {"mb_s": 60.0}}
    own = {name: marked(name) for name in written}
    finding = checks.storage("/data/runs", written, own, left=0)
    assert finding.status == "failed"
    assert "n1 (10.0.0.1) does not see what n2 (10.0.0.2) wrote" in finding.found
    assert "s3://" in finding.fix
    shared = {name: marked(*written) for name in written}
    finding = checks.storage("/data/runs", written, shared, left=0)
    assert (finding.status, finding.figures["write_mb_per_s"]) == ("ok", 50.0)
    assert checks.storage("/data/runs", written, shared, left=2).status == "warning"
    refused = written | {"n2 (10.0.0.2)": {"error": "PermissionError: read-only"}}
    finding = checks.storage("/data/runs", refused, shared, left=0)
    assert finding.status == "failed"
    assert "n2 (10.0.0.2): PermissionError" in finding.found


def test_shards_and_tracking_must_be_the_same_on_every_node():
    same, other = {"digest": "a" * 64, "groups": 3, "mb_s": 10.0}, {"digest": "b" * 64, "groups": 3, "mb_s": 10.0}
    assert checks.shards("/shards", {"n1": same, "n2": same}).status == "ok"
    assert checks.shards("/shards", {"n1": same, "n2": other}).status == "failed"
    answer = {"detail": "SQLite file", "token": "t"}
    assert checks.tracking("http://server", "t", {"n1": answer, "n2": answer}).status == "ok"
    assert checks.tracking("sqlite:///a.db", "t", {"n1": answer, "n2": answer}).status == "warning"
    mine = checks.tracking("sqlite:///a.db", "t", {"n1": answer, "n2": answer | {"token": "old"}})
    assert (mine.status, "another store on n2" in mine.found) == ("failed", True)


def test_a_check_that_breaks_is_a_finding_and_tells_no_secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-0123456789")

    def broken():
        raise OSError("postgresql://me:word@host/db refused hidden-0123456789")

    finding = guarded("tracking", "mend it", broken)
    Console(file=io.StringIO()).print(table_of([replace(finding, found="[/gloo/pair.cc:152] refused", fix="[gpu]")]))
    assert finding.status == "failed"
    assert "hidden" not in finding.found
    assert "word" not in finding.found
    assert public("x" * 1000).endswith("...")


def test_an_address_file_is_stale_where_nobody_answers(tmp_path):
    file = tmp_path / "ray_current_cluster"
    assert node.stale_cluster(file) == node.running_cluster(file) == ""
    file.write_text("127.0.0.1:9")
    assert node.stale_cluster(file) == "127.0.0.1:9"
    assert node.running_cluster(file) == ""


def test_the_interface_is_the_one_that_the_variable_names():
    chosen = node.gloo_interface({"GLOO_SOCKET_IFNAME": "lo"})
    assert (chosen.name, chosen.loopback, chosen.how) == ("lo", True, "GLOO_SOCKET_IFNAME")
