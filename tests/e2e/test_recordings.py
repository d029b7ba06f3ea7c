"""The README's block for one's own recordings, typed word for word on films of rendered faces, to its end: an edited clip."""

import json
import shlex

import av
import pytest
from documented import commands_in, recordings_block
from doors import ROOT, command, well

from spfem_dist.shard_format import ShardIndex


def shortly() -> None:
    """The same runs with a few steps, in this process; other tests ask what MLflow is told."""
    from spfem_dist.training import launch

    start = launch.start

    def few_steps(run, stage, local=False, quiet=False):
        run.scaling.workers, run.tracking.uri, run.validation.samples = 1, "", 2
        for job in run.jobs().values():
            job.steps = job.global_batch = 2
        return start(run, stage, local=True, quiet=quiet)

    launch.start = few_steps


@pytest.fixture(scope="module")
def typed(mead, tmp_path_factory):
    """Each line of the block -> how it ended, in a folder that holds a clip, a reference and the recipes, and no weights yet."""
    place = tmp_path_factory.mktemp("user")
    (place / "recipes").symlink_to(ROOT / "recipes")
    for name, emotion in (("talk.mp4", "neutral/level_1"), ("angry.mp4", "angry/level_3")):
        (place / name).symlink_to(mead / "W021" / "video" / "front" / emotion / "001.mp4")
    ended = {}
    for line in commands_in(recordings_block()):
        words = [str(mead) if word == "/data/MEAD" else word for word in shlex.split(line)]
        done = command(*words, cwd=place, before=shortly, SPFEM_WEIGHTS=str(place / "weights"))
        if "pip could not download" in done.said:
            pytest.skip("the package index cannot be reached: no face mesh")
        ended[line] = well(done)
    return place, ended


def test_the_readmes_block_for_recordings_ends_with_an_edited_clip(typed):
    place, ended = typed
    prepare, dry_run, train, score, stage2, edit = ended.values()
    assert "face-mesh: 4.2 MiB (Apache-2.0) fetched from" in prepare.said
    index = ShardIndex.load(place / "shards" / "mead")
    assert (index.size, index.fps, index.landmarks) == (64, 30.0, "mesh478")
    assert "1 of 2 groups used" in dry_run.said
    assert "note:" not in dry_run.said + train.said + stage2.said  # sizes belong together
    assert "same_speech_auc" in score.out
    assert isinstance(json.loads((place / "runs/mead/summary.json").read_text())["priors"]["content"], dict)
    with av.open(str(place / "edited.mp4")) as edited, av.open(str(place / "talk.mp4")) as talk:
        assert edited.streams.video[0].frames == talk.streams.video[0].frames
        assert edited.streams.audio[0].frames == talk.streams.audio[0].frames
    assert "edited.mp4" in edit.said
