"""Thousands of attempts to end a command in a traceback, a hang, more memory than there is, or a secret told.

python tests/fuzz                              # a thousand attempts
python tests/fuzz --attempts 10000 --seed 7
python tests/fuzz --minutes 60 --seed any      # as many as an hour allows, others each time
python tests/fuzz --seed 7 --only 4711 --show  # one again, and what it said
"""

import argparse
import collections
import gc
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[name] = "1"  # before torch and numpy: a process with threads is not to be forked
os.environ.setdefault("DS_ACCELERATOR", "cpu")
sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (2, 1)]

import cases  # noqa: E402
import children  # noqa: E402
import verdict  # noqa: E402
from ground import Ground  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Make the attempts; status 1 where one showed a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=1000, help="how many")
    parser.add_argument("--minutes", type=float, default=0, help="as many as that allows, in place of a number")
    parser.add_argument("--seed", default="0", help="a number, or `any` for one that nobody has had")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, help="this one alone")
    parser.add_argument("--kinds", default="", help=f"of {','.join(cases.KINDS)}")
    parser.add_argument("--show", action="store_true", help="show each command and what it said")
    parser.add_argument("--keep", action="store_true", help="keep the folders of those that showed a fault")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed == "any" else int(options.seed)
    kinds = tuple(kind for kind in options.kinds.split(",") if kind)
    first, end = (
        (options.only, options.only + 1)
        if options.only is not None
        else (options.first, options.first + options.attempts)
    )
    deadline = time.monotonic() + options.minutes * 60 if options.minutes else None
    cases.warm_up()
    gc.freeze()  # what is here already is not looked through, and so not copied, in each child
    scratch = tempfile.mkdtemp(prefix="fuzz-")  # a TemporaryDirectory would be removed by every child that ends
    try:
        ground = Ground(Path(scratch) / "ground")
        counts: collections.Counter[str] = collections.Counter()
        found: dict[str, list[int]] = {}
        spent: dict[str, list[float]] = collections.defaultdict(list)
        began, longest, peak, number = time.monotonic(), 0.0, 0, first
        while time.monotonic() < deadline if deadline else number < end:
            place = Path(scratch) / f"attempt-{number}"
            attempt = cases.attempt(seed, number, ground, place / "here", kinds)
            before = verdict.files(attempt.folder)
            ended = children.run(attempt.words, attempt.folder, attempt.environment, attempt.work)
            faults = verdict.faults(ended, before, attempt.folder, sum(map(len, attempt.words)))
            counts[outcome(ended)] += 1
            spent[attempt.kind].append(ended.seconds)
            longest, peak = max(longest, ended.seconds), max(peak, ended.peak)
            if options.show:
                print(
                    f"\n{number} {attempt.kind}: {shlex.join(attempt.words)}\n{ended.out}\n{ended.err}\n{ended.status} in {ended.seconds:.1f} s"
                )
            for fault in faults:
                if fault not in found:
                    print(f"{number} ({attempt.kind}) {fault}\n    {shlex.join(attempt.words)[:600]}", flush=True)
                found.setdefault(fault, []).append(number)
            if not (faults and options.keep):
                shutil.rmtree(place, ignore_errors=True)
            else:
                shutil.move(place, Path(tempfile.gettempdir()) / f"fuzz-{seed}-{number}")
            number += 1
            if (number - first) % 250 == 0:
                print(f"{number - first} attempts in {time.monotonic() - began:.0f} s, {len(found)} faults", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    kinds_of_fault = collections.Counter(fault.partition(":")[0] for fault, numbers in found.items() for _ in numbers)
    for fault, numbers in found.items():
        print(f"{len(numbers)} times: {fault}; python tests/fuzz --seed {seed} --only {numbers[0]} --show")
    ends = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds_of_fault.items()) or "no fault"
    minutes = (time.monotonic() - began) / 60
    for kind, seconds in sorted(spent.items()):
        print(f"{kind}: {len(seconds)} in {sum(seconds):.0f} s")
    print(
        f"seed {seed}: {number - first} attempts in {minutes:.1f} min ({ends}); longest {longest:.0f} s, peak {peak / 2**30:.1f} GiB"
    )
    print(f"{number - first} attempts, {listed}")
    return 1 if found else 0


def outcome(ended: children.Ended) -> str:
    """How a command ended, in a word."""
    if ended.interrupted:
        return "stopped by Ctrl-C"
    return "ended well" if ended.status == 0 else "refused"


if __name__ == "__main__":
    sys.exit(main())
