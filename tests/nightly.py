"""Everything that is too heavy for each change, one part after the other; `make nightly` starts it.

python tests/nightly.py                     # all parts, an hour or two
python tests/nightly.py chaos hosts         # these; the other rows of the record stay as they are
python tests/nightly.py --record out.md     # elsewhere than docs/nightly.md
"""

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "nightly.md"
PYTEST = (sys.executable, "-m", "pytest", "-q")
HEAD = "| part | what it holds | day | result | minutes | processor minutes |"


@dataclass(frozen=True)
class Part:
    """One row of the record. minutes: after which it is stopped; programs: what the machine must have."""

    name: str
    holds: str
    command: tuple[str, ...]
    minutes: int
    programs: tuple[str, ...] = ()
    root: bool = False

    def missing(self) -> str:
        """Why it cannot be run on this machine, or nothing."""
        if self.root and os.getuid() != 0:
            return "needs root"
        absent = [program for program in self.programs if not shutil.which(program)]
        return f"needs {', '.join(absent)}" if absent else ""


PARTS = (
    Part(
        "tests",
        "the tests marked `nightly`: every way to start, at every ZeRO stage, interrupted in each way",
        (*PYTEST, "-m", "nightly", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
        60,
    ),
    Part(
        "chaos",
        "30 faults in both stages at ZeRO 1 to 3 ([faults.md](faults.md))",
        (sys.executable, "tests/chaos"),
        90,
    ),
    Part(
        "hosts",
        "two hosts, hosts that break, full disks, a thousand faults of S3",
        (*PYTEST, "-m", "hosts", "tests/hosts"),
        60,
        root=True,
    ),
    Part(
        "kubelet",
        "the Helm chart's manifests as pods, with their network policies",
        (*PYTEST, "-m", "kubelet", "tests/kubelet"),
        20,
        programs=("nft",),
        root=True,
    ),
    Part(
        "browser",
        "MLflow's pages, and the page of `spfem demo`, in Chromium",
        (*PYTEST, "-m", "browser", "tests/browser"),
        15,
        programs=("chromium",),
    ),
    Part(
        "fuzz",
        "an hour of commands, settings and files with something wrong in them ([audit.md](audit.md))",
        (sys.executable, "tests/fuzz", "--minutes", "60", "--seed", "any"),
        80,
    ),
    Part("benchmarks", "every benchmark in small (on the shards of `make demo`)", ("make", "smoke"), 20),
)


def main(arguments: list[str] | None = None, parts: tuple[Part, ...] = PARTS) -> int:
    """Run the chosen parts and record each as it ends; status 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(part.name for part in parts)}")
    parser.add_argument("--record", type=Path, default=RECORD, help="the page that is written")
    parser.add_argument("--logs", type=Path, default=ROOT / "runs" / "nightly", help="folder of what the parts print")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - {part.name for part in parts}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in parts)}")
    rows = recorded(options.record)
    options.logs.mkdir(parents=True, exist_ok=True)
    failed = []
    for part in parts:
        if options.parts and part.name not in options.parts:
            continue
        print(f"{time.strftime('%H:%M:%S')} {part.name}: {' '.join(part.command)}", flush=True)
        well, rows[part.name] = run(part, options.logs / f"{part.name}.log")
        failed += [] if well else [part.name]
        options.record.write_text(page([rows[p.name] for p in parts if p.name in rows]))
        print(rows[part.name], flush=True)
    print("\n".join([HEAD, "|---" * 6 + "|", *(rows[part.name] for part in parts if part.name in rows)]))
    print(f"failed: {', '.join(failed)}; see {options.logs}" if failed else "everything that could be run ended well")
    return 1 if failed else 0


def run(part: Part, log: Path) -> tuple[bool, str]:
    """Whether the part ended well (or cannot be run here), and its row."""
    if reason := part.missing():
        return True, row(part, f"not run: {reason}", "", "")
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as file:
        # A group of its own, so that on the way out whatever it started hears of it too.
        process = subprocess.Popen(part.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, process_group=0)
        try:
            status: int | None = process.wait(part.minutes * 60)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end(process)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    said = log.read_text(errors="replace")
    result = outcome(said) if status == 0 else f"**failed**: {outcome(said)}"
    if status is None:
        result = f"**stopped** after {part.minutes} minutes"
    return status == 0, row(part, result, f"{(time.monotonic() - began) / 60:.1f}", f"{processor / 60:.1f}")


def end(process: subprocess.Popen) -> None:
    """Ask the part to clean up as Ctrl-C would, then end its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def outcome(said: str) -> str:
    """The line in which a part counts up what it did: benchmarks by number, pytest's last, the kill matrix's, or simply that it ended."""
    if smoked := len(
        re.findall(r"^benchmarks/\S+ --smoke$", said, re.MULTILINE)
    ):  # one of them counts tests that need a GPU
        return f"{smoked} benchmarks ran"
    counted = re.findall(r"^(?:=+ )?(\d+ (?:passed|failed|skipped|error).*?)(?: in [\d.]+s.*)?$", said, re.MULTILINE)
    counted += re.findall(r"^(\d+ of \d+ runs are as they should be)", said, re.MULTILINE)
    why = re.search(r"^SKIPPED \[\d+\] \S+: (.*)$", said, re.MULTILINE)
    if counted and why and re.match(r"\d+ skipped", counted[-1]):  # not one test ran
        return f"not run: {why[1].strip()}"
    if counted:
        return counted[-1].strip()
    lines = said.strip().splitlines()
    return lines[-1][:80].replace("|", "/") if lines else "ended"


def row(part: Part, result: str, minutes: str, processor: str) -> str:
    """A row of the table."""
    return f"| {part.name} | {part.holds} | {time.strftime('%Y-%m-%d')} | {result} | {minutes} | {processor} |"


def recorded(record: Path) -> dict[str, str]:
    """The rows that the page has, by part."""
    text = record.read_text() if record.exists() else ""
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


def page(rows: list[str]) -> str:
    """The page with these rows."""
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"Last written on {cores} cores with {memory:.0f} GiB, Python {platform.python_version()}."
    table = "\n".join([HEAD, "|---" * 6 + "|", *rows])
    return f"""# The nightly suite

```bash
make nightly
```

runs what is too heavy for every change and writes this page. `make test` holds the same claims in small; here they are held for every
ZeRO stage, every fault and every way to start. Some parts only: `make nightly NIGHTLY="chaos hosts"`. A part that this machine cannot run
is said to be so.

{table}

{machine} What the parts printed lies in `runs/nightly/`.
"""


if __name__ == "__main__":
    sys.exit(main())
