"""The status line reports what was measured."""

import pytest
import torch

from spfem_dist.training import status
from spfem_dist.training.status import Meter, peak_flops


def test_speed_counts_the_global_batch_and_leaves_the_warm_up_and_pauses_out(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(status.time, "perf_counter", lambda: clock[0])
    meter = Meter(workers=2, global_batch=10, warmup=1)
    for took in (5.0, 0.5, 0.5, 1.0):
        clock[0] += took
        meter.step(0.125)
    clock[0] += 100  # a checkpoint
    meter.pause()
    clock[0] += 0.5
    meter.step(0.125)
    now = meter.reading(torch.device("cpu"))
    assert (now["step_time_p50"], now["step_time_max"]) == (0.5, 1.0)
    assert now["samples_per_s"] == 2 * now["samples_per_s_per_worker"] == pytest.approx(4 * 10 / 2.5)
    assert now["data_wait_share"] == pytest.approx(0.2)


def test_utilisation_is_shown_only_where_the_peak_is_known():
    meter = Meter(1, 1, flops_per_sample=1e9, peak=None, warmup=0)
    meter.step(0.0)
    assert "mfu" not in meter.reading(torch.device("cpu"))
    meter.peak = 1e12
    assert meter.reading(torch.device("cpu"))["mfu"] > 0
    assert peak_flops(torch.device("cpu")) is None


def test_the_line_names_the_job_its_losses_and_the_time_left():
    meter = Meter(1, 4, warmup=0)
    meter.step(0.0)
    line = meter.line("ccrl", 10, 100, {"ccrl/contrast": 1.5}, torch.device("cpu"))
    for part in ("ccrl 10/100", "contrast 1.500", "samples/s", "data wait", "GB", "left"):
        assert part in line
