"""Indexes that are tables, features that were kept, and searches over settings, each with something wrong in it."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
from bad import bent, damaged, secret, spoil, value
from children import ROOT
from making import RECIPES, Making, recipe_words, settings_of, started

from spfem_dist.shard_format import ShardIndex, shards_digest
from spfem_dist.shard_table import SCHEMA, name_table, save_index


def with_tables(making: Making) -> list[str]:
    """Shards whose index is a table: other bytes, or other entries under the right digest."""
    chance, folder = making.chance, making.shards()
    index = ShardIndex.load((folder / "index.json").read_bytes())
    save_index(index, folder, table=True)
    if chance.random() < 0.4:
        spoil(chance, folder / chance.choice(["index.json", "index.arrows", "index.arrows"]))
    else:
        _bend_table(making, index, folder)
    words = [
        *started(making, "cdrl_stage1"),
        *recipe_words(making, "cdrl_stage1", "--cerl.enabled", "False", changes=0),
    ]
    words += ["--data.shards", "shards", "--data.split", "none", "--ccrl.steps", "1", "--ccrl.global-batch", "2"]
    show = ["spfem", "data", "show", "shards"]
    return chance.choice(
        [words, [*words, "--dry-run"], show, [*show, "--json"], [*show, "--sample", "S00_00", "--out", "x.mp4"]]
    )


def _bend_table(making: Making, index: ShardIndex, folder: Path) -> None:
    chance, file = making.chance, folder / "index.arrows"
    rows = [shard.model_dump(mode="json") for shard in index.shards]
    try:
        rows = bent(chance, rows)
        written = pa.BufferOutputStream()
        with pa.ipc.new_stream(written, SCHEMA) as stream:
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        file.write_bytes(written.getvalue())
        told = index.model_copy(
            update={"digest": shards_digest(ShardIndex.model_validate({**index.model_dump(), "shards": rows}).shards)}
        )
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        pa.ArrowException,
    ):  # what is no table is bent as bytes
        file.write_bytes(damaged(chance, file.read_bytes()))
        told = index
    name_table(told, folder, chance.choice([len(index.shards), len(rows) if isinstance(rows, list) else 0, 0, 10**9]))


def with_features(making: Making) -> list[str]:
    """Kept features that are cut, altered, of something else, or no files any more."""
    chance = making.chance
    shutil.copytree(making.ground.features, making.folder / "features")
    for _ in range(chance.choice([1, 1, 2])):
        if files := sorted((making.folder / "features").glob("*/*.safetensors")):
            spoil(chance, chance.choice(files))
    if chance.random() < 0.1:
        place = next((making.folder / "features").iterdir())
        shutil.rmtree(place)
        place.write_text("x")
    words = [*started(making, "cdrl_stage1"), *recipe_words(making, "cdrl_stage1", *making.ground.KEEPING, changes=0)]
    cache = ["--cerl.feature-cache", value(chance) if chance.random() < 0.1 else "features"]
    views = ["--cerl.feature-views", value(chance)] if chance.random() < 0.1 else []
    return [*words, *cache, *views, *(["--dry-run"] if chance.random() < 0.15 else [])]


def with_sweeps(making: Making) -> list[str]:
    """A search whose space, metric or options make no sense; or whose record does not."""
    chance, recipe = making.chance, making.chance.choice(RECIPES)
    numbers = ["0", "1", "-1", "1e-4", "1e400", "nan", "[0.9,0.999]", '"a"', "", value(chance)]
    spaces = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        field = chance.choice(settings_of(recipe)).removeprefix("--") if chance.random() < 0.8 else value(chance)
        kind = chance.choice(["uniform", "loguniform", "randint", "lograndint", "choice", "grid", value(chance)])
        spaces.append(f"{field}={kind}:{','.join(chance.choices(numbers, k=chance.choice([0, 1, 2, 2, 2, 3])))}")
    words = recipe_words(making, recipe, changes=chance.choice([0, 0, 1]))
    metric = chance.choice(["val/ccrl/contrast", "val/x", "train/x", value(chance)])
    sweep = ["python", str(ROOT / "recipes" / "sweep.py"), recipe, "--metric", metric, "--space", *spaces]
    options = ("--trials", "--scheduler", "--patience", "--reduction", "--mode", "--draws", "--concurrent", "--retries")
    for option in chance.sample(options, chance.choice([0, 1, 2])):
        sweep += [option, chance.choice(["pbt", "none", "max", "0", "1", "10000000", value(chance)])]
    if chance.random() < 0.2:
        place = making.folder / "runs" / "s"
        place.mkdir(parents=True)
        record = {"format": "spfem-sweep/1", "plan": {"name": "s"}, "trials": [{"name": "s-t000", "values": {}}]}
        (place / "sweep.json").write_text(json.dumps(bent(chance, record)))
        sweep += ["--name", "s"]
    return [*sweep, "--dry-run", *words]


def with_own_commands(making: Making) -> list[str]:
    """Recipes that are no runs of a stage, with words that make no sense."""
    chance = making.chance
    recipe, needed, flags = chance.choice(
        [
            ("words", ["--out", "w", "--steps", "1"], ("--encoder", "--steps", "--seed", "--out", "--nothing")),
            (
                "sserd_pairs",
                ["--run", str(making.ground.runs / "r"), "--judges", "j"],
                ("--run", "--judges", "--steps", "--sentences", "--generators"),
            ),
            (
                "leaderboard",
                ["--dry-run"],
                ("--seeds", "--rows", "--out", "--data.shards", "--tracking.uri", "--ccrl.steps", "--regimes"),
            ),
        ]
    )
    words = ["python", str(ROOT / "recipes" / f"{recipe}.py"), *needed]
    for flag in chance.sample(flags, chance.choice([1, 1, 2])):
        words += [
            flag,
            *(
                (secret(chance) if chance.random() < 0.4 else value(chance))
                for _ in range(chance.choice([0, 1, 1, 1, 2]))
            ),
        ]
    return words
