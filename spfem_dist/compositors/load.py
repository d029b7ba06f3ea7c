"""A trained compositor from where it lies: the folder of a run or of an exported model, here or on S3."""

from __future__ import annotations

from pathlib import Path

from spfem_dist.compositors.compositor import Compositor, find
from spfem_dist.generators.load import local_copy, model_folder
from spfem_dist.saved import misfit, read_config
from spfem_dist.storage import open_filesystem


def load_compositor(location: str | Path) -> Compositor:
    """The compositor of a finished run, or the one exported to `location`, frozen, on the CPU.

    Raises FileNotFoundError that says what is there instead, ValueError for a damaged one, another version or an unknown kind.
    """
    fs, root = open_filesystem(str(location))
    inside = model_folder(fs, root, str(location), "compositor", "a run of recipes/compose.py", "compose")
    with local_copy(inside, fs) as folder:
        try:
            kind = read_config(folder, "compositor")["kind"]
            try:
                load = find(kind).load
            except ValueError as error:
                raise misfit(folder, "compositor", error) from None
            return load(folder)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(str(error).replace(str(folder), inside)) from None
