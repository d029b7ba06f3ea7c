"""How hard a prior pulls at an edit: what its guidance is weighed by, so that a prior counts for what it knows and not for its scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from spfem_dist.generators.ned import objectives
from spfem_dist.generators.ned.motions import Face
from spfem_dist.generators.ned.windows import Prepared, edited_scene
from spfem_dist.nets.frozen import evaluating
from spfem_dist.priors.frozen import FrozenPriors


def pulls(
    kinds: Sequence[str], priors: FrozenPriors, face: Face, manipulator: nn.Module, samples: Iterable[Prepared]
) -> dict[str, float]:
    """The norm of each prior's gradient at the edited coefficients of one sample, mean over all samples, by kind.

    Of guidance with weight 1, through warp and texture. kinds: the priors that are asked.
    """
    found: dict[str, list[torch.Tensor]] = {kind: [] for kind in kinds}
    with evaluating(manipulator):
        for prepared in samples:
            with torch.no_grad():
                edited = objectives.edited_windows(manipulator, prepared)
            edited.requires_grad_()
            scene, source = edited_scene(prepared, face, edited)
            frames = objectives.edited_frames(prepared, scene.composed(scene.moved, source))
            for kind in kinds:
                only = dict.fromkeys(priors.networks, 0.0) | {kind: 1.0}
                total = torch.stack(list(priors.guidance(frames, only).values())).sum()
                (gradient,) = torch.autograd.grad(total, edited, retain_graph=True)
                found[kind].append(gradient.flatten(1).norm(dim=1) * len(edited))
    return {kind: float(torch.cat(norms).mean()) for kind, norms in found.items()}
