"""Faults in words: one line of text says what goes wrong, where and when.

    kill rank 1 at sample 4000               SIGKILL to that worker, in the step that uses that sample
    kill driver at sample 4000               SIGKILL to the process that the recipe was started as
    drop node of rank 1 at sample 4000       SIGKILL to the Ray node that holds that worker, with all it started
    hang rank 0 at sample 800 [for 30 s]     that worker stands still, for good where no time is given
    hang loader of rank 0 at sample 800 [for 30 s]
    kill rank 0 during checkpoint 2          also `kill driver`, `drop node of rank`, `hang rank`: while the second checkpoint is written
    kill rank 0 during upload 2              likewise, after its first file has arrived in storage and before the others
    nan in gradients of rank 0 at sample 8   also `activations`, `optimizer` (its states, before the update), `weights` (after it)
    corrupt checkpoint 3                     bytes of the third checkpoint are changed once it is committed
    slow loader of rank 0 by 0.5 s [from sample 800]
    s3 slow 0.5 s                            every request to S3 takes that much longer
    s3 errors 0.2                            that share of requests to S3 is answered with 503 SlowDown
    s3 resets 0.2                            that share of connections to S3 is reset

`in JOB` at the end keeps a fault to that job; without it the first job that gets there is hit. Samples are counted over all
workers, as on every curve. Checkpoints are counted from 1 over the whole job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

Number = TypeVar("Number", int, float)

_PLACE = {
    "rank": r"(?P<rank>\d+)",
    "sample": r"(?P<sample>\d+)",
    "checkpoint": r"(?P<checkpoint>\d+)",
    "seconds": r"(?P<seconds>\d+(?:\.\d+)?)",
    "share": r"(?P<share>\d+(?:\.\d+)?)",
    "job": r"(?P<job>[a-z]\w*)",
}

#: Where a NaN can be planted.
PLANTED = ("activations", "gradients", "optimizer", "weights")

#: (what is done, when) by the words for it. <name> is a number or name, [...] may be left out.
FORMS: dict[str, tuple[str, str]] = {
    f"{words} {when}": (action, moment)
    for words, action in (
        ("kill rank <rank>", "kill"),
        ("kill driver", "kill driver"),
        ("drop node of rank <rank>", "drop node"),
        ("hang rank <rank>", "hang"),
    )
    for when, moment in (
        ("at sample <sample>" + (" [for <seconds> s]" if action == "hang" else ""), "step"),
        ("during checkpoint <checkpoint>", "checkpoint"),
        ("during upload <checkpoint>", "upload"),
    )
} | {
    "hang loader of rank <rank> at sample <sample> [for <seconds> s]": ("hang", "loader"),
    "slow loader of rank <rank> by <seconds> s [from sample <sample>]": ("slow", "loader"),
    **{f"nan in {what} of rank <rank> at sample <sample>": (f"nan in {what}", "update") for what in PLANTED},
    "corrupt checkpoint <checkpoint>": ("corrupt", "committed"),
    "s3 slow <seconds> s": ("slow", "s3"),
    "s3 errors <share>": ("errors", "s3"),
    "s3 resets <share>": ("resets", "s3"),
}


@dataclass(frozen=True)
class Fault:
    """One fault. action and moment as in `FORMS`; job '' means any; seconds None means for good."""

    text: str
    action: str
    moment: str
    rank: int | None = None
    sample: int | None = None
    checkpoint: int | None = None
    seconds: float | None = None
    share: float | None = None
    job: str = ""

    @property
    def lasting(self) -> bool:
        """Whether it is a condition that holds all along, and no event that fires once."""
        return self.moment == "s3" or self.action == "slow"


def _pattern(form: str) -> re.Pattern[str]:
    """`hang rank <rank> [for <seconds> s]` as a regular expression."""
    pattern = re.sub(r" \[([^]]*)\]", r"(?: \1)?", f"{form} [in <job>]")
    return re.compile(re.sub(r"<(\w+)>", lambda place: _PLACE[place[1]], pattern))


_PATTERNS = {form: _pattern(form) for form in FORMS}


def parse_fault(text: str) -> Fault:
    """The fault that `text` says. Raises ValueError, with the forms that come near, for words that say none."""
    words = " ".join(text.lower().split())
    for form, pattern in _PATTERNS.items():
        if found := pattern.fullmatch(words):
            values = found.groupdict()
            rank, sample, checkpoint = (_read(int, values.get(name)) for name in ("rank", "sample", "checkpoint"))
            seconds, share = (_read(float, values.get(name)) for name in ("seconds", "share"))
            if share is not None and share > 1:
                raise ValueError(f"fault {text!r}: {share:g} is no share of requests: give 0 to 1")
            if checkpoint == 0:
                raise ValueError(f"fault {text!r}: checkpoints are counted from 1")
            action, moment = FORMS[form]
            return Fault(words, action, moment, rank, sample, checkpoint, seconds, share, values["job"] or "")
    bare = re.sub(r"\d+(\.\d+)?", "<n>", words)
    near = get_close_matches(bare, [re.sub(r"<\w+>", "<n>", form) for form in FORMS], n=3, cutoff=0.4)
    forms = list(FORMS)
    shown = [form for form in forms if re.sub(r"<\w+>", "<n>", form) in near] or forms
    raise ValueError(f"fault {text!r} is not understood; write one of\n    " + "\n    ".join(shown))


def _read(kind: type[Number], text: str | None) -> Number | None:
    return None if text is None else kind(text)


def check_faults(faults: tuple[str, ...], workers: int, jobs: set[str]) -> None:
    """Raises ValueError for faults that could never fire: a rank past `workers`, a job that is none of the trained `jobs`."""
    for fault in map(parse_fault, faults):
        if fault.rank is not None and fault.rank >= workers:
            raise ValueError(f"fault {fault.text!r}: there are {workers} workers, so ranks 0 to {workers - 1}")
        if fault.job and fault.job not in jobs:
            raise ValueError(f"fault {fault.text!r}: this run trains {', '.join(sorted(jobs))} and no {fault.job!r}")
