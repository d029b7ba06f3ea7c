"""How far the prior's brightness is from the true one."""

import torch

from spfem_dist.evaluation.groups import frames_tensor
from spfem_dist.evaluation.retrieval import bootstrap
from spfem_dist.evaluation.targets import Target

TARGETS = (Target("priors/brightness/error", "<=", 10.0),)
MEANINGS = {"brightness/error": "mean distance to the true brightness"}


@torch.inference_mode()
def score(prior, test, train, speech_window=5, device="cpu"):
    """See `evaluation.priors`."""
    errors = []
    for recording in (r for group in test for r in group.recordings):
        frames = frames_tensor(recording.frames, device)
        wanted = (frames.float() / 127.5 - 1).mean((1, 2, 3))
        errors.append(float((prior.see(frames)[:, 0] - wanted).abs().mean()))
    return {"brightness/error": bootstrap(errors)}
