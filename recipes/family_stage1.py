"""Stage 1 of the whole family: content, emotion, and the metrics between frames and between windows, from the same shards.

    python recipes/family_stage1.py --local                                   # one process: shards are read and decoded once for all
    python recipes/family_stage1.py                                           # a laptop: local Ray, two CPU workers
    python recipes/family_stage1.py --local --ccrl.enabled False --cerl.enabled False      # some of them
    python recipes/family_stage1.py --dry-run                                 # train nothing, say what would happen
    ray job submit --working-dir . -- python recipes/family_stage1.py \\
        --data.shards s3://bucket/mead --scaling.workers 16 --ccrl.global-batch 48 --stccl-vd.global-batch 16 --zero.stage 2

Each prior is a job of its own with the samples that it would get alone. Stage 2 is guided by any of them: --priors runs/family-stage1
--ned.guidance.stccl-vd 0.1 weighs one, 0 leaves it out.
"""

from pydantic import Field

from spfem_dist.config import Data, Run, Scaling, Zero
from spfem_dist.priors.asccl import Settings as ASCCL
from spfem_dist.priors.ccrl import Settings as CCRL
from spfem_dist.priors.cerl import Settings as CERL
from spfem_dist.priors.pcmecl import Settings as PCMECL
from spfem_dist.priors.stage import Stage1
from spfem_dist.priors.stccl_cm import Settings as STCCLCM
from spfem_dist.priors.stccl_vd import Settings as STCCLVD
from spfem_dist.training.launch import main


class FamilyPriors(Run):
    """Stage 1 of every prior, each a job of its own."""

    name: str = Field(
        "family-stage1", description="Run name; the same name and storage resumes, a new name starts anew."
    )
    recipe: str = Field("family_stage1", description="Recipe that made this configuration.")
    ccrl: CCRL = Field(default_factory=CCRL)
    cerl: CERL = Field(default_factory=CERL)
    asccl: ASCCL = Field(default_factory=ASCCL)
    stccl_vd: STCCLVD = Field(default_factory=STCCLVD)
    stccl_cm: STCCLCM = Field(default_factory=STCCLCM)
    pcmecl: PCMECL = Field(default_factory=PCMECL)


def family_stage1() -> FamilyPriors:
    """All priors in their clean form, on shards in shards/synthetic."""
    return FamilyPriors(
        data=Data(shards="shards/synthetic", split="synthetic"),
        scaling=Scaling(workers=2),
        zero=Zero(stage=1),
    )


if __name__ == "__main__":
    main(family_stage1, Stage1(decode_once=True))
