"""Stage 1 of a prior that no file of the project names; SPFEM_ROOMS says where it is.

SPFEM_ROOMS=tests/rooms python tests/rooms/stage1.py --local
"""

from pydantic import Field

from spfem_dist import rooms
from spfem_dist.config import Run
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import main

Brightness = rooms.find("priors", "brightness").Settings


class BrightnessPriors(Run):
    """One prior, under a name that is not its kind."""

    bright: Brightness = Field(default_factory=Brightness)


def recipe() -> BrightnessPriors:
    """The prior of brightness."""
    return BrightnessPriors(name="bright")


if __name__ == "__main__":
    main(recipe, Stage1())
