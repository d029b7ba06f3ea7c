"""The dense cross-attention of DGAD: a map of the picture that is drawn asks the map of the head at every place, through a gate.

DGAD (Lin et al., "Geometry-Editable and Appearance-Preserving Object Composition", arXiv 2505.20914); facts about the released block, in
our own words:

* Queries come from the drawn map, keys and values from the head's; each has a 1x1 convolution without bias, and then all three the same
  two 3x3 convolutions. There is one head, whatever the settings say; attention is scaled by the root of the channels.
* alpha, the share of what is found, is a sigmoid of a small network of the queries that ends in a sigmoid already: it lies in [.5, .73].
* beta, the share of the queries themselves, is 1 - alpha, averaged over 3x3 places, brought to 0..1 by the smallest and the largest value
  of the **whole batch**, and dilated. The result of one item so depends on the others.

The clean form has one sigmoid, takes smallest and largest over each item alone, and tells queries and keys where they are (sines and
cosines of row and column): a head lies about where it shall be, and need not be searched for everywhere.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor, nn

Gate = Literal["clean", "released"]


class DenseCrossAttention(nn.Module):
    """channels: of both maps and of the result. gate: the form, see the module. Names of parameters are the released ones."""

    def __init__(self, channels: int, gate: Gate = "clean"):
        super().__init__()
        self.gate = gate
        self.to_q, self.to_k, self.to_v = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(3))
        self.conv_layers = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)))
        self.mlp = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 1, 1))
        if gate == "clean":
            self._begin_as_a_look_at_the_same_place()

    def _begin_as_a_look_at_the_same_place(self) -> None:
        """Every convolution passes its input on: a place begins by finding what the head shows there. From random ones attention stayed
        uniform for hundreds of steps, and nothing was learnt of the head."""
        for conv in (self.to_q, self.to_k, self.to_v, *self.conv_layers):
            nn.init.dirac_(conv.weight)  # type: ignore[arg-type]
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, drawn: Tensor, head: Tensor) -> Tensor:
        """alpha softmax(Q K^T / sqrt C) V + beta Q. drawn: [N, C, H, W]; head: [N, C, h, w]. Returns [N, C, H, W]."""
        query, key = (self.conv_layers(to(self._placed(m))) for to, m in ((self.to_q, drawn), (self.to_k, head)))
        value = self.conv_layers(self.to_v(head))
        places = (part.flatten(2).transpose(1, 2) for part in (query, key, value))
        found = F.scaled_dot_product_attention(*places).transpose(1, 2).unflatten(2, query.shape[2:])
        alpha, beta = self.shares(query)
        return alpha * found + beta * query

    def _placed(self, map_: Tensor) -> Tensor:
        if self.gate == "released":
            return map_
        channels, side = map_.shape[1], map_.shape[-1]
        where = get_2d_sincos_pos_embed(channels, side, base_size=16, device=map_.device, output_type="pt")
        return map_ + where.T.reshape(channels, side, side).to(map_)

    def shares(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, [N, 1, H, W] each, of queries [N, C, H, W]."""
        alpha = self.mlp(query).sigmoid()
        if self.gate == "released":
            alpha = alpha.sigmoid()
        open_ = F.avg_pool2d(1 - alpha, 3, 1, 1)
        each = (0, 1, 2, 3) if self.gate == "released" else (1, 2, 3)
        low, high = open_.amin(each, keepdim=True), open_.amax(each, keepdim=True)
        return alpha, F.max_pool2d((open_ - low) / (high - low + torch.finfo(open_.dtype).eps), 3, 1, 1)


def zero_exit(channels: int) -> nn.Conv2d:
    """The 1x1 convolution through which a block's result is added, zero before training."""
    exit_ = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(exit_.weight)
    nn.init.zeros_(exit_.bias)  # type: ignore[arg-type]
    return exit_
