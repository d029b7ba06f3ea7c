"""What the tests in `*_gpu.py` share: where they run, and why they do not run elsewhere.

SPFEM_GPU_TESTS_ON_CPU=1 runs those that need no GPU decoder on the CPU, to try the tests themselves.
"""

import importlib.util
import os

import pytest
import torch

HAS_GPU = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
DEVICE = torch.device("cuda", 0) if HAS_GPU else torch.device("cpu")
MISSING = "NOT RUN: needs an NVIDIA GPU, none is visible"
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU and not os.environ.get("SPFEM_GPU_TESTS_ON_CPU"), reason=MISSING),
]
NEEDS_DALI = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU, reason=MISSING),
    pytest.mark.skipif(
        importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
        reason="NOT RUN: needs DALI (pip install 'spfem-dist[gpu]')",
    ),
]
