"""PCMECL stage 1: learn how a speaker shows an emotion, from talking-face shards. Our design of an abstract (arXiv 2604.25255).

    spfem prepare synthetic --style 1 --out shards/synthetic-style            # a corpus whose speakers have styles of their own
    python recipes/pcmecl_stage1.py --data.shards shards/synthetic-style      # a laptop: local Ray, two CPU workers
    python recipes/pcmecl_stage1.py --dry-run                                 # train nothing, say what would happen
    python recipes/pcmecl_stage1.py --local                                   # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/pcmecl_stage1.py \\
        --data.shards s3://bucket/mead --scaling.workers 16 --pcmecl.global-batch 32 --zero.stage 2
    torchrun --nproc-per-node 2 recipes/pcmecl_stage1.py                      # plain torch.distributed, same losses
"""

from pydantic import Field

from spfem_dist.config import Data, Run, Scaling, Zero
from spfem_dist.priors.pcmecl import Settings as PCMECL
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import main


class PCMECLPrior(Run):
    """Stage 1 of PCMECL: one prior."""

    name: str = Field(
        "pcmecl-stage1", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("pcmecl_stage1", description="Recipe that made this configuration.")
    pcmecl: PCMECL = Field(default_factory=PCMECL)


def pcmecl_stage1() -> PCMECLPrior:
    """PCMECL on shards in shards/synthetic."""
    return PCMECLPrior(
        data=Data(shards="shards/synthetic", split="synthetic"),
        scaling=Scaling(workers=2),
        zero=Zero(stage=1),
    )


if __name__ == "__main__":
    main(pcmecl_stage1, Stage1())
