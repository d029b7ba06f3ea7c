"""What is printed: names in brackets stay as they are, passwords are not shown, and refused words are not either."""

import ast
import io
from pathlib import Path

import pytest
from doors import ROOT, command
from rich.text import Text

from spfem_dist.console import plain_console
from spfem_dist.errors import errors_in_words, read_words

URI = "postgresql://me:se/sa:me@host/mlflow"


def said(*printed, **options) -> str:
    console = plain_console(**options)
    console.file = io.StringIO()
    console.print(*printed)
    return console.file.getvalue()


@pytest.mark.parametrize("name", ["t[red]x.mp4", "[/].mp4", "[/red]", ":smile:.mp4", "[link=x]", "\\[x]"])
def test_a_name_in_brackets_is_no_markup(name):
    assert said(name) == f"{name}\n"
    console = plain_console()
    console.file = io.StringIO()
    with console.status(f"reading {name}") as status:
        assert status.status == Text(f"reading {name}")


def test_every_command_prints_on_such_a_console():
    """rich's own would read markup in names, and end a command in an error after its work."""
    ours = [*(ROOT / "spfem_dist").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ours
        if path.name != "console.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (
            getattr(node.func, "id", getattr(node.func, "attr", "")) == "Console"
            or (getattr(node.func, "attr", "") == "TextColumn" and not any(k.arg == "markup" for k in node.keywords))
        )
    ]
    assert found == []


def test_films_with_brackets_in_their_names_are_named_whole(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "t[red]x.mp4").write_bytes(b"no film")
    done = command("spfem", "edit", tmp_path / "films", "--emotion", "happy", "--faces", "aligned-mesh")
    assert done.code == 1
    assert "not edited: " in done.out
    assert "t[red]x.mp4" in done.out
    assert "Traceback" not in done.said


def test_a_password_is_not_printed():
    assert said(f"runs in {URI}") == "runs in postgresql://***@host/mlflow\n"


def test_an_error_shows_no_password(capsys):
    with pytest.raises(SystemExit) as end, errors_in_words():
        raise ValueError(f"there is no {URI}")
    assert "postgresql://***@host/mlflow" in end.value.code
    assert "sa:me" not in end.value.code


def test_an_error_that_repeats_a_file_is_cut():
    with pytest.raises(SystemExit) as end, errors_in_words():
        raise ValueError(f"index.json holds {'x' * 100_000}: write it again")
    assert len(end.value.code) < 5000
    assert "index.json holds" in end.value.code
    assert "write it again" in end.value.code


@pytest.mark.parametrize(
    "words",
    [
        ["spfem", "edit", "x.mp4", "--emotoin", URI],
        ["spfem", "edit", "x.mp4", "--strength", URI],
        ["spfem", "train", "cdrl_stage1", "--tracking.ur", URI],
        ["spfem", "train", "cdrl_stage1", "--ccrl.steps", URI],
        ["spfem", "plan", "cdrl_stage1", "--workers", URI],
        ["spfem", "train", "cdrl_stage1", "--preset", URI],
        ["spfem", "train", "cdrl_stage1", "--tracking.experiment", URI],
        ["spfem", URI],
        ["python", "recipes/sweep.py", "cdrl_stage1", "--metric", "val/x", "--space", "a=grid:1", "--trials", URI],
        ["python", "recipes/demo.py", "--seed", URI],
        ["python", "recipes/heads.py", "--seed", URI],
        ["python", "recipes/words.py", "--out", "x", "--steps", URI],
        ["python", "recipes/leaderboard.py", "--seeds", URI],
        ["python", "recipes/sserd_pairs.py", "--nothing", URI],
    ],
    ids=lambda words: " ".join(words[1:-1]),
)
def test_a_command_that_is_refused_shows_no_password(words):
    done = command(*words)
    assert done.code in (1, 2)
    assert "sa:me" not in done.said
    assert "***" in done.said
    assert "Traceback" not in done.said


def test_a_password_that_is_meant_arrives():
    assert read_words(lambda words: words, ["--tracking.uri", URI]) == ["--tracking.uri", URI]


def test_a_path_of_an_address_hides_its_password_too():
    assert str(Path(URI)) == URI.replace("//", "/", 1)
    assert said(f"no {Path(URI)}") == "no postgresql:/***@host/mlflow\n"
