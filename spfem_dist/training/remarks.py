"""What a person should know of a run's shards before it starts: none of it keeps the run from starting."""

from __future__ import annotations

from spfem_dist.config import Run
from spfem_dist.shard_format import ShardIndex


def remarks(run: Run, index: ShardIndex) -> list[str]:
    """Sentences about `index`, the shards of `run`, each with what to type; empty where everything fits."""
    said = []
    if index.landmarks == "none":
        said.append(
            f"the shards in {run.data.shards} hold no landmarks: stage 1 can be trained on them, stage 2 and its scores cannot. "
            "Prepare them into another folder with --faces mesh (aligned-mesh for face crops) before you train, if a generator is "
            "what you want"
        )
    return said
