"""The arithmetic of a plan, against what can be worked out by hand."""

from io import StringIO

import pytest
import torch
from rich.console import Console

from spfem_dist.config import Zero
from spfem_dist.doctor.allreduce import AllReduce
from spfem_dist.planning import constants as constants_module
from spfem_dist.planning.constants import Collective, Constants, JobConstants, assumed, read, with_cluster
from spfem_dist.planning.measure import job_of
from spfem_dist.planning.predict import (
    Shape,
    checkpoint_bytes,
    exchange_seconds,
    fit,
    job_constants,
    predict,
    zero_collectives,
)
from spfem_dist.planning.show import table_of

SHAPE = Shape(
    trainable=1_000_000,
    frozen_bytes=0,
    activation_bytes=1e6,
    flops_per_sample=1e9,
    optimizer_states=2,
    samples_per_epoch=1000,
    bytes_per_epoch=10**9,
    shard_bytes=2 * 10**9,
)


def machine(**changes) -> Constants:
    job = JobConstants(fixed_s=0.01, sample_s=0.02, optimizer_s=0.008, contention={1: 1.0, 2: 1.25})
    values = {"name": "m", "kind": "measured", "latency_s": 1e-3, "bandwidth": 1e9, "storage_write": 1e8}
    return Constants(**(values | {"jobs": {"j": job}} | changes))


def of(workers: int, batch: int = 8, zero: Zero | None = None, **changes):
    settings = {"samples": 8000, "workers_per_node": 2} | changes
    return predict(machine(), "j", SHAPE, zero or Zero(stage=1), workers, batch, **settings)


def test_one_worker_is_the_line_that_was_measured():
    alone = of(1)
    assert alone.step_s == pytest.approx(0.01 + 8 * 0.02 + 0.008)
    assert (alone.exchange_s, alone.samples_per_s) == (0.0, pytest.approx(8 / 0.178))
    assert alone.hours == pytest.approx(1000 * 0.178 / 3600)


def test_two_workers_share_the_samples_and_the_update_contend_and_exchange():
    two = of(2)
    compute = 1.25 * (0.01 + 4 * 0.02 + 0.004)
    exchange = 2 * 1e-3 + (4e6 + 4e6) * 0.5 / 1e9  # a reduce-scatter and an all-gather of a million fp32 numbers
    assert two.step_s == pytest.approx(compute + exchange)
    assert two.exchange_share == pytest.approx(exchange / (compute + exchange))
    assert of(2, zero=Zero(stage=0)).step_s > two.step_s  # every worker updates all parameters


def test_the_exchange_grows_with_n_as_a_ring_does_and_its_latency_as_a_tree():
    once = {"all_reduce": Collective(calls=10, bytes=1e9)}
    assert exchange_seconds(once, 1, 1e9, 1e-3, 2) == 0.0
    assert exchange_seconds(once, 2, 1e9, 1e-3, 2) == pytest.approx(1.0 + 0.01)
    assert exchange_seconds(once, 64, 1e9, 1e-3, 2) == pytest.approx(2 * 63 / 64 + 0.06)


def test_a_call_costs_what_it_did_within_a_step_where_that_is_more_than_on_an_idle_network():
    once = {"all_reduce": Collective(calls=10, bytes=0)}
    assert exchange_seconds(once, 2, 1e9, 1e-3, 2, {2: 3e-3}) == pytest.approx(0.03)
    assert exchange_seconds(once, 16, 1e9, 1e-3, 2, {2: 3e-3, 8: 6e-3}) == pytest.approx(0.12)
    assert exchange_seconds(once, 2, 1e9, 1e-3, 2, {2: 1e-4}) == pytest.approx(0.01)


def test_what_one_job_takes_longer_than_steps_side_by_side_is_the_cost_of_its_calls():
    idle = AllReduce(2, "gloo", 1e-3, 1e9)
    apart = [
        {"j": {str(b): {"alone": [t], "beside": [t], "waited": 0.0, "updating": 0.0} for b, t in ((4, 0.1), (8, 0.2))}}
    ] * 2
    together = {
        "j": {str(b): {"together": [t], "collectives": {"all_reduce": [10, 2e7]}} for b, t in ((4, 0.17), (8, 0.27))}
    }
    job = job_of("j", apart, together, 2, idle)
    assert job.call_s == {2: pytest.approx((0.07 - 0.02) / 10)}
    quick = {
        "j": {str(b): {"together": [t], "collectives": {"all_reduce": [10, 2e7]}} for b, t in ((4, 0.1), (8, 0.2))}
    }
    assert job_of("j", apart, quick, 2, idle).call_s == {2: 1e-3}


def test_zero_three_moves_half_as_much_again():
    def volume(stage):
        return sum(
            c.bytes * {"all_reduce": 2}.get(kind, 1)
            for kind, c in zero_collectives(10**6, Zero(stage=stage, precision="bf16")).items()
        )

    assert [volume(stage) for stage in (0, 1, 2, 3)] == [4e6, 4e6, 4e6, 6e6]


def test_checkpoints_storage_and_s3_follow_from_sizes():
    assert checkpoint_bytes(10**6, 0, 2, Zero(stage=1)) == 16e6  # weights, master weights, two states of Adam
    assert checkpoint_bytes(10**6, 0, 2, Zero(stage=1, precision="bf16")) == 14e6
    assert checkpoint_bytes(10**6, 0, 2, Zero(stage=0)) == checkpoint_bytes(10**6, 0, 2, Zero(stage=3)) == 12e6
    two, four = of(2, every_steps=10), of(4, every_steps=10)
    assert (two.upload_s, four.upload_s) == (pytest.approx(0.16), pytest.approx(0.08))  # two nodes write half each
    assert two.stall_s == 0  # ten steps take longer
    assert two.hours == pytest.approx((two.steps * two.step_s + 0.16) / 3600)
    epoch_s = 1000 / four.samples_per_s
    assert four.s3_samples == pytest.approx(1e9 / epoch_s)
    assert four.s3_nodes == pytest.approx(2 * 2e9 / epoch_s)


def test_steps_wait_for_an_upload_that_is_held_or_late():
    held = of(2, every_steps=10, background=False)
    assert held.stall_s == held.upload_s
    assert held.hours == pytest.approx((held.steps * held.step_s + (held.steps // 10 + 1) * held.stall_s) / 3600)
    assert of(2, every_steps=1).stall_s == pytest.approx(max(0.0, held.upload_s - held.step_s))


def test_memory_is_that_of_the_dry_run():
    # Weights, gradients, master weights and two states of Adam, a bucket and the own share of the gradients, activations.
    assert of(2).memory.total == pytest.approx(4e6 + 4e6 + 12e6 / 2 + 4e6 + 4e6 / 2 + 4 * 1e6)
    assert of(2, micro_batch=1).memory.activations == 1e6


def test_the_fit_finds_a_line_and_says_how_far_off_it_is():
    assert fit({2: 0.05, 4: 0.09, 8: 0.17}) == (pytest.approx(0.01), pytest.approx(0.02), pytest.approx(0, abs=1e-9))
    fixed, slope, error = fit({4: 0.02, 8: 0.05})  # faster than proportional: no negative fixed cost
    assert (fixed, slope > 0, error > 0.1) == (0.0, True, True)
    with pytest.raises(ValueError, match="two or more sizes"):
        fit({4: 0.1})


def test_assumptions_say_that_they_are_and_where_from():
    h100 = assumed("h100")
    assert h100.kind == "assumed"
    assert {"flops", "bandwidth", "latency_s"} <= h100.sources.keys()
    assert job_constants(h100, "any", SHAPE, "bf16").sample_s == pytest.approx(1e9 / (0.2 * 989e12), rel=1e-3)
    with pytest.raises(ValueError, match="known: a100, h100"):
        assumed("abacus")
    with pytest.raises(ValueError, match="was not measured on m"):
        job_constants(machine(), "other", SHAPE)


@pytest.mark.parametrize("gpu", ["h100", "a100"])
def test_fp32_is_assumed_to_be_slower_than_bf16_and_as_fast_as_the_arithmetic_that_it_uses(gpu, monkeypatch):
    def seconds(precision):
        return job_constants(assumed(gpu), "any", SHAPE, precision).sample_s

    assert seconds("fp32") / seconds("bf16") == pytest.approx(2.0, rel=0.01), "convolutions go through TF32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert seconds("fp32") / seconds("bf16") == pytest.approx({"h100": 989 / 67, "a100": 16}[gpu], rel=0.01)


def test_constants_are_read_back_and_take_a_clusters_figures(tmp_path):
    file = tmp_path / "constants.json"
    file.write_text(machine().model_dump_json())
    assert read(file) == machine()
    figures = {"processes": 4, "latency_s": 2e-5, "bandwidth_bytes_per_s": 5e9}
    found = {"ok": True, "checks": [{"check": "all-reduce", "figures": figures}]}
    found["checks"].append({"check": "storage", "figures": {"write_mb_per_s": 250.0}})
    (tmp_path / "cluster.json").write_text(constants_module.json.dumps(found))
    there = with_cluster(machine(), tmp_path / "cluster.json")
    assert (there.processes, there.latency_s, there.bandwidth, there.storage_write) == (4, 2e-5, 5e9, 2.5e8)
    file.write_text("{}")
    with pytest.raises(ValueError, match="holds no constants"):
        read(file)
    with pytest.raises(ValueError, match="spfem doctor --json"):
        with_cluster(machine(), file)


def test_the_table_of_a_plan_fits_80_columns():
    console = Console(file=StringIO(), width=80)
    found = [of(workers, 8192) for workers in (8, 64, 1024, 8192)]
    console.print(table_of("ccrl", machine(), found, epoch=True))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert {line.split("│")[1].strip() for line in lines if line.startswith("│")} >= {
        "samples/s",
        "hours",
        "checkpoint, GB",
    }
