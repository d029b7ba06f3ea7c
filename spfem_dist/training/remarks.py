"""What a person should know of a run's shards before it starts: none of it keeps the run from starting."""

from __future__ import annotations

from spfem_dist.config import Run
from spfem_dist.shard_format import ShardIndex

#: The smallest faces that published networks look at: the priors' trunks take 224 pixels, the renderer 256.
_PUBLISHED_SIDE = 224


def remarks(run: Run, index: ShardIndex) -> list[str]:
    """Sentences about `index`, the shards of `run`, each with what to type; empty where everything fits."""
    said = []
    if index.landmarks == "none":
        said.append(
            f"the shards in {run.data.shards} hold no landmarks: stage 1 can be trained on them, stage 2 and its scores cannot. "
            "Prepare them into another folder with --faces mesh (aligned-mesh for face crops) before you train, if a generator is "
            "what you want"
        )
    published = [name for name, job in run.jobs().items() if getattr(job, "network", "") == "paper"]
    stored, size = index.size, run.data.size
    if published and size < _PUBLISHED_SIDE:
        said.append(
            f"the published networks ({', '.join(published)}) are made for faces of {_PUBLISHED_SIDE} to 256 px, and data.size is "
            f"{size}: --preset paper sets sizes that belong together"
        )
    elif stored < size:
        said.append(
            f"the shards hold faces of {stored} px and data.size is {size}: frames are enlarged, and no detail is gained. Give "
            f"--data.size {stored}, or prepare into another folder with --size {size}"
        )
    elif stored > size:
        said.append(
            f"the shards hold faces of {stored} px and data.size is {size}: frames are scaled down, which suits the small networks; "
            f"--preset paper trains the published ones at 256"
        )
    return said
