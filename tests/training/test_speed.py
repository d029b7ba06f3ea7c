"""Switches of time and memory: precisions stay near single precision, what is computed again gives the same numbers."""

import gzip
import json

import pytest
import torch
from doors import well
from toy_runs import losses, together

from spfem_dist.config import Profile
from spfem_dist.generators.ned.networks import MAPS, SOURCE_CHANNELS, Renderer, Sizes
from spfem_dist.nets.frozen import freeze
from spfem_dist.nets.iresnet import IResNet
from spfem_dist.nets.recompute import Recomputing, recompute

#: How far losses of the toy, which begin at .035 and end at .01, may be from those in fp32: rounding of 8 and of 11 bits.
TOLERANCE = {"bf16-mixed": 5e-3, "bf16": 5e-3, "fp16": 5e-4}
STAGES = [0, *(pytest.param(stage, marks=pytest.mark.nightly) for stage in (1, 2, 3))]


def half_precision():
    """DeepSpeed's CPU lists half precision where matrix units compute in it; torch's kernels need none."""
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True


def trained(storage, precision, stage, *settings):
    """The toy's losses by step, of one process."""
    flags = ["--zero.precision", precision, "--zero.stage", stage, *settings]
    well(together(1, storage, "--local", *flags, before=half_precision))
    return losses(storage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", TOLERANCE)
def test_losses_of_lower_precision_stay_near_those_in_fp32(precision, stage, reference, tmp_path):
    found = trained(tmp_path, precision, stage)
    assert found == pytest.approx(reference, abs=TOLERANCE[precision])
    assert found != reference


def test_half_precision_is_refused_in_words_where_there_is_none(tmp_path):
    refused = together(1, tmp_path, "--local", "--zero.precision", "fp16")
    assert refused.code == 1
    assert "zero.precision fp16" in refused.said
    assert "bf16-mixed" in refused.said


def no_compiler():
    import torch._inductor.config as settings

    settings.cpp.cxx = (None, "/nowhere/g++")


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_a_line_says_so(reference, tmp_path):
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}  # nothing that was compiled before
    ended = well(together(1, tmp_path, "--local", "--speed.compile", "True", before=no_compiler, **cache))
    assert "first cannot be compiled and runs as it is" in ended.said
    assert losses(tmp_path) == reference


@pytest.mark.nightly
@pytest.mark.parametrize("graphs", [False, True])
def test_a_compiled_network_gives_the_same_losses(graphs, reference, tmp_path):
    flags = ["--speed.compile", "True", "--speed.cuda-graphs", graphs]
    assert trained(tmp_path, "fp32", 1, *flags) == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--speed.compile", "False"], "set speed.compile to True"),
        (["--speed.compile", "True", "--zero.stage", 3], "use stage 0 to 2"),
    ],
)
def test_graphs_that_cannot_be_are_refused(flags, reason, tmp_path):
    refused = together(1, tmp_path, "--local", "--speed.cuda-graphs", "True", *flags)
    assert refused.code != 0
    assert reason in refused.said


class Renderers:
    """A small renderer in the form of the published size: pictures of 64 pixels."""

    @staticmethod
    def inputs():
        return torch.randn(2, MAPS, 64, 64), torch.randn(2, SOURCE_CHANNELS, 64, 64)

    @staticmethod
    def network():
        return Renderer(Sizes(manipulator=8, critic=8, renderer=8, halvings=3, blocks=9))


class Trunks:
    """A frozen trunk that hands gradients on to the picture."""

    @staticmethod
    def inputs():
        return (torch.randn(2, 3, 64, 64),)

    @staticmethod
    def network():
        network = IResNet((8, 16, 32, 64), (3, 4, 14, 3), stem=8, size=64)
        network.forward = network.feature_map  # type: ignore[method-assign]
        return freeze(network)


@pytest.mark.parametrize("kind", [Renderers, Trunks])
def test_what_is_computed_again_gives_the_same_gradients_and_keeps_half_as_much(kind):
    torch.manual_seed(0)
    network, inputs = kind.network(), [x.requires_grad_() for x in kind.inputs()]
    found = {}
    for on in (False, True):
        assert recompute(network, on)
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made = network(*inputs)
        wanted = [*inputs, *(p for p in network.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(made.square().mean(), wanted)
        own = {p.untyped_storage().data_ptr() for p in network.parameters()}
        found[on] = made, gradients, sum(size for where, size in kept.items() if where not in own)
    assert torch.equal(found[False][0], found[True][0])
    assert all(torch.equal(a, b) for a, b in zip(found[False][1], found[True][1], strict=True))
    assert found[True][2] < 0.5 * found[False][2]


def test_a_network_without_large_blocks_is_left_alone():
    assert not recompute(torch.nn.Linear(2, 2), True)
    assert not Recomputing().recompute


def test_a_profile_of_chosen_steps_names_their_parts_and_changes_no_loss(reference, tmp_path):
    well(together(1, tmp_path, "--local", "--profile.steps", "19", "90"))
    assert losses(tmp_path) == reference
    trace, table = sorted((tmp_path / "toy" / "first" / "profile").iterdir())
    assert (trace.name, table.name) == ("steps-19-20-rank-0.json.gz", "steps-19-20-rank-0.txt")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    named = {event.get("name") for event in events}
    assert {
        "step 19",
        "step 20",
        "losses of first",
        "backward of first",
        "update of first",
        "waiting for data",
    } <= named
    assert "step 18" not in named
    assert "aten::addmm" in table.read_text()


@pytest.mark.parametrize("steps", [(4, 3), (0, 3)])
def test_steps_to_profile_that_make_no_sense_are_refused(steps):
    with pytest.raises(ValueError, match=r"profile.steps .* give the first step"):
        Profile(steps=steps)
