"""ASCCL stage 1: learn a metric of what two faces of one speaker say, place by place, from talking-face shards.

    python recipes/asccl_stage1.py                                            # a laptop: local Ray, two CPU workers
    python recipes/asccl_stage1.py --dry-run                                  # train nothing, say what would happen
    python recipes/asccl_stage1.py --local                                    # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/asccl_stage1.py \\
        --data.shards s3://bucket/mead --scaling.workers 16 --asccl.global-batch 32 --zero.stage 2
    torchrun --nproc-per-node 2 recipes/asccl_stage1.py                       # plain torch.distributed, same losses
"""

from pydantic import Field

from spfem_dist.config import Data, Run, Scaling, Zero
from spfem_dist.priors.asccl import Settings as ASCCL
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import main


class ASCCLPrior(Run):
    """Stage 1 of ASCCL: one prior."""

    name: str = Field(
        "asccl-stage1", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("asccl_stage1", description="Recipe that made this configuration.")
    asccl: ASCCL = Field(default_factory=ASCCL)


def asccl_stage1() -> ASCCLPrior:
    """ASCCL in its clean form, on shards in shards/synthetic."""
    return ASCCLPrior(
        data=Data(shards="shards/synthetic", split="synthetic"),
        scaling=Scaling(workers=2),
        zero=Zero(stage=1),
    )


if __name__ == "__main__":
    main(asccl_stage1, Stage1())
