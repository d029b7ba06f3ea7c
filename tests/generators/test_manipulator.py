"""NED's manipulator: the numbers that the authors' networks and losses gave, and what the clean form mends."""

import pytest
import torch
from released_golden import filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.emotions import ALPHABETICAL, SEVEN
from spfem_dist.generators.ned import manipulator as ned

NETWORKS = {
    "generator": ned.Generator,
    "style_encoder": ned.StyleEncoder,
    "mapping_network": ned.MappingNetwork,
    "discriminator": ned.Discriminator,
}
OWN, TARGET = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 0])


@pytest.fixture(scope="module")
def golden():
    return fixture("ned_manipulator")


def networks(golden, rule):
    made = {name: kind() for name, kind in NETWORKS.items()}
    for name, network in made.items():
        network.load_state_dict(filled(golden[0]["networks"][name], rule))
    return made


def inputs(golden, rule):
    return {name: input_of(spec, rule) for name, spec in golden[0]["inputs"].items() if "shape" in spec}


@needs_golden
@pytest.mark.parametrize("name", NETWORKS)
def test_published_sizes_have_the_published_parameters(golden, name):
    assert sum(p.numel() for p in NETWORKS[name]().parameters()) == golden[0]["networks"][name]["params_total"]


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
def test_forwards_equal_the_authors(golden, rule):
    n, x = networks(golden, rule), inputs(golden, rule)
    with torch.no_grad():
        style, mapped = n["style_encoder"](x["x_ref"]), n["mapping_network"](x["z_trg"], TARGET)
        found = {
            "generator(x_real,style_in)": n["generator"](x["x_real"], x["style_in"]),
            "style_encoder(x_ref)": style,
            "mapping_network(z_trg,y_trg)": mapped,
            "discriminator(x_real,y_org)": n["discriminator"](x["x_real"], OWN),
            "x_fake_ref": n["generator"](x["x_real"], style),
            "x_fake_latent": n["generator"](x["x_real"], mapped),
        }
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"{rule}.{name}") < 1e-4, name


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
@pytest.mark.parametrize("drive", ["latent", "ref"])
def test_losses_equal_the_authors(golden, rule, drive):
    n, x = networks(golden, rule), inputs(golden, rule)
    scalars = golden[0]["scalars"]
    style = n["mapping_network"](x["z_trg"], TARGET) if drive == "latent" else n["style_encoder"](x["x_ref"])
    losses, fake = ned.generator_losses(
        n["generator"], n["style_encoder"], n["discriminator"], x["x_real"], style, TARGET
    )
    expected = scalars[f"{rule}.g_{drive}"]
    loose = pytest.approx if rule == "B" else lambda v: pytest.approx(v, rel=2e-3, abs=1e-5)
    tolerance = {"rel": 1e-4, "abs": 2e-5}
    for ours, theirs in {"adversarial": "adv", "style": "sty", "cycle": "cyc", "mouth": "mouth"}.items():
        want = pytest.approx(expected[theirs], **tolerance) if rule == "B" else loose(expected[theirs])
        assert losses[ours].item() == want, ours
    judged = ned.discriminator_losses(n["discriminator"], x["x_real"], OWN, fake.detach(), TARGET)
    assert {k: v.item() for k, v in judged.items()} == pytest.approx(
        {k: scalars[f"{rule}.d_{drive}"][k] for k in judged}, **tolerance
    )


@needs_golden
def test_gradients_equal_the_authors(golden):
    n, x = networks(golden, "B"), inputs(golden, "B")
    losses, _ = ned.generator_losses(
        n["generator"], n["style_encoder"], n["discriminator"], x["x_real"], n["style_encoder"](x["x_ref"]), TARGET
    )
    mouth = losses.pop("mouth")
    (sum(losses.values()) - mouth).backward()
    for name, expected in golden[0]["scalars"]["B.g_ref.grad_l2"].items():
        network, parameter = name.split(".", 1)
        assert dict(n[network].named_parameters())[parameter].grad.norm().item() == pytest.approx(expected, rel=1e-3)


def test_a_jaw_that_never_moves_is_no_loss_with_an_epsilon_and_nan_as_published():
    still, moving = torch.zeros(2, 10), torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    assert ned.correlation(still, moving).isnan().all()
    assert ned.correlation(still, moving, 1e-8).eq(0).all()
    assert ned.correlation(moving, moving, 1e-8) == pytest.approx(torch.ones(2), abs=1e-5)
    still.requires_grad_()
    ned.correlation(still, moving, 1e-8).sum().backward()
    assert still.grad.isfinite().all()


def test_each_emotion_has_its_own_head_of_style_and_judgement():
    torch.manual_seed(0)
    mapping, judge, noise = ned.MappingNetwork(), ned.Discriminator(), torch.randn(1, 4)
    window = torch.randn(1, 10, 51)
    styles = torch.cat([mapping(noise, torch.tensor([i])) for i in range(7)])
    scores = torch.cat([judge(window, torch.tensor([i])) for i in range(7)])
    assert len(styles.unique(dim=0)) == 7
    assert len(scores.unique()) == 7


@pytest.mark.parametrize("name", ["discriminator", "mapping_network"])
def test_heads_in_another_order_come_into_ours(name):
    torch.manual_seed(0)
    theirs, ours = NETWORKS[name](), NETWORKS[name]()
    files = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    ned.load_released(ours, files, "20_nets.pth", heads=ALPHABETICAL)
    given = torch.randn(1, 10, 51) if name == "discriminator" else torch.randn(1, 4)
    for emotion in SEVEN:
        index = torch.tensor([ALPHABETICAL.index(emotion)]), torch.tensor([SEVEN.index(emotion)])
        torch.testing.assert_close(theirs(given, index[0]), ours(given, index[1]))


def test_an_unknown_order_and_a_wrong_file_are_named():
    with pytest.raises(ValueError, match=r"20_nets.pth: heads a, b; expected an order of neutral"):
        ned.load_released(ned.Discriminator(), {}, "20_nets.pth", heads=("a", "b"))
    with pytest.raises(ValueError, match=r"20_nets.pth does not fit Generator"):
        ned.load_released(ned.Generator(), ned.StyleEncoder().state_dict(), "20_nets.pth")
