"""The whole of stage 1 on one machine without any download: corpus, shards, both priors, scores, report.

make demo                             # or, in the environment: python recipes/demo.py --seed 0
python recipes/demo.py --seed 1       # another seed for corpus, weights, order and augmentation
"""

import os
import time
from pathlib import Path

import tyro
from cdrl_stage1 import cdrl_stage1
from rich.console import Console

from spfem_dist.config import CERL, Data, Stage1Run
from spfem_dist.evaluation.runs import evaluate_run
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.priors.stage import Stage1
from spfem_dist.tracking.store import experiment_page, open_experiment
from spfem_dist.training.launch import start
from spfem_dist.training.runfolder import set_aside

#: The released form needs no more to show its shortcut: it does not get better with training.
RELEASED_STEPS = 100


def demo(seed: int = 0, runs: Path = Path("runs"), shards: Path = Path("shards")) -> None:
    """Stage1Run the demo.

    Args:
        seed: Seed of everything that is random.
        runs: Folder of runs, and of the MLflow store.
        shards: Folder of prepared shards.
    """
    console, began = Console(), time.perf_counter()
    corpus = shards / f"synthetic-{seed}"
    console.rule("1/4 synthetic corpus -> shards")
    job.run(PrepareSettings(corpus="synthetic", out=corpus, seed=seed), console)

    for name in ("demo", "demo-released"):
        set_aside(runs, name, seed)
    console.rule("2/4 stage 1: CCRL and CERL, two DeepSpeed workers under Ray Train")
    ours = configured("demo", seed, corpus, runs)
    finish(ours)

    console.rule("3/4 the released form of CCRL, for comparison")
    released = configured("demo-released", seed, corpus, runs)
    released.ccrl.form, released.ccrl.steps, released.ccrl.global_batch = "released", RELEASED_STEPS, 4
    released.cerl, released.tracking.register_models = CERL(enabled=False), False
    finish(released)

    console.rule("4/4 scores on held-out speakers and sentences")
    evaluate_run(ours.absolute().folder(), released=released.absolute().folder(), console=console)
    minutes = (time.perf_counter() - began) / 60
    console.print(f"done in {minutes:.1f} minutes on {os.cpu_count()} cores, seed {seed}")
    console.print(f"figures  {runs}/demo/summary.json\nreport   {runs}/demo/report.html")
    uri = ours.absolute().tracking.uri
    page = experiment_page(open_experiment(uri, ours.tracking.experiment))
    console.print(f"curves   .venv/bin/mlflow ui --backend-store-uri {uri}\n         then open {page}", soft_wrap=True)


def configured(name: str, seed: int, corpus: Path, runs: Path) -> Stage1Run:
    """The stage-1 recipe on the demo's shards."""
    run = cdrl_stage1()
    run.name, run.seed, run.data = name, seed, Data(shards=str(corpus), split="synthetic")
    run.checkpoint.storage, run.tracking.uri, run.tracking.experiment = str(runs), f"sqlite:///{runs}/mlflow.db", "demo"
    return run


def finish(run: Stage1Run) -> None:
    """Train a run to its end; what an earlier call finished is not done again."""
    if start(run.absolute(), Stage1()) != "finished":
        raise SystemExit(130)


if __name__ == "__main__":
    tyro.cli(demo)
