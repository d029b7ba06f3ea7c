"""A scale and an offset that turn the mean of a frame's pixels into its brightness. No embedding, does not listen."""

import torch
from torch import nn

from spfem_dist.streaming.views import CONTENT


class Brightness(nn.Module):
    """Answers `priors.prior.Prior`."""

    view = CONTENT
    hears, frames, softened = False, 1, True
    compares_with = "source"

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def see(self, frames):
        """Frames [..., 3, S, S] -> [..., 1]."""
        pixels = frames.float() / 127.5 - 1 if frames.dtype == torch.uint8 else frames
        return self.line(pixels.mean((-3, -2, -1))[..., None].to(self.line.weight.dtype))

    def forward(self, batch):
        wanted = (batch.frames.float() / 127.5 - 1).mean((-3, -2, -1))
        return {"brightness/error": (self.see(batch.frames)[..., 0] - wanted).square().mean()}, {}

    def guidance(self, edit):
        apart = (self.see(edit.source).detach() - self.see(edit.generated))[..., 0].square()
        return {"brightness/apart": edit.mean(apart)}

    def pictures(self, batch):
        return {"first": batch.frames[0, 0, 0].permute(1, 2, 0).cpu().numpy()}
