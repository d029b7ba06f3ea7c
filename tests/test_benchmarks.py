"""The benchmarks of the steps run in small, and print their figures as one line of JSON (`make smoke` runs all of them)."""

import json

import pytest
from doors import command, well


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["step", "stage2_step"])
def test_a_short_benchmark_compares_both_sides(name):
    done = well(command("python", f"benchmarks/{name}.py", "--smoke"))
    facts = json.loads(done.out.strip().splitlines()[-1])
    assert facts["benchmark"] == name
    assert facts["ratio"] == pytest.approx(facts["ours_s"] / facts["plain_s"])
