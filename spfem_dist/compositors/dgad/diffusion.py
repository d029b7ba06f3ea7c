"""How noise is added in training and taken away when a head is put in: diffusers' schedulers, deterministic (DDIM)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from spfem_dist.compositors.dgad.networks import Codec, Condition
from spfem_dist.compositors.dgad.placing import Sample
from spfem_dist.compositors.dgad.settings import Composition
from spfem_dist.nets.augment import normal, uniform
from spfem_dist.records import Seeds

#: (noisy [N, C, s, s], timesteps [N], what is known) -> prediction [N, C, s, s].
Predict = Callable[[Tensor, Tensor, Condition], Tensor]


def schedule(settings: Composition) -> DDPMScheduler:
    """The steps from a picture to noise; the cosine of Nichol and Dhariwal (2021), as short runs need."""
    return DDPMScheduler(
        settings.noise_steps, beta_schedule="squaredcos_cap_v2", prediction_type=settings.prediction, clip_sample=False
    )


def loss(predict: Predict, codec: Codec, settings: Composition, sample: Sample, seed: Seeds) -> Tensor:
    """Mean squared error of the prediction, those of the hole counting fully and the others by `settings.outside`; mean over samples.

    seed: of the samples: their noise and its amount depend on nothing else.
    """
    with torch.no_grad():
        condition = codec.condition(sample.picture, sample.hole, sample.head, sample.cover)
        drawn = codec.latents(sample.picture)
        noise = normal(seed, "composition/noise", *drawn.shape[1:]).to(drawn.dtype)
        steps = (uniform(seed, "composition/step") * settings.noise_steps).long()
        scheduler = schedule(settings)
        # Kept in double: of single precision the schedule's products would round otherwise than the network does.
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(drawn.device, torch.float64)
        noisy = scheduler.add_noise(drawn, noise, steps)
        wanted = {"sample": drawn, "epsilon": noise}.get(settings.prediction)
        if wanted is None:
            wanted = scheduler.get_velocity(drawn, noise, steps)
    exact = torch.promote_types(drawn.dtype, torch.float32)
    error = (predict(noisy, steps, condition).to(exact) - wanted.to(exact)).square().mean(1, keepdim=True)
    weight = settings.outside + (1 - settings.outside) * condition.hole.to(exact)
    return ((error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()


@torch.no_grad()
def drawn_by(predict: Predict, codec: Codec, settings: Composition, condition: Condition, noise: Tensor) -> Tensor:
    """Pictures [N, 3, S, S] in [-1, 1], from noise [N, C, s, s]."""
    scheduler = DDIMScheduler(
        settings.noise_steps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=settings.prediction,
        clip_sample=settings.network == "small",  # pixels end at -1 and 1, latents nowhere
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(settings.sampling_steps, device=noise.device)
    now = noise
    for step in scheduler.timesteps:
        found = predict(now, step.expand(len(now)), condition)
        now = scheduler.step(found, step, now).prev_sample
    return codec.pictures(now).clamp(-1, 1)
