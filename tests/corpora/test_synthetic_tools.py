"""The contact sheet and the rendering benchmark run from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("what", "columns"), [("emotions", 7), ("visemes", 14)])
def test_the_sheet_shows_every_identity(tmp_path, what, columns):
    sheet = tmp_path / "sheet.png"
    done = _run(
        *("-m", "spfem_dist.corpora.synthetic", "--sheet", str(sheet), "--what", what),
        *("--identities", "2", "--sentences", "2", "--size", "48"),
    )
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(sheet)).shape == (2 * 48, columns * 48, 3)


def test_a_sheet_that_cannot_be_written_says_so(tmp_path):
    sheet = tmp_path / "missing" / "sheet.png"
    done = _run("-m", "spfem_dist.corpora.synthetic", "--sheet", str(sheet), "--identities", "1", "--size", "32")
    assert done.returncode != 0
    assert "must exist" in done.stderr


@pytest.mark.nightly
def test_the_benchmark_prints_speed_and_hardness():
    done = _run("benchmarks/render.py", "--recordings", "1", "--pairs", "1", "--sizes", "64", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "frames/s drawn" in done.stdout
    assert "seed 0: 1 pairs, linear_stretch_within_2" in done.stdout
