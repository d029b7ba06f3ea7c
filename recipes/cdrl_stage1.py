"""CDRL stage 1: learn the content prior (CCRL) and the emotion prior (CERL) from talking-face shards.

    python recipes/cdrl_stage1.py                                             # a laptop: local Ray, two CPU workers
    python recipes/cdrl_stage1.py --dry-run                                   # train nothing, say what would happen
    python recipes/cdrl_stage1.py --local                                     # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/cdrl_stage1.py \\
        --data.shards s3://bucket/mead --scaling.workers 16 --ccrl.global-batch 48 --cerl.global-batch 16 --zero.stage 2
    torchrun --nproc-per-node 2 recipes/cdrl_stage1.py                        # plain torch.distributed, same losses
"""

from spfem_dist.config import CCRL, CERL, Data, Scaling, Stage1Run, Zero
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import main


def cdrl_stage1() -> Stage1Run:
    """Both priors of CDRL in their clean form, on shards in shards/synthetic."""
    return Stage1Run(
        name="cdrl-stage1",
        recipe="cdrl_stage1",
        data=Data(shards="shards/synthetic", split="synthetic"),
        ccrl=CCRL(),
        cerl=CERL(),
        scaling=Scaling(workers=2),
        zero=Zero(stage=1),
    )


if __name__ == "__main__":
    main(cdrl_stage1, Stage1())
