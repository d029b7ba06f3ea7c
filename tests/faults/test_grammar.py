"""Faults are said in words, and what is not understood is answered with what would be."""

import re

import pytest
from doors import command
from pydantic import ValidationError
from toy_recipe import toy

from spfem_dist.faults import grammar
from spfem_dist.faults.grammar import Fault, parse_fault
from spfem_dist.training.runfolder import binding_changes


def forms_of_the_page() -> list[str]:
    """The lines of the module's docstring, whose optional parts are left out."""
    lines = grammar.__doc__.split("\n\n")[1].splitlines()
    return [line.strip().split("  ")[0].split(" [")[0] for line in lines]


@pytest.mark.parametrize("line", forms_of_the_page())
def test_every_form_of_the_page_is_understood(line):
    assert parse_fault(line).text == line


@pytest.mark.parametrize("form", grammar.FORMS)
def test_every_form_says_what_it_does(form):
    bare = form.replace(" [", " ").replace("]", "")
    values = {"rank": 3, "sample": 4000, "checkpoint": 2, "seconds": 1.5, "share": 0.25}
    words = re.sub(r"<(\w+)>", lambda name: str(values[name[1]]), bare)
    fault = parse_fault(f"{words} in second")
    assert (fault.action, fault.moment, fault.job) == (*grammar.FORMS[form], "second")
    for name, value in values.items():
        assert getattr(fault, name) == (value if f"<{name}>" in form else None)


def test_words_may_be_large_and_wide():
    expected = Fault("kill rank 1 at sample 4", "kill", "step", rank=1, sample=4)
    assert parse_fault("  Kill  rank 1\tat sample 4 ") == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("kill rang 1 at sample 40", "kill rank <rank> at sample <sample>"),
        ("explode", "drop node of rank <rank> at sample <sample>"),
        ("s3 errors 20", "give 0 to 1"),
        ("corrupt checkpoint 0", "counted from 1"),
        ("kill rank 2 at sample 40", "ranks 0 to 1"),
        ("kill rank 1 at sample 40 in second", "this run trains first"),
    ],
)
def test_a_fault_that_could_not_strike_is_refused_with_what_could(text, answer):
    run = toy()
    with pytest.raises(ValidationError, match=text):
        run.faults = (text,)
    with pytest.raises(ValidationError) as error:
        run.faults = (text,)
    assert answer in str(error.value)


def test_the_command_line_refuses_it_in_words():
    refused = command("python", "tests/training/toy_recipe.py", "--faults", "kill rang 1 at sample 4", "--dry-run")
    assert refused.code == 2
    assert "kill rank <rank> at sample <sample>" in refused.said


def test_faults_may_change_under_a_runs_name():
    run, other = toy(), toy()
    other.faults = ("kill rank 1 at sample 8",)
    assert binding_changes(run, other) == []
