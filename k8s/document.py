"""Write what values.yaml says of its fields into the chart's README.md and values.schema.json.

    python k8s/document.py            # after a change of values.yaml
    python k8s/document.py --check    # status 1 where the two are not current

A comment that begins with `# --` describes the field on the next line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "spfem"

HEAD = """# spfem

A Ray cluster or a batch job, MLflow, PostgreSQL, storage, network and monitoring from one values file.
How to use it: [docs/deploy.md](../../docs/deploy.md). This page is made by `k8s/document.py` from `values.yaml`.

| presets | for |
|---|---|
"""


def fields(lines: list[str]) -> list[tuple[str, str]]:
    """(dotted path, description) of every described field, in the file's order."""
    found: list[tuple[str, str]] = []
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in lines:
        text = line.strip()
        if text.startswith("# -- "):
            comment = [text.removeprefix("# -- ")]
        elif text.startswith("#") and comment:
            comment.append(text.removeprefix("#").strip())
        elif match := re.match(r"( *)([A-Za-z][\w-]*):", line):
            indent = len(match[1])
            above = [(depth, name) for depth, name in above if depth < indent] + [(indent, match[2])]
            if comment:
                found.append((".".join(name for _, name in above), " ".join(comment)))
            comment = []
        else:
            comment = []
    return found


def value_at(values: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def describe(schema: dict[str, Any], path: str, text: str) -> None:
    """Set the description of the property at `path`; draft 7 reads nothing beside a $ref, so that one moves into allOf."""
    node = schema
    *above, last = path.split(".")
    for name in above:
        node = resolve(schema, node["properties"][name])
    found = node["properties"][last]
    if "$ref" in found:
        found = {"allOf": [{"$ref": found["$ref"]}]}
        node["properties"][last] = found
    node["properties"][last] = {"description": text, **{key: found[key] for key in found if key != "description"}}


def resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref") or next((part["$ref"] for part in node.get("allOf", []) if "$ref" in part), "")
    return schema["$defs"][reference.rsplit("/", 1)[1]] if reference else node


def readme(described: list[tuple[str, str]], values: dict[str, Any]) -> str:
    text = HEAD
    for preset in sorted(CHART.glob("values-*.yaml")):
        text += f"| `{preset.name}` | {preset.read_text().splitlines()[0].removeprefix('# ')} |\n"
    text += "\n| value | default | meaning |\n|---|---|---|\n"
    for path, meaning in described:
        default = json.dumps(value_at(values, path))
        shown = f"`{default}`" if len(default) < 60 else "see values.yaml"
        cell = meaning.replace("|", "\\|")
        text += f"| `{path}` | {shown} | {cell} |\n"
    return text


def made() -> dict[Path, str]:
    """The files as they should be."""
    source = (CHART / "values.yaml").read_text()
    values, described = yaml.safe_load(source), fields(source.splitlines())
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path, text in described:
        describe(schema, path, text)
    return {
        CHART / "README.md": readme(described, values),
        CHART / "values.schema.json": json.dumps(schema, indent=2) + "\n",
    }


def main() -> None:
    stale = [path for path, text in made().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"not current: {', '.join(path.name for path in stale)}; run python k8s/document.py" if stale else 0)
    for path, text in made().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
