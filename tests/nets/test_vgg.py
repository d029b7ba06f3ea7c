"""VGG-19 has torchvision's names and layers, and measures without being changed."""

import pytest
import torch

from spfem_dist.nets.vgg import VGG19
from spfem_dist.weights import MissingWeights

SMALL = ((4, 4), (8, 8), (8,) * 4, (16,) * 4, (16,) * 4)


def test_names_and_sizes_are_torchvisions():
    network = VGG19()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 20_024_384, "torchvision's vgg19.features"
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["features.34.bias"] == (512,)


def test_taps_are_the_first_rectified_convolution_of_each_block():
    sides = [tuple(x.shape[1:]) for x in VGG19(SMALL)(torch.zeros(2, 3, 32, 32))]
    assert sides == [(4, 32, 32), (8, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)]
    assert VGG19().taps == [1, 6, 11, 20, 29]


def test_equal_pictures_have_no_distance_and_gradients_reach_the_drawn_one_alone():
    torch.manual_seed(0)
    network = VGG19(SMALL)
    drawn, real = (torch.rand(3, 3, 32, 32).mul(2).sub(1).requires_grad_() for _ in range(2))
    assert network.distance(real, real).abs().max() == 0
    apart = network.distance(drawn, real)
    assert apart.shape == (3,)
    assert (apart > 0).all()
    apart.sum().backward()
    assert drawn.grad.abs().sum() > 0
    assert real.grad is None
    assert all(p.grad is None for p in network.parameters())


def test_a_file_of_torchvisions_names_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match="vgg19"):
        VGG19.pretrained()
    place = tmp_path / "vgg19-imagenet"
    place.mkdir()
    tensors = {name: torch.full_like(t, 0.01) for name, t in VGG19().state_dict().items()}
    torch.save(tensors | {"classifier.0.weight": torch.zeros(2, 2)}, place / "vgg19-dcbb9e9d.pth")
    assert VGG19.pretrained().features[0].weight.unique().tolist() == pytest.approx([0.01])
