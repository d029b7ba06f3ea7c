"""Expression texture: the lines and folds that an expression draws on a face, as a function of its coefficients.

What moved landmarks cannot show. Frames are laid flat (every pixel to its place on the mean face), the logarithm of their light keeps
what is finer than a share of the face, and a ridge regression within speakers explains that by the expression's coefficients. An edit
multiplies a picture by exp(what the wanted expression draws - what the source's draws). Its part in a face is what DECA's details are to
FLAME (Feng et al., SIGGRAPH 2021), in closed form. A function of coefficients, it can be asked for an expression and for nothing else.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.generators.face.maps import FaceMaps, warped
from spfem_dist.generators.face.model import COEFFICIENTS
from spfem_dist.saved import load_tensors, save_tensors

#: Numbers that are made of each coefficient of one frame.
PER_COEFFICIENT = 3
#: Pictures of which every texture is a sum.
RANK = 32
#: Added to pixel values before the logarithm: noise in the dark is no line.
DARK = 12.0
#: Share of the mean variance of a feature that is added to each: a feature that hardly varies explains nothing.
RIDGE = 3e-3
#: Width of the light that is left out (sigma), and of what is left out around eyes, lips and at the edge: shares of the side.
SLOW, EYES, LIPS, EDGE = 7 / 128, 15 / 128, 5 / 128, 21 / 128


def features(coefficients: Tensor) -> Tensor:
    """[..., C] -> [..., 3 C]: a line may deepen faster than its muscle moves, and need not pale when that moves the other way."""
    return torch.cat([coefficients, coefficients.clamp(min=0), coefficients.square().clamp(max=9)], -1)


class ExpressionTexture:
    """codes: float32 [3 C, 32] of C coefficients. pictures: float32 [32, 3, U, U], of which a frame's log light is the sum that its code says."""

    def __init__(self, codes: Tensor, pictures: Tensor):
        self.codes, self.pictures = codes, pictures

    @classmethod
    def empty(cls, side: int, coefficients: int = COEFFICIENTS) -> ExpressionTexture:
        """The texture that draws nothing."""
        return cls(torch.zeros(PER_COEFFICIENT * coefficients, RANK), torch.zeros(RANK, 3, side, side))

    def to(self, device: torch.device | str) -> ExpressionTexture:
        """The same on `device`."""
        return ExpressionTexture(self.codes.to(device), self.pictures.to(device))

    def light(self, source: Tensor, wanted: Tensor, maps: Tensor) -> Tensor:
        """Log light [N, 3, S, S] that a change of coefficients [N, C] draws on faces with `maps` [N, 10, S, S].

        Differentiable in the coefficients and in the landmarks behind the maps.
        """
        kind = torch.promote_types(source.dtype, torch.float32)
        change = (features(wanted.to(kind)) - features(source.to(kind))) @ self.codes.to(kind)
        drawn = (change @ self.pictures.to(kind).flatten(1)).view(-1, *self.pictures.shape[1:])
        grid = maps[:, :2].to(kind).permute(0, 2, 3, 1) * 2 - 1
        return warped(drawn, grid) * maps[:, -1:].to(kind)

    def drawn_on(self, picture: Tensor, source: Tensor, wanted: Tensor, maps: Tensor) -> Tensor:
        """Pictures [N, 3, S, S] in [-1, 1] with another expression's lines; see `light`."""
        return lit(picture, self.light(source, wanted, maps)).clamp(-1, 1)

    def save(self, file: Path) -> None:
        """Write it as safetensors, the pictures in half precision."""
        save_tensors({"codes": self.codes.cpu().contiguous(), "pictures": self.pictures.cpu().half()}, file)

    @classmethod
    def load(cls, file: Path, side: int, coefficients: int = COEFFICIENTS) -> ExpressionTexture:
        """The texture in `file`. Raises ValueError where the file is damaged, of another side or of other coefficients."""
        shapes = {"codes": (PER_COEFFICIENT * coefficients, RANK), "pictures": (RANK, 3, side, side)}
        found = load_tensors(file, {n: torch.empty(s, device="meta") for n, s in shapes.items()}, "generator")
        return cls(found["codes"].float(), found["pictures"].float())


def lit(picture: Tensor, light: Tensor) -> Tensor:
    """Pictures in [-1, 1] under log light of the same shape; not clamped."""
    return (((picture.to(light.dtype) + 1) * 127.5 + DARK) * light.exp() - DARK) / 127.5 - 1


def side_of(size: int) -> int:
    """Side of the textures for pictures of `size`, pixels."""
    return min(256, 2 * size)


class TextureFit:
    """Sums over frames that a texture is solved from; each worker adds the frames of speakers of its own."""

    def __init__(self, maps: FaceMaps, side: int, coefficients: int = COEFFICIENTS):
        self.maps, self.side, self.coefficients = maps, side, coefficients
        flat = maps.flat[None] * side
        drawn, self._corners, self._weights = maps.covered(flat, side)
        self._mask = (drawn >= 0).float()[:, None]
        own = (torch.arange(side) + 0.5).to(flat)
        self._own = torch.stack(torch.meshgrid(own, own, indexing="xy"), -1)[None]
        self._blur = _gaussian(side, SLOW * side).to(flat)
        self._around = self._blurred(self._mask).clamp(min=1e-3)
        wide = {"dtype": torch.float64, "device": flat.device}
        self._count = torch.zeros(1, **wide)
        count = PER_COEFFICIENT * coefficients
        self._xx = torch.zeros(count, count, **wide)
        self._xy = torch.zeros(count, 3 * side * side, **wide)

    def add_speaker(self, frames: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """What one speaker shows: (pictures uint8 [K, 3, S, S], vertices [K, V, 2] in their pixels, coefficients [K, C])."""
        x = torch.cat([features(coefficients.double()) for _, _, coefficients in frames]).to(self._xx.device)
        y = torch.cat([self.detail(pictures, vertices).flatten(1) for pictures, vertices, _ in frames])
        x, y = x - x.mean(0), y - y.mean(0)
        self._count += len(x)
        self._xx += x.T @ x
        self._xy += x.float().T.contiguous() @ y

    def detail(self, pictures: Tensor, vertices: Tensor) -> Tensor:
        """Log light [K, 3, U, U], laid flat, without what is slow."""
        shown = vertices.to(self._weights) * (self.side / pictures.shape[-1])
        corners = self._corners.expand(len(shown), -1, -1, -1)
        picked = shown.gather(1, corners.flatten(1)[..., None].expand(-1, -1, 2)).view(*corners.shape, 2)
        place = (self._weights[..., None] * picked).sum(-2)
        place = torch.where(self._mask[:, 0, ..., None] > 0, place, self._own)
        light = torch.log(warped(pictures.to(shown.device).float(), place * 2 / self.side - 1) + DARK)
        return (light - self._blurred(light * self._mask) / self._around) * self._mask

    def solve(self) -> ExpressionTexture:
        """The texture of all workers' frames. A collective where processes train together; without frames it draws nothing."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            for total in (self._count, self._xx, self._xy):
                dist.all_reduce(total)
        if self._count == 0:
            return ExpressionTexture.empty(self.side, self.coefficients)
        spread = self._xx / self._count
        spread = spread + RIDGE * spread.diagonal().mean().clamp(min=1e-9) * torch.eye(len(spread)).to(spread)
        weights = torch.linalg.solve(spread, self._xy / self._count) * self._kept().double().flatten().repeat(3)
        # Of all sums of RANK pictures this one errs least on the frames: principal parts of what the weights draw there.
        values, vectors = torch.linalg.eigh(spread)
        root, inverse = ((vectors * values.clamp(min=1e-12) ** power) @ vectors.T for power in (0.5, -0.5))
        shown = root @ weights
        _, parts = torch.linalg.eigh(shown @ shown.T)
        parts = parts[:, -RANK:].flip(1)
        parts = parts * parts.gather(0, parts.abs().argmax(0)[None]).sign()  # the solver's sign is no fact
        pictures = (parts.T @ shown).float().view(RANK, 3, self.side, self.side)
        return ExpressionTexture((inverse @ parts).float(), pictures)

    def _kept(self) -> Tensor:
        """Where a texture may draw [U, U]: not over eyes and lips, whose insides move, nor at the edge, where hair begins."""
        maps, _ = self.maps.draw(self.maps.flat[None] * self.side, self.maps.flat[None] * self.side, self.side)
        eyes, lips = (
            _grown(maps[:, part].amax(1, keepdim=True).clamp(max=1), share * self.side) for part, share in _OFF
        )
        inner = -_grown(-maps[:, -1:], EDGE * self.side)
        kept = (1 - torch.maximum(eyes, lips)) * inner
        return F.avg_pool2d(kept, 5, 1, 2)[0, 0]

    def _blurred(self, pictures: Tensor) -> Tensor:
        return self._blur @ pictures @ self._blur.T


#: Maps of the eyes and of the mouth, and how far around them nothing is drawn.
_OFF: tuple[tuple[list[int], float], ...] = (([3, 4], EYES), ([5], LIPS))


def _grown(mask: Tensor, width: float) -> Tensor:
    """Largest values [1, 1, U, U] within a square of `width` pixels."""
    reach = max(1, round(width / 2))
    return F.max_pool2d(mask, 2 * reach + 1, 1, reach)


def _gaussian(side: int, sigma: float) -> Tensor:
    """Matrix [side, side] of a Gaussian along one axis; rows sum to 1 away from the ends, beyond which there is nothing."""
    away = torch.arange(side)[:, None] - torch.arange(side)
    taps = torch.exp(-0.5 * (away / sigma).square())
    return taps / taps[side // 2].sum()
