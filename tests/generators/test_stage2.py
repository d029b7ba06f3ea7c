"""Stage 2: the same losses however it is sharded or interrupted; the priors guide, and stand still."""

import gzip
import json
import re
import signal

import pytest
import torch
from doors import command, well
from toy_stage2 import DRY, PRETRAINED, TORCHRUN, alone, killed_after_step_five, losses, started, two_workers

from spfem_dist.generators.load import load_generator
from spfem_dist.generators.ned.motions import Face
from spfem_dist.generators.ned.saved import load_parts
from spfem_dist.generators.ned.stage import guided_job
from spfem_dist.priors.frozen import frozen_priors
from spfem_dist.priors.prior import load_prior
from spfem_dist.saved import parameters_sha256
from spfem_dist.training import engines

#: In single precision rounding grows with every step of networks that train against each other, whoever trains them.
EXACT = [
    "--zero.precision",
    "fp64",
    *PRETRAINED,
    "--ned.steps",
    "8",
    "--ned.pairs",
    "20",
    "--validation.every-steps",
    "4",
]
JOBS = ("pretraining", "ned")


@pytest.fixture(scope="module")
def exact(toy, tmp_path_factory):
    """Losses of both jobs in one process, in double precision."""
    storage = tmp_path_factory.mktemp("exact")
    well(alone(toy, storage, *EXACT))
    return [losses(storage, job) for job in JOBS]


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_repeat_the_losses_of_one_process(stage, toy, exact, tmp_path):
    flags = [*EXACT, "--zero.stage", str(stage)]
    well(started(TORCHRUN, toy, tmp_path, *flags) if stage == 1 else two_workers(toy, tmp_path, *flags))
    for job, expected in zip(JOBS, exact, strict=True):
        found = losses(tmp_path, job)
        assert found == pytest.approx(expected, abs=1e-4)
        largest = max(abs(found[key] - expected[key]) for key in expected)
        print(f"{job}, ZeRO-{stage}: largest difference {largest:.1e}")


@pytest.mark.nightly
def test_a_killed_run_started_again_repeats_the_losses_exactly(toy, finished, tmp_path):
    saves = ["--checkpoint.every-steps", "3"]
    assert alone(toy, tmp_path, *saves, before=killed_after_step_five).code == -signal.SIGKILL
    again = well(alone(toy, tmp_path, *saves))
    assert "at step 3" in again.said
    assert losses(tmp_path) == losses(finished)


def test_the_dry_run_says_what_would_happen(toy, tmp_path):
    shown = well(command(*toy.words(DRY, tmp_path, *PRETRAINED, "--scaling.workers", "1")))
    for part in (
        "trained parameters",
        "GFLOP/sample",
        "GB/worker under ZeRO-1",
        "4 of 12 groups used",
        "MB read",
        "groups read once",
    ):
        assert part in shown.said, part
    assert "ready: nothing was trained" in shown.said
    assert not (tmp_path / "r").exists()


# --- frozen -------------------------------------------------------------------------------------------------------


def test_a_profile_names_what_every_network_of_a_step_does(finished):
    (trace,) = (finished / "r" / "ned" / "profile").glob("*.json.gz")
    named = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    networks = ("manipulator", "manipulator_critic", "renderer")
    assert {f"{what} of {name}" for name in networks for what in ("losses", "backward", "update")} <= named


@pytest.mark.parametrize("name", ["ccrl", "cerl"])
def test_a_finished_run_records_the_very_priors_of_stage_one(name, toy, finished):
    config = json.loads((finished / "r" / "ned" / "model" / "config.json").read_text())
    prior, _ = load_prior(toy.stage1 / name / "model")
    assert config["facts"]["priors"][name] == {"from": str(toy.stage1), "sha256": parameters_sha256(prior.state_dict())}


@pytest.fixture
def guided(toy):
    """Makes (the job, its frozen priors, a batch) of a run with changed guidance; in this process, without engines."""
    jobs = []

    def make(priors=(str(toy.stage1),), **guidance):
        run = toy.run(priors=priors)
        placement = {key: guidance.pop(key) for key in ("guidance_placement",) if key in guidance}
        run.ned = run.ned.model_copy(update={"guidance": run.ned.guidance | guidance} | placement)
        torch.manual_seed(0)
        frozen = frozen_priors(run.priors, "", run.data, "cpu")
        jobs.append(guided_job(run, "ned", frozen, 0, 1, torch.device("cpu")))
        stir(jobs[-1].networks)
        return jobs[-1], frozen, next(jobs[-1].batches(0))[0]

    yield make
    for job in jobs:
        job.close()


def stir(networks) -> None:
    """Move every network from where it begins: a manipulator that changes nothing has nothing to be guided in."""
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)


def step(job, batch) -> dict[str, set[str]]:
    """One step of all phases in plain PyTorch; the names of each phase's losses."""
    names = {}
    for phase in job.phases:
        with engines.only(job.networks, phase.trains):
            found, _ = phase.losses(job.networks, batch)
            sum(found.values()).backward()
        optimizer = torch.optim.SGD(job.networks[phase.trains].parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        names[phase.trains] = set(found)
    return names


def guidance(names: set[str]) -> set[str]:
    return {name.removeprefix("guidance/") for name in names if name.startswith("guidance/")}


def test_training_steps_leave_every_parameter_and_buffer_of_the_priors(toy, guided):
    job, frozen, batch = guided()
    for _ in range(2):
        step(job, batch)
    for name, network in frozen.networks.items():
        saved, _ = load_prior(toy.stage1 / name / "model")
        assert network.state_dict().keys() == saved.state_dict().keys()
        for key, value in saved.state_dict().items():
            assert torch.equal(network.state_dict()[key], value), f"{name}.{key}"
    frozen.check_untouched()


def test_nothing_is_exported_of_a_run_whose_prior_changed(guided, tmp_path):
    job, frozen, _ = guided()
    buffer = next(b for b in frozen.networks["ccrl"].buffers() if b.is_floating_point() and b.numel())
    buffer.view(-1)[0] += 1e-3
    with pytest.raises(RuntimeError, match="the frozen prior ccrl changed"):
        job.export(job.networks, tmp_path)
    assert not list(tmp_path.iterdir())


# --- guidance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "network", "losses"), [(0, "manipulator", 2), (2, "renderer", 1)])
def test_guidance_reaches_what_it_guides_and_nothing_of_the_priors(phase, network, losses, guided):
    job, frozen, batch = guided()
    assert job.phases[phase].trains == network
    with engines.only(job.networks, network):
        found, _ = job.phases[phase].losses(job.networks, batch)
        told = {name: value for name, value in found.items() if name.startswith("guidance/")}
        assert len(told) == losses
        for name, value in told.items():
            job.networks[network].zero_grad()
            value.backward(retain_graph=True)
            norm = sum(p.grad.norm() for p in job.networks[network].parameters() if p.grad is not None)
            assert norm > 0, name
    others = [n for key, n in job.networks.items() if key != network] + list(frozen.networks.values())
    assert all(p.grad is None for other in others for p in other.parameters())


@pytest.mark.parametrize(
    ("changes", "manipulator", "renderer"),
    [
        ({}, {"ccrl/content", "cerl/emotion"}, {"ccrl/content_renderer"}),
        ({"ccrl": 0.0}, {"cerl/emotion"}, set()),
        ({"cerl": 0.0}, {"ccrl/content"}, {"ccrl/content_renderer"}),
        ({"guidance_placement": "released"}, {"cerl/emotion"}, {"ccrl/content_renderer"}),
        ({"priors": ()}, set(), set()),
    ],
    ids=["both", "no-content", "no-emotion", "released", "no-priors"],
)
def test_a_weight_of_zero_leaves_a_loss_out_and_placement_decides_who_is_guided(changes, manipulator, renderer, guided):
    job, _, batch = guided(**changes)
    names = step(job, batch)
    assert guidance(names["manipulator"]) == manipulator
    assert guidance(names["renderer"]) == renderer
    assert guidance(names["manipulator_critic"]) == set()


def test_without_priors_a_run_trains_to_its_end(toy, tmp_path):
    storage = tmp_path / "runs"
    well(alone(toy, storage, "--priors", "--ned.steps", "1", "--validation.every-steps", "1"))
    assert not [name for _, name in losses(storage) if "guidance" in name]
    config = json.loads((storage / "r" / "ned" / "model" / "config.json").read_text())
    assert config["facts"]["priors"] == {}


def test_every_prior_pulls_as_hard_as_the_settings_say_on_held_out_speakers(guided):
    job, _, _ = guided(cerl=0.5)
    said = "\n".join(job.begin())
    found = {
        kind: (float(w), float(pull))
        for kind, w, pull in re.findall(r"of (\w+): weight (\S+) .*?: (\S+) for one", said)
    }
    assert set(found) == {"ccrl", "cerl"}
    shares = {kind: weight * pull for kind, (weight, pull) in found.items()}
    assert shares["ccrl"] == pytest.approx(job.settings.content_pull, rel=0.01)
    assert shares["cerl"] == pytest.approx(job.settings.emotion_pull / 2, rel=0.01)


# --- pre-training -------------------------------------------------------------------------------------------------


@pytest.mark.nightly  # in small: test_every_room.py
def test_a_run_goes_on_from_the_pretraining_of_another(toy, tmp_path):
    well(alone(toy, tmp_path, *PRETRAINED, "--ned.steps", "1", "--validation.every-steps", "0"))
    shared, before = tmp_path / "r", tmp_path / "other"
    well(alone(toy, before, *PRETRAINED, "--pretrained", shared, "--ned.steps", "1", "--validation.every-steps", "0"))
    assert not (before / "r" / "pretraining").exists()
    first, second = (load_parts(folder / "r" / "ned" / "model") for folder in (tmp_path, before))
    for key, value in first.networks["manipulator"].state_dict().items():
        assert value.equal(second.networks["manipulator"].state_dict()[key]), key
    assert first.texture.pictures.equal(second.texture.pictures)
    assert first.texture.pictures.abs().max() > 0
    done = alone(toy, tmp_path / "third", "--pretrained", shared, "--ned.regime", "absolute")
    assert done.code == 1
    assert "--ned.regime is absolute, the pre-training" in done.said
    done = alone(toy, tmp_path / "third", "--pretrained", shared, "--data.size", "48")
    assert done.code == 1
    assert "was trained on faces of 32 pixels, data.size is 48" in done.said
    done = alone(toy, tmp_path / "third", "--pretrained", tmp_path / "nowhere")
    assert done.code == 1
    assert "there is no finished pre-training" in done.said


def test_a_pretraining_alone_is_a_generator_that_edits_by_warp_and_texture(toy, tmp_path):
    well(alone(toy, tmp_path, *PRETRAINED, "--ned.enabled", "False", "--validation.every-steps", "3"))
    generator = load_generator(tmp_path / "r")
    assert generator.renderer is None
    assert {step for step, name in losses(tmp_path, "pretraining") if name.startswith("val/")} == {3, 6}


# --- the device ---------------------------------------------------------------------------------------------------


def test_a_step_never_asks_the_host_once_its_batch_is_there(toy, guided):
    """On the meta device there is nothing to ask: whatever reads a value, or draws on the host, raises."""
    job, frozen, batch = guided()
    known = job.phases[0].losses.__self__.known
    known.face = Face.of(known.face.model, known.face.texture, device="meta")
    for network in (*job.networks.values(), *frozen.networks.values()):
        network.to("meta")
    names = set()
    for phase in job.phases:
        with engines.only(job.networks, phase.trains):
            found, _ = phase.losses(job.networks, batch.to("meta"))
            torch.stack(list(found.values())).sum().backward()
        names |= set(found)
    assert {"ned/adversarial", "ned/squared", "guidance/ccrl/content", "guidance/cerl/emotion"} <= names
