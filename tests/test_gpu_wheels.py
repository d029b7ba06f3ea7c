"""What `make gpu` imports is there on a machine without a registry: in its image, or among the wheels that are carried to it."""

import importlib.metadata
import os
import re
import subprocess
import sys

from doors import ROOT

#: What the list says that the image has; what these need comes with them.
IMAGE = ["torch", "transformers", "accelerate", "numpy", "scipy", "scikit-learn", "pandas", "numba", "rich", "psutil"]
IMAGE += [
    "opencv-python-headless",
    "pyyaml",
    "einops",
    "msgpack",
    "py-cpuinfo",
    "pytest",
    "pytest-xdist",
    "pytest-timeout",
]
#: Imports what the tests and rows import, where packages of the names in argv cannot be imported.
IMPORTING = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

absent, find = set(sys.argv[1].split(",")), PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: None if name in absent else find(name, path, target)
import deepspeed, pytest
import on_gpu.decoding, on_gpu.page, on_gpu.rows, on_gpu.steps
for file in Path("tests").rglob("*_gpu.py"):
    sys.path[:0] = [str(file.parent)]
    for name in ("conftest", file.stem):
        sys.modules.pop(name, None)
        if (file.parent / f"{name}.py").exists():
            __import__(name)
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_they_need(names: list[str]) -> set[str]:
    """These distributions and, where they are installed, all that they require without extras."""
    found, left = set(), [normal(name) for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            left += [normal(re.match(r"[\w.-]+", line)[0]) for line in needed if "extra ==" not in line]
    return found


def test_nothing_is_imported_that_is_neither_in_the_image_nor_among_the_wheels():
    lines = (ROOT / "benchmarks" / "gpu_wheels.txt").read_text().splitlines()
    wheels = {normal(line.split("==")[0]) for line in lines if line and not line.startswith("#")}
    there = with_what_they_need(IMAGE) | wheels | {"deepspeed", "spfem-dist"}
    modules = importlib.metadata.packages_distributions()
    absent = sorted(name for name, owners in modules.items() if not {normal(owner) for owner in owners} & there)
    assert {"mlflow", "ray"} <= set(absent)
    paths = [ROOT, *(ROOT / name for name in ("tests", "tests/training", "recipes", "benchmarks"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, ",".join(absent)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-1500:]
