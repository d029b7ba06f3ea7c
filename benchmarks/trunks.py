"""What the frozen trunks of the published sizes cost a step of stage 1, and what is saved, in turns in one process.

    python benchmarks/trunks.py            # CERL with and without kept features, CCRL's released form and the authors' formulation
    python benchmarks/trunks.py --smoke    # the small networks, a step of each: does it run?

CERL: the clean form's step, forward, backward and update, with CLIP ViT-B/32 on 2 x 7 x 2 faces of 224 px a sample, beside the same step
on features that were kept (`cerl.feature_cache`). CCRL: the step of the released form at 224 px beside the authors' formulation, which is
re-built here from what is known of their code: 256 copies of the query, keys and values of every channel, one pass of the trunk and of M
for each picture of a triple, in single precision. Weights are random, which changes no arithmetic.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import tyro
from figures import print_line
from torch import Tensor, nn

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.priors import ccrl, cerl
from spfem_dist.priors.ccrl.released import ReleasedCCRL, clamped_contrast
from spfem_dist.priors.features import FEATURES
from spfem_dist.priors.prior import build_prior
from spfem_dist.records import Batch, Seeds
from spfem_dist.training.speed import computing

Step = Callable[[], float]
CPU = torch.device("cpu")


def batch_of(samples: int, recordings: int, side: int) -> Batch:
    """Random frames, two of each recording, with the authors' 512 numbers of speech."""
    generator = torch.Generator().manual_seed(0)
    shape = (samples, recordings, 2)
    return Batch(
        frames=torch.randint(0, 256, (*shape, 3, side, side), dtype=torch.uint8, generator=generator),
        speech=torch.randn(*shape, 1, 512, generator=generator),
        position=torch.tensor([0, 9]).expand(shape),
        emotion=torch.tensor([list(Emotion).index(e) for e in SEVEN[:recordings]]).expand(samples, -1),
        valid=torch.ones(shape, dtype=torch.bool),
        sample=torch.arange(samples),
        seed=Seeds(tuple(range(samples))),
        keys=[str(i) for i in range(samples)],
    )


def update(network: nn.Module, loss_of: Callable[[], Tensor], precision: str = "fp32") -> Step:
    """A step of `network`: forward, backward, clip and Adam. Returns its loss."""
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, 1e-5)

    def step() -> float:
        with computing(CPU, precision):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def in_turns(ways: dict[str, Step], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(median seconds of a step, loss of the first step) of each, the first step of each not timed."""
    losses = {name: step() for name, step in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, step in ways.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}, losses


def cerl_ways(samples: int, small: bool) -> dict[str, Step]:
    """CERL's step on frames and on features. small: the released form's small CLIP, the clean form has none."""
    form, side = ("released", 64) if small else ("clean", 256)
    settings = cerl.Settings(form=form, network="small" if small else "paper", crop=0.875, crop_row=0.52)
    batches = {"frames": batch_of(samples, 7, side), "features": batch_of(samples, 7, side)}
    ways = {}
    for way, batch in batches.items():
        torch.manual_seed(0)
        prior = build_prior(settings, Data(size=side), 512, pretrained=False)
        if way == "features":
            with torch.no_grad():
                batch.extras = {FEATURES: prior.frozen_features(batch)}
            batch.frames = batch.frames[..., :0, :0]
        ways[way] = update(prior, lambda prior=prior, batch=batch: torch.stack(list(prior(batch)[0].values())).sum())
    return ways


class AuthorsCCRL(nn.Module):
    """The authors' formulation, with the weights of ours: every query is a copy, nothing is summed beforehand, three passes."""

    def __init__(self, ours: ReleasedCCRL):
        super().__init__()
        self.trunk, self.mask = ours.img_encoder, ours.mask_learning

    def content(self, image: Tensor, speech: Tensor) -> Tensor:
        maps, mask = self.trunk.feature_map(image, "layer3"), self.mask
        query = mask.linear_q(mask.audio_feature_mapping(speech).expand(-1, mask.channels, -1, -1).flatten(2))
        keys = mask.linear_k(mask.image_feature_mapping(maps).flatten(2))
        attention = torch.softmax(query.transpose(1, 2) @ keys / mask.side, -1)
        return (mask.linear_v(maps.flatten(2)) @ attention.transpose(1, 2)).view_as(maps)

    def forward(self, x: Tensor, y: Tensor, z: Tensor, own: Tensor, other: Tensor) -> Tensor:
        return clamped_contrast(self.content(x, own), self.content(y, own), self.content(z, other))[0].mean()


def ccrl_ways(samples: int, small: bool) -> dict[str, Step]:
    """CCRL's step by the authors' formulation, and ours in both precisions, each from the same weights; `samples` triples."""
    side = 64 if small else 224
    settings = ccrl.Settings(form="released", network="small" if small else "paper")
    batch, ways = batch_of(samples // 2, 2, side), {}
    for way in ("authors", "fp32", "bf16-mixed"):
        torch.manual_seed(0)
        ours = ReleasedCCRL(settings, Data(size=side, speech_window=1), 512, pretrained=False)
        if way != "authors":
            ways[way] = update(ours, lambda ours=ours: ours(batch)[0]["ccrl/contrast"], way)
            continue
        x, y = (ours.images(batch.frames[:, i].flatten(0, 1)).contiguous() for i in (0, 1))
        own, other = (ours.speech_vectors(batch.speech[:, i].flatten(0, 1)) for i in (0, 1))
        z, other = (t.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) for t in (y, other))
        plain = AuthorsCCRL(ours)
        ways[way] = update(plain, lambda plain=plain, given=(x, y, z, own, other): plain(*given))
    return ways


def main(samples: int = 4, rounds: int = 3, which: str = "cerl ccrl", smoke: bool = False) -> None:
    """Time them and print ratios. samples: of CERL, and triples of CCRL. which: cerl, ccrl or both."""
    samples, rounds = (2, 1) if smoke else (samples, rounds)
    torch.set_num_threads(1)
    if "cerl" in which:
        times, losses = in_turns(cerl_ways(samples, smoke), rounds)
        ratio = times["frames"] / times["features"]
        print(
            f"CERL step, {samples} samples: on frames {times['frames']:.2f} s, on features {times['features']:.2f} s, x {ratio:.1f}"
        )
        print_line(
            "trunks_cerl",
            samples=samples,
            frames_s=times["frames"],
            features_s=times["features"],
            ratio=ratio,
            losses=losses,
        )
    if "ccrl" in which:
        times, losses = in_turns(ccrl_ways(samples, smoke), rounds)
        ratios = {way: times["authors"] / times[way] for way in ("fp32", "bf16-mixed")}
        print(
            f"CCRL released, {samples} triples: authors' formulation {times['authors']:.2f} s, ours "
            + ", ".join(f"{way} {times[way]:.2f} s (x {ratio:.2f})" for way, ratio in ratios.items())
        )
        print_line("trunks_ccrl", samples=samples, seconds=times, ratios=ratios, losses=losses)


if __name__ == "__main__":
    tyro.cli(main)
