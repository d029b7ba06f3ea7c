"""SSERD as published: the numbers that the authors' networks, losses and optimiser gave, and their files' keys."""

import pytest
import torch
from released_golden import fill, filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.sserd import stylegan2
from spfem_dist.generators.sserd.released import network as released
from spfem_dist.generators.sserd.released.celcl import (
    CrossAttention,
    LatentPool,
    Transformer,
    contrastive_loss,
    similarity,
)
from spfem_dist.generators.sserd.released.encoder import Encoder
from spfem_dist.generators.sserd.released.ranger import Ranger
from spfem_dist.generators.sserd.released.stylegan_ex import GeneratorEX

ACTOR = "M003"


def part(state, name):
    """The tensors of one network of a fixture, without its name."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def inputs(golden, rule="B"):
    """The fixture's inputs by name."""
    return {
        name: input_of(spec, rule)
        for name, spec in golden[0]["inputs"].items()
        if isinstance(spec, dict) and "c" in spec
    }


def near(golden, key, value, rel=1e-4, absolute=2e-5):
    assert float(value.detach() if torch.is_tensor(value) else value) == pytest.approx(
        golden[0]["scalars"][key], rel=rel, abs=absolute
    ), key


def length(gradients) -> float:
    return torch.stack([g.norm() for g in gradients if g is not None]).norm().item()


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_published_sizes_have_the_published_parameters():
    with torch.device("meta"):
        whole, plain = released.SSERD(), stylegan2.Generator(64)
        critics = stylegan2.Discriminator(1024, last=1), stylegan2.Discriminator(64)
    assert parameters(whole) == released.PAPER_PARAMETERS
    assert sum(p.numel() for p in whole.trained()) == released.PAPER_TRAINED
    assert [parameters(n) for n in (whole.encoder, whole.decoder, whole.cross_attention, whole.transformer)] == [
        306_676_938,
        30_370_060,
        2_103_808,
        2_106_370,
    ]
    assert [parameters(n) for n in (plain, *critics)] == [27_032_600, 25_080_353, 26_488_833]


# --- StyleGAN2 ----------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@needs_golden
def test_stylegan2_draws_judges_and_is_regularised_as_the_authors_do():
    golden = fixture("stylegan2_64")
    state, given = filled(golden[0], "B"), inputs(golden)
    g, d = fill(stylegan2.Generator(64), part(state, "G")), fill(stylegan2.Discriminator(64), part(state, "D"))
    del state
    with torch.no_grad():
        latent = g.style(given["z"])
        picture = g(g.spread(latent))
        fake, real = picture.repeat(2, 1, 1, 1), given["real"].requires_grad_()
        found = {"picture": picture, "picture_plus": g(given["w_plus"]), "latent": latent}
        found |= {"scores_real": d(real), "scores_fake": d(fake)}

    def lengths():
        codes = g.spread(g.style(given["z"]))
        return stylegan2.path_lengths(g(codes), codes, given["path_noise"])

    def penalty():
        found["path_lengths"] = each = lengths()
        return (each - 0.01 * each.mean()).square().mean()  # the authors do not cut the running mean off

    losses = {
        "d": (lambda: stylegan2.discriminator_loss(d(real), d(fake)), "D_of_d", d),
        "r1": (lambda: stylegan2.gradient_penalty(d(real), real), "D_of_r1", d),
        "g": (lambda: stylegan2.adversarial_loss(d(g(g.spread(g.style(given["z"]))).repeat(2, 1, 1, 1))), "G_of_g", g),
        "path_penalty": (penalty, "G_of_path", g),
    }
    for name, (loss, slope, of) in losses.items():
        value = loss()
        near(golden, f"B.{name}", value, absolute=0)
        gradients = torch.autograd.grad(value, list(of.parameters()), allow_unused=True)
        near(golden, f"B.grad_l2.{slope}", length(gradients), rel=1e-3, absolute=0)
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"B.{name}") < 1e-4, name


@pytest.mark.nightly
@needs_golden
def test_the_dilated_generator_draws_as_the_authors_do():
    golden = fixture("sserd_generator")
    g, given = fill(GeneratorEX(64), filled(golden[0], "B")), inputs(golden)
    w = given["w_plus"].requires_grad_()
    mapping = g.style(given["z"])
    drawn = g(w + given["editing_w"], "zero", given["f"])
    (slope,) = torch.autograd.grad(drawn.square().sum() / 2, w)
    with torch.no_grad():
        found = {"plain": g(w), "mapping": mapping, "mapped": g(g.spread(0.7 * mapping))}
    for name, tensor in (found | {"feature": drawn, "grad_w": slope}).items():
        assert relative_error(tensor, *golden, f"B.{name}") < 1e-4, name


@pytest.mark.nightly
@needs_golden
def test_the_discriminator_judges_as_the_authors_does():
    golden = fixture("sserd_discriminator")
    d, given = fill(stylegan2.Discriminator(256, last=1), filled(golden[0], "B")), inputs(golden)
    real, fake = given["real"], given["fake"].requires_grad_()
    loss_g = released.ADVERSARIAL * stylegan2.adversarial_loss(d(fake))
    (slope,) = torch.autograd.grad(loss_g, fake)
    found = {"real": d(real), "fake": d(fake), "grad_fake": slope}
    found |= {"trunk_real": d.convs(real), "trunk_fake": d.convs(fake)}
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"B.{name}") < 1e-4, name
    near(golden, "B.loss_d", released.critic_loss(d, real, fake))
    near(golden, "B.loss_g", loss_g)
    step = released.penalty_step(d, real)
    near(golden, "B.r1_step", step, absolute=0)
    gradients = torch.autograd.grad(step, list(d.parameters()), allow_unused=True)
    near(golden, "B.grad_l2_r1", length(gradients), rel=1e-3, absolute=0)


def test_a_batch_that_no_group_divides_is_refused():
    with pytest.raises(ValueError, match="a batch of 6 pictures: the deviation is taken over 4"):
        stylegan2.Discriminator(8, dict.fromkeys((4, 8), 4))(torch.zeros(6, 3, 8, 8))


# --- SSERD's own ---------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@needs_golden
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_encoder_sees_what_the_authors_sees(mode):
    golden = fixture("sserd_encoder")
    encoder = fill(Encoder(), filled(golden[0], "B")).train(mode == "train")
    with torch.no_grad():
        seen = encoder(inputs(golden)["image"])
    found = {"codes": seen.codes, "p1": seen.fine, "feat0": seen.first, "feat1": seen.start}
    found |= {f"feat{2 + i}": seen.skips[i] for i in (0, 2, 3, 4, 5, 6)}
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"B_{mode}.{name}") < 1e-4, name


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
def test_the_emotion_residual_equals_the_authors(rule):
    golden = fixture("sserd_celcl")
    state, given = filled(golden[0], rule), inputs(golden, rule)
    cross = fill(CrossAttention(), part(state, "cross_attention"))
    transformer = fill(Transformer(), part(state, "transformer"))
    source, reference = (given[f"w_{name}"].requires_grad_() for name in ("source", "reference"))
    crossed = cross(source, reference)
    residual = transformer(crossed.transpose(0, 1))
    slopes = torch.autograd.grad(residual.square().sum() / 2, [source, reference])
    found = {"cross": crossed, "residual": residual, "grad_source": slopes[0], "grad_reference": slopes[1]}
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"{rule}.{name}") < 1e-4, name


@pytest.fixture(scope="module")
def pipeline():
    """The fixture, and the whole network at 64 pixels, filled."""
    golden = fixture("sserd_pipeline")
    return golden, fill(released.SSERD(64), filled(golden[0], "B")).eval()


@pytest.mark.nightly
@needs_golden
def test_the_whole_network_edits_as_the_authors_does(pipeline):
    golden, network = pipeline
    given = inputs(golden)
    network.mean_code.copy_(given["latent_avg"])
    with torch.no_grad():
        source, reference = network.encoder(given["source"]), network.encoder(given["reference"])
        emotion = network.emotion(source, reference)
        small = network.drawn(source, emotion)
        found = {
            "codes": source.codes + network.mean_code,
            "codes_reference_plus_avg": reference.codes + network.mean_code,
            "emotion": emotion,
            "picture": released.resized(small),
            "picture_64": small,
            "picture_recon": network(given["source"]),
        }
    for name, tensor in found.items():
        assert relative_error(tensor, *golden, f"B_eval.{name}") < 1e-4, name


@pytest.mark.nightly
@needs_golden
def test_a_file_as_the_authors_save_it_loads_and_another_is_named(pipeline, tmp_path):
    _, network = pipeline
    file = tmp_path / "best_model.pt"
    mean = torch.arange(10.0)[:, None].expand(10, 512).clone()
    torch.save({"state_dict": network.state_dict(), "latent_avg": mean, "opts": {"output_size": 64}}, file)
    loaded = released.load_released(released.SSERD(64), file)
    assert not loaded.training
    assert loaded.mean_code.equal(mean)
    assert all(value.equal(network.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.save({"state_dict": network.state_dict()}, file)
    with pytest.raises(ValueError, match=r"best_model.pt has no latent_avg of shape \(10, 512\)"):
        released.load_released(released.SSERD(64), file)
    with pytest.raises(ValueError, match=r"best_model.pt does not fit SSERD .*missing: decoder.convs.8"):
        released.load_released(released.SSERD(128), file)


# --- losses and the optimiser --------------------------------------------------------------------------------------


def pool_of(codes) -> LatentPool:
    """One code of each emotion."""
    pool = LatentPool()
    for emotion, code in zip(SEVEN, codes, strict=True):
        pool.add(ACTOR, emotion, code)
    return pool


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
def test_the_contrast_equals_the_authors(rule):
    golden = fixture("sserd_contrastive")
    given, emotions = inputs(golden, rule), (Emotion.HAPPY, Emotion.NEUTRAL, Emotion.SURPRISED)
    pool = pool_of(given["pool"])
    mixed = given["emo_latents"] + given["pool"][[SEVEN.index(e) for e in emotions]]
    for case, codes in (("plain", given["emo_latents"]), ("mixed", mixed)):
        codes = codes.clone().requires_grad_()
        loss = contrastive_loss(codes, [ACTOR] * 3, emotions, pool)
        near(golden, f"{rule}.{case}.loss", loss, absolute=1e-6)
        (slope,) = torch.autograd.grad(loss, codes)
        assert relative_error(slope, *golden, f"{rule}.{case}.grad_emo_latents") < 1e-3
        last = similarity(codes[-1], pool.keys(ACTOR, emotions[-1]))[None]
        assert relative_error(last, *golden, f"{rule}.{case}.sim_last_item") < 1e-4


def test_the_published_cache_keeps_the_newest_and_leaves_out_who_lacks_an_emotion():
    pool = LatentPool(2)
    for value in range(3):
        pool.add(ACTOR, Emotion.HAPPY, torch.full((1, 1), float(value)))
    assert [float(code) for code in pool.codes(ACTOR, Emotion.HAPPY)] == [1.0, 2.0]
    assert pool.keys(ACTOR, Emotion.HAPPY) is None
    code = torch.ones(1, 1, 1, requires_grad=True)
    assert contrastive_loss(code, [ACTOR], [Emotion.HAPPY], pool).item() == 0


@needs_golden
@pytest.mark.parametrize("case", ["B", "B.none_paired"])
def test_both_stages_losses_and_their_gradients_equal_the_authors(case):
    golden = fixture("sserd_losses")
    d, given = fill(stylegan2.Discriminator(256, last=1), filled(golden[0], "B")), inputs(golden)
    made = {name: given[name].requires_grad_() for name in ("SS", "SD1", "SD2", "emo_latents")}
    pool = pool_of(given["pool"])
    paired = torch.tensor([case == "B", False])
    edits = released.Edits(made["SS"], made["SD1"], made["SD2"])
    emotions = (Emotion.HAPPY, Emotion.SAD) * 2
    losses = released.hybrid_losses(
        d, edits, given["x"], given["T1"], paired, made["emo_latents"], [ACTOR] * 4, emotions, pool
    )
    names = {"pixels": "l2", "reconstruction": "l2_recon", "adversarial": "g", "contrast": "emo_contrastive"}
    for ours, theirs in names.items():
        near(golden, f"{case}.stage2.loss_{theirs}", losses[ours])
    total = sum(losses.values())
    near(golden, f"{case}.stage2.loss", total)
    slopes = dict(zip(made, torch.autograd.grad(total, list(made.values())), strict=True))
    for name, slope in slopes.items():
        near(golden, f"{case}.stage2.grad_l2.{name}", slope.norm(), rel=1e-3, absolute=0)
    for name in ("SD1", "emo_latents"):
        assert relative_error(slopes[name], *golden, f"{case}.stage2.grad_{name}") < 1e-3
    if case == "B":
        codes = given["emo_latents"].detach()[:2].requires_grad_()
        pairs = [(made["SS"], given["x"]), (made["SD1"], given["T1"])]
        first = released.inversion_losses(d, pairs, codes, [ACTOR] * 2, emotions[:2], pool)
        for ours, theirs in (("pixels", "l2"), ("adversarial", "g"), ("contrast", "emo_contrastive")):
            near(golden, f"B.stage1.loss_{theirs}", first[ours])
        slopes = torch.autograd.grad(sum(first.values()), [made["SS"], made["SD1"], codes])
        for name, slope in zip(("recon_x", "edit_x", "codes"), slopes, strict=True):
            near(golden, f"B.stage1.grad_l2.{name}", slope.norm(), rel=1e-3, absolute=0)


@needs_golden
def test_the_optimiser_steps_as_the_authors_does():
    golden = fixture("sserd_ranger")
    given = inputs(golden)
    w, b = (torch.nn.Parameter(given[name]) for name in ("W", "b"))
    optimizer = Ranger([w, b], lr=1e-2)
    losses = []
    for step in range(1, 21):
        loss = torch.nn.functional.mse_loss(given["X"] @ w.T + b, given["Y"])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (1, 5, 6, 7, 12, 20):
            for name, value in (("W", w), ("b", b)):
                assert relative_error(value, *golden, f"B.{name}_after_{step}") < 1e-5, (name, step)
    assert losses == pytest.approx(golden[0]["scalars"]["B.losses"], rel=1e-5)
