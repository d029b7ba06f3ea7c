"""CDRL stage 1: learn the content prior (CCRL) and the emotion prior (CERL) from talking-face shards.

    python recipes/cdrl_stage1.py                                             # a laptop: local Ray, two CPU workers
    python recipes/cdrl_stage1.py --dry-run                                   # train nothing, say what would happen
    python recipes/cdrl_stage1.py --local                                     # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/cdrl_stage1.py \\
        --data.shards s3://bucket/mead --scaling.workers 16 --ccrl.global-batch 48 --cerl.global-batch 16 --zero.stage 2
    torchrun --nproc-per-node 2 recipes/cdrl_stage1.py                        # plain torch.distributed, same losses
"""

from pydantic import Field

from spfem_dist.config import Data, Run, Scaling, Zero
from spfem_dist.priors.ccrl import Settings as CCRL
from spfem_dist.priors.cerl import Settings as CERL
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import main


class CDRLPriors(Run):
    """Stage 1 of CDRL: the priors, each a job of its own."""

    name: str = Field("cdrl-stage1", description="Run name; the same name and storage resumes, a new name starts anew.")
    recipe: str = Field("cdrl_stage1", description="Recipe that made this configuration.")
    ccrl: CCRL = Field(default_factory=CCRL)
    cerl: CERL = Field(default_factory=CERL)


def cdrl_stage1() -> CDRLPriors:
    """Both priors of CDRL in their clean form, on shards in shards/synthetic."""
    return CDRLPriors(
        data=Data(shards="shards/synthetic", split="synthetic"),
        scaling=Scaling(workers=2),
        zero=Zero(stage=1),
    )


if __name__ == "__main__":
    main(cdrl_stage1, Stage1())
