"""`make nightly` runs each part, records it with its day and its times, and keeps the rows of parts that it did not run."""

import re
import sys
import time

import nightly
from documented import ROOT
from nightly import Part


def part(name, code, **more):
    return Part(name, f"what {name} holds", (sys.executable, "-c", code), 1, **more)


def test_a_part_that_ran_is_recorded_and_one_that_failed_or_cannot_run_is_said(tmp_path, capsys):
    record, logs = tmp_path / "nightly.md", tmp_path / "logs"
    parts = (
        part("good", "print('3 passed, 1 skipped in 2.00s')"),
        part("bad", "print('1 failed, 2 passed in 1s'); raise SystemExit(1)"),
        part("elsewhere", "raise SystemExit(1)", programs=("a-program-of-nobody",)),
    )
    words = ["--record", str(record), "--logs", str(logs)]
    assert nightly.main(words, parts) == 1
    rows = nightly.recorded(record)
    assert f"| {time.strftime('%Y-%m-%d')} | 3 passed, 1 skipped |" in rows["good"]
    assert re.search(r"\| \d+\.\d \| \d+\.\d \|$", rows["good"])
    assert "| **failed**: 1 failed, 2 passed |" in rows["bad"]
    assert "| not run: needs a-program-of-nobody |" in rows["elsewhere"]
    assert "failed: bad" in capsys.readouterr().out

    mended = (parts[0], part("bad", "print('3 passed in 1s')"), parts[2])
    assert nightly.main(["bad", *words], mended) == 0
    again = nightly.recorded(record)
    assert (again["good"], again["elsewhere"]) == (rows["good"], rows["elsewhere"])
    assert "| 3 passed |" in again["bad"]


def test_a_part_that_skipped_every_test_was_not_run(tmp_path):
    said = "SKIPPED [31] tests/kubelet/test_rendered.py:227: the project lies in /tmp\\n31 skipped in 1.6s"
    words = ["--record", str(tmp_path / "nightly.md"), "--logs", str(tmp_path)]
    assert nightly.main(words, (part("pods", f"print('{said}')"),)) == 0
    assert "| not run: the project lies in /tmp |" in nightly.recorded(tmp_path / "nightly.md")["pods"]


def test_benchmarks_are_counted_though_one_of_them_counts_tests_that_need_a_gpu(tmp_path):
    said = "benchmarks/gpu.py --smoke\\nSKIPPED [4] tests/gpu.py:9: needs a GPU\\n4 skipped in 1.0s\\nbenchmarks/step.py --smoke"
    words = ["--record", str(tmp_path / "nightly.md"), "--logs", str(tmp_path)]
    assert nightly.main(words, (part("speed", f"print('{said}')"),)) == 0
    assert "| 2 benchmarks ran |" in nightly.recorded(tmp_path / "nightly.md")["speed"]


def test_every_heavy_marker_has_a_part_and_a_target():
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^nightly:.*\n\t.*tests/nightly\.py", makefile, re.MULTILINE)
    for marker in ("nightly", "hosts", "kubelet", "browser"):
        assert f"not {marker}" in project, f"make test would run what is marked {marker}"
        assert [p for p in nightly.PARTS if marker in p.command], f"no part runs what is marked {marker}"
