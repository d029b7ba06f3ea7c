"""What a run shows Prometheus, and that the dashboard asks for nothing else."""

import json
import re
import socket
import time
import urllib.request
from contextlib import closing

import pytest
import torch
from documented import ROOT

from spfem_dist.config import Run
from spfem_dist.training import gauges
from spfem_dist.training.gauges import GAUGES, PERF, TAGS, shown
from spfem_dist.training.status import Meter

BOARD = json.loads((ROOT / "cluster" / "grafana" / "spfem.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]


def test_rank_0_shows_what_is_the_same_for_all_and_others_their_own_speed():
    values = {"train/ccrl/contrast": 2.0, "perf/samples_per_s": 8.0, "perf/data_wait_share": 0.25, "perf/unknown": 1.0}
    assert sorted(shown(values, 24, everything=True)) == [
        ("spfem_data_wait_share", 0.25, {}),
        ("spfem_loss", 2.0, {"figure": "ccrl/contrast"}),
        ("spfem_samples_per_second", 8.0, {}),
        ("spfem_samples_seen", 24, {}),
    ]
    assert shown(values, 24, everything=False) == [("spfem_data_wait_share", 0.25, {})]
    assert ("spfem_held_out", 1.5, {"figure": "ccrl/contrast"}) in shown({"val/ccrl/contrast": 1.5}, 0, True)
    assert ("spfem_checkpoint_seconds", 0.5, {"figure": "checkpoint"}) in shown({"perf/checkpoint_s": 0.5}, 0, True)


def test_every_figure_that_a_gauge_waits_for_is_one_that_the_meter_gives():
    meter = Meter(1, 1, flops_per_sample=1e9, peak=1e12, warmup=0)
    meter.step(0.0)
    assert PERF.keys() <= meter.reading(torch.device("cpu")).keys()
    assert {gauge for gauge, _ in PERF.values()} <= GAUGES.keys()


def test_without_ray_the_recorder_stays_what_it_was():
    class Alone:
        launcher, rank = "local", 0

    recorder = object()
    assert gauges.beside(recorder, Run(), "ccrl", Alone()) is recorder


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_asks_for_metrics_and_tags_that_there_are(query):
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    (name,) = re.findall(r"\bray_(\w+)", query)
    assert name in GAUGES or name in METRICS_GAUGES
    if name in GAUGES:
        asked = re.search(r"by \((.*?)\)", query)[1].split(", ") + re.findall(r"(\w+)=~", query)
        assert set(asked) <= {*TAGS, *GAUGES[name][1]}


def test_the_dashboard_shows_every_gauge_and_can_be_pointed_at_any_prometheus():
    assert {name for name in GAUGES if not any(re.search(rf"ray_{name}\b", query) for query in QUERIES)} == set()
    sources = {target["datasource"]["uid"] for panel in BOARD["panels"] for target in panel.get("targets", [])}
    assert sources == {"${datasource}"}
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["datasource", "run", "part"]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_rays_metrics_page_has_the_figures_of_its_workers():
    import ray

    def work(rank):
        class World:
            launcher = "ray"

        World.rank = rank
        recorder = gauges.beside(None, Run(name="seen"), "ccrl", World())
        for _ in range(600):  # until the test ends it
            recorder.metrics({"train/ccrl/contrast": 2.5, "perf/data_wait_share": 0.125}, 96)
            time.sleep(0.2)

    port = free_port()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 300},
    )
    try:
        started = [ray.remote(num_cpus=1)(work).remote(rank) for rank in (0, 1)]
        deadline, page = time.time() + 240, ""
        while time.time() < deadline and not ("spfem_loss" in page and 'rank="1"' in page):
            time.sleep(0.5)
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            except OSError:  # the agent is not up yet
                continue
    finally:
        ray.shutdown()
    assert started
    found = {}
    for name, tags, value in re.findall(r"^ray_(spfem_\w+)\{(.*?)\} (\S+)$", page, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="(.*?)"', tags))
        assert (tags["run"], tags["part"]) == ("seen", "ccrl")
        found[name, tags["rank"], tags.get("figure", "")] = float(value)
    assert found == {
        ("spfem_loss", "0", "ccrl/contrast"): 2.5,
        ("spfem_samples_seen", "0", ""): 96.0,
        ("spfem_data_wait_share", "0", ""): 0.125,
        ("spfem_data_wait_share", "1", ""): 0.125,
    }
