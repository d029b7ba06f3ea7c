"""No step of training waits for the host: a whole step runs on the meta device, where a tensor has no numbers that anybody could read."""

import traceback

import pytest
import torch
from cdrl_stage2 import cdrl_stage2
from compose import compose
from family_stage1 import family_stage1
from icface_stage2 import icface_stage2
from sserd_stage2 import sserd_stage2
from torch.utils._python_dispatch import TorchDispatchMode

from spfem_dist.compositors.dgad.stage import composition_job
from spfem_dist.generators import icface, ned, sserd
from spfem_dist.nets.frozen import freeze
from spfem_dist.priors import stage as priors_stage
from spfem_dist.priors.frozen import FrozenPriors
from spfem_dist.priors.prior import build_prior, find
from spfem_dist.rooms import kinds

META = torch.device("meta")
SIDES = {"small": 64, "paper": 256}
#: Form and kind of every prior that trains. Published code of two of them does not exist.
PRIORS = [("clean", kind) for kind in kinds("priors")]
PRIORS += [("released", kind) for kind in kinds("priors") if kind not in ("pcmecl", "stccl_cm")]
#: What a GPU would have to be waited for, by its name in ATen.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}


class Waits(TorchDispatchMode):
    """Notes what a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in WAITS:
            where = [line for line in traceback.extract_stack() if "spfem_dist" in line.filename]
            self.found.append(f"{func.overloadpacket.__name__} at {where[-1] if where else 'a place of torch'}")
        return func(*args, **(kwargs or {}))


def moved(thing, seen):
    """Everything that `thing` holds, with its tensors on the meta device."""
    if isinstance(thing, torch.Tensor | torch.nn.Module):
        return thing.to(META)
    if id(thing) in seen:
        return thing
    seen.add(id(thing))
    if isinstance(thing, dict):
        thing.update({key: moved(value, seen) for key, value in thing.items()})
    elif str(getattr(thing, "__module__", "")).startswith("spfem_dist.generators") and getattr(
        thing, "__closure__", None
    ):
        for cell in thing.__closure__:
            cell.cell_contents = moved(cell.cell_contents, seen)
    elif isinstance(thing, tuple) and not hasattr(thing, "_fields"):
        return tuple(moved(value, seen) for value in thing)
    elif type(thing).__module__.startswith(("spfem_dist.generators", "spfem_dist.compositors")):
        for name, value in list(vars(thing).items()):
            if (there := moved(value, seen)) is not value:
                object.__setattr__(thing, name, there)
    return thing


def step(job, batch):
    """A whole step of the job's networks but for the update."""
    for phase in job.phases:
        losses, monitors = phase.losses(job.networks, batch)
        assert {value.device for value in (losses | monitors).values()} == {batch.frames.device}
        torch.stack([value.float() for value in losses.values()]).sum().backward()


def check(job, *others):
    """No phase of the job asks for a number: not on the meta device, and by its calls not on the CPU. others: what it holds apart."""
    batch = next(job.batches(0))[0]
    with Waits() as waits:
        step(job, batch)
    assert waits.found == []
    for network in job.networks.values():
        network.to(META)
    seen = set()
    for thing in others:
        moved(thing, seen)
    step(job, batch.to(META))
    job.close()


def fitted_to(run, toy, size):
    """The run on the toy's corpus, at that size of networks and pictures."""
    run.data, run.tracking.uri, run.scaling.workers = toy.data, "", 1
    run.data.size = SIDES[size]
    for job in run.jobs().values():
        job.global_batch = 2
        if hasattr(job, "network"):
            job.network = size
    return run


@pytest.mark.parametrize("size", ["small", pytest.param("paper", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("form", "kind"), [pytest.param(*p, marks=pytest.mark.nightly if p[0] == "released" else ()) for p in PRIORS]
)
def test_a_prior_learns_without_the_host(form, kind, size, toy, monkeypatch):
    monkeypatch.setattr(priors_stage, "build_prior", lambda *a: build_prior(*a, pretrained=False))
    run = fitted_to(family_stage1(), toy, size)
    run.jobs()[kind].form = form
    check(priors_stage.Stage1().job(run, kind, 0, 1, torch.device("cpu")))


@pytest.mark.parametrize("size", ["small", pytest.param("paper", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("room", "recipe"), [(ned, cdrl_stage2), (icface, icface_stage2), (sserd, sserd_stage2)])
def test_a_guided_generator_learns_without_the_host(room, recipe, size, toy):
    kind = room.Settings().kind
    run = fitted_to(recipe(), toy, size)
    if kind == "ned":
        run.ned.renderer = "residual"
    features = priors_stage.ShardReader.of(run.data).index.feature_dim
    priors = {
        name: freeze(build_prior(find(name).Settings(network=size), run.data, features, pretrained=False))
        for name in kinds("priors")
    }
    job = room.stage.guided_job(run, kind, FrozenPriors(priors, {}), 0, 1, torch.device("cpu"))
    losses = job.phases[0].losses.__self__
    check(job, losses, priors)


def test_generator_and_encoder_learn_without_the_host(toy):
    run = fitted_to(sserd_stage2(), toy, "small")
    job = sserd.stage.Stage().job(run, "pretraining", 0, 1, torch.device("cpu"))
    check(job, job.phases[0].losses.__self__)


@pytest.mark.parametrize("name", ["pretraining", "dgad"])
def test_a_compositor_learns_without_the_host(name, toy):
    job = composition_job(fitted_to(compose(), toy, "small"), name, 0, 1, torch.device("cpu"))
    check(job, job.phases[0].losses.__self__)
