"""A trained compositor from where it lies: the folder of a run or of an exported model, here or on S3."""

from __future__ import annotations

from pathlib import Path

from spfem_dist.compositors.compositor import Compositor, find
from spfem_dist.generators.load import loaded, model_folder
from spfem_dist.storage import open_filesystem


def load_compositor(location: str | Path) -> Compositor:
    """The compositor of a finished run, or the one exported to `location`, frozen, on the CPU.

    Raises FileNotFoundError that says what is there instead, ValueError for a damaged one, another version or an unknown kind.
    """
    fs, root = open_filesystem(str(location))
    inside = model_folder(fs, root, str(location), "compositor", "a run of recipes/compose.py", "compose")
    compositor: Compositor = loaded(inside, fs, "compositor", find)
    return compositor
