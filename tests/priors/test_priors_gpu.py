"""The priors' losses on a GPU: those of the CPU in single precision; near them in bf16 and compiled."""

import copy

import pytest
import torch
from batches import make_batch
from gpu import DEVICE, NEEDS_GPU

from spfem_dist.config import Data
from spfem_dist.nets.arcface import ArcFaceMap
from spfem_dist.priors.prior import EditedFrames, build_prior, find

pytestmark = NEEDS_GPU


@pytest.fixture(autouse=True)
def exact_multiplication():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def made(name: str):
    """(prior, batch) on the CPU."""
    torch.manual_seed(0)
    prior = build_prior(find(name).Settings(), Data(), 160, pretrained=False)
    return prior, make_batch(4, 2, 6) if name == "ccrl" else make_batch(3, 7, 2)


def losses(prior, batch) -> dict[str, float]:
    """Losses by name, and the size of their gradient."""
    found, _ = prior(batch)
    sum(v.float() for v in found.values()).backward()
    norm = torch.stack([p.grad.float().norm() for p in prior.parameters() if p.grad is not None]).norm()
    return {name: value.item() for name, value in found.items()} | {"gradient": norm.item()}


@pytest.mark.parametrize("name", ["ccrl", "cerl"])
def test_the_gpu_gives_the_losses_of_the_cpu(name):
    prior, batch = made(name)
    there = copy.deepcopy(prior).to(DEVICE)
    assert losses(there, batch.to(DEVICE)) == pytest.approx(losses(prior, batch), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["ccrl", "cerl"])
def test_bf16_stays_near_single_precision(name):
    prior, batch = made(name)
    single = losses(copy.deepcopy(prior).to(DEVICE), batch.to(DEVICE))
    half = losses(prior.to(DEVICE, torch.bfloat16), batch.to(DEVICE))
    assert half == pytest.approx(single, rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", ["ccrl", "cerl"])
def test_a_compiled_face_network_gives_the_same_losses(name):
    prior, batch = made(name)
    eager = losses(copy.deepcopy(prior).to(DEVICE), batch.to(DEVICE))
    prior = prior.to(DEVICE)
    (prior.face if name == "ccrl" else prior.network.face).compile(dynamic=False)
    assert losses(prior, batch.to(DEVICE)) == pytest.approx(eager, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["ccrl", "cerl"])
def test_embeddings_guidance_and_pictures_work_there(name):
    prior, batch = made(name)
    prior, batch = prior.to(DEVICE).eval(), batch.to(DEVICE)
    frames, speech = batch.frames[:, 0, 0], batch.speech[:, 0, 0]
    assert prior.embed(frames, speech).norm(dim=1).tolist() == pytest.approx([1.0] * len(frames), abs=1e-4)
    drawn = (frames.flip(0).float() / 127.5 - 1).requires_grad_()
    seen = (frames[:, None], frames[:, None], drawn[:, None])
    (told,) = prior.guidance(EditedFrames(*seen, emotion=batch.emotion[:, 0], speech=speech[:, None])).values()
    told.backward()
    assert drawn.grad.abs().sum() > 0
    assert all(picture.ndim == 3 for picture in prior.pictures(batch).values())


def test_the_published_trunk_takes_half_precision_beside_its_statistics_in_single_precision():
    """As DeepSpeed leaves a network under bf16: it casts parameters and no buffers."""
    trunk = ArcFaceMap(pretrained=False)
    for parameter in trunk.parameters():
        parameter.data = parameter.data.bfloat16()
    found = trunk.to(DEVICE).train()(torch.randn(2, 3, 64, 64, device=DEVICE, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()
