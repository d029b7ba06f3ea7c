"""What a job is fed: only the speakers that the run names, and none that is not there."""

from itertools import islice

import pytest
import torch

from spfem_dist.config import JobSettings, Run
from spfem_dist.streaming.feed import JobData, check_groups
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import CONTENT


def run_of(small, *speakers):
    return Run(data=small.data(split="none", speakers=speakers))


def test_a_job_learns_from_the_speakers_that_the_run_names(small):
    run = run_of(small, "S01")
    feed = JobData(run, JobSettings(global_batch=4, steps=1), CONTENT, Source(run.data), 0, 1, torch.device("cpu"))
    seen = {key.split("_")[0] for batch, _ in islice(feed.batches(0), 4) for key in batch.keys}
    feed.close()
    assert seen == {"S01"}
    assert feed.facts["counts"]["groups"] == 3


def test_a_speaker_who_is_not_in_the_shards_is_refused_before_anything_starts(small):
    with pytest.raises(
        ValueError, match=r"data.speakers names S55, of whom these shards have no recording; they have S00, S01"
    ):
        check_groups(run_of(small, "S00", "S55"), CONTENT)
