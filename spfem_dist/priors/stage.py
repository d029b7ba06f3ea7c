"""Stage 1 of training: the priors of CDRL, each a job of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch

from spfem_dist.config import CCRL, CERL, Stage1Run
from spfem_dist.corpora.splits import Split
from spfem_dist.priors.prior import build_prior, save_prior
from spfem_dist.records import Batch
from spfem_dist.shard_format import GroupEntry
from spfem_dist.stage import Job, Networks, job_of_one
from spfem_dist.streaming.coverage import dataset_facts
from spfem_dist.streaming.loader import Loader, Source, fixed_batches
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.views import VIEWS


class Stage1:
    """CCRL and CERL learn from utterance groups; nothing is shared between them but the data."""

    name = "stage1"

    def jobs(self, run: Stage1Run) -> list[str]:
        """The enabled priors."""
        return list(run.jobs())

    def job(self, run: Stage1Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The prior `name` with its training stream and its held-out samples, as worker `rank` of `size` sees it."""
        settings = run.jobs()[name]
        assert isinstance(settings, CCRL | CERL)
        source = Source(run.data, device)
        network = build_prior(name, settings, run.data, source.reader.index.feature_dim)
        split = Split.load(run.data.split)
        share = settings.global_batch // size
        micro = settings.micro_batch or share
        loaders: list[Loader] = []

        def part(which: str) -> Callable[[GroupEntry], bool]:
            return lambda entry: split.accepts(which, entry.speaker, entry.sentence)

        def loader(start_sample: int) -> Loader:
            made = Loader(
                run.data,
                network.view,
                seed=run.seed,
                rank=rank,
                world=size,
                global_batch=settings.global_batch,
                micro_batch=micro,
                start_sample=start_sample,
                accept=part("train"),
                device=device,
                source=source,
            )
            loaders.append(made)
            return made

        def batches(start_sample: int) -> Iterator[tuple[Batch, float]]:
            return iter(loader(start_sample))

        @cache
        def validation() -> list[Batch]:
            serves = VIEWS[network.view].serves
            held_out = part("validation")
            if not any(
                held_out(entry) and serves(entry) for shard in source.reader.index.shards for entry in shard.groups
            ):
                return []
            return fixed_batches(
                run.data,
                network.view,
                seed=run.seed,
                samples=run.validation.samples // size * size,
                # Equal micro-batches, so that their mean is the mean over samples for every number of workers.
                micro_batch=math.gcd(run.validation.samples // size, micro),
                accept=held_out,
                rank=rank,
                world=size,
                source=source,
            )

        def close() -> None:
            for made in loaders:
                made.close()

        return job_of_one(name, network, settings, batches, validation, dataset_facts(run.data, loader(0)), close)

    def export(self, run: Stage1Run, name: str, networks: Networks, folder: Path) -> None:
        """Write the prior as safetensors with the configuration that rebuilds it."""
        settings = run.jobs()[name]
        assert isinstance(settings, CCRL | CERL)
        feature_dim = ShardReader.of(run.data).index.feature_dim
        facts = {
            "run": run.name,
            "seed": run.seed,
            "steps": settings.steps,
            "samples": settings.steps * settings.global_batch,
        }
        save_prior(
            folder, networks[name], name=name, settings=settings, data=run.data, feature_dim=feature_dim, facts=facts
        )
