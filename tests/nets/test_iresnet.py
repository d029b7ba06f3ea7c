"""iresnet: InsightFace's names, sizes and loading."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from spfem_dist.nets.iresnet import IResNet, iresnet50, load_backbone


def small() -> IResNet:
    torch.manual_seed(0)
    return IResNet((8, 8, 16, 16), (1, 1, 2, 1), stem=8, embedding=12, size=32)


def test_iresnet50_has_the_published_43_6_million_parameters():
    with torch.device("meta"):
        model = iresnet50()
    assert sum(p.numel() for p in model.parameters()) == 43_590_848
    assert model.fc.weight.shape == (512, 512 * 7 * 7)
    assert not model.features.weight.requires_grad


def test_names_are_insightfaces():
    with torch.device("meta"):
        names = set(iresnet50().state_dict())
    for name in (
        "conv1.weight",
        "prelu.weight",
        "layer1.0.downsample.1.running_var",
        "layer3.13.bn3.bias",
        "layer4.2.conv2.weight",
        "bn2.running_mean",
        "fc.bias",
        "features.num_batches_tracked",
    ):
        assert name in names
    assert not any(n.startswith("layer3.1.downsample") for n in names)


def test_layer3_is_an_eighth_and_layer4_a_sixteenth_of_the_side():
    model = small().eval()
    faces = torch.zeros(2, 3, 48, 48)
    assert model.feature_map(faces).shape == (2, 16, 6, 6)
    assert model.feature_map(faces, through="layer4").shape == (2, 16, 3, 3)
    with pytest.raises(ValueError, match="layer3"):
        model.feature_map(faces, through="layer5")


def test_embeddings_need_faces_of_the_built_size():
    model = small().eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 12)
    with pytest.raises(ValueError, match="32 x 32"):
        model(torch.zeros(2, 3, 48, 48))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_backbone_file_loads_exactly(tmp_path, suffix):
    source, path = small(), tmp_path / f"backbone{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    torch.manual_seed(1)
    loaded = load_backbone(path, IResNet((8, 8, 16, 16), (1, 1, 2, 1), stem=8, embedding=12, size=32))
    assert not loaded.training
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_data_parallel_prefixes_are_removed(tmp_path):
    torch.save({"state_dict": {f"module.{n}": t for n, t in small().state_dict().items()}}, tmp_path / "b.pth")
    load_backbone(tmp_path / "b.pth", small())


def test_a_backbone_of_another_architecture_is_refused_by_name(tmp_path):
    state = small().state_dict()
    state["conv1.weight"] = torch.zeros(4, 3, 3, 3)
    del state["layer1.0.bn1.weight"]
    state["head.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(
        ValueError, match=r"missing: layer1\.0\.bn1\.weight; unknown: head\.weight; wrong shape: conv1\.weight \(4, 3"
    ):
        load_backbone(tmp_path / "b.pth", small())


class NotTensors:
    """Any object that only code could rebuild."""


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"weight": NotTensors()}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="cannot be read as a file of tensors"):
        load_backbone(tmp_path / "b.pth", small())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_backbone(tmp_path / "none.pth", small())


def test_a_size_that_cannot_be_halved_four_times_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        IResNet(size=100)
