"""What `make gpu` measures, in order of importance: a run that is cut short has the rows that matter most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement. kind: function of `worker.KINDS` that makes it, from `asked`. limit_s: after which it counts as hanging."""

    name: str
    kind: str
    asked: dict[str, Any] = field(default_factory=dict)
    limit_s: float = 60.0


def decoding(codec: str, size: int, decoder: str) -> Row:
    """Frames/s of whole clips, and of six frames out of each."""
    return Row(f"decode {codec} {size} px, {decoder}", "decode", {"codec": codec, "size": size, "decoder": decoder}, 45)


def step(job: str, size: str, precision: str, compiled: bool = False, batch: int | None = None) -> Row:
    """An optimiser step through the loop and DeepSpeed, in plain PyTorch, and as planned."""
    words = [job.upper(), size, precision] + ["compiled"] * compiled + ([f"batch {batch}"] if batch else [])
    asked = {"job": job, "size": size, "precision": precision, "compiled": compiled, "batch": batch}
    return Row(" ".join(words), "step", asked, 150 if compiled else 75)


def waiting(decoder: str, size: str) -> Row:
    """Share of CCRL's steps (bf16) spent waiting for frames that are decoded anew every time."""
    asked = {"decoder": decoder, "size": size}
    return Row(f"data wait, CCRL {size}, {decoder}", "wait", asked, 75)


def plan(smoke: bool) -> list[Row]:
    """The rows. smoke: few, to see whether everything runs."""
    if smoke:
        rows = [decoding("h264", 256, "dali-gpu"), decoding("h264", 64, "pyav")]
        rows += [step(job, "small", precision) for job in ("ccrl", "cerl", "ned") for precision in ("bf16", "tf32")]
        return [*rows, waiting("dali-gpu", "small"), step("ccrl", "paper", "bf16"), step("ned", "paper", "bf16")]
    rows = [decoding("h264", 256, "dali-gpu"), decoding("h264", 256, "pyav")]
    rows += [step("ccrl", "paper", "bf16"), step("cerl", "paper", "bf16"), step("ned", "paper", "bf16")]
    rows += [waiting("dali-gpu", "paper"), waiting("pyav", "paper")]
    rows += [step("ccrl", "paper", "tf32"), step("cerl", "paper", "tf32"), step("ned", "paper", "tf32")]
    rows += [step("ccrl", "paper", "bf16", compiled=True), step("cerl", "paper", "bf16", batch=32)]
    rows += [step(job, "small", "bf16") for job in ("ccrl", "cerl", "ned")]
    rows += [decoding(c, s, d) for c, s in (("h264", 64), ("vp9", 256), ("vp9", 64)) for d in ("dali-gpu", "pyav")]
    rows += [step(job, "small", "tf32") for job in ("ccrl", "cerl", "ned")]
    rows += [step("ccrl", "paper", "fp32"), step("cerl", "paper", "fp32"), step("ned", "paper", "fp32")]
    return [*rows, *(step(job, "paper", "bf16", compiled=True) for job in ("ned", "cerl"))]
