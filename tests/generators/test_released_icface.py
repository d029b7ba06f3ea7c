"""ICface as published: the numbers that the authors' networks and losses gave, and their files' keys."""

import numpy as np
import pytest
import torch
from released_golden import filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.generators.icface import released

NETWORKS = {"netG": released.Generator, "netGN": released.Generator, "netDA": released.Discriminator}


def networks(golden, rule, **widths):
    """The fixture's networks, filled."""
    state = filled(golden[0], rule)
    made = {}
    for name in dict.fromkeys(key.split(".", 1)[0] for key in state):
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        made[name] = NETWORKS[name](**widths.get(name, {}))
        made[name].load_state_dict(own)
    return made


def picture(golden, name, rule):
    """A picture of the fixture, in (-1, 1)."""
    return input_of(golden[0]["inputs"][name], rule)


# --- generators ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_generator():
    return fixture("icface_generator")


def test_published_widths_have_the_published_parameters():
    with torch.device("meta"):
        made = released.Generator(), released.Discriminator()
    counts = [sum(p.numel() for p in network.parameters()) for network in made]
    assert counts == [released.PAPER_GENERATOR, released.PAPER_DISCRIMINATOR]


@needs_golden
@pytest.mark.parametrize(
    "case",
    [pytest.param("A_eval", marks=pytest.mark.nightly), pytest.param("B_eval", marks=pytest.mark.nightly), "B_train"],
)
def test_pictures_equal_the_authors(case, golden_generator):
    rule, mode = case.split("_")
    n, arrays = networks(golden_generator, rule), golden_generator[1]
    for network in n.values():
        network.train(mode == "train")
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
    shown = picture(golden_generator, "image", rule)
    wanted = released.condition(torch.from_numpy(arrays["au_raw"]))
    np.testing.assert_allclose(wanted.numpy(), arrays["params"], rtol=1e-6)
    with torch.no_grad():
        calm = n["netGN"](shown, released.neutral(wanted))
        found = {"neutral": calm, "out": n["netG"](calm, wanted)}
        if mode == "eval":
            found["out_direct"] = n["netG"](shown, wanted)
    for name, tensor in found.items():
        assert relative_error(tensor, *golden_generator, f"{case}.{name}") < 1e-4, name


@needs_golden
def test_a_file_as_the_authors_save_it_loads_and_another_is_named(golden_generator, tmp_path):
    own = {k.removeprefix("netG."): v for k, v in filled(golden_generator[0], "B").items() if k.startswith("netG.")}
    file = tmp_path / "latest_net_G.pth"
    moments = {"state": {0: {"step": 3, "square_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
    torch.save({"state_dict": {f"module.{k}": v for k, v in own.items()}, "optimizer": moments}, file)
    loaded = released.load_released(released.Generator(), file)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert value.equal(own[key]), key
    with pytest.raises(ValueError, match=r"latest_net_G.pth does not fit Generator .*conv_block.5"):
        released.load_released(released.Generator(dropout=False), file)


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_losses():
    return fixture("icface_losses")


@needs_golden
@pytest.mark.parametrize(("rule", "tolerance"), [("B", 1e-4), ("A", 1e-2)])
def test_losses_and_gradients_equal_the_authors(rule, tolerance, golden_losses):
    small = {"width": 16, "dropout": False}
    n = networks(golden_losses, rule, netG=small, netGN=small, netDA={"width": 16})
    description, arrays = golden_losses
    source, frame = (picture(golden_losses, name, rule) for name in ("real_A", "real_B"))
    shown, wanted = (
        released.condition(torch.from_numpy(arrays[f"au_raw_{which}"]), "training") for which in ("A", "B")
    )
    who = torch.tensor(description["inputs"]["identity"])
    discriminator, animator, neutraliser = n["netDA"], n["netG"], n["netGN"]

    calm = neutraliser(source, released.neutral(shown, "training"))
    animated = animator(calm, wanted)
    exact = 1e-4 if rule == "B" else 3e-4
    assert relative_error(calm, *golden_losses, f"{rule}.fake_neutral") < exact
    assert relative_error(animated, *golden_losses, f"{rule}.fake_recon") < exact
    for name, tensor in zip(("score", "cond", "identity"), discriminator(source), strict=True):
        assert relative_error(tensor, *golden_losses, f"{rule}.D_real.{name}") < 1e-4, name

    of_d = released.discriminator_losses(discriminator, source, shown, who, animated, calm)
    of_g = released.animator_losses(discriminator, animated, frame, wanted, who)
    of_n = released.neutraliser_losses(discriminator, animator, calm, shown, frame, wanted, who)
    found = {
        "D.gan_real_plus_aux_plus_au": of_d["real"] + of_d["identity"] + of_d["units"],
        "D.identity": of_d["identity"],
        "D.au": of_d["units"],
        "D.r1": of_d["gradient"],
        "D.fake_recon": of_d["animated"],
        "D.fake_neutral": of_d["neutral"],
        "G.gan": of_g["adversarial"],
        "G.recon": of_g["reconstruction"],
        "G.au": of_g["units"],
        "G.identity": of_g["identity"],
        "G.total": sum(of_g.values()),
        "GN.gan": of_n["adversarial"],
        "GN.au": of_n["units"],
        "GN.keeps_neutral": of_n["keeps_neutral"],
        "GN.cycle": of_n["cycle"],
        "GN.identity": of_n["identity"],
        "GN.total": sum(of_n.values()),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(description["scalars"][f"{rule}.{name}"], rel=tolerance, abs=2e-5), name

    for network, losses in (("netDA", of_d), ("netG", of_g), ("netGN", of_n)):
        gradients = torch.autograd.grad(
            sum(losses.values()), list(n[network].parameters()), retain_graph=True, allow_unused=True
        )
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm().item()
        assert norm == pytest.approx(description["scalars"][f"{rule}.grad_l2.{network}"], rel=10 * tolerance), network


def test_the_published_identity_loss_stays_near_the_logarithm_of_the_number_of_people():
    torch.manual_seed(0)
    discriminator = released.Discriminator(width=4)
    real = torch.rand(2, 3, released.SIZE, released.SIZE) * 2 - 1
    with torch.no_grad():
        discriminator.aux_layer[0].bias[3] = 50.0  # as sure as can be
        _, _, shares = discriminator(real)
    assert shares[:, 3].min() > 0.999
    right, wrong = (torch.nn.functional.cross_entropy(shares, torch.full((2,), k)).item() for k in (3, 500))
    assert (round(right, 2), round(wrong, 2)) == (5.85, 6.85)
