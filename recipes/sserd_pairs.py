"""The pairs that SSERD makes for itself, scored against the truth of a rendered corpus before anything is trained on them.

    python recipes/sserd_pairs.py --run runs/sserd-stage1 --judges runs/judges                    # a finished stage 1, and judges
    python recipes/sserd_pairs.py --run runs/sserd-stage1 --judges runs/judges --steps 0.5 1 1.5  # how far along a direction
    python recipes/sserd_pairs.py --run runs/sserd-stage1 --judges runs/judges --generators runs/cdrl-stage2 runs/sserd-stage2

Each neutral test recording is paired with itself in six emotions: the true target, what boundaries and mean codes make (drawn from codes,
and as the change that this adds to the source), the frames that a time-warp matches, generators' edits, and the source itself.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from rich.table import Table

from spfem_dist.console import plain_console
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.errors import errors_in_words, read_words
from spfem_dist.evaluation.clips import TestClip, planes
from spfem_dist.evaluation.generator_runs import edited
from spfem_dist.evaluation.judges.saved import load_judges
from spfem_dist.evaluation.pairs import MEANING, Maker, score_pairs
from spfem_dist.evaluation.retrieval import bootstrap
from spfem_dist.generators.load import load_generator
from spfem_dist.generators.sserd import Settings
from spfem_dist.generators.sserd.bank import boundary_directions, mean_directions
from spfem_dist.generators.sserd.known import Known
from spfem_dist.generators.sserd.networks import pictures_of
from spfem_dist.runs import read_run
from spfem_dist.streaming.feed import JobData
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import MOTION


@dataclass
class Pairs:
    """Score pairs."""

    run: str
    """Folder of a finished run of recipes/sserd_stage1.py."""
    judges: str
    """Folder of a run of recipes/metric_nets.py on the same shards."""
    steps: tuple[float, ...] = (1.0,)
    """How far pairs go along a direction, as `--sserd.step` has it."""
    sentences: int | None = None
    """Test sentences of each speaker; empty takes all."""
    generators: tuple[str, ...] = ()
    """Finished stage-2 runs on the same landmarks, whose edits are scored beside the pairs; the others' differences to the first too."""


def moved(known: Known, towards: torch.Tensor, added: bool) -> Maker:
    """Pairs by a displacement [7, L, D] of codes. added: as the change to the source, not as it is drawn."""

    @torch.no_grad()
    def make(clip: TestClip, emotion: Emotion, at: np.ndarray) -> np.ndarray:
        codes = known.portrait.encode(source := pictures_of(planes(clip.frames[at]), torch.float32))
        drawn = known.portrait.draw(codes + towards[SEVEN.index(emotion)])
        drawn = source + drawn - known.portrait.draw(codes) if added else drawn
        return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()

    return make


def main(pairs: Pairs) -> None:
    """Make the pairs, score them, show the table."""
    run, console, cpu = read_run(pairs.run), plain_console(), torch.device("cpu")
    run.pretrained = pairs.run
    feed = JobData(run, Settings(), MOTION, Source(run.data, cpu, landmarks=True), 0, 1, cpu)
    known = Known(run, Settings(), feed, cpu)
    makers: dict[str, Maker] = {}
    for name, directions in (("boundary", boundary_directions), ("mean", mean_directions)):
        found = directions(known.bank)
        console.print(f"{name}: lengths {[round(n, 2) for n in found.lengths[0]]}")
        for step in pairs.steps:
            makers[f"{name} {step:g}, drawn"] = moved(known, step * found.towards, added=False)
            makers[f"{name} {step:g}, added"] = moved(known, step * found.towards, added=True)
    makers |= {place: edited(load_generator(place)) for place in pairs.generators}
    scores = score_pairs(run.data, load_judges(pairs.judges), run.data.size, makers, pairs.sentences)
    table = Table("pairs", *MEANING)
    for row, figures in scores.items():
        table.add_row(row, *(f"{bootstrap(figures[key])}" for key in MEANING))
    for place in pairs.generators[1:]:
        first, other = scores[pairs.generators[0]], scores[place]
        away = {key: np.subtract(other[key], first[key]).tolist() for key in MEANING}
        table.add_row(f"{place} - {pairs.generators[0]}", *(f"{bootstrap(away[key])}" for key in MEANING))
    console.print(table)


if __name__ == "__main__":
    with errors_in_words():
        main(read_words(lambda words: tyro.cli(Pairs, args=words), sys.argv[1:]))
