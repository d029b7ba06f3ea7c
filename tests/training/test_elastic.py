"""A run goes on with other workers, or at another ZeRO stage, and its losses are those of the uninterrupted run."""

import json
from pathlib import Path

import pytest
from doors import PATIENCE, command, well

MANY = str(Path(__file__).with_name("toy_many.py"))
#: Each run and the ZeRO stage it has with 2, then 1, then 3 workers. The pair has two networks, each in its own engine.
STAGES = {"one": (1, 1, 1), "two": (2, 2, 2), "three": (3, 3, 3), "mixed": (1, 3, 2), "pair": (2, 1, 3)}
STEPS = 30


def words(storage, part, *flags):
    """The toy runs at their stage in this part of their life, each with a checkpoint every five steps."""
    runs = []
    for name, stages in STAGES.items():
        places = ["--checkpoint.storage", str(storage), "--name", name, "--zero.stage", str(stages[part])]
        steps = ["--first.steps", str(STEPS), "--checkpoint.every-steps", "5", "--zero.precision", "fp64"]
        steps += ["--first.half-life", "40"]  # of the average that is validated
        runs += ["then", *(["pair"] if name == "pair" else []), *places, *steps, *flags]
    return runs[1:]


def history(storage, name):
    rows = json.loads((Path(storage) / name / "first" / "history.json").read_text())
    skip = ("learning_rate", "gradient_norm", "first_sample")
    return {(row["step"], key): v for row in rows for key, v in row["values"].items() if not key.endswith(skip)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    storage = tmp_path_factory.mktemp("uninterrupted")
    well(command("python", MANY, *words(storage, 0, "--local"), timeout=PATIENCE))
    return storage


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    """Two workers to step 10, one to step 20, three (whose shares of eight samples differ) to the end."""
    storage = tmp_path_factory.mktemp("resized")

    def part(number, workers, *flags, **environment):
        return well(
            command("python", MANY, *words(storage, number, *flags), workers=workers, timeout=PATIENCE, **environment)
        )

    part(0, 2, SPFEM_TOY_SIGNAL="9:TERM")
    part(1, 1, "--local", SPFEM_TOY_SIGNAL="19:TERM")
    last = part(2, 3)
    assert last.out.count("at step 20 (160 samples seen)") == len(STAGES)
    return storage


@pytest.mark.parametrize("name", STAGES)
def test_other_workers_repeat_the_uninterrupted_losses(name, uninterrupted, resized):
    expected, found = history(uninterrupted, name), history(resized, name)
    assert sorted(found) == sorted(expected)
    assert len({step for step, _ in found}) == STEPS
    assert max(abs(found[key] - expected[key]) for key in expected) <= 1e-5
