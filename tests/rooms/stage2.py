"""Stage 2 of a generator that no file of the project names; SPFEM_ROOMS says where it is.

SPFEM_ROOMS=tests/rooms python tests/rooms/stage2.py --local
"""

from pydantic import Field

from spfem_dist import rooms
from spfem_dist.config import Data, GuidedRun
from spfem_dist.training.launch import main

Tint = rooms.find("generators", "tint")


class TintRun(GuidedRun):
    """A tint under frozen priors."""

    name: str = "tinted"
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=10))
    tint: Tint.Settings = Field(default_factory=Tint.Settings)


if __name__ == "__main__":
    main(TintRun, Tint.Stage())
