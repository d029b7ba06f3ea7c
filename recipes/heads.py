"""A generator for recorded films that has seen no recorded face: corpus, priors, judges, NED and its scores, on rendered 3-D heads.

    python recipes/heads.py                              # 64 heads at 128 pixels: a night on 2 cores, an hour with a GPU
    python recipes/heads.py --size 64                    # at 64 pixels: an hour and a half on 2 cores
    python recipes/heads.py --pretraining-only --size 64 --identities 24 --sentences 3 --steps 800 --local  # the package's own weights, in 5 minutes
    spfem edit talk.mp4 --emotion happy --generator heads-model

The same call goes on where it was stopped.
"""

from pathlib import Path

from cdrl_stage1 import cdrl_stage1
from cdrl_stage2 import cdrl_stage2
from metric_nets import metric_nets

from spfem_dist import exporting
from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.errors import call_by_words, errors_in_words
from spfem_dist.evaluation.generator_runs import evaluate_generator
from spfem_dist.evaluation.judges.stage import JudgeStage
from spfem_dist.evaluation.runs import evaluate_run
from spfem_dist.generators import ned
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.priors.stage import Stage1
from spfem_dist.training.launch import finished

#: Weight of the distance to the true target's motion: every sentence of this corpus was said in every emotion.
PAIRS = 20.0


def heads(
    size: int = 128,
    identities: int | None = None,
    sentences: int | None = None,
    pretraining_only: bool = False,
    steps: int = 1500,
    seed: int = 0,
    local: bool = False,
    runs: Path = Path("runs"),
    shards: Path = Path("shards/heads"),
    out: Path = Path("heads-model"),
) -> None:
    """Train the generator of rendered heads and export it.

    Args:
        size: Side of their faces, pixels.
        identities: Heads that are rendered, the first ones; empty: all 64. Of fewer none is held out, and nothing is scored.
        sentences: Sentences that each of them says in seven emotions, with `identities`; empty: all 14.
        pretraining_only: No priors, and no stage 2 under them: the manipulator's pre-training on coefficients is all.
        steps: Optimiser steps of that pre-training.
        seed: Seed of corpus, weights, order and augmentation.
        local: Train in this process, without Ray.
        runs: Folder of runs, and of the MLflow store.
        shards: Folder of the rendered corpus.
        out: Folder of the exported generator.
    """

    def on_heads(run: Run, name: str, seed: int) -> Run:
        run.name, run.seed, run.data.shards, run.data.split, run.data.size = name, seed, str(shards), "heads", size
        run.checkpoint.storage, run.tracking.uri = str(runs), f"sqlite:///{runs}/mlflow.db"
        run.tracking.experiment = "heads"
        return run

    console, guided = plain_console(), not pretraining_only
    scored = guided and identities is None and sentences is None
    corpus = PrepareSettings(
        corpus="heads", out=shards, size=size, seed=seed, identities=identities, synthetic_sentences=sentences
    )
    exporting.refuse_taken(out)
    job.run(corpus, console)

    generator = on_heads(cdrl_stage2(), "heads", seed)
    generator.pretraining.steps, generator.pretraining.pairs = steps, PAIRS
    generator.ned.enabled, generator.ned.pairs = guided, PAIRS
    generator.ned.content_pull = 0.8  # pairs hold the mouth too
    if guided:
        generator.priors = (finished(on_heads(cdrl_stage1(), "heads-stage1", seed), Stage1(), local),)
    if scored:
        evaluate_run(generator.priors[0], console=console)
        judges = finished(on_heads(metric_nets(), "heads-judges", 1000 + seed), JudgeStage(), local)
    trained = finished(generator, ned.Stage(), local)
    if scored:
        evaluate_generator(trained, "both", judges, also=generator.priors[0], console=console)
    exporting.export(trained, out, console=console)


if __name__ == "__main__":
    with errors_in_words():
        call_by_words(heads)
