"""One small data set for all end-to-end tests, prepared through the command line."""

import json
from pathlib import Path

import pytest
from doors import command, well
from filmed import film
from flow import EXACT, call, losses, ok
from once import made_once
from small_corpus import SPLIT

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """(folder of shards, file of the split): four synthetic speakers, three sentences, seven emotions."""

    def prepare(folder):
        words = ["--out", folder / "shards", "--identities", "4", "--synthetic-sentences", "3", "--local"]
        ok(call("spfem", "prepare", "synthetic", *words))
        (folder / "split.json").write_text(json.dumps(SPLIT))

    folder = made_once(tmp_path_factory, "four-speakers", prepare)
    return folder / "shards", folder / "split.json"


@pytest.fixture(scope="session")
def small(shards):
    """Flags that make the stage-1 recipe a matter of seconds on that data set."""
    folder, split = shards
    flags = [
        "--data.shards",
        folder,
        "--data.split",
        split,
        "--scaling.workers",
        "2",
        "--tracking.log-every-steps",
        "1",
    ]
    flags += ["--ccrl.steps", "8", "--ccrl.global-batch", "4", "--cerl.steps", "6", "--cerl.global-batch", "4"]
    flags += ["--checkpoint.every-steps", "4", "--validation.every-steps", "4", "--validation.samples", "4"]
    return [str(f) for f in [*flags, "--tracking.pictures-every-steps", "4"]]


@pytest.fixture(scope="session")
def films():
    """By (speaker number, emotion): a talking face of 128 px at 30 fps, one sentence."""
    corpus = SyntheticCorpus(identities=3, sentences=1, fps=30, size=128, crossed=True)
    wanted = (Emotion.NEUTRAL, Emotion.HAPPY, Emotion.ANGRY)
    clips = [clip for clip in corpus.clips() if clip.emotion in wanted]
    return {(int(clip.speaker[1:]), clip.emotion): corpus.render(clip) for clip in clips}


@pytest.fixture(scope="session")
def mead(films, tmp_path_factory) -> Path:
    """A folder in MEAD's layout: one speaker who trains and one who is held out by mead_stage1."""
    root = tmp_path_factory.mktemp("recordings") / "MEAD"
    for (number, emotion), raw in films.items():
        if number < 2:
            level = 1 if emotion is Emotion.NEUTRAL else 3
            film(root / ("M005", "W021")[number] / f"video/front/{emotion.value}/level_{level}/001.mp4", raw)
    return root


@pytest.fixture(scope="session")
def exact(small, tmp_path_factory):
    """Losses of a local run in double precision: in single precision rounding grows about twofold a step, whoever trains."""

    def train(storage):
        places = ["--checkpoint.storage", storage, "--tracking.uri", ""]
        well(command("python", "recipes/cdrl_stage1.py", "--local", "--name", "r", *places, *EXACT, *small))

    storage = made_once(tmp_path_factory, "exact-stage1", train)
    return {job: losses(storage, "r", job) for job in ("ccrl", "cerl")}
