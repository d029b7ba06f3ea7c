"""Weights that are not finite are neither written nor read, whoever writes or reads them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spfem_dist.config import Data
from spfem_dist.generators.load import load_generator
from spfem_dist.nets.clip import load_clip, tiny_clip
from spfem_dist.nets.iresnet import IResNet, load_backbone
from spfem_dist.nets.wav2vec2 import load_wav2vec2, tiny_wav2vec2
from spfem_dist.priors.prior import build_prior, find, load_prior, save_prior
from spfem_dist.saved import not_finite, save_tensors, write_config
from spfem_dist.tracking.models import register_model

WORDS = "holds numbers that are not finite"


def spoil(file):
    """A NaN in the last number of the file's first tensor."""
    tensors = load_file(file)
    first = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim())
    tensors[first].view(-1)[-1] = float("nan")
    save_file(tensors, file)


def prior_in(folder, spoilt=False):
    settings = find("ccrl").Settings()
    prior = build_prior(settings, Data(), 160)
    if spoilt:
        next(prior.parameters()).data.view(-1)[0] = float("inf")
    return save_prior(folder, prior, settings=settings, data=Data(), feature_dim=160)


def test_what_is_not_finite_is_named_in_order():
    tensors = {
        "b": torch.tensor([1.0, float("inf")]),
        "a": torch.ones(2),
        "n": torch.tensor(3),
        "c": torch.tensor(float("nan")),
    }
    assert not_finite(tensors) == ["b", "c"]
    assert not_finite({}) == []


def test_a_models_configuration_holds_no_password(tmp_path):
    write_config(tmp_path, {"kind": "x", "data": {"cache": "https://me:se/same@bucket/x", "shards": "s3://bucket/x"}})
    said = (tmp_path / "config.json").read_text()
    assert "same" not in said
    assert json.loads(said)["data"] == {"cache": "https://bucket/x", "shards": "s3://bucket/x"}


@pytest.mark.parametrize("name", ["data", "settings", "facts"])
def test_a_configuration_whose_parts_are_of_another_kind_is_damaged(name, tmp_path):
    folder = prior_in(tmp_path / "prior")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: None}))
    with pytest.raises(ValueError, match=rf"config.json is damaged \({name} is null\)"):
        load_prior(folder)


def test_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=f"x.safetensors {WORDS}, in w:"):
        save_tensors({"w": torch.tensor([float("nan")])}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=WORDS):
        prior_in(tmp_path / "prior", spoilt=True)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_prior_is_refused_and_not_registered(tmp_path):
    folder = prior_in(tmp_path / "prior")
    spoil(folder / "model.safetensors")
    with pytest.raises(ValueError, match=WORDS):
        load_prior(folder)
    with pytest.raises(ValueError, match=f"{WORDS}.*such a model is not handed on"):
        register_model(f"sqlite:///{tmp_path}/never.db", folder, "ccrl")
    assert not (tmp_path / "never.db").exists()


@pytest.mark.parametrize("file", ["model", "face", "texture"])
def test_a_generator_is_refused_whichever_file_it_is_in(file, tmp_path):
    import shutil

    from spfem_dist.generators.load import SHIPPED_FOLDER

    folder = shutil.copytree(SHIPPED_FOLDER, tmp_path / "generator")
    spoil(folder / f"{file}.safetensors")
    with pytest.raises(ValueError, match=f"{file}.safetensors {WORDS}"):
        load_generator(folder)


def test_pretrained_networks_are_refused(tmp_path):
    small = {"stem": 8, "embedding": 12, "size": 32}
    backbone = IResNet((8, 8, 16, 16), (1, 1, 2, 1), **small)
    save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, tmp_path / "b.safetensors")
    spoil(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=WORDS):
        load_backbone(tmp_path / "b.safetensors", IResNet((8, 8, 16, 16), (1, 1, 2, 1), **small))
    for name, network, load in (("clip", tiny_clip(), load_clip), ("wav2vec2", tiny_wav2vec2(), load_wav2vec2)):
        network.save_pretrained(tmp_path / name)
        assert isinstance(load(tmp_path / name), nn.Module)
        spoil(tmp_path / name / "model.safetensors")
        with pytest.raises(ValueError, match=WORDS):
            load(tmp_path / name)
