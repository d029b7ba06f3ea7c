"""The loader benchmark runs, and compares like with like."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from coded_shards import SIZE, make_group, write_shards

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("webdataset")
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "loader.py"
    specification = importlib.util.spec_from_file_location("loader_benchmark", path)
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        specification.loader.exec_module(module)
    return module


def test_every_row_gives_the_frames_it_is_counted_for(benchmark, tmp_path, capsys):
    groups = [make_group("S00", f"{n:03d}", SEVEN[:2], 2 * n) for n in range(12)]
    root = write_shards(tmp_path, [groups[:6], groups[6:]])
    data = Data(shards=str(root), size=SIZE, split="none", decoder="pyav", prefetch=0)
    results = benchmark.one_round(data, 0, 1)
    one_pass = 12 * 2 * 6
    assert {name: frames for name, (frames, _, _) in results.items()} == {
        "plain": one_pass,
        "tuned": one_pass,
        "cold": one_pass,
        "first epoch": 4 * one_pass,
        "later epochs": 4 * one_pass,
        "no memory": one_pass,
    }
    benchmark.report([results], data, smoke=True)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["ratio_to_plain"]["plain"] == 1.0
    assert figures["frames_per_s"]["later epochs"] > figures["frames_per_s"]["cold"]
    assert figures["hardware"]
    assert figures["date"]


def test_plain_and_tuned_decode_the_same_pictures(benchmark):
    import numpy as np

    video = make_group("S00", "000", SEVEN[:1], 3).recordings[0].video
    asked = np.array([0, 7, 7, 20])
    whole, tuned = (benchmark.plain_decode(video, asked, how) for how in (False, True))
    assert np.array_equal(whole, tuned)
