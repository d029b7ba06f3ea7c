"""What a compositor learns from and is held against, and the networks of published size on folders of weights."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPVisionConfig, CLIPVisionModel

from spfem_dist.compositors.compositor import holes
from spfem_dist.compositors.dgad.networks import (
    SHAPES,
    AppearanceNetwork,
    GeometryNetwork,
    LatentCodec,
    PixelCodec,
    build_codec,
)
from spfem_dist.compositors.dgad.placing import displaced, relit
from spfem_dist.compositors.dgad.settings import Settings
from spfem_dist.compositors.pasted import WAYS
from spfem_dist.evaluation import composition

SIDE = 48


@pytest.fixture
def hole():
    points = np.array([[[10.0, 14], [34, 14], [36, 30], [22, 40], [9, 30]]])
    return holes(points, SIDE, 0.05)


@pytest.fixture
def picture():
    small = np.random.default_rng(0).uniform(0, 255, (1, 3, 6, 6))
    whole = torch.nn.functional.interpolate(torch.from_numpy(small), (SIDE, SIDE), mode="bicubic").clamp(0, 255)
    return whole.permute(0, 2, 3, 1).round().byte().numpy()


def test_a_hole_is_the_landmarks_hull_grown_by_a_share_of_the_side(hole):
    assert hole[0, 14, 22]
    assert hole[0, 12, 22], "grown by two pixels"
    assert not hole[0, 10, 22]
    assert not hole[0, 42, 10], "the hull's corner is cut"
    assert hole[0, 41, 21]


def test_training_and_evaluation_displace_a_head_alike(hole, picture):
    to_right, down, degrees = 3.0, 2.0, 8.0
    theirs = composition.displaced(picture, hole, np.array([to_right, down]), degrees)
    planes = torch.from_numpy(picture).permute(0, 3, 1, 2).double()
    mask = torch.from_numpy(hole)[:, None].double()
    shift = torch.tensor([[2 * to_right / SIDE, 2 * down / SIDE]], dtype=torch.float64)
    roll, scale = torch.tensor([np.radians(degrees)]), torch.ones(1, dtype=torch.float64)
    ours = displaced(planes, mask, shift, roll, scale).permute(0, 2, 3, 1).numpy()
    inside = np.abs(ours - theirs)[0, 12:-12, 12:-12]
    assert inside.mean() < 1, "grey levels"
    spot = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    spot[0, 0, 20, 20] = 1
    moved = displaced(spot, mask, shift, torch.zeros(1, dtype=torch.float64), scale)
    assert divmod(int(moved.argmax()), SIDE) == (22, 23), "down and to the right"


def test_light_multiplies_and_stays_within_a_picture():
    black, grey = torch.full((1, 3, 1, 1), -1.0), torch.zeros(1, 3, 1, 1)
    assert torch.equal(relit(black, torch.tensor([1.3])), black)
    assert relit(grey, torch.tensor([0.5])).unique().item() == -0.5
    assert relit(grey, torch.tensor([5.0])).max() == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_head_that_is_in_its_place_already_changes_nothing(way, hole, picture):
    same = WAYS[way](picture, hole, picture)
    assert np.abs(same.astype(int) - picture).max() <= 1
    other = WAYS[way](picture, hole, 255 - picture)
    assert np.array_equal(other[~hole], picture[~hole])
    assert (other[hole] != picture[hole]).any()


def test_the_gradients_way_takes_the_scenes_light_and_a_paste_keeps_the_heads(hole, picture):
    darker = (picture * 0.8).astype(np.uint8)
    error = {way: np.abs(put(picture, hole, darker).astype(int) - picture)[hole].mean() for way, put in WAYS.items()}
    assert error["Poisson"] < 0.5 * error["feathered paste"]


# --- networks -----------------------------------------------------------------------------------------------------


def test_pixels_pass_the_small_codec_unchanged():
    codec, pictures = PixelCodec(2), torch.rand(2, 3, 8, 8)
    assert codec.latents(pictures).shape == (2, SHAPES["small"].channels, 4, 4)
    assert torch.equal(codec.pictures(codec.latents(pictures)), pictures)


def paper(folder) -> Settings:
    return Settings(network="paper", weights=str(folder / "sd"), clip=str(folder / "clip"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folders as the libraries leave them, of networks that are published ones made small."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    levels = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    AutoencoderKL(**levels, block_out_channels=(8,) * 4, norm_num_groups=4).save_pretrained(folder / "sd" / "vae")
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=32
    )
    CLIPVisionModel(tower).save_pretrained(folder / "clip")
    return folder


def test_latents_are_scaled_alike_for_scene_and_head(weights):
    codec = build_codec(paper(weights))
    assert isinstance(codec, LatentCodec)
    assert not any(p.requires_grad for p in codec.parameters())
    pictures, ones = torch.rand(1, 3, 64, 64) * 2 - 1, torch.ones(1, 1, 64, 64)
    known = codec.condition(pictures, torch.zeros(1, 1, 64, 64), pictures, ones)
    assert known.scene.shape == (1, 4, 8, 8)
    assert torch.equal(known.scene, known.head[:, :4])
    assert known.looks.shape == (1, 1 + (224 // 32) ** 2, 16)
    assert codec.pictures(known.scene).shape == pictures.shape


def test_a_folder_that_holds_something_else_is_named(weights, tmp_path):
    with pytest.raises(ValueError, match=r"clip .* cannot be loaded as CLIPVisionModel"):
        build_codec(Settings(network="paper", weights=str(weights / "sd"), clip=str(tmp_path)))


def test_published_size_asks_for_looks_in_fifteen_places():
    settings = Settings(network="paper", weights="sd", clip="clip")
    with torch.device("meta"):
        appearance, geometry = AppearanceNetwork(settings, 512), GeometryNetwork(settings, 512, 1280)
    asked = sum(p.numel() for part in (appearance.dense, appearance.exits) for p in part.parameters())
    assert (len(appearance.dense), asked) == (15, 346_283_215)
    assert geometry.unet.conv_in.in_channels == 9
    assert 855e6 < sum(p.numel() for p in geometry.unet.parameters()) < 865e6, "Stable Diffusion 1.5"
