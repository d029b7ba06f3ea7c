"""Methods by their kind: a prior, a generator or a compositor is a package of its own inside `priors/`, `generators/` or `compositors/`,
found by one import.

SPFEM_ROOMS names further folders (separated as in PATH) with packages `priors/<kind>`, `generators/<kind>` or `compositors/<kind>`: methods
of one's own, beside those that come with this project. Their code is imported as this package's is, so name no folder that others can write to.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
from types import ModuleType

#: What a kind may be called: it becomes a module's name, a loss's prefix, a registered model's name.
KIND = r"^[a-z0-9_]+$"
#: Where rooms are.
PACKAGES = ("priors", "generators", "compositors")
#: Packages among them that are no methods: what the face is behind every generator.
NO_ROOMS = {"face"}


def places(package: str) -> list[str]:
    """Folders beside this project's own where rooms of `package` are, as SPFEM_ROOMS says."""
    folders = filter(None, os.environ.get("SPFEM_ROOMS", "").split(os.pathsep))
    return [os.path.join(os.path.abspath(folder), package) for folder in folders]


def _opened(package: str) -> ModuleType:
    """The package, its path extended by what SPFEM_ROOMS names."""
    module = importlib.import_module(f"spfem_dist.{package}")
    module.__path__.extend(place for place in places(package) if place not in module.__path__)
    return module


def find(package: str, kind: str) -> ModuleType:
    """The room `kind` of `package`, one of PACKAGES; raises ValueError that lists the rooms there are."""
    if not (isinstance(kind, str) and re.fullmatch(KIND, kind)):
        raise ValueError(
            f"{kind!r} is no kind of {package}: letters a to z, digits and '_'; there are {_listed(package)}"
        )
    name = f"{_opened(package).__name__}.{kind}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and something that it imports is not
            raise
        raise ValueError(f"there is no {kind!r} among the {package}; there are {_listed(package)}") from None


def part(package: str, kind: str, name: str) -> ModuleType | None:
    """The module `name` of a room; None where the room has none."""
    room = find(package, kind)
    full = f"{room.__name__}.{name}"
    if importlib.util.find_spec(full) is None:
        return None
    return importlib.import_module(full)


def kinds(package: str) -> list[str]:
    """The rooms of `package`, sorted; nothing of them is imported."""
    place = _opened(package).__path__
    found = (m.name for m in pkgutil.iter_modules(place) if m.ispkg and not m.name.startswith("_"))
    return sorted(set(found) - NO_ROOMS)


def _listed(package: str) -> str:
    return ", ".join(kinds(package)) or "none"


def settings_of(kind: str, name: str = "Settings") -> type:
    """The class of the settings of the method `kind`; ValueError where no room is called so. name: in that room."""
    package = next((p for p in PACKAGES if kind in kinds(p)), None)
    if package is None:
        listed = "; ".join(f"{p}: {_listed(p)}" for p in PACKAGES)
        raise ValueError(f"no method of kind {kind!r} is known here ({listed}): use the version that trained it")
    room = find(package, kind)
    if not isinstance(found := getattr(room, name, None), type):
        raise ValueError(f"the room {room.__name__} has no settings {name!r}: use the version that trained it")
    return found
