"""docs/gpu.md out of docs/gpu.json: plain Markdown tables.

python -m on_gpu.page GPU.JSON GPU.MD     # from the folder benchmarks, once more from the figures
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]

INTRODUCTION = """# On a GPU

Written by `make gpu` (`benchmarks/gpu.py`) from `docs/gpu.json`: {line}. {date}{smoke}.
"""

LEGEND = """
A step is one optimiser step of the whole batch on one GPU through the training loop and DeepSpeed (ZeRO-1); *plain* is the same network,
losses and optimiser in plain PyTorch (bf16 there by autocast). Networks of the published sizes have random weights in their frozen
trunks, which changes no arithmetic. MFU: counted FLOP/s over the GPU's dense peak for that precision (bf16, TF32, or fp32 without
TF32). Memory: peak of PyTorch's allocator. *Planned*: `spfem plan`, from steps measured at a third and two thirds of the batch, and
from what it assumes of an H100 that nobody has measured. *compiled*: torch.compile of the convolutional and attention parts.
"""


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in body]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *escaped]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rendered(result: Facts) -> str:
    """The page."""
    parts = [
        INTRODUCTION.format(
            line=result["line"], date=result["date"], smoke="; a smoke run in small" if result["smoke"] else ""
        )
    ]
    if not result["environment"]["gpu"]:
        parts.append("**no GPU**: nothing on this page was measured on one.\n")
    if result["rows"]:
        parts.append("## Bars\n\n" + table(("bar", "found", "met"), bars(result["rows"])))
    if result["tests"]:
        parts.append(f"## Tests\n\n{tests_line(result)}\n\n" + tests_table(result["tests"]))
    rows = result["rows"]
    if steps := [row for row in rows if row["kind"] == "step"]:
        parts.append("## Steps\n" + LEGEND + "\n" + steps_table(steps))
    if waits := [row for row in rows if row["kind"] == "wait"]:
        parts.append("## Waiting for data\n\nCCRL in bf16 on shards; every frame is decoded anew each time.\n\n")
        parts[-1] += table(
            ("", "wait", "training frames/s", "samples/s", "stored px", "threads"), [wait_cells(row) for row in waits]
        )
    if decodes := [row for row in rows if row["kind"] == "decode"]:
        parts.append(
            "## Decoding\n\nFrames/s out of bytes in a tar, clips of 75 frames with a keyframe every 10: whole clips, and 6 frames of each "
            "as training draws them. PyAV on all cores, and on one.\n\n"
        )
        parts[-1] += table(
            ("", "whole clips", "training", "one thread", "mean difference to PyAV (of 255)"),
            [decode_cells(row) for row in decodes],
        )
    return "\n".join(parts)


def number(row: Facts, key: str, pattern: str = "{:,.0f}") -> str:
    """A figure, or what there is instead."""
    if row["status"] != "ok":
        return ""
    return pattern.format(row[key]) if row.get(key) is not None else ""


def trouble(row: Facts) -> str:
    """Why a row has no figures, after its name."""
    if row["status"] == "ok":
        return str(row["name"])
    words = str(row.get("error", "")).replace("`", "'")
    return f"{row['name']}: {row['status']}" + (f" ({words[:300]})" if words else "")


def steps_table(steps: Sequence[Facts]) -> str:
    head = ("", "samples", "samples/s", "step ms", "MFU", "TFLOP/s", "GB", "GB planned")
    head += ("plain samples/s", "GB", "planned samples/s", "assumed")
    body = [
        [
            trouble(row),
            number(row, "samples"),
            number(row, "samples_per_s", "{:,.1f}"),
            number({**row, "ms": 1e3 * row.get("step_s", 0)}, "ms", "{:,.1f}"),
            number(row, "mfu", "{:.1%}"),
            number(row, "tflops", "{:,.1f}"),
            number(row, "memory_gb", "{:.2f}"),
            number(row, "memory_planned_gb", "{:.2f}"),
            number(row, "plain_samples_per_s", "{:,.1f}"),
            number(row, "plain_memory_gb", "{:.2f}"),
            number(row, "planned_measured", "{:,.1f}"),
            number(row, "planned_assumed", "{:,.1f}"),
        ]
        for row in steps
    ]
    return table(head, body)


def wait_cells(row: Facts) -> list[str]:
    cells = [number(row, "wait_share", "{:.1%}"), number(row, "frames_per_s"), number(row, "samples_per_s", "{:,.1f}")]
    return [trouble(row), *cells, number(row, "stored_px"), number(row, "threads")]


def decode_cells(row: Facts) -> list[str]:
    cells = [number(row, "whole"), number(row, "training"), number(row, "whole_one_thread")]
    return [trouble(row), *cells, number(row, "difference_to_pyav", "{:.2f}")]


def bars(rows: Sequence[Facts]) -> list[list[str]]:
    """What was asked for beside what was found."""
    named = {row["name"]: row for row in rows if row["status"] == "ok"}

    def bar(words: str, row: str, key: str, pattern: str, met: Any) -> list[str]:
        value = named.get(row, {}).get(key)
        if value is None:
            return [words, "not measured", "?"]
        return [words, pattern.format(value), "yes" if met(value) else "no"]

    worst = max((abs(row["plan_error"]) for row in named.values() if "plan_error" in row), default=None)
    return [
        bar(
            "DALI decodes >= 5,000 frames/s, H.264, 256 px",
            "decode h264 256 px, dali-gpu",
            "whole",
            "{:,.0f}",
            lambda v: v >= 5000,
        ),
        bar("data wait < 5 %", "data wait, CCRL paper, dali-gpu", "wait_share", "{:.1%}", lambda v: v < 0.05),
        bar("bf16 MFU >= 25 %, CCRL, published size", "CCRL paper bf16", "mfu", "{:.1%}", lambda v: v >= 0.25),
        ["plan within 25 % of every step", "not measured", "?"]
        if worst is None
        else ["plan within 25 % of every step", f"{worst:.1%}", "yes" if worst <= 0.25 else "no"],
    ]


def tests_line(result: Facts) -> str:
    """Passed, failed and skipped, in words."""
    counts = Counter(test["outcome"] for test in result["tests"])
    return (
        ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) + f" in {result.get('tests_s', '?')} s"
    )


def tests_table(tests: Sequence[Facts]) -> str:
    return table(("test", "outcome", "reason"), [[f"`{t['test']}`", t["outcome"], t["reason"][:200]] for t in tests])


def row_line(row: Facts) -> str:
    """A row for the terminal."""
    figures = {
        k: round(v, 4) for k, v in row.items() if isinstance(v, float) and k not in ("limit_s", "first_step_s", "loss")
    }
    return f"{trouble(row)} {figures if row['status'] == 'ok' else ''}".strip()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(rendered(json.loads(Path(sys.argv[1]).read_text())))
