"""Stage 1 of training: priors, each a job of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spfem_dist.config import Data, Run
from spfem_dist.job_settings import CachedSettings, PriorSettings
from spfem_dist.priors.features import FeatureCache
from spfem_dist.priors.prior import build_prior, save_prior
from spfem_dist.stage import Job, Networks, job_of_one
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.reader import ShardReader


class Stage1:
    """The priors of a run learn from utterance groups; nothing is shared between them but the data.

    decode_once: priors that one process trains one after the other share a reader and its memory of decoded frames
    (data.decoded_cache_mb), so that the first one pays for all. Each still gets the samples that it would get alone: they are a
    function of the seed and of its view. Under Ray every prior has workers of its own, and each of them decodes once.
    """

    name = "stage1"
    reads_shards = True

    def __init__(self, decode_once: bool = False):
        self.decode_once = decode_once
        self._shared: tuple[Data, torch.device, Source] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"decode_once": self.decode_once, "_shared": None}  # open files and threads stay in their process

    def jobs(self, run: Run) -> list[str]:
        """The enabled priors."""
        return list(run.jobs())

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The prior `name` with its training stream and its held-out samples, as worker `rank` of `size` sees it."""
        settings = _settings(run, name)
        source = self._source(run.data, device)
        network = build_prior(settings, run.data, source.reader.index.feature_dim)
        feed = JobData(run, settings, network.view, source, rank, size, device)
        cache = None
        if isinstance(settings, CachedSettings) and settings.feature_cache:
            cache = FeatureCache(network, settings, source, feed.part("train"), rank, size, device)
            feed.instead = cache.given

        def export(networks: Networks, folder: Path) -> None:
            facts = {
                "run": run.name,
                "seed": run.seed,
                "steps": settings.steps,
                "samples": settings.steps * settings.global_batch,
            }
            feature_dim = source.reader.index.feature_dim
            save_prior(folder, networks[name], settings=settings, data=run.data, feature_dim=feature_dim, facts=facts)

        return job_of_one(
            name,
            network,
            settings,
            feed.batches,
            feed.validation,
            feed.facts,
            export=export,
            fill=tuple if cache is None else cache.make,
            close=feed.close,
        )

    def _source(self, data: Data, device: torch.device) -> Source:
        if not self.decode_once:
            return Source(data, device)
        if self._shared is None or self._shared[:2] != (data, device):
            self._shared = (data, device, Source(data, device))
        return self._shared[2]

    def check(self, run: Run, name: str) -> None:
        """Raise what would keep the prior `name` from training: no groups to draw from, weights that are not here."""
        network: Any = build_prior(_settings(run, name), run.data, ShardReader.of(run.data).index.feature_dim)
        check_groups(run, network.view)
        settings = _settings(run, name)
        if isinstance(settings, CachedSettings) and settings.feature_cache and network.frozen_trunk() is None:
            raise ValueError(
                f"{name}.feature_cache: the {settings.network} network of the {settings.form} form has no frozen trunk whose features "
                f"could be kept: give --{name}.network paper, or leave --{name}.feature-cache out"
            )


def _settings(run: Run, name: str) -> PriorSettings:
    settings = run.jobs()[name]
    if not isinstance(settings, PriorSettings):
        raise TypeError(
            f"{name} of run {run.name!r} is a {type(settings).__name__}, no prior's settings: it has another stage"
        )
    return settings
