"""The steps that `make gpu` measures are those of the jobs as they are: each takes one on the CPU, in small."""

import pytest
from doors import ROOT


@pytest.mark.parametrize("job", ["ccrl", "ned"])
def test_a_row_of_the_gpu_table_is_measured_on_the_cpu_too(job, toy, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from on_gpu import steps

    (tmp_path / "64").symlink_to(toy.shards)
    monkeypatch.setenv(steps.SHARDS, str(tmp_path))
    row = steps.step(job, "small", "bf16", tiny=True)
    assert row["samples_per_s"] > 0
    assert row["gflop_per_sample"] > 0.05
    assert "mfu" not in row, "no peak is known of a CPU"
