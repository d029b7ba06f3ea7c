"""`spfem export RUN`: what a run trained, as a folder to keep or hand on: weights, configuration, a model card.

From a finished run the networks that it exported; with a checkpoint those of an unfinished one, put together from the
shards that DeepSpeed's ranks wrote.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor, nn

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.generators.load import PRETRAINING
from spfem_dist.model_card import model_card
from spfem_dist.rooms import PACKAGES, find, kinds
from spfem_dist.runs import read_configuration, run_of
from spfem_dist.saved import refuse_not_finite, what_of, write_config
from spfem_dist.storage import open_filesystem, read_json
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.training.averaging import KEY, averaged_networks
from spfem_dist.training.manifest import CheckpointStore, checkpoint_name, committed, fetched
from spfem_dist.training.universal import averages_as_masters, load_states, no_code


def export(location: str, out: Path, checkpoint: str = "", console: Console | None = None) -> list[Path]:
    """Write what the run `location` (a folder or s3://bucket/prefix) trained to `out`; returns a folder for each network.

    A generator or a compositor goes to `out` itself, each prior to a folder of its name inside. checkpoint: empty for the finished networks,
    `latest`, or a step. `out` appears when it is whole.
    Raises FileNotFoundError or ValueError that says what is there instead.
    """
    console = console or plain_console()
    configured = read_configuration(location)
    refuse_taken(out)
    generators, compositors, priors = (
        _enabled(configured, package) for package in ("generators", "compositors", "priors")
    )
    # What it began from is a part of it, and may be another run's.
    alone = [name for name in (*generators, *compositors) if name != PRETRAINING] or generators
    jobs = [*alone, *priors]
    if not jobs:
        raise ValueError(
            f"the run {location} trains neither a generator nor priors nor a compositor: give a run of stage 1 or 2, or of recipes/compose.py"
        )
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}-") as scratch:
        whole = Path(scratch) / "model"
        places = {name: whole if name in alone else whole / name for name in jobs}
        for name, place in places.items():
            place.mkdir(parents=True)
            if checkpoint:
                _from_checkpoint(location, configured, name, checkpoint, place)
            else:
                _finished(location, name, place)
            config = json.loads((place / "config.json").read_text())
            write_config(place, without_places(config))
            _check_loads(what_of(config), place)  # first, so that the card may believe what config.json says
            card = model_card(configured, config, _dataset(config), _summary(location))
            (place / "README.md").write_text(card, encoding="utf-8")
        os.replace(whole, out)
    written = [out if name in alone else out / name for name in jobs]
    for name, folder in zip(jobs, written, strict=True):
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        console.print(f"{name}: {folder}, {size / 1e6:.1f} MB; it loads on a CPU", highlight=False)
    return written


def refuse_taken(out: Path) -> None:
    """Raises ValueError where something lies at `out`: an export never replaces one."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: choose another --out, or remove it first")


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the bare names of local files and folders: where they lay on one machine is nobody else's concern."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(part) for key, part in value.items()}
        if isinstance(value, list):
            return [named(part) for part in value]
        return Path(value).name if isinstance(value, str) and value.startswith("/") else value

    return named(config)


def _enabled(configured: dict[str, Any], package: str) -> list[str]:
    """The run's enabled jobs whose kinds are rooms of `package`."""
    known, jobs = kinds(package), {name: job for name, job in configured.items() if isinstance(job, dict)}
    return [name for name, job in jobs.items() if job.get("kind") in known and job.get("enabled")]


def _finished(location: str, name: str, place: Path) -> None:
    """Copy what the finished job exported."""
    fs, root = open_filesystem(f"{location.rstrip('/')}/{name}/model")
    if not fs.exists(f"{root}/model.safetensors"):
        steps = _steps(f"{location.rstrip('/')}/{name}")
        there = f"it has checkpoints of steps {', '.join(map(str, steps))}: give --checkpoint latest" if steps else ""
        raise FileNotFoundError(f"the run {location} has not finished {name}; {there or 'train it first'}")
    for path in fs.ls(root, detail=False):
        fs.get_file(path, str(place / path.rsplit("/", 1)[-1]))


def _steps(storage: str) -> list[int]:
    """The steps of a job's complete checkpoints, oldest first."""
    return [int(name.rsplit("_", 1)[-1]) for name in committed(storage)]


def _from_checkpoint(location: str, configured: dict[str, Any], name: str, asked: str, place: Path) -> None:
    """Export the job `name` as it stood at a checkpoint; its data and priors are read again."""
    storage = f"{location.rstrip('/')}/{name}"
    steps = _steps(storage)
    if not steps or (asked != "latest" and asked not in map(str, steps)):
        known = ", ".join(map(str, steps)) or "none"
        raise FileNotFoundError(f"no checkpoint {asked!r} of {name} in {location}: complete ones are of steps {known}")
    step = steps[-1] if asked == "latest" else int(asked)
    run, stage = _run_and_stage(location, configured, name)
    torch.manual_seed(run.seed)
    job = stage.job(run, name, 0, 1, torch.device("cpu"))
    try:
        job.begin()  # what the export needs beside the networks
        zero_stage = CheckpointStore(storage).manifest(checkpoint_name(step), 0)["zero_stage"]
        with fetched(f"{storage}/{checkpoint_name(step)}") as folder:
            state = json.loads((folder / "state.json").read_text())
            for key, network in job.networks.items():
                weights = whole_weights(folder, key, zero_stage)
                if key in averaged_networks(job):
                    weights |= averaged_weights(folder, key, zero_stage, network)
                _give(network, weights, f"{storage}, {key}")
        job.export(job.networks, place)
    finally:
        job.close()
    config = json.loads((place / "config.json").read_text())
    config["facts"] |= {"steps": state["step"], "samples": state["samples"]}
    write_config(place, config)


def _run_and_stage(location: str, configured: dict[str, Any], name: str) -> tuple[Run, Any]:
    from spfem_dist.priors.stage import Stage1

    try:
        run, kind = run_of(configured), configured[name]["kind"]
        package = next(package for package in PACKAGES if kind in kinds(package))
        return run, Stage1() if package == "priors" else find(package, kind).Stage()
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{location}/run.json is of another version ({'.'.join(map(str, first['loc']))}: {first['msg']}): "
            "its checkpoints can only be exported by that version"
        ) from None


def _give(network: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    refuse_not_finite(weights, where, "its training went wrong; export an earlier checkpoint (--checkpoint STEP)")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{where}: the checkpoint is of another version ({reason}); export it with that version"
        ) from None


def whole_weights(folder: Path, network: str, zero_stage: int) -> dict[str, Tensor]:
    """All parameters and buffers of one network of the checkpoint in `folder`; sharded parameters in fp32.

    Of sharded ones the optimiser's fp32 masters are taken, which bf16 training rounds away in the network itself.
    """
    states = next(iter(sorted((folder / network).glob("*model_states.pt"))), None)
    if states is None:
        raise FileNotFoundError(f"no weights of {network} in {folder}: the checkpoint is damaged, take another one")
    saved = load_states(states)
    if zero_stage == 0:
        return saved["module"]
    return _masters(folder, network) | {
        name: saved["module"][name] for name in saved["buffer_names"]
    }  # in their precision


def _masters(folder: Path, network: str) -> dict[str, Tensor]:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with no_code(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it talks of every file
        return dict(get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=network))


def averaged_weights(folder: Path, name: str, zero_stage: int, network: nn.Module) -> dict[str, Tensor]:
    """The averages of the parameters of the network `name` of the checkpoint in `folder`, as far as it holds them. network: that network."""
    trained = [key for key, parameter in network.named_parameters() if parameter.requires_grad]
    if zero_stage:
        with tempfile.TemporaryDirectory() as scratch:
            there = averages_as_masters(folder.absolute() / name, Path(scratch) / name)
            found = _masters(Path(scratch), name) if there else {}
        return {key: found[key] for key in trained if key in found}
    saved = load_states(next(iter(sorted((folder / name).glob("*model_states.pt")))))["optimizer"]
    states = saved.get("optimizer_state_dict", saved)["state"]  # half precision has its optimiser within another
    return {key: states[number][KEY] for number, key in enumerate(trained) if KEY in states.get(number, {})}


def _dataset(config: dict[str, Any]) -> dict[str, str]:
    """Corpus and digest of the shards, where they can still be read."""
    from spfem_dist.config import Data

    try:
        index = ShardReader.of(Data.model_validate(config.get("data"))).index
    except (OSError, ValueError):
        return {}
    return {"corpus": index.corpus, "digest": index.digest, "landmarks": index.landmarks}


def _summary(location: str) -> dict[str, Any]:
    """The run's figures, where it was evaluated."""
    fs, root = open_filesystem(location)
    return read_json(fs, f"{root}/summary.json") if fs.exists(f"{root}/summary.json") else {}


def _check_loads(what: str, place: Path) -> None:
    if what == "generator":
        from spfem_dist.generators.load import load_generator

        load_generator(place)
    elif what == "compositor":
        from spfem_dist.compositors.load import load_compositor

        load_compositor(place)
    else:
        from spfem_dist.priors.prior import load_prior

        load_prior(place)


def export_to_bucket(location: str, out: str, checkpoint: str = "", console: Console | None = None) -> list[str]:
    """`export` to s3://bucket/prefix: exported and loaded here first, then uploaded, the configuration last.

    Returns an address for each network. Raises ValueError where `out` is another kind of address, or holds something already.
    """
    console = console or plain_console()
    if not out.startswith(("s3://", "s3a://")):
        raise ValueError(f"--out {out}: an export is written to a folder or to s3://bucket/prefix")
    fs, root = open_filesystem(out)
    if fs.exists(root) and fs.ls(root):
        raise ValueError(f"{out} is there already: choose another --out, or remove it first")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "model"
        folders = export(location, whole, checkpoint, plain_console(quiet=True))
        # A folder on S3 is whole when its configuration is there: without it nothing loads.
        for file in sorted(whole.rglob("*.*"), key=lambda file: (file.name == "config.json", file)):
            fs.put_file(str(file), f"{root}/{file.relative_to(whole).as_posix()}")
        written = [f"{out.rstrip('/')}/{folder.relative_to(whole).as_posix()}".removesuffix("/.") for folder in folders]
    for address in written:
        console.print(f"{address}: written, and it loads on a CPU")
    return written
