"""What breaks first as a run grows: short simulated runs of more and more workers, each held against bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from spfem_dist.planning.simulate import Case, Outcome, simulate


@dataclass(frozen=True)
class Limit:
    """Something that may break. bound: a run whose `value` is more has broken; advice: what to do then."""

    name: str
    unit: str
    bound: float
    value: Callable[[Outcome], float]
    advice: str


def _lost_share(outcome: Outcome) -> float:
    """What a loss of this run cost, as often as losses are to be expected."""
    each = (outcome.outage_s + outcome.repeated_steps * outcome.step_s) / max(1, outcome.losses)
    return each / 3600 * outcome.case.workers / outcome.case.constants.services.worker_hours_between_losses


LIMITS = (
    Limit(
        "S3 refuses requests of checkpoints (503)",
        "share of them",
        0.05,
        lambda o: o.refused_share,
        "write less often (--checkpoint.every-steps), or give each run a bucket prefix that S3 has split before",
    ),
    Limit(
        "a checkpoint takes longer than the time to the next",
        "share of the time that steps stand still",
        0.05,
        lambda o: o.stall_s / max(1e-9, o.training_s + o.stall_s),
        "raise --checkpoint.every-steps",
    ),
    Limit(
        "a run goes on slowly after a lost host",
        "seconds to read the checkpoint",
        120.0,
        lambda o: max((s.seconds for s in o.restores), default=0.0),
        "raise --storage.patience-s where reads are refused, or train with a spare host so that no checkpoint is cut for fewer workers",
    ),
    Limit(
        "a start takes long",
        "seconds",
        900.0,
        lambda o: o.start_s,
        "prepare the shards again, so that the index is a table that a node fetches once",
    ),
    Limit(
        "MLflow's server is full",
        "share of its time",
        0.8,
        lambda o: o.mlflow_busy,
        "let the server write into PostgreSQL with several workers, or --tracking.system-metrics False",
    ),
    Limit(
        "steps wait for shards",
        "share of the time",
        0.1,
        lambda o: o.data_wait_s / max(1e-9, o.training_s),
        "raise --data.prefetch, or fill the nodes' folders before (data.cache)",
    ),
    Limit(
        "workers wait for the slowest of them",
        "share of the time",
        0.25,
        lambda o: o.straggling_s / max(1e-9, o.training_s),
        "give each worker more samples, so that a step is longer than its hiccups",
    ),
    Limit(
        "lost hosts cost more than a tenth of the time",
        "share of it, at the rate of losses that is published",
        0.1,
        _lost_share,
        "write checkpoints more often, and train between two sizes (--scaling.workers LEAST MOST)",
    ),
)


@dataclass(frozen=True)
class Reached:
    """A limit over sizes: `values` by number of workers, and the first size at which it is passed (None: at none)."""

    limit: Limit
    values: dict[int, float]

    @property
    def breaks_at(self) -> int | None:
        """The smallest number of workers past the bound."""
        return min((n for n, value in self.values.items() if value > self.limit.bound), default=None)


def sizes(most: int) -> list[int]:
    """64 workers and their doubles, up to `most`."""
    return [n for n in (64 << k for k in range(12)) if n <= most]


def probed(case: Case, most: int, steps: int) -> Iterator[tuple[int, Outcome]]:
    """A short run of each size with as many samples for each worker: some checkpoints, a lost host in the middle of them."""
    share = max(1, case.global_batch // case.workers)
    for workers in sizes(most):
        small = replace(case, workers=workers, global_batch=share * workers, elastic=True)
        plain = simulate(small, lost=(), steps=steps, hours=1e4)
        started = plain.start_s / 3600
        yield workers, simulate(small, lost=(started + 0.6 * (plain.hours - started),), steps=steps, hours=1e4)


def reached(outcomes: dict[int, Outcome]) -> list[Reached]:
    """Every limit with its values; the one that is passed first is first, those that are not passed are last."""
    found = [Reached(limit, {n: limit.value(o) for n, o in outcomes.items()}) for limit in LIMITS]
    return sorted(found, key=lambda r: (r.breaks_at or 1 << 62, -max(r.values.values()) / r.limit.bound))
