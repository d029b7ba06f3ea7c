"""The commands of the documentation, and how the tests change one: words replaced, flags added, nothing else."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[str]:
    """The contents of the ```bash blocks of a page."""
    return re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands_in(text: str) -> list[str]:
    """The commands of one block, without comments; continued lines are joined."""
    lines = text.replace("\\\n", " ").splitlines()
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [" ".join(line.split()) for line in bare if line]


def recordings_block() -> str:
    """The README's block for one's own recordings."""
    section = (ROOT / "README.md").read_text().split("## Your own recordings\n", 1)[1]
    return blocks(section)[0]


def documented() -> dict[str, str]:
    """Every documented command, and the first page that has it."""
    found: dict[str, str] = {}
    for page in DOCS:
        for block in blocks(page.read_text()):
            for line in commands_in(block):
                found.setdefault(line, str(page.relative_to(ROOT)))
    return found


def words_of(line: str, change: dict[str, object] | None = None, *more: object) -> list[str]:
    """The words of a documented command, some exchanged for a place of the test, with flags added at the end."""
    assert line in documented(), f"no page documents {line!r} any more: change the test with the page"
    words = shlex.split(line)
    for old, new in (change or {}).items():
        assert old in words, f"{old!r} is no word of {line!r}"
        words = [str(new) if word == old else word for word in words]
    return words + [str(word) for word in more]
