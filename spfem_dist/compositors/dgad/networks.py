"""The networks of DGAD, of diffusers' blocks: an inpainting network with a compact picture of the head, and what brings its looks.

Sizes: `small` draws pixels; `paper` draws latents of Stable Diffusion 1.5, with the published widths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection
from torch import Tensor, nn
from transformers import CLIPVisionModel

from spfem_dist.compositors.dgad.attention import DenseCrossAttention, zero_exit
from spfem_dist.compositors.dgad.settings import Composition
from spfem_dist.nets.frozen import freeze

#: What is called after each residual block and each upsampling of a network's upward half, with the map; gives the map to go on with.
Visit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """place: pixels a side that are drawn as one place. channels: of a place. widths: of the network from fine to coarse. layers: residual
    blocks on the way down. asks: maps from the coarsest on that ask the head's picture. tokens: number and width of the compact picture.
    groups: of group norm. head_width: channels, or for Stable Diffusion number, of attention's heads."""

    place: int
    channels: int
    widths: tuple[int, ...]
    layers: int
    asks: int
    tokens: tuple[int, int]
    groups: int
    head_width: int


SHAPES = {
    "small": Shape(2, 12, (32, 64, 96), 1, 5, (4, 128), 8, 8),
    "paper": Shape(8, 4, (320, 640, 1280, 1280), 2, 15, (16, 768), 32, 8),
}
#: What CLIP's tower looks at: side in pixels, mean and deviation of colours.
CLIP_SIDE = 224
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Condition:
    """What a network knows of pictures that it draws, in the codec's places.

    scene: [N, C, s, s], with a grey hole. hole: [N, 1, s, s], 1 inside. head: [N, C + 1, s, s], the head's picture and where it is.
    looks: what the compact picture is made of: the head in pixels [N, 4, S, S] for small, CLIP's tokens [N, K, D] for paper.
    """

    scene: Tensor
    hole: Tensor
    head: Tensor
    looks: Tensor


class PixelCodec(nn.Module):
    """A place holds the colours of its pixels as they are: nothing is lost, and a network has a quarter of the places."""

    def __init__(self, place: int):
        super().__init__()
        self.place = place

    def latents(self, pictures: Tensor) -> Tensor:
        """Pictures [N, 3, S, S] in [-1, 1] as they are drawn, [N, C, s, s]."""
        return F.pixel_unshuffle(pictures, self.place)

    def pictures(self, latents: Tensor) -> Tensor:
        """The reverse."""
        return F.pixel_shuffle(latents, self.place)

    def condition(self, scene: Tensor, hole: Tensor, head: Tensor, cover: Tensor) -> Condition:
        """scene, head: [N, 3, S, S] in [-1, 1]; hole, cover: [N, 1, S, S], 1 where the hole, and where the head is."""
        small_hole, small_cover = (F.max_pool2d(mask, self.place) for mask in (hole, cover))
        shown = torch.cat([self.latents(head * cover), small_cover], 1)
        return Condition(self.latents(scene * (1 - hole)), small_hole, shown, torch.cat([head * cover, cover], 1))


class LatentCodec(nn.Module):
    """Pictures are drawn as latents of a frozen autoencoder; a frozen CLIP tower reads the head."""

    def __init__(self, vae: AutoencoderKL, clip: CLIPVisionModel):
        super().__init__()
        self.vae, self.clip = vae, clip

    def latents(self, pictures: Tensor) -> Tensor:
        """See `PixelCodec`; the mode of the autoencoder's distribution, scaled. Released code leaves the head's latents unscaled."""
        return self.vae.encode(pictures).latent_dist.mode() * self.vae.config.scaling_factor

    def pictures(self, latents: Tensor) -> Tensor:
        """See `PixelCodec`."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def condition(self, scene: Tensor, hole: Tensor, head: Tensor, cover: Tensor) -> Condition:
        """See `PixelCodec`."""
        small_hole, small_cover = (F.max_pool2d(mask, SHAPES["paper"].place) for mask in (hole, cover))
        shown = torch.cat([self.latents(head * cover), small_cover], 1)
        seen = F.interpolate(head * cover, (CLIP_SIDE, CLIP_SIDE), mode="bicubic", antialias=True)
        mean, std = (
            torch.tensor(v, device=seen.device, dtype=seen.dtype)[:, None, None] for v in (CLIP_MEAN, CLIP_STD)
        )
        tokens = self.clip(((seen + 1) / 2 - mean) / std, output_hidden_states=True).hidden_states[-2]
        return Condition(self.latents(scene * (1 - hole)), small_hole, shown, tokens)


Codec = PixelCodec | LatentCodec


def build_codec(settings: Composition) -> Codec:
    """What is between pictures and what is drawn, frozen. Raises ValueError where a folder does not hold what it should."""
    if settings.network == "small":
        return PixelCodec(SHAPES["small"].place)
    vae = _loaded(AutoencoderKL, Path(settings.weights) / "vae", "weights")
    clip = _loaded(CLIPVisionModel, Path(settings.clip), "clip")
    return freeze(LatentCodec(vae, clip))  # type: ignore[return-value]


class SmallLooks(nn.Module):
    """The head's picture [N, 4, S, S] as a compact vector, given as tokens [N, K, D]."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        widths = (4, 32, 64, 96, width)
        self.trunk = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in itertools.pairwise(widths)
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.tokens = ImageProjection(width, width, tokens)

    def forward(self, looks: Tensor) -> Tensor:
        """See the class."""
        return self.tokens(self.trunk(looks))


class GeometryNetwork(nn.Module):
    """Fills a hole by the scene around it and a compact picture of the head, which its downward half alone is shown in `small`."""

    def __init__(self, settings: Composition, size: int, clip_width: int = 0):
        super().__init__()
        shape = SHAPES[settings.network]
        count, width = shape.tokens
        down: tuple[str, ...]
        up: tuple[str, ...]
        if settings.network == "small":
            down, up = ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2), ("UpBlock2D",) * 3
            self.looks: nn.Module = SmallLooks(count, width)
        else:
            down = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
            up = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
            self.looks = IPAdapterPlusImageProjection(clip_width, width, 768, 4, 64, 12, count, 4)
        self.unet = _unet(shape, size, 2 * shape.channels + 1, down, "UNetMidBlock2DCrossAttn", up)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, visit: Visit = lambda drawn: drawn
    ) -> Tensor:
        """The prediction [N, C, s, s] of noisy pictures. visit: see `Visit`."""
        shown = torch.cat([noisy, condition.hole, condition.scene], 1)
        drawn = _walked(self.unet, shown, timesteps, self.looks(condition.looks), visit)
        return self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(drawn)))


class AppearanceNetwork(nn.Module):
    """A reference network that reads the head's picture, and dense cross-attention by which another network asks it."""

    def __init__(self, settings: Composition, size: int):
        super().__init__()
        shape = SHAPES[settings.network]
        down, up = (("DownBlock2D",) * len(shape.widths), ("UpBlock2D",) * len(shape.widths))
        self.reference = _unet(shape, size, shape.channels + 1, down, "UNetMidBlock2D", up)
        widths = _cut_behind(self.reference, shape.asks)
        self.dense = nn.ModuleList(DenseCrossAttention(width) for width in widths)
        self.exits = nn.ModuleList(zero_exit(width) for width in widths)

    def maps(self, head: Tensor) -> list[Tensor]:
        """What the reference network makes of heads [N, C + 1, s, s], at its first timestep."""
        found: list[Tensor] = []

        def keep(drawn: Tensor) -> Tensor:
            found.append(drawn)
            return drawn

        _walked(self.reference, head, torch.zeros(len(head), dtype=torch.long, device=head.device), None, keep)
        return found

    def forward(
        self,
        geometry: GeometryNetwork,
        noisy: Tensor,
        timesteps: Tensor,
        condition: Condition,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """What `geometry` predicts when it may ask for the head's looks. maps: of its picture, where they were made before."""
        asked = iter(zip(self.dense, self.exits, maps or self.maps(condition.head), strict=True))

        def visit(drawn: Tensor) -> Tensor:
            if (found := next(asked, None)) is None:
                return drawn
            dense, exit_, head = found
            return drawn + exit_(dense(drawn, head))

        return geometry(noisy, timesteps, condition, visit)


def check(settings: Composition, size: int) -> None:
    """Raise ValueError for a side that cannot be halved so often, and folders of weights that are not there."""
    shape = SHAPES[settings.network]
    least = shape.place * 2 ** (len(shape.widths) - 1)
    if size % least:
        near = max(least, size // least * least)
        raise ValueError(
            f"data.size is {size}, and {settings.network} networks draw sides that are multiples of {least}: give --data.size {near}"
        )
    if settings.network == "paper" and not (settings.weights and settings.clip):
        raise ValueError(
            "network paper needs weights (a folder with vae/ and unet/ of Stable Diffusion 1.5 inpainting) and clip (a folder of CLIP's image "
            "tower): give both, or network small"
        )
    for setting, folder in _folders(settings).items():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{setting}: there is no {folder}/config.json: give a folder as save_pretrained leaves it")


def _folders(settings: Composition) -> dict[str, Path]:
    if settings.network == "small":
        return {}
    return {
        "weights (autoencoder)": Path(settings.weights) / "vae",
        "weights (network)": Path(settings.weights) / "unet",
        "clip": Path(settings.clip),
    }


def build_geometry(settings: Composition, size: int, codec: Codec) -> GeometryNetwork:
    """The inpainting network, for paper begun from published weights. Raises ValueError as `check` does, and for weights of another network."""
    check(settings, size)
    if isinstance(codec, PixelCodec):
        return GeometryNetwork(settings, size)
    network = GeometryNetwork(settings, size, codec.clip.config.hidden_size)
    own = _loaded(UNet2DConditionModel, Path(settings.weights) / "unet", "weights")
    try:
        network.unet.load_state_dict(own.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"{settings.weights}/unet is not Stable Diffusion 1.5 for inpainting ({' '.join(str(error).split())[:200]})"
        ) from None
    return network


def _unet(
    shape: Shape, size: int, channels: int, down: tuple[str, ...], middle: str, up: tuple[str, ...]
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=size // shape.place,
        in_channels=channels,
        out_channels=shape.channels,
        down_block_types=down,
        mid_block_type=middle,
        up_block_types=up,
        block_out_channels=shape.widths,
        layers_per_block=shape.layers,
        norm_num_groups=shape.groups,
        cross_attention_dim=shape.tokens[1],
        attention_head_dim=shape.head_width,
    )


def _cut_behind(unet: UNet2DConditionModel, maps: int) -> list[int]:
    """Take away what lies behind the first `maps` maps of the way up, as it would never learn; returns the channels of each map."""
    widths: list[int] = []
    for number, block in enumerate(unet.up_blocks):
        widths += [resnet.out_channels for resnet in block.resnets]
        if len(widths) >= maps:
            block.upsamplers = None
            del unet.up_blocks[number + 1 :]
        widths += [upsampler.out_channels for upsampler in block.upsamplers or ()]
        if len(widths) >= maps:
            break
    del unet.conv_norm_out, unet.conv_act, unet.conv_out
    assert len(widths) == maps, "maps are cut behind a level's residual blocks"
    return widths


def _walked(
    unet: UNet2DConditionModel, shown: Tensor, timesteps: Tensor, tokens: Tensor | None, visit: Visit
) -> Tensor:
    """`shown` through a network of diffusers' blocks up to its last map, `visit` called on the way up."""
    time = unet.time_embedding(unet.time_proj(timesteps).to(shown.dtype))
    drawn = unet.conv_in(shown)
    skips = [drawn]
    for block in unet.down_blocks:
        asks = {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
        drawn, kept = block(drawn, time, **asks)
        skips += kept
    drawn = unet.mid_block(drawn, time, **({} if tokens is None else {"encoder_hidden_states": tokens}))
    for block in unet.up_blocks:
        asking = block.attentions if getattr(block, "has_cross_attention", False) else [None] * len(block.resnets)
        for resnet, attention in zip(block.resnets, asking, strict=True):
            drawn = resnet(torch.cat([drawn, skips.pop()], 1), time)
            if attention is not None:
                drawn = attention(drawn, encoder_hidden_states=tokens, return_dict=False)[0]
            drawn = visit(drawn)
        for upsampler in block.upsamplers or ():
            drawn = visit(upsampler(drawn))
    return drawn


def _loaded(kind: type, folder: Path, setting: str):
    """A network of diffusers or transformers from a folder, in single precision; nothing is downloaded."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)  # type: ignore[attr-defined]
    except Exception as error:
        raise ValueError(
            f"{setting} {folder} cannot be loaded as {kind.__name__} ({type(error).__name__}: {' '.join(str(error).split())[:200]}): give a "
            "folder as the library's save_pretrained leaves it"
        ) from None
