"""One script for a machine with one GPU and a few minutes: every GPU test, then a table of speed, memory and decoding.

    make gpu                                        # 8 minutes; writes docs/gpu.json and docs/gpu.md
    python benchmarks/gpu.py --smoke                # everything in small
    python benchmarks/gpu.py --minutes 4 --shards DIR --json OUT.json --page OUT.md
    python benchmarks/gpu.py --only 'NED paper'     # rows whose name holds these words

Rows are measured in order of importance by a process of their own with a time limit each: one that fails or hangs becomes a row with
the error's words, and the file is written anew after every row. Needs no network. Without a GPU the tests say why they did not run
and the table says "no GPU".
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path
from typing import Any

from on_gpu import page, rows

ROOT = Path(__file__).resolve().parents[1]
#: Share of the time that the tests may take.
FOR_TESTS = 0.4


def environment() -> dict[str, Any]:
    """GPU, driver and versions, asked in a process of its own, which a broken driver may hang."""
    asked = "import json, torch; p = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None; "
    asked += "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'gpu': p and p.name, "
    asked += "'memory_gb': p and round(p.total_memory / 1e9, 1), 'nccl': p and '.'.join(map(str, torch.cuda.nccl.version()))}))"
    facts: dict[str, Any] = {"gpu": None, "python": sys.version.split()[0], "cores": os.cpu_count()}
    try:
        said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=90)
        facts |= json.loads(said.stdout.splitlines()[-1]) if said.returncode == 0 else {"error": said.stderr[-300:]}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        facts.setdefault("driver", None)
        if "torch" not in facts:
            facts["error"] = str(error)
    for package in ("deepspeed", "transformers", "av", "nvidia-dali-cuda130", "nvidia-dali-cuda120"):
        try:
            facts["dali" if "dali" in package else package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts.setdefault("dali" if "dali" in package else package, None)
    return facts


def line_of(facts: dict[str, Any]) -> str:
    """The environment in one line."""
    parts = [facts["gpu"] or "no GPU", f"driver {facts.get('driver')}", f"torch {facts.get('torch')}"]
    parts += [
        f"CUDA {facts.get('cuda')}",
        f"DALI {facts['dali']}" if facts["dali"] else "no DALI",
        f"DeepSpeed {facts['deepspeed']}",
    ]
    return ", ".join([*parts, f"Python {facts['python']}", f"{facts['cores']} cores"])


def run_tests(limit_s: float, options: list[str]) -> list[dict[str, str]]:
    """Outcome and reason of every test in `*_gpu.py`, several files at a time; what had not ended in time says so."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("*_gpu.py"))]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        line = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-v", "--tb=short", "-p", "no:cacheprovider"]
        line += [f"--junitxml={report}", "--timeout=120", *options]
        if len(files) > 1 and has("xdist"):
            line += ["-n", str(min(len(files), os.cpu_count() or 1)), "--dist", "loadfile"]
        with open(Path(scratch) / "log", "w+") as log:
            process = subprocess.Popen(line, cwd=ROOT, env=child_environment(), stdout=log, stderr=subprocess.STDOUT)
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.seek(0)
            said = log.read()
        print(said[-6000:], flush=True)
        if not report.exists():  # ended before its end: what had been said by then
            words = f"pytest gave no report within {limit_s:.0f} s (status {process.returncode}): {said[-300:]}"
            ended = re.findall(
                r"(PASSED|FAILED|ERROR|SKIPPED)\S* tests/(\S+)|tests/(\S+) (PASSED|FAILED|ERROR|SKIPPED)", said
            )
            known = {a or d: (b or c).lower() for b, a, d, c in ended}
            found = [{"test": name, "outcome": word, "reason": ""} for name, word in sorted(known.items())]
            return [*found, {"test": "all", "outcome": "error", "reason": " ".join(words.split())}]
        return [outcome(case) for case in ElementTree.parse(report).iter("testcase")]


def has(plugin: str) -> bool:
    """Whether Python finds the module."""
    import importlib.util

    return importlib.util.find_spec(plugin) is not None


def outcome(case: ElementTree.Element) -> dict[str, str]:
    """One test of pytest's report."""
    name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
    for kind, word in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
        if (found := case.find(kind)) is not None:
            return {"test": name, "outcome": word, "reason": " ".join((found.get("message") or "").split())[:400]}
    return {"test": name, "outcome": "passed", "reason": f"{float(case.get('time') or 0):.1f} s"}


def child_environment(shards: Path | None = None) -> dict[str, str]:
    """This environment, with the tree and this folder importable."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    found |= {
        "RAY_AUTH_MODE": "disabled",
        "PYTHONUNBUFFERED": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    return found | ({"SPFEM_GPU_SHARDS": str(shards)} if shards else {})


class Worker:
    """The measuring process; started again where a row hangs or breaks it."""

    def __init__(self, shards: Path, scratch: Path):
        self.environment, self.scratch = child_environment(shards), scratch
        self.process: subprocess.Popen[str] | None = None
        self.count = 0

    def start(self) -> subprocess.Popen[str]:
        """The process, which begins its imports at once."""
        if self.process is None or self.process.poll() is not None:
            self.log = open(self.scratch / f"worker-{self.count}.log", "a+")  # noqa: SIM115  # read when the process is gone
            line = [sys.executable, "-m", "on_gpu.worker"]
            self.process = subprocess.Popen(
                line, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True
            )
        return self.process

    def measure(self, row: rows.Row, asked: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The row's figures, or its error."""
        process = self.start()
        self.count += 1
        result = self.scratch / f"result-{self.count}.json"
        assert process.stdin is not None
        began = time.monotonic()
        try:
            process.stdin.write(json.dumps({"kind": row.kind, "asked": asked, "result": str(result)}) + "\n")
            process.stdin.flush()
        except OSError:
            pass  # it has died, which is found next
        while not result.exists():
            if process.poll() is not None and not result.exists():
                return {"status": "error", "error": f"the process ended with {process.returncode}: {self.last_words()}"}
            if time.monotonic() - began > limit_s:
                self.stop()
                return {"status": "error", "error": f"no result within {limit_s:.0f} s: {self.last_words()}"}
            time.sleep(0.05)
        found = json.loads(result.read_text())
        if found.pop("broken", False):
            self.stop()
        return found

    def last_words(self) -> str:
        """The end of what the process printed."""
        self.log.seek(0)
        return " ".join(self.log.read()[-300:].split())

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def prepare_shards(folder: Path, sizes: list[int]) -> threading.Thread:
    """Render small corpora of these sizes into `folder`, in a thread beside the tests; what is there stays."""

    def render() -> None:
        code = "import sys; from pathlib import Path; from rich.console import Console; from spfem_dist.prepare import job; "
        code += "from spfem_dist.prepare.plan import PrepareSettings; out, size = Path(sys.argv[1]), int(sys.argv[2]); "
        code += "job.run(PrepareSettings(corpus='synthetic', out=out, identities=3, synthetic_sentences=4, size=size, local=True), "
        code += "Console(quiet=True))"
        for size in sizes:
            if not (folder / str(size) / "index.json").exists():
                line = [sys.executable, "-c", code, str(folder / str(size)), str(size)]
                done = subprocess.run(line, cwd=ROOT, env=child_environment(), capture_output=True, text=True)
                if done.returncode:
                    print(f"no shards of {size} px: {done.stderr[-400:]}", flush=True)

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Tests, rows, page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument(
        "--smoke", action="store_true", help="few rows in small; writes to runs/gpu unless told otherwise"
    )
    parser.add_argument("--json", type=Path, help="where the figures go (docs/gpu.json)")
    parser.add_argument("--page", type=Path, help="where the page goes (docs/gpu.md)")
    parser.add_argument(
        "--shards", type=Path, help="folder with shards in 64/ and 256/; empty renders them (runs/gpu/shards)"
    )
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--no-rows", action="store_true", help="leave the table out")
    parser.add_argument("--on-cpu", action="store_true", help="measure without a GPU, to try this script")
    asked = parser.parse_args()
    deadline = time.monotonic() + 60 * asked.minutes
    folder = ROOT / ("runs/gpu" if asked.smoke or asked.on_cpu else "docs")
    out, shown = asked.json or folder / "gpu.json", asked.page or folder / "gpu.md"
    facts = environment()
    print(line_of(facts), flush=True)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "environment": facts,
        "line": line_of(facts),
        "smoke": asked.smoke,
        "tests": [],
        "rows": [],
    }

    def write() -> None:
        for file, text in ((out, json.dumps(result, indent=1) + "\n"), (shown, page.rendered(result))):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".partial").write_text(text)
            os.replace(file.with_suffix(".partial"), file)

    write()
    measured = bool(facts["gpu"]) or asked.on_cpu
    wanted = [row for row in rows.plan(asked.smoke) if asked.only.lower() in row.name.lower() and not asked.no_rows]
    shards = (asked.shards or ROOT / "runs/gpu/shards").resolve()
    with tempfile.TemporaryDirectory(prefix="spfem-gpu-") as scratch:
        worker = Worker(shards, Path(scratch))
        rendering = prepare_shards(shards, [64] if asked.smoke else [64, 256]) if measured and wanted else None
        if measured and wanted:
            worker.start()
        if not asked.no_tests:
            began = time.monotonic()
            left_out = ["-k", "not compiled"] if asked.smoke else []  # compiling takes most of the time
            result["tests"] = run_tests(FOR_TESTS * 60 * asked.minutes, left_out)
            result["tests_s"] = round(time.monotonic() - began, 1)
            write()
            print(page.tests_line(result), flush=True)
        for row in wanted:
            found: dict[str, Any] = {"status": "no GPU"}
            left = deadline - time.monotonic()
            if measured and left < 15:
                found = {"status": "not run", "error": f"the {asked.minutes:g} minutes were over"}
            elif measured:
                if rendering is not None and row.kind != "decode":
                    rendering.join(max(1.0, left - 60))
                began = time.monotonic()
                tiny = {"tiny": True} if asked.smoke or asked.on_cpu else {}
                found = worker.measure(row, row.asked | tiny, min(row.limit_s, left - 3))
                found["took_s"] = round(time.monotonic() - began, 1)
                worker.start()
            result["rows"].append({"name": row.name, "kind": row.kind} | row.asked | found)
            write()
            print(page.row_line(result["rows"][-1]), flush=True)
        worker.stop()
    print(f"written: {out}, {shown}", flush=True)


if __name__ == "__main__":
    main()
