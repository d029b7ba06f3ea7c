"""S3 that fails a thousand times in one run, and goes away for a while: the run ends with the same losses.

The recipe runs as `--local` here, with everything in S3 over HTTP and MLflow on PostgreSQL: what fails is between it and S3.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import services
from comparing import LONG, same_losses
from network import ROOT, steps_of, wait_for

#: Nothing is kept on the host, so every group is a request of its own; many threads wait at the same time.
UNCACHED = ("--data.cache-mb", "0", "--data.decoded-cache-mb", "0", "--data.threads", "8", "--data.prefetch", "16")


class Training:
    """`python recipes/cdrl_stage1.py --local` with everything in S3."""

    def __init__(self, shared, folder, name, *flags):
        self.output = folder / f"{name}-{time.monotonic_ns()}.log"
        (folder / "split.json").write_text(shared.split)
        places = ["--name", name, "--data.shards", "s3://faces/small", "--data.split", str(folder / "split.json")]
        places += ["--checkpoint.storage", "s3://runs", "--tracking.uri", shared.tracking]
        here = {
            "AWS_ENDPOINT_URL": shared.s3.url,
            "HOME": str(folder),
            "DS_ACCELERATOR": "cpu",
            "PYTHONUNBUFFERED": "1",
        }
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "recipes/cdrl_stage1.py", "--local", *places, *flags],
                cwd=ROOT,
                env=os.environ | services.KEYS | here,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def reach(self, step: int, timeout: float = 400) -> None:
        def ready():
            assert self.process.poll() in (None, 0), self.text()[-5000:]
            return steps_of(self.text()).get("ccrl", 0) >= step or self.process.poll() == 0

        wait_for(f"step {step}", ready, timeout, every=0.05)

    def wait(self, timeout: float = 500) -> str:
        try:
            self.process.wait(timeout)
        finally:
            self.process.kill()
        assert self.process.returncode == 0, self.text()[-5000:]
        return self.text()


def test_a_thousand_faults_of_s3_change_no_loss(shared, reference, tmp_path):
    before = dict(shared.s3.faults)
    shared.s3.share, shared.s3.seconds = 0.7, 0.2
    try:
        run = Training(shared, tmp_path, "s3-faults", *LONG, "--checkpoint.every-steps", "2", *UNCACHED)
        run.reach(20)
        shared.s3.down = True
        time.sleep(8)
        shared.s3.down = False
        run.wait()
    finally:
        shared.s3.share, shared.s3.down = 0.0, False
    faults = {kind: count - before.get(kind, 0) for kind, count in sorted(shared.s3.faults.items())}
    print(f"faults of S3 in one run: {faults}")
    assert faults["all"] >= 1000
    assert faults["GET shard"] > 300
    assert faults["PUT checkpoint"] > 20
    print(f"largest difference {same_losses(shared.json('s3-faults/ccrl/history.json'), reference(*LONG)['ccrl']):.1e}")
