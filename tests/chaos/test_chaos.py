"""The kill matrix made small: `make chaos` without Ray, each fault once."""

import runpy
from pathlib import Path

import pytest
from cells import FAULTS
from proof import difference, samples

main = runpy.run_path(str(Path(__file__).with_name("__main__.py")), run_name="chaos")["main"]


@pytest.mark.nightly
def test_each_fault_leaves_losses_samples_checkpoints_and_tracking_as_they_were(capsys):
    assert main(["--small", "--alone"]) == 0, capsys.readouterr().out
    table = [line for line in capsys.readouterr().out.splitlines() if line.endswith("| ok |")]
    assert [line.split(" | ")[0].strip("| ") for line in table] == [fault for fault in FAULTS if fault != "node"]
    assert all(" | 0 | 0, 0 | nothing | 0, 0 | " in line for line in table)


def test_a_difference_a_lost_sample_and_one_seen_twice_would_be_found(tmp_path):
    assert difference({(1, "a"): 1.0}, {(1, "a"): 1.5}) == 0.5
    assert difference({(1, "a"): 1.0}, {(1, "a"): 1.0, (2, "a"): 1.0}) == float("inf")
    row = '{{"step": {0}, "rank": 0, "world": 1, "time": {1}, "samples": {2}}}\n'
    rolled_back = row.format(1, 0, [0, 1]) + row.format(2, 1, [2, 9]) + row.format(2, 2, [2, 3])
    for text, expected in (
        (rolled_back, (0, 0)),
        (row.format(1, 0, [0, 1]) + row.format(2, 1, [3, 3]), (1, 1)),
        (row.format(1, 0, [0, 1]), (2, 0)),
    ):
        (tmp_path / "ccrl-1.jsonl").write_text(text)
        assert samples(tmp_path, "ccrl", global_batch=2, steps=2) == expected
