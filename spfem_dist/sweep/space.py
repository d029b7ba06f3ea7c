"""What a sweep searches: fields of a run, each with its values, in words.

FIELD=uniform:LOW,HIGH       any number between the two
FIELD=loguniform:LOW,HIGH    the same, each decade as often as the others
FIELD=randint:LOW,HIGH       a whole number, both ends among them; lograndint as above
FIELD=choice:A,B,C           one of these
FIELD=grid:A,B,C             each of these, for every draw of the other fields
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from spfem_dist.config import Run
from spfem_dist.tracking.store import flatten

AnyRun = TypeVar("AnyRun", bound=Run)

RANGES, LISTS = ("uniform", "loguniform", "randint", "lograndint"), ("choice", "grid")
#: What tells trials apart or says where they lie is the sweep's own business.
_RESERVED = ("name", "recipe", "faults", "checkpoint.storage", "tracking.")
#: Digits of a number that is drawn: so many tell trials apart, and a person can read them.
_DIGITS = 4


class SpaceError(ValueError):
    """A search space that cannot be searched; the message names the field, and what it might have been."""


@dataclass(frozen=True)
class Dimension:
    """One field and its values. kind: see the module; values: the two ends of a range, or all of a list. text: as it was given."""

    field: str
    kind: str
    values: tuple[Any, ...]
    text: str

    @property
    def logarithmic(self) -> bool:
        """Whether equal factors are equal distances."""
        return self.kind in ("loguniform", "lograndint")

    def domain(self) -> Any:
        """Ray Tune's own form of it."""
        from ray import tune

        if self.kind in LISTS:
            return tune.choice(list(self.values))
        low, high = self.values
        above = high + 1 if self.kind in ("randint", "lograndint") else high  # Tune leaves the upper end out
        return getattr(tune, self.kind)(low, above)

    def within(self, value: Any) -> Any:
        """`value`, brought back into the range where it lies outside, whole where the field's values are, with few digits."""
        if self.kind in LISTS:
            return value
        low, high = self.values
        value = min(max(value, low), high)
        return round(value) if isinstance(low, int) else min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def parse(run: Run, words: Sequence[str]) -> list[Dimension]:
    """The dimensions that the `words` name, checked against `run`: its fields, their types and their limits.

    Raises SpaceError for a field that the run has not (with those of similar names) or that is not to be searched, and for values that
    are none; pydantic's ValidationError where the run refuses one.
    """
    if not words:
        raise SpaceError("there is nothing to search: give --space FIELD=loguniform:1e-4,1e-2 and the like")
    found = [_dimension(run, word) for word in words]
    if twice := {one.field for one in found if [other.field for other in found].count(one.field) > 1}:
        raise SpaceError(f"--space names {', '.join(sorted(twice))} twice: give all its values at once")
    return found


def _dimension(run: Run, word: str) -> Dimension:
    field, _, said = word.partition("=")
    kind, _, listed = said.partition(":")
    if kind not in (*RANGES, *LISTS) or not listed:
        raise SpaceError(
            f"--space {word!r} is no field with values: give FIELD=KIND:VALUES, where KIND is one of {', '.join((*RANGES, *LISTS))}, "
            "for instance JOB.optimizer.lr=loguniform:1e-4,1e-2"
        )
    field = known_field(run, field)
    if kind in LISTS:
        return Dimension(field, kind, tuple(_accepted(run, field, text) for text in _items(listed)), said)
    try:
        low, high = (_number(text) for text in listed.split(","))
    except ValueError:
        raise SpaceError(f"--space {word!r}: {kind} has two numbers, the lowest and the highest: {kind}:1,10") from None
    whole = kind in ("randint", "lograndint")
    if whole and not (isinstance(low, int) and isinstance(high, int)):
        raise SpaceError(f"--space {word!r}: the ends of {kind} are whole numbers; uniform takes others")
    if not whole:
        low, high = float(low), float(high)
        if type(flatten(run.model_dump(mode="json"))[field]) is int:
            other = kind.replace("uniform", "randint")
            raise SpaceError(f"--space {word!r}: {field} is a whole number: give {field}={other}:{listed}")
    if low >= high:
        raise SpaceError(f"--space {word!r}: the lower end comes first, and is below the other")
    if kind.startswith("log") and low <= 0:
        raise SpaceError(f"--space {word!r}: the lower end of {kind} is above 0")
    for end in (low, high):
        with_values(run, {field: end})
    return Dimension(field, kind, (low, high), said)


def known_field(run: Run, name: str) -> str:
    """The dotted name of a field of `run`, which may be spelled as its flag is. SpaceError with similar names where there is none."""
    wanted = name.removeprefix("--").replace("-", "_")
    fields = flatten(run.model_dump(mode="json"))
    if wanted not in fields:
        inside = [field for field in fields if field.startswith(f"{wanted}.")]
        near = inside or _near(wanted, fields)
        maybe = f": did you mean {', '.join(near[:4])}?" if near else ""
        raise SpaceError(f"{type(run).__name__} has no field {name!r}{maybe} (--help-all of the recipe lists them)")
    if any(wanted == one or (one.endswith(".") and wanted.startswith(one)) for one in _RESERVED):
        raise SpaceError(f"{wanted} is nothing to search: the sweep sets it for each trial, or it is the same for all")
    section = wanted.split(".")[0]
    if getattr(getattr(run, section), "enabled", True) is False:
        raise SpaceError(f"{wanted} is a setting of {section}, which is not trained: give --{section}.enabled True")
    return wanted


def _near(wanted: str, fields: Iterable[str]) -> list[str]:
    """Fields of similar names: the same last part first, wherever it stands."""
    fields, last = list(fields), wanted.rsplit(".", 1)[-1]
    same = difflib.get_close_matches(wanted, [field for field in fields if field.rsplit(".", 1)[-1] == last], 4, 0)
    return list(dict.fromkeys([*same, *difflib.get_close_matches(wanted, fields, 4)]))


def _items(listed: str) -> list[Any]:
    """The values of a list: JSON where they are (numbers, lists, null), else words between commas."""
    try:
        return json.loads(f"[{listed}]")
    except ValueError:
        return listed.split(",")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _accepted(run: Run, field: str, value: Any) -> Any:
    """`value` as the run holds it in JSON; words are read as JSON where the field takes that, and as they are where not."""
    tried: list[Any] = [value]
    if isinstance(value, str):
        try:
            tried = [json.loads(value), value]
        except ValueError:
            tried = [{"True": True, "False": False, "None": None}.get(value, value), value]
    else:
        tried.append(json.dumps(value))
    errors = []
    for one in tried:
        try:
            return flatten(with_values(run, {field: one}).model_dump(mode="json"))[field]
        except ValidationError as error:
            errors.append(error)
    raise errors[0]


def with_values(run: AnyRun, values: Mapping[str, Any]) -> AnyRun:
    """A copy of `run` with these fields, by dotted names, checked as a whole. Raises pydantic's ValidationError."""
    dumped = run.model_dump()
    for field, value in values.items():
        *sections, last = field.split(".")
        place = dumped
        for section in sections:
            place = place[section]
        place[last] = value
    return type(run).model_validate(dumped)


def draw(dimensions: Sequence[Dimension], trials: int, seed: int) -> list[dict[str, Any]]:
    """The values of every trial: `trials` draws, each with every point of the grid. More draws of a seed begin with the same ones."""
    grids = [one for one in dimensions if one.kind == "grid"]
    drawn = [one for one in dimensions if one.kind != "grid"]
    points = [
        dict(zip((g.field for g in grids), values, strict=True))
        for values in itertools.product(*(g.values for g in grids))
    ]
    random, found = np.random.RandomState(seed), []
    for _ in range(trials if drawn else 1):
        values = {one.field: one.within(_plain(one.domain().sample(random_state=random))) for one in drawn}
        found += [{one.field: (values | point)[one.field] for one in dimensions} for point in points]
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def flags(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that set these fields."""
    words: list[str] = []
    for field, value in values.items():
        several = value if isinstance(value, list | tuple) else [value]
        words += [f"--{field.replace('_', '-')}", *map(str, several)]
    return words
