"""Files with something wrong in them, and commands that read them; runs that train, or are stopped."""

import shutil
import tarfile
from pathlib import Path

from bad import damaged, spoil, spoil_shards, value
from ground import STAGE1, STAGE2
from making import Making, edit_of, recipe_words, started
from verdict import CANARY

#: Files by names that people and machines give.
FILM_NAMES = [
    "t[red]x.mp4",
    "[x.mp4",
    "a b.mp4",
    "-x.mp4",
    "é.mov",
    "日本.mkv",
    "a\nb.mp4",
    "\udcff.mp4",
    "%s.mp4",
    "x.MP4",
    ".mp4",
]
FILM_NAMES += [
    f"{CANARY[:3]}{'a' * 240}.mp4",
    "{0}.mp4",
    ":smile:.mp4",
    "a'b\".mp4",
    "x.mp4.avi",
    "\x1b[31mred.mp4",
    "~.mp4",
]


def with_stored(making: Making) -> list[str]:
    """A finished run with something wrong in one of its files."""
    chance, ground = making.chance, making.ground
    guided = chance.random() < 0.3 and "guided" in ground.__dict__
    source = ground.guided if guided else ground.runs
    run = making.copy(source / "r", "stored/r")
    whole = [path for path in run.rglob("*") if path.is_file()]
    first = [
        path
        for path in whole
        if path.parent == run or path.parent.name in ("model", "lock") or path.name == "state.json"
    ]
    for _ in range(chance.choice([1, 1, 1, 2])):
        file = chance.choice(first if chance.random() < 0.7 else whole)
        if file.is_file():
            spoil(chance, file)
    recipe, more = ("cdrl_stage2", STAGE2) if guided else ("cdrl_stage1", STAGE1)
    steps = "--ned.steps" if guided else "--ccrl.steps"
    words = [*started(making, recipe), *recipe_words(making, recipe, *more, changes=0, storage="stored")]
    split = ["--data.split", str(ground.toy / "split.json") if guided else "none"]
    on = [*words, *split, steps, "3", "--checkpoint.allow-other", "True"]
    dry = [*words, *split, "--dry-run"]
    calls = [
        on,
        [*words, *split],
        dry,
        ["spfem", "export", "stored/r"],
        ["spfem", "evaluate", "compare", "stored/r", "stored/r"],
    ]
    calls.append(["spfem", "export", "stored/r", "--checkpoint", chance.choice(["latest", "2", "1"])])
    if guided:
        film = making.film().name
        calls += [edit_of(film, "--emotion", "sad", "--generator", "stored/r")] * 2
        calls.append(["spfem", "evaluate", "generator", "stored/r"])
    else:
        calls.append(["spfem", "evaluate", "priors", "stored/r", "--probe-groups", "2"])
        stage2 = recipe_words(making, "cdrl_stage2", chance.choice(["--dry-run", "--local"]), *STAGE2, changes=0)
        calls.append([*started(making, "cdrl_stage2"), *stage2, "--priors", "stored/r"])
    return chance.choice(calls)


def with_shards(making: Making) -> list[str]:
    chance = making.chance
    folder = making.shards()
    for _ in range(chance.choice([1, 1, 2])):
        if all(path.is_file() for path in folder.iterdir()) and (folder / "index.json").exists():
            try:
                spoil_shards(chance, folder)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, tarfile.TarError):
                spoil(chance, chance.choice([path for path in folder.iterdir() if path.is_file()]))
    recipe, more = chance.choice([("cdrl_stage1", STAGE1), ("cdrl_stage1", STAGE1), ("cdrl_stage2", STAGE2)])
    words = [
        *started(making, recipe),
        *recipe_words(making, recipe, *more, changes=0),
        "--data.shards",
        "shards",
        "--data.split",
        "none",
    ]
    show = ["spfem", "data", "show", "shards"]
    calls = [words, words, [*words, "--dry-run"], show, [*show, "--json"], [*show, "--sheet", "sheet.png"]]
    calls += [["spfem", "evaluate", "units", "shards", "--most", "2"], [*show, "--sample", "S00_00", "--out", "x.mp4"]]
    calls.append(
        [
            "spfem",
            "prepare",
            "synthetic",
            "--identities",
            "4",
            "--synthetic-sentences",
            "3",
            "--size",
            "32",
            "--local",
            "--out",
            "shards",
            "--limit",
            "2",
        ]
    )
    return chance.choice(calls)


def with_films(making: Making) -> list[str]:
    """Films that are none, or whose names say something else."""
    chance = making.chance
    film = making.film()
    if chance.random() < 0.6:
        name = chance.choice(FILM_NAMES)
        try:
            film = film.rename(film.with_name(name))
        except (OSError, ValueError):  # longer than this file system takes
            film = film.rename(film.with_name("[red].mp4"))
    if chance.random() < 0.7:
        film.write_bytes(damaged(chance, film.read_bytes()))
    place = f"./{film.name}" if film.name.startswith("-") else film.name
    folder = making.copy(making.ground.films / "M1", "films/M1")
    shutil.copy(film, folder / film.name)
    if chance.random() < 0.3:
        other = chance.choice([path for path in folder.rglob("*.mp4") if path.is_file()])
        other.write_bytes(damaged(chance, other.read_bytes()))
    edit = ["spfem", "edit", place, "--emotion", chance.choice(["happy", "surprised"])]
    aligned = [*edit, "--faces", "aligned", "--landmarks", "talk.npy"]
    table = (
        "path,speaker,sentence,emotion,start,end\n"
        + f"{film.name},A,1,{chance.choice(['happy', '', 'x'])},0,{value(chance)}\n"
    )
    (making.folder / "table.csv").write_text(table, encoding="utf-8", errors="surrogateescape")
    if chance.random() < 0.5:
        (making.folder / "table.csv").write_bytes(damaged(chance, (making.folder / "table.csv").read_bytes()))
    prepare = [
        "spfem",
        "prepare",
        "folder",
        chance.choice(["films", "films", "table.csv"]),
        "--out",
        "shards",
        "--local",
    ]
    prepare += ["--size", "32", "--faces", chance.choice(["aligned", "aligned", "cascade", "mesh"])]
    folders = ["spfem", "edit", "films", "--emotion", "sad", "--faces", "aligned-mesh", "--out", "edited"]
    calls = [aligned, aligned, [*edit, "--faces", "aligned-mesh"], edit, prepare, prepare, folders]
    calls += [["spfem", "evaluate", "units", place], ["spfem", "evaluate", "judges", "films"]]
    calls.append([*aligned, "--preview", "side.mp4", "--reference", place])
    return chance.choice(calls)


def with_landmarks(making: Making) -> list[str]:
    chance = making.chance
    film = making.film()
    spoil(chance, making.folder / "talk.npy")
    words = [
        "spfem",
        "edit",
        film.name,
        "--faces",
        "aligned",
        "--emotion",
        chance.choice(["happy", "fear"]),
        "--out",
        "out.mp4",
    ]
    if chance.random() < 0.2:
        shutil.copy(making.ground.films / "talk.npy", making.folder / "sound.npy")
        return [*words, "--landmarks", "sound.npy", "--reference", film.name, "--reference-landmarks", "talk.npy"]
    return [*words, "--landmarks", "talk.npy", "--strength", chance.choice(["0", "1", "10", "2.5"])]


def with_weights(making: Making) -> list[str]:
    chance = making.chance
    folder = making.copy(making.ground.generator)
    spoil(chance, chance.choice([path for path in folder.iterdir() if path.suffix != ".md"]))
    film = making.film()
    edit = edit_of(film.name, "--emotion", "happy", "--generator", "generator")
    tune = [*started(making, "cdrl_stage2"), *recipe_words(making, "cdrl_stage2", "--dry-run", *STAGE2, changes=0)]
    calls = [
        edit,
        edit,
        edit,
        [*tune, "--pretrained", "generator"],
        ["spfem", "evaluate", "real", film.name, "--out", "x", "--generator", "generator"],
    ]
    return chance.choice(calls[:4] if chance.random() < 0.95 else calls)


def with_trained(making: Making) -> list[str]:
    """Settings that make no sense, and are trained with."""
    chance = making.chance
    recipe, more = chance.choice([("cdrl_stage1", STAGE1), ("cdrl_stage2", STAGE2)])
    words = recipe_words(making, recipe, *more, changes=chance.choice([1, 1, 2]))
    return [
        *started(making, recipe),
        *words,
        *more[:4],
        "--ccrl.steps" if recipe == "cdrl_stage1" else "--ned.steps",
        "2",
    ]


def with_tracked(making: Making) -> list[str]:
    """A store of MLflow with something wrong in it."""
    chance = making.chance
    store = Path(shutil.copy(making.ground.runs / "mlflow.db", making.folder / "mlflow.db"))
    if chance.random() < 0.6:
        store.write_bytes(damaged(chance, store.read_bytes()))
    words = [*started(making, "cdrl_stage1"), *recipe_words(making, "cdrl_stage1", *STAGE1, changes=0)]
    words += ["--tracking.uri", "sqlite:///mlflow.db", "--tracking.wait-s", "1", "--tracking.system-metrics", "False"]
    words += ["--tracking.experiment", value(chance)] if chance.random() < 0.4 else []
    film = making.film()
    edit = [
        "spfem",
        "edit",
        film.name,
        "--emotion",
        "happy",
        "--generator",
        chance.choice(["models:/ned@champion", "models:/ccrl/1"]),
    ]
    making.more = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    return chance.choice([words, words, [*words, "--dry-run"], edit])


def with_stopped(making: Making) -> list[str]:
    """Sound commands that get Ctrl-C at any time."""
    chance = making.chance
    making.work = chance.uniform(0.02, 4)
    making.film()
    train = [
        *started(making, "cdrl_stage1"),
        *recipe_words(making, "cdrl_stage1", *STAGE1, changes=0),
        "--ccrl.steps",
        "40",
    ]
    edit = ["spfem", "edit", "talk.mp4", "--emotion", "happy", "--faces", chance.choice(["aligned-mesh", "mesh"])]
    prepare = [
        "spfem",
        "prepare",
        "synthetic",
        "--identities",
        "4",
        "--synthetic-sentences",
        "2",
        "--size",
        "32",
        "--out",
        "x",
        "--local",
    ]
    demo = ["spfem", "demo", "--port", "0", "--no-examples", "--generator", "shipped"]
    priors = ["spfem", "evaluate", "priors", str(making.copy(making.ground.runs / "r")), "--probe-groups", "2"]
    return chance.choice(
        [train, train, edit, edit, prepare, demo, priors, ["spfem", "export", str(making.ground.runs / "r")]]
    )
