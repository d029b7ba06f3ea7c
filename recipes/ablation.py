"""What does each prior add? Stage 2 without guidance, with content, with emotion, with both; same seeds, same steps, paired scores.

    python recipes/ablation.py --priors runs/cdrl-stage1 --judges runs/judges      # four arms, three seeds each
    python recipes/ablation.py --priors runs/cdrl-stage1 --judges runs/judges --seeds 0 --arms both --ned.steps 300
    ray job submit --working-dir . -- python recipes/ablation.py --priors s3://bucket/runs/cdrl-stage1 \\
        --judges s3://bucket/runs/judges --data.shards s3://bucket/mead --data.split mead_evaluation --checkpoint.storage s3://bucket/runs

Every flag of recipes/cdrl_stage2.py may be given and holds for all arms. The same command goes on where it was stopped.
"""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from cdrl_stage2 import CDRLGenerator, cdrl_stage2
from rich.console import Console

from spfem_dist.errors import errors_in_words
from spfem_dist.evaluation import ablation as paired
from spfem_dist.evaluation.generator_runs import evaluate_generator
from spfem_dist.evaluation.judges.saved import load_judges
from spfem_dist.generators import ned
from spfem_dist.training import usage
from spfem_dist.training.launch import start

#: What the short help says of the options that are no settings of the run.
FLAGS = {
    "--judges": "Folder of a finished run of recipes/metric_nets.py",
    "--seeds": "Seeds of each arm",
    "--arms": "Arms beside the baseline",
    "--protocol": "Name or JSON file of the protocol",
    "--local": "Train in this process, without Ray",
}
#: Which priors guide in each arm.
ARMS = {"baseline": (), "content": ("ccrl",), "emotion": ("cerl",), "both": ("ccrl", "cerl")}


@dataclass
class Ablation:
    """Train, score and compare the arms."""

    run: Annotated[CDRLGenerator, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=cdrl_stage2
    )
    judges: str = "runs/judges"
    """Folder of a finished run of recipes/metric_nets.py."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each arm."""
    arms: tuple[Literal["content", "emotion", "both"], ...] = ("content", "emotion", "both")
    """Arms beside the baseline."""
    protocol: str = ""
    """Name or JSON file of the protocol; empty means the corpus's own."""
    local: bool = False
    """Train in this process, without Ray."""


def ablation(asked: Ablation, console: Console) -> None:
    """Train and score what is not done yet, and write the comparison into the folder of the runs."""
    panel, folders, storage = load_judges(asked.judges), {}, asked.run.absolute().checkpoint.storage
    for arm, seed in ((arm, seed) for seed in asked.seeds for arm in ("baseline", *asked.arms)):
        run = configured(asked.run, arm, seed)
        console.rule(run.name)
        if start(run, ned.Stage(), local=asked.local) != "finished":
            sys.exit(130)
        folders[arm, seed] = run.folder()
        if not paired.is_scored(run.folder(), arm, str(panel)):
            evaluate_generator(run.folder(), arm, panel, protocol=asked.protocol, console=console)
    found = paired.effects(paired.read_scores(folders))
    console.print(paired.table(found))
    paired.write(storage, found, folders)
    console.print(f"table    {storage}/ablation.md\nnumbers  {storage}/ablation.json", soft_wrap=True)


def configured(run: CDRLGenerator, arm: str, seed: int) -> CDRLGenerator:
    """One arm's run: it differs from the others in name, seed and the weights of guidance, and in nothing else."""
    run = run.model_copy(deep=True)
    run.name, run.seed, run.tracking.experiment = f"ablation-{arm}-{seed}", seed, "ablation"
    run.tracking.register_models = False  # arms of an experiment are no versions of one model
    run.ned.guidance |= {kind: 0.0 for kind in run.ned.guidance if kind not in ARMS[arm]}
    return run.absolute()


if __name__ == "__main__":
    words, made = sys.argv[1:], cdrl_stage2()
    usage.show_if_asked(words, made, __doc__ or "", sys.argv[0], FLAGS)
    with errors_in_words():
        ablation(
            tyro.cli(Ablation, args=usage.with_help_all(words, made), default=Ablation(made), description=__doc__),
            Console(),
        )
