"""What a loader's data are, for tracking and the dry run."""

from __future__ import annotations

from typing import Any

from spfem_dist.config import Data
from spfem_dist.streaming.loader import Loader


def dataset_facts(data: Data, loader: Loader) -> dict[str, Any]:
    """Name, digest and source of the shards, and what an epoch takes from them."""
    index, coverage = loader.reader.index, loader.order.coverage
    counts = {
        "groups": coverage.accepted,
        "groups_in_index": coverage.groups,
        "recordings": coverage.recordings,
        "frames": coverage.frames,
        "samples_per_epoch": coverage.samples_per_epoch,
        "bytes_per_epoch": coverage.group_bytes,
    }
    return {"name": index.corpus, "digest": index.digest, "source": data.shards, "counts": counts}
