"""torch's profiler over the steps that `profile.steps` names: what takes the time and the memory of a step, by operation and by phase."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from spfem_dist.config import Run
from spfem_dist.storage import open_filesystem
from spfem_dist.training import heartbeat

#: Names a part of a step in a profile; costs a microsecond where none is made.
part = record_function
#: Lines of the table of operations.
ROWS = 40


class Profiler:
    """Records steps of one worker, and leaves RUN/JOB/profile/steps-A-B-rank-R.json.gz, which https://ui.perfetto.dev opens, beside a table
    of operations as .txt, which is also given to `tell`, a file's name and its text.
    """

    def __init__(
        self, run: Run, job: str, rank: int, device: torch.device, tell: Callable[[str, str], None] | None
    ) -> None:
        self.first, self.last = run.profile.steps if rank in run.profile.ranks else (0, 0)
        self.place = f"{run.folder()}/{job}/profile"
        self.rank, self.device, self.tell = rank, device, tell
        self._profile: profile | None = None
        self._steps: list[int] = []

    @contextmanager
    def recording(self, step: int) -> Iterator[None]:
        """Around the optimiser step number `step`, from 1. A step that raises leaves no profile."""
        if not self.first <= step <= self.last:
            yield
            return
        if self._profile is None:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
            self._profile = profile(activities=kinds, record_shapes=True, profile_memory=True, with_flops=True)
            self._profile.start()
        with part(f"step {step}"):
            yield
        self._steps.append(step)
        if step == self.last:
            self.close()

    def close(self) -> None:
        """Write what was recorded, where that was not done: training may end before the last of the steps."""
        if self._profile is not None:
            self._profile.stop()
            self._write(self._profile)
            self._profile = None

    def _write(self, found: profile) -> None:
        heartbeat.beat("writing a profile")
        busiest = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        name = f"steps-{self._steps[0]}-{self._steps[-1]}-rank-{self.rank}"
        table = found.key_averages(group_by_input_shape=True).table(
            sort_by=busiest, row_limit=ROWS, max_name_column_width=60
        )
        fs, root = open_filesystem(self.place)
        fs.makedirs(root, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            trace, text = Path(scratch) / f"{name}.json.gz", Path(scratch) / f"{name}.txt"
            found.export_chrome_trace(str(trace))
            text.write_text(table)
            for file in (trace, text):
                fs.put_file(str(file), f"{root}/{file.name}")
        if self.tell is not None:
            self.tell(f"profile/{name}.txt", table)
