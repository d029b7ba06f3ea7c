"""Stage 2 with ICface: a neutraliser and an animator of action units, guided by the frozen priors of stage 1.

    python recipes/icface_stage2.py --priors runs/cdrl-stage1                     # a laptop: local Ray, two CPU workers
    python recipes/icface_stage2.py --priors models:/ccrl models:/cerl --dry-run  # train nothing, say what would happen
    python recipes/icface_stage2.py --priors runs/cdrl-stage1 --local             # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/icface_stage2.py --priors s3://bucket/runs/cdrl-stage1 \\
        --data.shards s3://bucket/mead --scaling.workers 8 --preset paper --data.size 128 --zero.stage 2
"""

from pydantic import Field

from spfem_dist.config import Data, GuidedRun, Scaling, Zero
from spfem_dist.generators.icface import Pretraining, Stage
from spfem_dist.generators.icface import Settings as ICface
from spfem_dist.training.launch import main


class ICfaceGenerator(GuidedRun):
    """Stage 2 with ICface: trained on pairs of frames, then under the frozen priors of stage 1."""

    name: str = Field(
        "icface-stage2", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("icface_stage2", description="Recipe that made this configuration.")
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=10))
    pretraining: Pretraining = Field(default_factory=Pretraining)
    icface: ICface = Field(default_factory=ICface)


def icface_stage2() -> ICfaceGenerator:
    """ICface with both priors of CDRL in the clean form, on shards in shards/synthetic."""
    run = ICfaceGenerator(scaling=Scaling(workers=2), zero=Zero(stage=1))
    run.data.shards, run.data.split = "shards/synthetic", "synthetic"
    return run


if __name__ == "__main__":
    main(icface_stage2, Stage())
