"""The run of a generator that the package does not know: its room lies beside this file.

python tests/toy_tint.py --local
"""

from pathlib import Path

import spfem_dist.generators
from spfem_dist.config import Data, GuidedRun

spfem_dist.generators.__path__.append(str(Path(__file__).parent / "toy_rooms"))

from pydantic import Field  # noqa: E402
from spfem_dist.generators.tint import Settings, Stage  # type: ignore[import-not-found]  # noqa: E402

from spfem_dist.training.launch import main  # noqa: E402


class TintRun(GuidedRun):
    """A tint under frozen priors."""

    name: str = "tinted"
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=10))
    tint: Settings = Field(default_factory=Settings)


def door_is_open() -> None:
    """Called in the process of a command: importing this file has the toy's room found."""


if __name__ == "__main__":
    main(TintRun, Stage())
