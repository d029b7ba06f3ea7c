"""A training process keeps the memory that a step frees."""

import subprocess
import sys

STEPS = """
import resource, sys, torch
from spfem_dist.training.memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(10):
    torch.zeros(16_000_000).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(16_000_000).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    return int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout)


def test_large_tensors_of_one_step_are_those_of_the_next():
    assert faults("keep") < faults("as usual") / 5
