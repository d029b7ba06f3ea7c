"""The training of the judges, each a job of its own, for the same loop as every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from spfem_dist.corpora.splits import Split
from spfem_dist.evaluation.clips import read_clips, topology_of
from spfem_dist.evaluation.judges.check import check
from spfem_dist.evaluation.judges.saved import build_judge, load_judge, save_judge
from spfem_dist.evaluation.judges.settings import JudgeSettings, JudgesRun
from spfem_dist.stage import Job, Networks, job_of_one
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.reader import ShardReader

#: Shards whose groups are mixed at a time. Neighbouring shards hold few speakers: mixed less, the identity judge forgets
#: the earlier ones while it learns the next.
MIXED_SHARDS = 64


class JudgeStage:
    """Oracle, identity and synchrony learn from the training part; their check reads the test part at the end."""

    name = "judges"
    reads_shards = True

    def jobs(self, run: JudgesRun) -> list[str]:
        """The enabled judges."""
        return list(run.jobs())

    def job(self, run: JudgesRun, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The judge `name` with its training stream and its held-out samples, as worker `rank` of `size` sees it."""
        settings = run.jobs()[name]
        assert isinstance(settings, JudgeSettings)
        source = Source(run.data, device, landmarks=name == "oracle")
        network = build_judge(name, settings, self.shape(run, name))
        feed = JobData(run, settings, network.view, source, rank, size, device, draws_per_group=1, block=MIXED_SHARDS)

        def export(networks: Networks, folder: Path) -> None:
            self.export(run, name, networks[name], folder)

        # Judges are no priors: no registered model that stage 2 could name.
        return job_of_one(
            name,
            network,
            settings,
            feed.batches,
            feed.validation,
            feed.facts,
            export=export,
            registers=False,
            close=feed.close,
        )

    def check(self, run: JudgesRun, name: str) -> None:
        """Raise what would keep the judge `name` from training: no landmarks where it needs them, no groups to draw from."""
        settings = run.jobs()[name]
        assert isinstance(settings, JudgeSettings)
        network: Any = build_judge(name, settings, self.shape(run, name))
        check_groups(run, network.view, landmarks=name == "oracle")

    def shape(self, run: JudgesRun, name: str) -> dict[str, Any]:
        """What the corpus decides about the judge `name` (see `saved.build_judge`)."""
        index = ShardReader.of(run.data).index
        if name == "oracle":
            return {"topology": topology_of(index)}
        if name == "identity":
            split = Split.of(run.data)
            entries = [entry for shard in index.shards for entry in shard.groups]
            trained = {e.speaker for e in entries if split.accepts("train", e.speaker, e.sentence)}
            return {"speakers": sorted(trained), "speaker_of": {e.key: e.speaker for e in entries}}
        return {"feature_dim": index.feature_dim, "speech_window": run.data.speech_window}

    def export(self, run: JudgesRun, name: str, network: nn.Module, folder: Path) -> None:
        """Write the judge, then read it back, check it on the test part and keep the figures in its config.json."""
        settings = run.jobs()[name]
        assert isinstance(settings, JudgeSettings)
        index, split, shape = ShardReader.of(run.data).index, Split.of(run.data), self.shape(run, name)
        facts: dict[str, Any] = {
            "run": run.name,
            "seed": run.seed,
            "steps": settings.steps,
            "samples": settings.steps * settings.global_batch,
            "corpus": index.corpus,
            "digest": index.digest,
            "split": run.data.split,
        }
        save_judge(folder, network, name=name, settings=settings, shape=shape, facts=facts)
        judge, _ = load_judge(folder)
        source = Source(run.data, landmarks=True) if index.landmarks != "none" else None
        clips = (
            list(read_clips(run.data, lambda e: split.accepts("test", e.speaker, e.sentence), source)) if source else []
        )
        figures = check(judge, clips)
        facts["figures"] = {key: figure.value for key, figure in figures.items()}
        facts["intervals"] = {key: [figure.low, figure.high, figure.clips] for key, figure in figures.items()}
        save_judge(folder, judge, name=name, settings=settings, shape=shape, facts=facts)
        print("\n".join(f"{name}/{key}: {figure}" for key, figure in figures.items()), flush=True)
