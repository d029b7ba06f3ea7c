"""Stage 2 with SSERD: what an emotion adds to a picture's code, learnt on pairs and unpaired frames under the priors of stage 1.

    python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --pretrained runs/sserd-stage1  # a laptop: local Ray, two CPU workers
    python recipes/sserd_stage2.py --priors models:/ccrl models:/cerl --dry-run              # train nothing, say what would happen
    python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --local                         # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/sserd_stage2.py --priors s3://bucket/runs/cdrl-stage1 \\
        --pretrained s3://bucket/runs/sserd-stage1 --data.shards s3://bucket/mead --scaling.workers 8 --preset paper --zero.stage 2

Without --pretrained the run trains its own generator and encoder first (the job of recipes/sserd_stage1.py).
"""

from pydantic import Field

from spfem_dist.config import Data, GuidedRun, Scaling, Zero
from spfem_dist.generators.sserd import Pretraining, Stage
from spfem_dist.generators.sserd import Settings as SSERD
from spfem_dist.training.launch import main


class SSERDGenerator(GuidedRun):
    """Stage 2 with SSERD: generator and encoder, then the residual of an emotion under the frozen priors of stage 1."""

    name: str = Field(
        "sserd-stage2", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("sserd_stage2", description="Recipe that made this configuration.")
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=10))
    pretraining: Pretraining = Field(default_factory=Pretraining)
    sserd: SSERD = Field(default_factory=SSERD)


def sserd_stage2() -> SSERDGenerator:
    """SSERD with both priors of CDRL in the clean form, on shards in shards/synthetic."""
    run = SSERDGenerator(scaling=Scaling(workers=2), zero=Zero(stage=1))
    run.data.shards, run.data.split = "shards/synthetic", "synthetic"
    return run


if __name__ == "__main__":
    main(sserd_stage2, Stage())
