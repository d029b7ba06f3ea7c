"""CDRL stage 2: NED learns to change the emotion of a talking face, guided by the frozen priors of stage 1.

    python recipes/cdrl_stage2.py --priors runs/cdrl-stage1                     # a laptop: local Ray, two CPU workers
    python recipes/cdrl_stage2.py --priors models:/ccrl models:/cerl --dry-run  # train nothing, say what would happen
    python recipes/cdrl_stage2.py --priors runs/cdrl-stage1 --local             # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/cdrl_stage2.py --priors s3://bucket/runs/cdrl-stage1 \\
        --data.shards s3://bucket/mead --scaling.workers 8 --preset paper --zero.stage 2
    torchrun --nproc-per-node 2 recipes/cdrl_stage2.py --priors runs/cdrl-stage1
"""

from pydantic import Field

from spfem_dist.config import Data, GuidedRun, Scaling, Zero
from spfem_dist.generators.ned import Pretraining, Stage
from spfem_dist.generators.ned import Settings as NED
from spfem_dist.training.launch import main


class CDRLGenerator(GuidedRun):
    """Stage 2 of CDRL: a generator, trained under the frozen priors of stage 1."""

    name: str = Field("cdrl-stage2", description="Run name; the same name and storage resumes, a new name starts anew.")
    recipe: str = Field("cdrl_stage2", description="Recipe that made this configuration.")
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=10))
    pretraining: Pretraining = Field(default_factory=Pretraining)
    ned: NED = Field(default_factory=NED)


def cdrl_stage2() -> CDRLGenerator:
    """NED with both priors of CDRL in the clean form, on shards in shards/synthetic."""
    run = CDRLGenerator(scaling=Scaling(workers=2), zero=Zero(stage=1))
    run.data.shards, run.data.split = "shards/synthetic", "synthetic"
    return run


if __name__ == "__main__":
    main(cdrl_stage2, Stage())
