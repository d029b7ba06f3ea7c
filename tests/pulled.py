"""Weights that a registry may give: tests that need them are skipped, with the reason, where none does."""

from pathlib import Path

import pytest

from spfem_dist import weights


def pulled(name: str) -> Path:
    """Where the weights `name` lie, fetched if need be."""
    try:
        return weights.pull(name)
    except weights.MissingWeights as error:
        pytest.skip(str(error).splitlines()[0])
