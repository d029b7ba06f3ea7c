"""The status line reports what was measured."""

import re
from io import StringIO

import pytest
import torch
from rich.console import Console

from spfem_dist.training import status
from spfem_dist.training.screen import HEADLINES, Screen, Status
from spfem_dist.training.status import Meter, arithmetic, peak_flops


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


def test_utilisation_is_of_the_peak_of_the_precision(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    device = torch.device("cuda", 0)
    found = [peak_flops(device, arithmetic(precision)) for precision in ("bf16", "fp32")]
    assert found == [989e12, 494.7e12]
    assert peak_flops(device, "fp32") == 66.9e12


def test_the_line_names_the_job_its_losses_and_the_time_left():
    meter = Meter(1, 4, warmup=0)
    meter.step(0.0)
    line = meter.status("ccrl", 10, 100, {"ccrl/contrast": 1.5}, torch.device("cpu")).line()
    for part in ("ccrl 10/100", "contrast 1.500", "samples/s", "data wait", "GB", "left"):
        assert part in line


MANY = {f"ned/a_loss_with_a_long_name_{i}": 1234.5678 for i in range(30)}


def test_a_line_of_thirty_losses_fits_a_log_and_keeps_the_speed():
    status = Status("ned", 12345, 99999, MANY, 1234.5, 0.123, 12345.0, 123.45, 0.5, 360000.0)
    assert len(status.line()) <= 120
    assert status.line().endswith("100:00:00 left")
    assert len(status.headlines) == HEADLINES + 1


def test_the_losses_of_the_job_come_before_its_guidance_and_in_the_order_of_the_step():
    losses = {"guidance/ccrl/content": 1.0, "ned/picture": 2.0, "guidance/cerl/emotion": 3.0, "ned/cycle": 4.0}
    assert Status("ned", 1, 2, losses).line() == "ned 1/2 | picture 2.000 | cycle 4.000 | content 1.000 | emotion 3.000"


def test_a_log_gets_the_first_line_the_last_and_few_between(monkeypatch):
    monkeypatch.setenv("SPFEM_STATUS_SECONDS", "3600")
    console = Console(file=StringIO(), width=80)
    with Screen(console) as screen:
        for step in range(1, 101):
            screen.show(Status("a", step, 100, {"a/loss": 1.0}))
    assert console.file.getvalue().splitlines() == ["a 1/100 | loss 1.000", "a 100/100 | loss 1.000"]


def test_a_terminal_gets_a_bar_for_each_job_that_fits_80_columns():
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        screen.say("a line [with] brackets")
        screen.show(Status("ccrl", 3, 10, {"ccrl/contrast": 1.5}, samples_per_s=7.0, seconds_left=61.0))
        screen.show(Status("cerl", 4, 10, MANY, samples_per_s=7.0))
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in console.file.getvalue().splitlines()]
    assert lines[0] == "a line [with] brackets"
    text = "\n".join(lines)
    for part in ("ccrl", "3/10", "7.0 samples/s  1:01 left  contrast 1.500", "cerl", "4/10"):
        assert part in text
    assert all(len(line) <= 80 for line in lines)


def test_a_quiet_screen_shows_nothing():
    console = Console(file=StringIO())
    with Screen(console, quiet=True) as screen:
        screen.say("a line")
        screen.show(Status("a", 1, 1, {}))
    assert console.file.getvalue() == ""
