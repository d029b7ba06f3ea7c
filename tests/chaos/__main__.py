"""The kill matrix: every fault in every stage at every ZeRO stage, as a table. `make chaos` runs all of it.

python tests/chaos                                  # 30 cells, and six runs that nothing disturbs
python tests/chaos --in-turn                        # the same in 12 runs: all faults but a lost node in turn, in one run
python tests/chaos --in-turn --alone                # without Ray, its processes forked: minutes, but no nodes to lose
python tests/chaos --small --alone                  # each fault once (the test suite runs this)
python tests/chaos --only worker "stage 2"          # the cells that have all these words
"""

import argparse
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "recipes")]

from cells import FAULTS, IN_TURN, STAGES, ZERO, Cell, Ground, Result  # noqa: E402
from hosts import Cluster  # noqa: E402
from toy_stage2 import make_toy  # noqa: E402
from ways import Alone, OnRay  # noqa: E402

HEAD = (
    "| fault | stage | ZeRO | largest loss difference | samples lost, twice | left behind | MLflow points twice, missing "
    "| fault to next step | |"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cells; status 1 when one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORDS", help="cells that have all these words")
    parser.add_argument("--small", action="store_true", help="each fault once, in stage 1")
    parser.add_argument("--in-turn", action="store_true", help="several faults in one run")
    parser.add_argument("--alone", action="store_true", help="without Ray (and without lost nodes): much quicker")
    parser.add_argument("--out", type=Path, help="write the table to this file too, as it grows")
    parser.add_argument("--keep", type=Path, help="folder in which the runs are left to be looked at")
    options = parser.parse_args(arguments)
    chosen = [cell for cell in cells(options.small, options.in_turn) if all(word in str(cell) for word in options.only)]
    if not chosen:
        parser.error(
            f"no cell has all of {options.only}; there are {', '.join(FAULTS)}; {', '.join(STAGES)}; ZeRO-1 to 3"
        )
    began = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        ground = Ground(folder, make_toy(folder / "toy"), say)
        if options.alone:
            chosen = [cell for cell in chosen if "node" not in cell.faults]
            run_all(ground, chosen, Alone(), results, options.out)
            chosen = []
        # A node that is lost is made up for by one that stands ready: a run of fixed size goes on with as many workers.
        for cluster, with_node in ((Cluster(on_head=2), False), (Cluster(on_head=0, nodes=3), True)):
            if mine := [cell for cell in chosen if ("node" in cell.faults) == with_node]:
                with cluster:
                    run_all(ground, mine, OnRay(cluster), results, options.out)
    print(table(results))
    wrong = [result for result in results if result.wrong]
    minutes = (time.monotonic() - began) / 60
    print(f"{len(results) - len(wrong)} of {len(results)} runs are as they should be ({minutes:.0f} min)")
    for result in wrong:
        print(f"{result.cell}: {'; '.join(result.wrong)}")
    return 1 if wrong else 0


def run_all(ground: Ground, chosen: list[Cell], way: OnRay | Alone, results: list[Result], out: Path | None) -> None:
    """Run these cells, saying each result as it comes."""
    for cell in chosen:
        results.append(ground.run(cell, way))
        say("\n".join([*rows(results[-1]), *results[-1].wrong]))
        if out:
            out.write_text(table(results) + "\n")


def cells(small: bool, in_turn: bool) -> list[Cell]:
    """The matrix; small: each fault once; in_turn: all of it, in few runs."""
    if small:
        return [Cell(IN_TURN, "stage 1", 2), Cell(("node",), "stage 1", 1)]
    groups = [IN_TURN, ("node",)] if in_turn else [(fault,) for fault in FAULTS]
    return [Cell(faults, stage, zero) for faults in groups for zero, stage in product(ZERO, STAGES)]


def table(results: list[Result]) -> str:
    """The results as a Markdown table."""
    return "\n".join([HEAD, "|---" * 9 + "|", *(line for result in results for line in rows(result))])


def rows(result: Result) -> list[str]:
    """One result as rows of it, one for each fault."""
    cell, proof = result.cell, result.proof
    found = ["-"] * 4
    if proof is not None:
        found = [f"{proof.difference:g}", f"{proof.lost}, {proof.twice}", ", ".join(proof.orphans) or "nothing"]
        found += [f"{proof.points_twice}, {proof.points_missing}"]
    verdict = "FAILED" if result.wrong else "ok"
    return [
        "| " + " | ".join([fault, cell.stage, str(cell.zero), *found, seconds, verdict]) + " |"
        for fault in cell.faults
        for seconds in [f"{result.seconds[fault]:.1f} s" if fault in result.seconds else "-"]
    ]


def say(text: str) -> None:
    """For who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
