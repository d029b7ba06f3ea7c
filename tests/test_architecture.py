"""The order of the rooms holds, no two files import each other in a circle, and no method is named outside its own room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from spfem_dist.corpora import rendered
from spfem_dist.rooms import PACKAGES, kinds

PACKAGE = Path(__file__).resolve().parents[1] / "spfem_dist"

#: From the lowest to the highest: a file imports from its own tier and from lower ones. A longer name counts before its beginning.
TIERS = (
    "backoff console emotions errors files pictures ray_address redact rooms saved",
    "config faults.grammar job_settings",
    "archives corpora cropping head inventory known_weights nets npm presets records runs s3 shard_format shard_table shares stage storage weights",
    "corpora.heads.finish prepare",
    "streaming",
    "tracking",
    "priors",
    "generators",
    "compositors",
    "words",
    "editing",
    "faults training",
    "evaluation priors.*.scores priors.*.window_scores sweep",
    "web",
    "cli data_show doctor exporting model_card planning tracking.generator_model tracking.prior_model web.__main__",
)
#: What speaks of methods by name: the table of pretrained files says whose they are.
NAMES_ALLOWED = {"known_weights.py"}


def tree() -> dict[str, Path]:
    """Every module of the package, without the package's own name."""
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix("__init__").rstrip("."): path for name, path in files.items()}


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it but for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "spfem_dist":
            base = node.module.removeprefix("spfem_dist").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in modules else base)
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("spfem_dist.") for alias in node.names if alias.name.startswith("spfem_dist.")
            }
    return found - {""}


MODULES = tree()
IMPORTS = {name: imports(path, MODULES) for name, path in MODULES.items()}


def tier(module: str) -> int:
    """The number of the tier of a module; the longest matching name decides."""
    patterns = [(name, number) for number, names in enumerate(TIERS) for name in names.split()]
    fits = [
        (len(name), number)
        for name, number in patterns
        if re.fullmatch(re.escape(name).replace(r"\*", r"\w+") + r"(\..*)?", module)
    ]
    assert fits, f"{module} is in no tier: give it its place in TIERS"
    return max(fits)[1]


def test_a_file_imports_from_its_own_tier_and_from_lower_ones():
    upward = [f"{a} -> {b}" for a, found in IMPORTS.items() if a for b in found if tier(b) > tier(a)]
    assert sorted(upward) == []


def test_no_files_import_each_other_in_a_circle():
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module in done:
            return
        for other in sorted(IMPORTS.get(module, ())):
            walk(other, (*way, module))
        done.add(module)

    for module in sorted(IMPORTS):
        walk(module, ())


def test_a_method_is_named_in_its_own_room_alone():
    methods = {kind: PACKAGE / package / kind for package in PACKAGES for kind in kinds(package)}
    methods = {kind: room for kind, room in methods.items() if room.is_dir()}  # the tests' own rooms lie elsewhere
    named = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8").lower()
        own = next((kind for kind, room in methods.items() if room in path.parents), "")
        strange = [
            kind for kind in methods if kind != own and re.search(rf"\b{kind}\b" if len(kind) < 4 else kind, text)
        ]
        shared = path.parent.name.startswith("_")  # what several rooms have in common
        if strange and path.name not in NAMES_ALLOWED and not own and not shared:
            named.append(f"{path.relative_to(PACKAGE)}: {', '.join(strange)}")
    assert named == []


def test_a_rendered_corpus_is_named_in_its_own_room_alone():
    """But for the one that settings name by default: its folder of shards is spelled wherever a run is begun."""
    named = []
    for kind in set(rendered.kinds()) - {rendered.DEFAULT}:
        for name, path in sorted(MODULES.items()):
            if name.startswith(f"corpora.{kind}"):
                continue
            texts = {
                n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)
            }
            if kind in texts or any(other.startswith(f"corpora.{kind}") for other in IMPORTS[name]):
                named.append(f"{name}: {kind}")
    assert named == []
