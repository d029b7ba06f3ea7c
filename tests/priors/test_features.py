"""Features of a frozen trunk that are kept: the same losses, the same file for every run, and no file that is not what it says."""

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import boto3
import pytest
import torch
from coded_shards import make_group, write_shards
from moto_s3 import moto_s3
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spfem_dist.config import Data, Run
from spfem_dist.emotions import SEVEN
from spfem_dist.nets.clip import tiny_clip
from spfem_dist.priors import cerl
from spfem_dist.priors.cerl.clean import CleanCERL
from spfem_dist.priors.features import FEATURES, FeatureCache
from spfem_dist.priors.prior import build_prior
from spfem_dist.priors.stage import Stage1
from spfem_dist.streaming.loader import Loader, Source

RELEASED = cerl.Settings(form="released", embedding=32, global_batch=4)
CLEAN = cerl.Settings(network="paper", global_batch=4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards; recordings of two frames, so that either moment's mouth can only come from the other."""
    groups = [make_group(f"S{g:02d}", "000", SEVEN, 7 * g, frames=2) for g in range(4)]
    for group in groups:
        for recording in group.recordings[1:]:
            recording.frames, recording.video = 2, group.recordings[0].video
            recording.features, recording.valid = recording.features[:2], recording.valid[:2]
        group.warps, group.warp_costs = {}, {}
    return write_shards(tmp_path_factory.mktemp("features") / "shards", [groups[:2], groups[2:]])


@pytest.fixture
def small_clip(monkeypatch):
    """The paper's network on a CLIP of two layers at its own side."""
    monkeypatch.setattr("spfem_dist.priors.cerl.paper.load_clip", lambda: tiny_clip(224))
    monkeypatch.setattr(
        "spfem_dist.priors.cerl.paper.load_tokeniser", lambda: lambda text: [1 + len(w) for w in text.split()][:20]
    )


def data_of(shards, **changes) -> Data:
    values = {"shards": str(shards), "size": 32, "frames_per_recording": 2, "decoder": "pyav", "split": "none"}
    return Data(**(values | changes))


def cache_of(prior, settings, shards, rank=0, size=1, **changes) -> FeatureCache:
    source = Source(data_of(shards, **changes))
    return FeatureCache(prior, settings, source, None, rank, size, torch.device("cpu"))


def made(cache: FeatureCache) -> list[str]:
    return [line for line in cache.make() if line]


def batches(prior, shards, cache=None):
    with Loader(data_of(shards), prior.view, 0, 0, 1, 4, finish=cache and cache.given, decode=cache is None) as loader:
        return [batch for batch, _ in islice(loader, 3)]


def kept(folder, settings, **changes):
    return settings.model_copy(update={"feature_cache": str(folder), "feature_views": 0} | changes)


def losses(prior, batch):
    with torch.no_grad():
        found, monitors = prior(batch)
    return {key: value.item() for key, value in (found | monitors).items()}


@pytest.mark.parametrize("asked", [RELEASED, CLEAN], ids=["released", "clean"])
def test_kept_features_of_plain_frames_give_the_losses_of_the_frames(asked, shards, small_clip, tmp_path):
    torch.manual_seed(0)
    settings = kept(tmp_path, asked)
    prior = build_prior(settings, data_of(shards), 8)
    cache = cache_of(prior, settings, shards)
    assert "one plain view" in made(cache)[-1]
    for seen, given in zip(batches(prior, shards), batches(prior, shards, cache), strict=True):
        assert given.frames.shape[-1] == 0, "nothing is decoded"
        assert losses(prior.train(), given) == pytest.approx(losses(prior.eval(), seen), abs=1e-5)


def test_gradients_are_those_of_the_frames(shards, small_clip, tmp_path):
    torch.manual_seed(0)
    settings = kept(tmp_path, CLEAN)
    prior = build_prior(settings, data_of(shards), 8)
    cache = cache_of(prior, settings, shards)
    made(cache)
    found = []
    for batch, training in ((batches(prior, shards)[0], False), (batches(prior, shards, cache)[0], True)):
        prior.train(training).zero_grad()
        sum(prior(batch)[0].values()).backward()
        found.append({name: p.grad.clone() for name, p in prior.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_augmented_views_differ_and_are_the_same_for_every_number_of_workers(shards, small_clip, tmp_path, monkeypatch):
    settings = CLEAN.model_copy(update={"feature_views": 3})
    prior: CleanCERL = build_prior(settings, data_of(shards), 8)
    alone = cache_of(prior, kept(tmp_path / "a", settings, feature_views=3), shards)
    made(alone)
    first, second = (cache_of(prior, kept(tmp_path / "b", settings, feature_views=3), shards, r, 2) for r in (0, 1))
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    with ThreadPoolExecutor(1) as other:
        done = other.submit(made, second)
        made(first)
        assert "made in" in done.result()[-1]
    for file in sorted((tmp_path / "a").glob("*/*.safetensors")):
        features = load_file(file)["features"]
        assert torch.equal(features, load_file(tmp_path / "b" / file.parent.name / file.name)["features"])
        assert features.shape == (28, 3, 2, 64)
        assert (features[:, 0] - features[:, 1]).abs().amax((1, 2)).min() > 1e-4
    taken = [batch.extras[FEATURES] for batch in batches(prior, shards, alone)]
    assert all(torch.equal(a, b.extras[FEATURES]) for a, b in zip(taken, batches(prior, shards, alone), strict=True))


def damaged(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 64
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def foreign(file):
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    identity = json.loads(said["identity"]) | {"trunk": "0" * 64}
    save_file(load_file(file), file, said | {"identity": json.dumps(identity)})


@pytest.mark.parametrize(
    ("hurt", "words"),
    [(damaged, "not those that were written"), (cut, "damaged"), (foreign, r"something else \(trunk differs\)")],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_words_and_made_again(hurt, words, shards, tmp_path, caplog):
    settings = kept(tmp_path, RELEASED)
    prior = build_prior(settings, data_of(shards), 8)
    made(cache_of(prior, settings, shards))
    file, other = sorted(tmp_path.glob("*/*.safetensors"))
    whole, untouched = load_file(file)["features"].clone(), other.stat().st_mtime_ns
    hurt(file)
    with caplog.at_level(logging.WARNING):
        made(cache_of(prior, settings, shards))
    (message,) = caplog.messages
    assert file.name in message
    assert re.search(words, message)
    assert torch.equal(load_file(file)["features"], whole)
    assert other.stat().st_mtime_ns == untouched, "a sound file is not made again"


def test_another_trunk_crop_or_size_has_files_of_its_own(shards, tmp_path):
    for width, size in ((32, 32), (16, 32), (32, 16), (32, 32)):
        settings = kept(tmp_path, RELEASED, embedding=width)
        prior = build_prior(settings, data_of(shards, size=size), 8)
        made(FeatureCache(prior, settings, Source(data_of(shards, size=size)), None, 0, 1, torch.device("cpu")))
    assert len(list(tmp_path.iterdir())) == 3


def test_they_lie_on_s3_and_a_host_whose_copy_is_damaged_fetches_another(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with moto_s3() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        boto3.client("s3").create_bucket(Bucket="kept")
        settings = RELEASED.model_copy(update={"feature_cache": "s3://kept/features", "feature_views": 0})
        prior = build_prior(settings, data_of(shards), 8)
        cache = cache_of(prior, settings, shards)
        made(cache)
        first = batches(prior, shards, cache)
        damaged(sorted(tmp_path.glob("spfem/features/*/*.safetensors"))[0])
        again = cache_of(prior, settings, shards)
        assert "were there" in made(again)[-1]
        for a, b in zip(first, batches(prior, shards, again), strict=True):
            assert torch.equal(a.extras[FEATURES], b.extras[FEATURES])


def test_what_cannot_be_decoded_counts_nowhere_and_the_rest_does(shards, tmp_path, monkeypatch):
    settings = kept(tmp_path, RELEASED)
    prior = build_prior(settings, data_of(shards), 8)
    cache = cache_of(prior, settings, shards, bad_share=1.0)
    name = f"{SEVEN[2].value}-1-1"
    group = cache.source.group(0, 0)
    next(r for r in group.recordings if r.name == name).video = b"no video"
    made(cache)
    hurt = [b for b in batches(prior, shards, cache) if group.key in b.keys]
    assert hurt
    for batch in hurt:
        sample = batch.keys.index(group.key)
        assert batch.valid[sample].all(1).tolist() == [row != 2 for row in range(7)]


def test_before_they_are_made_a_batch_has_their_shape(shards, tmp_path):
    settings = kept(tmp_path, RELEASED)
    prior = build_prior(settings, data_of(shards), 8)
    cache = cache_of(prior, settings, shards)
    assert batches(prior, shards, cache)[0].extras[FEATURES].shape == (4, 7, 2, 1, 32)


def test_a_network_without_a_frozen_trunk_is_refused_before_the_run(shards, tmp_path):
    class Priors(Run):
        job: cerl.Settings

    run = Priors(data=data_of(shards), job=kept(tmp_path, cerl.Settings()))
    with pytest.raises(ValueError, match=r"no frozen trunk.*--job.network paper"):
        Stage1().check(run, "job")
