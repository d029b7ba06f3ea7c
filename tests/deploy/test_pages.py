"""docs/deploy: what tests can run stands in ```bash and is run; what needs a cluster stands in ```console, and is looked at here."""

import ast
import re
import shlex

import click
import pytest
from documented import ROOT, blocks, commands_in, documented

PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))
PROGRAMS = {
    "aws",
    "cp",
    "docker",
    "helm",
    "kind",
    "kubectl",
    "pip",
    "python",
    "ray",
    "export",
    "sbatch",
    "squeue",
    "tail",
}


def console(page) -> list[str]:
    """The lines after `$` of a page's console blocks, without comments and leading VARIABLE=value."""
    text = "".join(re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert len(lines) == len(text.splitlines()), f"{page.name}: a console line does not begin with `$ `"
    return [re.sub(r"^([A-Z_]+=\S+ )+", "", re.sub(r"\s+#.*", "", line)) for line in lines]


LINES = [pytest.param(line, id=f"{page.stem}-{n}") for page in PAGES for n, line in enumerate(console(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_commands_and_ends_with_how_to_look_and_how_to_take_it_down(page):
    text = page.read_text()
    assert re.match(r"# .*\n\n(.*\n\n)?```(bash|console)\n", text)
    assert re.findall(r"^## (.*)", text, re.MULTILINE)[-2:] == ["How to see it work", "How to take it down"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_it_tells_to_run_here_is_run_by_a_test(page):
    others = documented()
    assert [line for block in blocks(page.read_text()) for line in commands_in(block) if line not in others] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    assert [name for name in targets if name and "://" not in name and not (page.parent / name).exists()] == []


@pytest.mark.parametrize("line", LINES)
def test_a_command_names_a_program_and_files_that_there_are(line):
    words = shlex.split(line)
    assert words[0] in PROGRAMS
    named = [word for word in words if re.match(r"(cluster|recipes|k8s)/", word) and word != "cluster/.env"]
    assert [word for word in named if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("line", [one for one in LINES if "recipes/" in one.values[0]])
def test_a_recipes_flags_are_understood(line):
    words = shlex.split(line)
    place = next(n for n, word in enumerate(words) if word.startswith("recipes/"))
    tree = ast.parse((ROOT / words[place]).read_text())
    made = next(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    from cdrl_stage1 import CDRLPriors
    from cdrl_stage2 import CDRLGenerator

    from spfem_dist.training.launch import parse

    parse(CDRLGenerator if made == "cdrl_stage2" else CDRLPriors, words[place + 1 :])  # a bad one ends the process


@pytest.mark.parametrize("line", [one for one in LINES if re.search(r"(^| )ray ", one.values[0])])
def test_rays_own_flags_exist(line):
    from ray.dashboard.modules.job.cli import job_cli_group
    from ray.scripts.scripts import cli

    words = re.split(r" -- ", line)[0].split()
    words = words[words.index("ray") + 1 :]
    group: click.Group = job_cli_group if words[0] == "job" else cli
    command = group.commands[words[1] if words[0] == "job" else words[0]]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known
