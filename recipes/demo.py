"""The whole story on one machine without any download: corpus, shards, priors, judges, a generator, scores, one edited clip.

make demo                             # or, in the environment: python recipes/demo.py --seed 0
python recipes/demo.py --seed 1       # another seed for corpus, weights, order and augmentation
"""

import os
import time
from pathlib import Path

from cdrl_stage1 import cdrl_stage1
from cdrl_stage2 import cdrl_stage2
from metric_nets import metric_nets

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.editing.example import edit_example
from spfem_dist.errors import call_by_words, errors_in_words
from spfem_dist.evaluation.generator_runs import evaluate_generator
from spfem_dist.evaluation.judges.stage import JudgeStage
from spfem_dist.evaluation.runs import evaluate_run
from spfem_dist.generators import ned
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.prepare.synthetic import folder_of
from spfem_dist.priors.stage import Stage1
from spfem_dist.runs import read_run
from spfem_dist.tracking.store import experiment_page, open_experiment
from spfem_dist.training import background
from spfem_dist.training.cluster import connect
from spfem_dist.training.launch import finished
from spfem_dist.training.runfolder import set_aside

#: Weight of the distance to the true target's motion: every sentence of this corpus was said in every emotion.
PAIRS = 20.0


def demo(seed: int = 0, runs: Path = Path("runs"), shards: Path = Path("shards")) -> None:
    """Run the demo.

    Args:
        seed: Seed of everything that is random.
        runs: Folder of runs, and of the MLflow store.
        shards: Folder of prepared shards.
    """
    console, began, corpus = plain_console(), time.perf_counter(), shards / Path(folder_of(seed)).name

    def headline(text: str) -> None:
        console.rule(f"{text}  ({(time.perf_counter() - began) / 60:.1f} min)")

    stage1 = here(cdrl_stage1(), "demo", seed, corpus, runs)
    published = here(cdrl_stage1(), "demo-released", seed, corpus, runs)
    # The released form needs no more to show its shortcut: it does not get better with training.
    published.ccrl.form, published.ccrl.steps, published.ccrl.global_batch = "released", 30, 4
    published.cerl.enabled, published.tracking.register_models = False, False
    panel = here(metric_nets(), "demo-judges", 1000 + seed, corpus, runs)
    motion = here(cdrl_stage2(), "demo-pretraining", seed, corpus, runs)  # of NED's manipulator, on coefficients alone
    motion.ned.enabled, motion.pretraining.pairs, motion.pretraining.steps = False, PAIRS, 500
    prepared = background.event()
    small = [
        background.train_beside(run.absolute(), kind, prepared, runs)
        for run, kind in ((published, Stage1()), (panel, JudgeStage()), (motion, ned.Stage()))
    ]

    headline("1/6 synthetic corpus -> shards")
    connect(stage1)  # one Ray for everything that follows
    job.run(PrepareSettings(corpus="synthetic", out=corpus, seed=seed), console)
    prepared.set()

    headline("2/6 stage 1 on two Ray Train workers, judges and stage 2's pre-training beside it")
    priors = finished(stage1, Stage1())

    headline("3/6 scores of the priors on held-out speakers")
    released = background.wait_for(small[0], published, runs, console)
    evaluate_run(priors, released=released, console=console)

    headline("4/6 the judges of generated frames")
    judges = background.wait_for(small[1], panel, runs, console)

    headline("5/6 stage 2: NED under the frozen priors")
    generator = here(cdrl_stage2(), "demo-stage2", seed, corpus, runs)
    generator.priors, generator.ned.steps = (priors,), 150
    generator.ned.pairs, generator.ned.content_pull = PAIRS, 0.8  # pairs hold the mouth too
    generator.pretrained = background.wait_for(small[2], motion, runs, console)
    edits = finished(generator, ned.Stage())

    headline("6/6 scores of its edits, and one edited clip")
    evaluate_generator(edits, "both", judges, also=priors, console=console)
    clip = edit_example(read_run(edits).data, edits, runs / "demo-edit", console)

    uri = panel.absolute().tracking.uri
    page = experiment_page(open_experiment(uri, panel.tracking.experiment))
    console.print(
        f"done in {(time.perf_counter() - began) / 60:.1f} minutes on {os.cpu_count()} cores, seed {seed}\n"
        f"figures  {runs}/demo/summary.json\nreports  {runs}/demo/report.html, {runs}/demo-stage2/report.html\n"
        f"a clip   {clip}\ncurves   .venv/bin/mlflow ui --backend-store-uri {uri}\n         then open {page}"
    )


def here(run: Run, name: str, seed: int, corpus: Path, runs: Path) -> Run:
    """A recipe's run on the demo's shards, in the demo's folder and experiment; one of another seed is put aside."""
    set_aside(runs, name, seed)
    run.name, run.seed, run.data.shards = name, seed, str(corpus)
    run.checkpoint.storage, run.tracking.uri, run.tracking.experiment = str(runs), f"sqlite:///{runs}/mlflow.db", "demo"
    return run


if __name__ == "__main__":
    with errors_in_words():
        call_by_words(demo)
