"""Stage 1 of SSERD: a StyleGAN2 of the corpus's faces and the encoder of its codes, which stage 2 goes on from.

    python recipes/sserd_stage1.py             # a laptop: local Ray, two CPU workers
    python recipes/sserd_stage1.py --dry-run   # train nothing, say what would happen
    python recipes/sserd_stage1.py --local     # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/sserd_stage1.py --data.shards s3://bucket/mead \\
        --scaling.workers 8 --preset paper --data.size 256 --zero.stage 2
"""

from pydantic import Field

from spfem_dist.config import Data, GuidedRun, Scaling, Zero
from spfem_dist.generators.sserd import Pretraining, Stage
from spfem_dist.training.launch import main


class SSERDPortraits(GuidedRun):
    """Stage 1 of SSERD: generator and encoder; no prior guides them."""

    name: str = Field(
        "sserd-stage1", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("sserd_stage1", description="Recipe that made this configuration.")
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=3))
    pretraining: Pretraining = Field(default_factory=Pretraining)


def sserd_stage1() -> SSERDPortraits:
    """Generator and encoder of 64 pixels, on shards in shards/synthetic."""
    run = SSERDPortraits(scaling=Scaling(workers=2), zero=Zero(stage=1))
    run.data.shards, run.data.split = "shards/synthetic", "synthetic"
    return run


if __name__ == "__main__":
    main(sserd_stage1, Stage())
