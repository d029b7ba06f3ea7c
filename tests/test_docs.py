"""The documentation is true: every command is run by a test, and every link, flag and file that a page names exists."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from asccl_stage1 import ASCCLPrior
from cdrl_stage1 import CDRLPriors
from cdrl_stage2 import CDRLGenerator
from compose import Composition
from documented import DOCS, ROOT, blocks, commands_in, documented
from documented_runs import COMMANDS, FOREIGN, RUN_BY
from doors import command, well
from family_stage1 import FamilyPriors
from icface_stage2 import ICfaceGenerator
from pcmecl_stage1 import PCMECLPrior
from sserd_stage2 import SSERDGenerator

from spfem_dist import rooms
from spfem_dist.evaluation.judges.settings import JudgesRun
from spfem_dist.prepare.plan import PrepareSettings


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_run_by_a_test(line):
    assert line in RUN_BY, (
        f"{documented()[line]} documents {line!r}, which no test runs: add a test and its row in RUN_BY"
    )
    where = RUN_BY[line]
    if where == ".ci/run":
        target = line.removeprefix("make ")
        assert re.search(rf"^make .*\b{target}\b", (ROOT / where).read_text(), re.MULTILINE), f".ci/run: no {line}"
        return
    file, name = where.split("::")
    source = (ROOT / file).read_text()
    tests = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert name in tests, f"{where} does not exist"
    if file == COMMANDS and not line.startswith("make"):
        assert line in source, f"{file} does not name the command {line!r} that it is to run"


def test_every_row_of_the_table_is_still_documented():
    assert sorted(RUN_BY.keys() - documented().keys()) == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [target.split("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if target and not (page.parent / target).exists()] == []


# --- flags --------------------------------------------------------------------------------------------------------


def fields_of(model, prefix="") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


RUNS = (
    CDRLPriors,
    ASCCLPrior,
    FamilyPriors,
    PCMECLPrior,
    CDRLGenerator,
    ICfaceGenerator,
    SSERDGenerator,
    Composition,
    JudgesRun,
)


def known_flags() -> set[str]:
    """Every flag of the recipes, of `spfem` and of the scripts, spelled with hyphens."""
    names = (
        set().union(*(fields_of(run) for run in RUNS))
        | fields_of(PrepareSettings)
        | {"local", "dry_run", "print_config", "quiet", "preset", "help", "help_all"}
    )
    names |= {f"ned.guidance.{kind}" for kind in rooms.kinds("priors")}
    scripts = [
        ROOT / "spfem_dist" / "cli.py",
        ROOT / "spfem_dist" / "planning" / "commands.py",
        ROOT / "recipes" / "demo.py",
        ROOT / "recipes" / "heads.py",
        ROOT / "recipes" / "sserd_pairs.py",
        ROOT / "spfem_dist" / "sweep" / "command.py",
        ROOT / "recipes" / "words.py",
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    scripts += [ROOT / "recipes" / "leaderboard.py", *(ROOT / "spfem_dist" / "corpora").glob("*/__main__.py")]
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.FunctionDef):
                names |= {argument.arg for argument in node.args.args + node.args.kwonlyargs}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    for script in (*scripts, ROOT / "tests" / "chaos" / "__main__.py"):
        names |= set(re.findall(r'add_argument\(\s*"--([a-z-]+)"', script.read_text()))
    return {f"--{name}".replace("_", "-") for name in names}


def flags_in(text: str) -> set[str]:
    return {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z][a-zA-Z0-9_.-]*", text)}


@pytest.mark.parametrize("page", [*DOCS, *sorted((ROOT / "recipes").glob("*.py"))], ids=lambda page: page.name)
def test_flags_that_a_page_names_exist(page):
    text = page.read_text() if page.suffix == ".md" else ast.get_docstring(ast.parse(page.read_text()))
    known = known_flags()
    of_tables = re.compile(r"--ned\.guidance\.\w+")  # a weight by kind; any package of priors is one
    missing = [f for f in flags_in(text) - FOREIGN if f.replace("_", "-") not in known and not of_tables.fullmatch(f)]
    assert missing == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    sections = "|".join(
        name for run in RUNS for name, field in run.model_fields.items() if hasattr(field.annotation, "model_fields")
    )
    named = set(re.findall(rf"`({sections})\.([a-z_.]+)`", page.read_text()))
    known = set().union(*(fields_of(run) for run in RUNS)) | {"data.md"}
    assert [f"{section}.{field}" for section, field in named if f"{section}.{field}" not in known] == []


def inline_commands() -> list[str]:
    """Lines of recipe docstrings, and runs of flags in the README's text, that give a recipe settings; one line for each recipe and flags."""
    found = []
    for script in sorted((ROOT / "recipes").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
        lines = commands_in(docstring)
        found += [
            line for line in lines if re.match(r"(?!make).*\b(python|torchrun|accelerate)\b.* recipes/\w+\.py", line)
        ]
    found += [
        f"python recipes/cdrl_stage1.py {' '.join(code.split())}"
        for page in DOCS
        for code in re.findall(r"`(--[^`]+)`", page.read_text())
        if re.match(r"--(data|scaling|zero|ccrl|cerl)\.\S+\s+\S", code)
    ]
    return list({line[line.index("recipes/") :]: line for line in found}.values())


@pytest.mark.parametrize("line", inline_commands())
def test_a_command_of_a_recipes_docstring_or_of_running_text_is_understood(line):
    words = shlex.split(line)
    place = next(n for n, word in enumerate(words) if word.startswith("recipes/"))
    script, flags = words[place], words[place + 1 :]
    # With --help-all at its end the command line is read, and nothing is done.
    shown = well(
        command(
            "python",
            script,
            *flags,
            "--help"
            if script.endswith(("demo.py", "heads.py", "sserd_pairs.py", "sweep.py", "words.py"))
            else "--help-all",
        )
    )
    assert "usage" in shown.said
    if script.endswith("cdrl_stage1.py"):
        from spfem_dist.training.launch import parse

        parse(lambda: CDRLPriors(), flags)  # an impossible combination ends the process


# --- files --------------------------------------------------------------------------------------------------------


def plain_blocks(page: str, heading: str) -> str:
    text = (ROOT / page).read_text().split(f"## {heading}\n", 1)[1]
    return re.search(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]


def test_the_readmes_tour_names_files_that_exist():
    above = ROOT
    for line in plain_blocks("README.md", "A tour of the files").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            above = ROOT / name
        place = ROOT / name if not line.startswith(" ") else above / name
        assert place.exists(), f"the tour names {place.relative_to(ROOT)}"


def test_the_plan_of_the_architecture_names_files_that_exist():
    above = room = ROOT
    for line in plain_blocks("docs/architecture.md", "The packages").splitlines():
        names = re.findall(r"[\w/*.{},-]+\.(?:py|md|toml|txt|json)\b|\bMakefile\b", line)
        indent, first = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0 and first.endswith("/"):
            above = room = ROOT / first
        elif indent <= 2:
            room = above / first if first.endswith("/") else above
        assert room.is_dir(), f"the plan names {first}"
        for name in (name for group in names for name in braces(group)):
            assert list(room.rglob(name) if "*" in name else room.glob(name)), (
                f"the plan names {room.relative_to(ROOT) / name}"
            )


def braces(name: str) -> list[str]:
    """`a/{b,c}.py` as a shell expands it."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{found[1]}{choice}{found[3]}" for choice in found[2].split(",")] if found else [name]


def texts() -> list[Path]:
    kinds = ("*.md", "*.py", "*.toml", "*.txt", "*.json", "*.yaml", "*.yml")
    rooms = [ROOT / name for name in ("spfem_dist", "recipes", "benchmarks", "docs", "tests", "cluster", "k8s", ".ci")]
    inside = [path for room in rooms for kind in kinds for path in room.rglob(kind)]
    top = [path for kind in (*kinds, "Makefile", ".rayignore", ".gitignore") for path in ROOT.glob(kind)]
    return [path for path in [*inside, *top, ROOT / ".ci" / "run"] if path.is_file()]


def test_no_text_names_a_path_of_one_machine():
    """A pod's temporary folder is its own, wherever it runs."""
    anywhere, outside_tests = (re.compile(rf"(?<![\w.-])/(?:{names})/\w") for names in ("work|home|root", "tmp"))
    named = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts()
        for line in path.read_text().splitlines()
        if anywhere.search(line)
        or (outside_tests.search(line) and not {ROOT / "tests", ROOT / "k8s"} & set(path.parents))
    ]
    assert named == []


def test_the_audit_names_tests_that_exist():
    rows = re.findall(r"\| `(tests/\S+)::(\w+)` \|$", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for file, name in rows:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def test_no_file_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "spfem_dist").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 450} == {}


def test_the_pinned_versions_satisfy_the_project():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(w for extra in project["optional-dependencies"].values() for w in extra)]
    lines = (line.split("#")[0].split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pinned = dict(line.split("==") for line in lines if "==" in line)
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for requirement in map(Requirement, wanted):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in versions, f"constraints.txt has no pin for {requirement.name}"
        assert requirement.specifier.contains(versions[name]), f"{requirement} is pinned to {versions[name]}"


def test_every_page_with_commands_marks_them_as_such():
    """A command in an unmarked block would be run by no test."""
    starts = ("python ", "spfem ", "make ", "ray ", "torchrun ", "mlflow ", "accelerate ", "pip ")
    for page in DOCS:
        marked = "".join(blocks(page.read_text()))
        unmarked = re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        hidden = [line for block in unmarked for line in block.splitlines() if line.startswith(starts)]
        assert hidden == [], f"{page.name}: {hidden} (beside {len(marked)} characters of bash)"
