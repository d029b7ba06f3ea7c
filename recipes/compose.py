"""A compositor that puts an edited head back into its frame: DGAD's geometry first, then the head's looks.

    python recipes/compose.py                        # a laptop: local Ray, two CPU workers
    python recipes/compose.py --dry-run              # train nothing, say what would happen
    python recipes/compose.py --local                # one process, no Ray: breakpoints work
    ray job submit --working-dir . -- python recipes/compose.py --data.shards s3://bucket/mead --scaling.workers 8 \\
        --preset paper --data.size 512 --pretraining.weights /w/sd-inpainting --dgad.weights /w/sd-inpainting \\
        --pretraining.clip /w/clip-vit-h --dgad.clip /w/clip-vit-h --zero.stage 2
"""

from pydantic import Field

from spfem_dist.compositors.dgad import Geometry, Settings, Stage
from spfem_dist.config import Data, Run, Scaling, Zero
from spfem_dist.training.launch import main


class Composition(Run):
    """A compositor, trained on frames whose faces are taken out, displaced and relit."""

    name: str = Field("compose", description="Run name; the same name and storage resumes, a new name starts anew.")
    recipe: str = Field("compose", description="Recipe that made this configuration.")
    data: Data = Field(default_factory=Data)
    pretraining: Geometry = Field(default_factory=Geometry)
    dgad: Settings = Field(default_factory=Settings)


def compose() -> Composition:
    """DGAD on shards in shards/synthetic."""
    run = Composition(scaling=Scaling(workers=2), zero=Zero(stage=1))
    run.data.shards, run.data.split = "shards/synthetic", "synthetic"
    return run


if __name__ == "__main__":
    main(compose, Stage())
