"""What does each prior add to the generator? Every variant against a baseline, in two regimes, over seeds, paired; one page, one table.

    python recipes/leaderboard.py                                             # corpus, judges, priors, generators, scores: a night on 2 cores
    python recipes/leaderboard.py --budget smoke --seeds 0 --variants ccrl    # shows in minutes that everything works
    python recipes/leaderboard.py --regimes icface --out board-icface         # the second generator, with the rows that the papers give it
    ray job submit --working-dir . -- python recipes/leaderboard.py --judges s3://bucket/runs/judges --data.shards s3://bucket/mead \\
        --data.split mead_evaluation --data.speakers --prior-split mead_stage1 --prior-speakers \\
        --checkpoint.storage s3://bucket/runs --out /shared/leaderboard

Every flag of recipes/cdrl_stage2.py may be given and holds for all variants. The same command goes on where it was stopped.
A further row: a room of spfem_dist/priors and a line in VARIANTS.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
from cdrl_stage2 import CDRLGenerator, cdrl_stage2
from icface_stage2 import ICfaceGenerator
from metric_nets import metric_nets
from pydantic import create_model
from rich.console import Console

from spfem_dist import rooms
from spfem_dist.config import Data, GuidedRun, Run
from spfem_dist.console import plain_console
from spfem_dist.corpora.splits import Split
from spfem_dist.errors import errors_in_words, read_words
from spfem_dist.evaluation import leaderboard as board
from spfem_dist.evaluation.board_clips import board_films
from spfem_dist.evaluation.evaluation_set import EvaluationSet, evaluation_set
from spfem_dist.evaluation.generator_runs import evaluate_generator
from spfem_dist.evaluation.judges.saved import Judges, load_judges
from spfem_dist.evaluation.judges.stage import JudgeStage
from spfem_dist.evaluation.paired import BASELINE, is_scored
from spfem_dist.generators import icface, ned
from spfem_dist.generators.load import load_generator
from spfem_dist.priors.stage import Stage1
from spfem_dist.tracking.board import keep_board
from spfem_dist.training import usage
from spfem_dist.training.parts import Clock, Part, training

#: The frozen priors that guide each variant. A further row is a line here.
VARIANTS: dict[str, tuple[str, ...]] = {
    BASELINE: (),
    "ccrl": ("ccrl",),
    "cerl": ("cerl",),
    "asccl": ("asccl",),
    "stccl_vd": ("stccl_vd",),
    "stccl_cm": ("stccl_cm",),
    "pcmecl": ("pcmecl",),
    "cdrl": ("ccrl", "cerl"),
    "cdrl_asccl": ("ccrl", "cerl", "asccl"),
    "all": ("ccrl", "cerl", "asccl", "stccl_vd", "stccl_cm", "pcmecl"),
}
#: The regime that is another generator, and its rows where none are asked for: those of the papers.
ICFACE, OF_ICFACE = "icface", (BASELINE, "cdrl", "asccl", "stccl_vd")
CLAIMS = (
    board.Claim("The emotion prior (CERL) raises emotion accuracy", "cerl", ("emotion_accuracy",)),
    board.Claim("The content prior (CCRL) lowers the mouth's error", "ccrl", ("mouth_error_over_copy",)),
    board.Claim("Both together (CDRL) do both", "cdrl", ("emotion_accuracy", "mouth_error_over_copy")),
)
#: What the short help says of the options that are no settings of the run.
FLAGS = {
    "--judges": "Folder of a finished run of recipes/metric_nets.py",
    "--variants": "Variants beside the baseline",
    "--regimes": "residual, absolute: NED's; icface: the other generator",
    "--seeds": "Seeds, each with a stage 1 of its own",
    "--budget": "smoke, laptop or night",
    "--prior-speakers": "Whom the priors learn from; the generator's are --data.speakers",
    "--out": "Where page, table and numbers go",
    "--local": "Train in this process, without Ray",
}
#: Seconds that a part takes on 2 cores, at its settings' own steps: a beginning and what each step (or sentence of the speakers) costs.
SECONDS = {
    "judges": (20.0, 0.2),
    "prior": (15.0, 0.2),
    "pretraining": (40.0, 0.1),
    "guided": (20.0, 0.25),
    "pretraining of icface": (20.0, 0.4),
    "guided icface": (30.0, 0.7),
    "score": (5.0, 28.0),
}
#: Sentences of each test speaker that are scored; steps of every job in place of its settings'.
BUDGETS: dict[str, tuple[int, int | None]] = {"smoke": (1, 2), "laptop": (1, None), "night": (3, None)}
EXPERIMENT = "leaderboard"


def board_run() -> CDRLGenerator:
    """Stage 2 on speakers whom the priors have not seen."""
    run = cdrl_stage2()
    run.data.speakers = ("generator",)
    return run


@dataclass
class Leaderboard:
    """Train, score and compare the variants."""

    run: Annotated[CDRLGenerator, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=board_run
    )
    judges: str = ""
    """Folder of a finished run of recipes/metric_nets.py; empty trains them first."""
    variants: tuple[str, ...] = ()
    """Variants beside the baseline; empty means all whose priors have a room here."""
    regimes: tuple[Literal["residual", "absolute", "icface"], ...] = ("residual", "absolute")
    """Regimes of NED's manipulator; icface: the second generator, as its recipe has it, with the papers' variants where none are named."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, each with a stage 1 of its own."""
    prior_speakers: tuple[str, ...] = ("priors",)
    """Whom the priors learn from: speakers of the split's training part, or its sets; the generator's are --data.speakers."""
    prior_split: str = ""
    """Split whose training part the priors learn from, where it is another than --data.split."""
    budget: Literal["smoke", "laptop", "night"] = "night"
    """smoke: two steps of everything; laptop: one sentence of each test speaker is scored; night: three."""
    protocol: str = ""
    """Name or JSON file of the protocol."""
    out: str = ""
    """Local folder for leaderboard.md, .json and .html; empty means that of the runs."""
    local: bool = False
    """Train in this process, without Ray."""


def leaderboard(asked: Leaderboard, console: Console) -> None:
    """Do what is not done yet, and write the board into `out` after every seed."""
    asked.run = asked.run.absolute()
    wanted = asked.variants or (OF_ICFACE if set(asked.regimes) == {ICFACE} else ())
    chosen = chosen_variants(wanted, console)
    sentences, steps = BUDGETS[asked.budget]
    if steps:
        for name in ("pretraining", "ned"):
            getattr(asked.run, name).steps = steps
    storage, out = asked.run.checkpoint.storage, asked.out or asked.run.checkpoint.storage
    if "://" in out:
        raise ValueError(f"the board is written into a local folder, and {out} is none: give --out a folder")
    clock, panel = Clock(storage, SECONDS), Panel(asked)
    check_speakers(asked, console)
    if asked.judges:
        load_judges(asked.judges)
    runs: board.Runs = {}
    parts = {seed: list(parts_of(asked, chosen, seed, panel, sentences, console)) for seed in asked.seeds}
    judging = [panel.part()] if not asked.judges else []
    todo = [part for part in (*judging, *(p for mine in parts.values() for p in mine)) if not part.done()]
    console.print(
        f"{len(todo)} of {len(judging) + sum(map(len, parts.values()))} parts to do, about {clock.hours(todo):.1f} hours; priors learn "
        f"from {' '.join(asked.prior_speakers)}, the generator from {' '.join(asked.run.data.speakers) or 'all'}",
        soft_wrap=True,
    )
    for seed, mine in ((None, judging), *parts.items()):
        for part in mine:
            if not part.done():
                console.rule(f"{part.name} (about {clock.hours(todo):.1f} hours to go)")
                clock.time(part)
            todo = [other for other in todo if other is not part]
        if seed is None:
            continue
        runs |= {
            (r, v, seed): run_of(asked, r, v, seed).folder() for r in asked.regimes for v in rows(asked, r, chosen)
        }
        facts = {
            "seeds": ", ".join(map(str, sorted({seed for _, _, seed in runs}))),
            "shards": asked.run.data.shards.rsplit("/", 1)[-1],
            "split": asked.run.data.split.rsplit("/", 1)[-1],
            "priors learn from": " ".join(asked.prior_speakers),
            "the generator learns from": " ".join(asked.run.data.speakers) or "all of the training part",
            "sentences of each test speaker": sentences,
            "judges": str(panel.judges),
            "steps": "; ".join(dict.fromkeys(steps_of(asked, regime) for regime in asked.regimes)),
            "machine": board.machine(),
            "hours": f"{clock.spent() / 3600:.1f}",
        }
        found = board.board_of(runs, {name: VARIANTS[name] for name in chosen}, CLAIMS, facts, guidance_of(runs))
        films = films_of(asked, runs, chosen, seed)
        files = board.write(out, found, films)
        keep_board(asked.run.tracking, EXPERIMENT, board.as_json(found), files)
        for regime in asked.regimes:
            console.print(board.shown_table(found, regime))
        console.print("\n".join(f"written  {file}" for file in files), soft_wrap=True)


def check_speakers(asked: Leaderboard, console: Console) -> None:
    """Say where priors and generator learn from the same people. ValueError for speakers who do not train."""
    seed = asked.seeds[0]
    kind = rooms.kinds("priors")[0]
    runs = [prior_run(asked, kind, seed), run_of(asked, asked.regimes[0], BASELINE, seed)]
    priors, generator = (Split.of(run.data).part("train").speakers for run in runs)
    shared = ["perhaps all"] if priors is None or generator is None else sorted(priors & generator)
    if shared:
        console.print(
            f"note: priors and generator share speakers ({', '.join(shared)}): what priors know of other people is not seen so",
            soft_wrap=True,
        )


def chosen_variants(asked: tuple[str, ...], console: Console) -> dict[str, tuple[str, ...]]:
    """The baseline and the variants that are trained. ValueError for one that is not known, or whose prior has no room here."""
    if unknown := [name for name in asked if name not in VARIANTS]:
        raise ValueError(f"there is no variant {', '.join(unknown)}: there are {', '.join(VARIANTS)}")
    there, chosen = rooms.kinds("priors"), {BASELINE: VARIANTS[BASELINE]}
    for name, kinds in VARIANTS.items():
        if (asked and name not in asked) or name == BASELINE:
            continue
        if lacking := [kind for kind in kinds if kind not in there]:
            why = f"the variant {name} needs a prior {' and '.join(lacking)}, of which there is no room here (there are {', '.join(there)})"
            if asked:
                raise ValueError(f"{why}: leave it out of --variants, or name its folder in SPFEM_ROOMS")
            console.print(f"left out: {why}", soft_wrap=True)
            continue
        chosen[name] = kinds
    return chosen


def parts_of(
    asked: Leaderboard, chosen: dict[str, tuple[str, ...]], seed: int, panel: "Panel", sentences: int, console: Console
) -> Iterator[Part]:
    """What a seed takes: each prior once, a pre-training for each regime, then every variant and its scores."""
    for kind in dict.fromkeys(kind for kinds in chosen.values() for kind in kinds):
        yield training("prior", prior_run(asked, kind, seed), Stage1(), asked.local)
    for regime in asked.regimes:
        room, names = (
            (icface, ("pretraining of icface", "guided icface"))
            if regime == ICFACE
            else (ned, ("pretraining", "guided"))
        )
        yield training(names[0], pretraining_run(asked, regime, seed), room.Stage(), asked.local)
        for variant in rows(asked, regime, chosen):
            run = run_of(asked, regime, variant, seed)
            yield training(names[1], run, room.Stage(), asked.local)

            def scored(run: Run = run, variant: str = variant) -> bool:
                return panel.there() and is_scored(run.folder(), variant, str(panel.judges), sentences)

            def score(run: Run = run, variant: str = variant) -> None:
                evaluate_generator(
                    run.folder(),
                    variant,
                    tests=panel.tests,
                    upper_bound=variant == BASELINE,
                    console=console,
                )

            yield Part("score", sentences, f"scores of {run.name}", scored, score)


def prior_run(asked: Leaderboard, kind: str, seed: int) -> Run:
    """Stage 1 of a prior and seed: a run of this one job, with the settings that its room has."""
    settings = rooms.settings_of(kind)()
    if steps := BUDGETS[asked.budget][1]:
        settings.steps, settings.global_batch = steps, 2
    data = asked.run.data.model_copy(
        update={
            "split": asked.prior_split or asked.run.data.split,
            "speakers": asked.prior_speakers,
            "frames_per_recording": Data.model_fields["frames_per_recording"].default,
        }
    )
    shared = {name: getattr(asked.run, name) for name in ("storage", "scaling", "zero", "checkpoint", "validation")}
    made = create_model("PriorRun", __base__=Run, **{kind: (type(settings), settings)})  # type: ignore[call-overload]
    return common(made(data=data, tracking=asked.run.tracking, **shared), f"board-{kind}-{seed}", seed)


def rows(asked: Leaderboard, regime: str, chosen: Iterable[str]) -> list[str]:
    """The variants of a regime."""
    return [name for name in chosen if asked.variants or regime != ICFACE or name in OF_ICFACE]


def base_of(asked: Leaderboard, regime: str) -> CDRLGenerator | ICfaceGenerator:
    """What all runs of a regime have."""
    if regime != ICFACE:
        return asked.run
    alike = ("data", "scaling", "storage", "zero", "checkpoint", "validation", "tracking")
    run = ICfaceGenerator(**{name: getattr(asked.run, name) for name in alike})
    if steps := BUDGETS[asked.budget][1]:
        run.pretraining.steps = run.icface.steps = steps
    return run


def steps_of(asked: Leaderboard, regime: str) -> str:
    """How long a regime's generators learn, in words."""
    base = base_of(asked, regime)
    return (
        f"{base.pretraining.steps} of pre-training, {getattr(base, ICFACE if regime == ICFACE else 'ned').steps} guided"
    )


def pretraining_run(asked: Leaderboard, regime: str, seed: int) -> GuidedRun:
    """The pre-training that all variants of a regime and seed go on from."""
    run = common(base_of(asked, regime), f"board-{regime}-pretraining-{seed}", seed)
    run.priors, run.pretrained = (), ""
    if regime == ICFACE:
        run.icface.enabled = False
    else:
        run.pretraining.regime, run.ned.enabled = regime, False
    return run


def run_of(asked: Leaderboard, regime: str, variant: str, seed: int) -> GuidedRun:
    """One run of stage 2: it differs from the others of its regime and seed in its priors alone."""
    run = common(base_of(asked, regime), f"board-{regime}-{variant}-{seed}", seed)
    if regime != ICFACE:
        run.pretraining.regime = run.ned.regime = regime
    run.pretrained = pretraining_run(asked, regime, seed).folder()
    run.priors = tuple(prior_run(asked, kind, seed).folder() for kind in VARIANTS[variant])
    return run


def common(run: Run, name: str, seed: int) -> Any:
    """A copy under another name and seed, in the board's experiment; runs of a board are no versions of a model."""
    run = run.model_copy(deep=True)
    run.name, run.seed, run.tracking.experiment, run.tracking.register_models = name, seed, EXPERIMENT, False
    return run.absolute()


def guidance_of(runs: board.Runs) -> dict[tuple[str, str, int], dict[str, float]]:
    """The balanced weights of guidance that each generator learnt under."""
    return {key: load_generator(folder).config["facts"].get("guidance", {}) for key, folder in runs.items()}


def films_of(asked: Leaderboard, runs: board.Runs, chosen: dict[str, tuple[str, ...]], seed: int) -> board.Films:
    """A clip of every regime and emotion, edited by every variant of a seed."""
    films = {}
    for regime in asked.regimes:
        generators = {variant: load_generator(runs[regime, variant, seed]) for variant in rows(asked, regime, chosen)}
        found = board_films(asked.run, generators, asked.protocol)
        films |= {(regime, emotion): film for emotion, film in found.items()}
    return films


class Panel:
    """The judges: those of a folder, or trained for this board with a seed of their own."""

    def __init__(self, asked: Leaderboard):
        run = metric_nets()
        run.data.shards, run.data.split, run.data.size = (
            getattr(asked.run.data, name) for name in ("shards", "split", "size")
        )
        run.checkpoint, run.tracking = asked.run.checkpoint, asked.run.tracking
        if steps := BUDGETS[asked.budget][1]:
            for job in run.jobs().values():
                job.steps, job.global_batch = steps, 2
        self.run, self.asked = common(run, "board-judges", 1000), asked
        self.folder = asked.judges or self.run.folder()
        self._judges: Judges | None = None
        self._tests: EvaluationSet | None = None

    def part(self) -> Part:
        """Their training."""
        return training("judges", self.run, JudgeStage(), self.asked.local)

    def there(self) -> bool:
        """Whether they are trained."""
        return bool(self.asked.judges) or self.part().done()

    @property
    def judges(self) -> Judges:
        """The judges, read once."""
        self._judges = self._judges or load_judges(self.folder)
        return self._judges

    @property
    def tests(self) -> EvaluationSet:
        """The test clips, read and judged once for all variants."""
        if self._tests is None:
            data, (sentences, _) = self.asked.run.data, BUDGETS[self.asked.budget]
            self._tests = evaluation_set(data, self.judges, data.size, sentences, self.asked.protocol)
        return self._tests


if __name__ == "__main__":
    words, made = sys.argv[1:], board_run()
    usage.show_if_asked(words, made, __doc__ or "", sys.argv[0], FLAGS)
    with errors_in_words():
        leaderboard(
            read_words(
                lambda given: tyro.cli(Leaderboard, args=given, default=Leaderboard(made), description=__doc__),
                usage.with_help_all(words, made),
            ),
            plain_console(soft_wrap=False),
        )
