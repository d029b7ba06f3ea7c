"""What may be searched is known before anything starts: fields, their types, their limits."""

import pytest
from planted_recipe import planted
from pydantic import ValidationError

from spfem_dist.config import Run
from spfem_dist.sweep.space import SpaceError, draw, flags, parse, with_values

RATE = "first.optimizer.lr=loguniform:1e-4,1e-2"


def values_of(field, listed):
    return parse(planted(), [f"{field}=choice:{listed}"])[0].values


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("first.optimiser.lr=loguniform:1e-4,1e-2", "did you mean first.optimizer.lr"),
        ("first.learning_rate=uniform:0,1", "ToyRun has no field 'first.learning_rate'"),
        ("first.optimizer=choice:adam", "did you mean first.optimizer.name"),
        ("first.optimizer.lr", "is no field with values"),
        ("first.optimizer.lr=normal:0,1", "where KIND is one of uniform, loguniform"),
        ("first.optimizer.lr=uniform:0.1", "has two numbers"),
        ("first.optimizer.lr=uniform:0.2,0.1", "the lower end comes first"),
        ("first.optimizer.momentum=loguniform:0,1", "is above 0"),
        ("first.global_batch=uniform:4,8", "first.global_batch=randint:4,8"),
        ("first.global_batch=randint:4,8.5", "are whole numbers"),
        ("name=choice:a,b", "is nothing to search"),
        ("tracking.uri=choice:a,b", "is nothing to search"),
        ("second.steps=randint:4,8", "second.enabled True"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_by_its_field(word, said):
    with pytest.raises(SpaceError) as refused:
        parse(planted(), [word])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("first.optimizer.lr=uniform:-1,1", "first.optimizer.lr"),
        ("first.optimizer.name=choice:adam,adamx", "first.optimizer.name"),
        ("zero.stage=grid:0,4", "zero.stage"),
    ],
)
def test_values_that_the_run_refuses_are_refused_by_its_own_model(word, field):
    with pytest.raises(ValidationError) as refused:
        parse(planted(), [word])
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == field


def test_values_are_of_the_fields_own_type():
    assert values_of("zero.stage", "0,1") == (0, 1)
    assert values_of("first.optimizer.name", "sgd,adam") == ("sgd", "adam")
    assert values_of("first.optimizer.betas", "[0.9,0.99],[0.5,0.9]") == ([0.9, 0.99], [0.5, 0.9])
    assert values_of("speed.tf32", "True,False") == (True, False)
    assert values_of("first.micro-batch", "None,2") == (None, 2)
    assert values_of("data.split", "1,2") == ("1", "2")


def test_draws_lie_in_the_space_and_more_of_them_begin_with_the_same():
    space = parse(planted(), [RATE, "first.optimizer.momentum=grid:0,0.9", "first.global_batch=randint:4,6"])
    few, many = draw(space, 5, seed=3), draw(space, 40, seed=3)
    assert len(many) == 80
    assert many[:10] == few
    assert draw(space, 5, seed=4) != few
    assert {values["first.global_batch"] for values in many} == {4, 5, 6}
    rates = [values["first.optimizer.lr"] for values in many]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 0.3 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.7, "each decade as often as the other"
    for one, other in zip(many[::2], many[1::2], strict=True):  # each draw has every point of the grid
        assert one | {"first.optimizer.momentum": 0.9} == other


def test_a_grid_alone_is_gone_through_once():
    space = parse(planted(), ["first.optimizer.lr=grid:0.1,0.2", "first.optimizer.momentum=grid:0,0.5,0.9"])
    assert len(draw(space, 8, seed=0)) == 6


def test_a_trials_values_read_as_the_flags_of_a_command():
    assert flags({"first.global_batch": 4, "first.optimizer.betas": [0.5, 0.9]}) == [
        *("--first.global-batch", "4"),
        *("--first.optimizer.betas", "0.5", "0.9"),
    ]


def test_values_are_set_on_a_copy_that_is_checked_as_a_whole():
    run = planted()
    assert with_values(run, {"first.optimizer.lr": 0.5}).first.optimizer.lr == 0.5
    assert run.first.optimizer.lr == 0.1
    assert isinstance(with_values(run, {}), Run)
    with pytest.raises(ValidationError, match=r"use at most 1 workers"):
        with_values(run, {"first.global_batch": 1, "scaling.workers": 2})
