"""The priors of stage 1 as stage 2 meets them: found by name or folder, frozen, and shown to have stayed so."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spfem_dist.config import Data
from spfem_dist.files import cache_folder, whole_file
from spfem_dist.job_settings import Guidance
from spfem_dist.nets.frozen import freeze
from spfem_dist.nets.recompute import recompute
from spfem_dist.priors.prior import EditedFrames, load_prior
from spfem_dist.rooms import kinds
from spfem_dist.saved import is_saved, parameters_sha256
from spfem_dist.storage import open_filesystem


class PriorMismatch(ValueError):
    """A prior that does not fit the run's data; the message says in what, and what to do."""


@dataclass
class FrozenPriors:
    """networks: frozen priors by kind. sources: for each, where it came from and the sha256 of its parameters and buffers."""

    networks: dict[str, Any]
    sources: dict[str, dict[str, str]]

    def check_weights(self, weights: Guidance, flag: str) -> None:
        """Raise PriorMismatch where the table `weights` weighs a prior that was not given. flag: where it is set, `--JOB.guidance`."""
        for kind, weight in weights.items():
            if kind not in self.networks and weight not in (0.0, 1.0):  # 1 is what nobody said
                given = f"gives {', '.join(self.networks)}" if self.networks else "gives none"
                raise PriorMismatch(
                    f"{flag}.{kind} is {weight:g}, and --priors {given}: name a {kind} prior there too, or leave the weight out"
                )

    def guiding(self, weights: Guidance, compared_with: str = "") -> list[str]:
        """The kinds that are there and have a weight; of those, the ones that compare generated frames with `compared_with`."""
        return [
            kind
            for kind, prior in sorted(self.networks.items())
            if weights.get(kind, 1.0) and compared_with in ("", prior.compares_with)
        ]

    def frames(self, weights: Guidance) -> int:
        """How many consecutive frames of a clip an edit needs for the longest window that a guiding prior judges; 1 where none guides."""
        return max((self.networks[kind].frames for kind in self.guiding(weights)), default=1)

    def guidance(self, edit: EditedFrames, weights: Guidance, compared_with: str = "") -> dict[str, Tensor]:
        """What the guiding priors say of an edit, weighted, by name: `guidance/<kind>/<loss>`.

        edit: windows of T frames, one after the other in their clip where a prior judges more than one: T >= `frames(weights)`. Such
        a prior judges every window of its own length in them, the others each frame.
        Gradients reach `edit.generated` alone. compared_with: as in `guiding`. Raises PriorMismatch where a prior judges longer
        windows than the edit has frames.
        """
        losses: dict[str, Tensor] = {}
        soft: EditedFrames | None = None
        for kind in self.guiding(weights, compared_with):
            prior = self.networks[kind]
            if prior.frames > (given := edit.generated.shape[1]):
                raise PriorMismatch(
                    f"the {kind} prior judges windows of {prior.frames} frames, this generator edits {given} at a time: leave it out"
                )
            if prior.softened and soft is None:
                soft = edit.with_frames(softened)
            found = prior.guidance(soft if prior.softened else edit)
            weight = weights.get(kind, 1.0)
            losses |= {f"guidance/{kind}/{key.removeprefix(f'{kind}/')}": weight * v for key, v in found.items()}
        return losses

    def check_untouched(self) -> None:
        """Raise RuntimeError where a parameter or buffer is not bit for bit what was loaded."""
        for name, network in self.networks.items():
            if parameters_sha256(network.state_dict()) != self.sources[name]["sha256"]:
                raise RuntimeError(
                    f"the frozen prior {name} changed during stage 2; nothing was exported: this is a defect, report it"
                )


def softened(pictures: Tensor) -> Tensor:
    """Pictures [N, C, S, S] under a Gaussian of S / 64 pixels: a pattern of single pixels is gone, lines are left.

    Shown sharp pictures, a renderer learns a grid of dots for the forehead that pleases an emotion prior and no eye.
    """
    return _blur(pictures.shape[2], pictures) @ pictures @ _blur(pictures.shape[3], pictures).T


def _blur(side: int, like: Tensor) -> Tensor:
    """Matrix [side, side] of the Gaussian along one axis, edges repeated: some times faster than convolutions of one channel."""
    sigma = max(1.0, side / 64)
    reach = math.ceil(2 * sigma)
    away = torch.arange(-reach, reach + 1, device=like.device)
    taps = torch.exp(-0.5 * (away.to(like.dtype) / sigma).square())
    source = (torch.arange(side, device=like.device)[:, None] + away).clamp(0, side - 1)
    shares = (source[..., None] == torch.arange(side, device=like.device)) * (taps / taps.sum())[
        :, None
    ]  # [row, tap, column]
    return shares.sum(1)


def frozen_priors(
    named: Sequence[str],
    tracking_uri: str,
    data: Data,
    device: torch.device | str,
    double: bool = False,
    recomputing: bool = False,
) -> FrozenPriors:
    """Load and freeze the priors that `named` lists: folders of stage-1 runs (all their priors), folders of priors, models:/NAME.

    double: in double precision. recomputing: large trunks compute again for gradients what they do not keep.

    Raises FileNotFoundError where there is none, PriorMismatch where two are of one kind or one was trained for another speech
    window or kind of speech features than `data` gives.
    """
    from spfem_dist.streaming.reader import ShardReader

    networks: dict[str, Any] = {}
    sources: dict[str, dict[str, str]] = {}
    width = ShardReader.of(data).index.feature_dim if named else 0
    for asked in named:
        for folder in _folders(asked, tracking_uri):
            prior, config = load_prior(folder)
            name = config["kind"]
            if name in networks:
                raise PriorMismatch(
                    f"--priors names two {name} priors, {sources[name]['from']} and {folder}: give one of each kind"
                )
            _check(asked, config, data, width)
            network = freeze(prior.to(device))
            recompute(network, recomputing)
            networks[name] = network.double() if double else network
            sources[name] = {"from": str(asked), "sha256": parameters_sha256(networks[name].state_dict())}
    return FrozenPriors(networks, sources)


def _folders(asked: str, tracking_uri: str) -> list[Path]:
    """The folders of the priors that one entry of --priors means."""
    from spfem_dist.tracking.models import fetch_model

    if asked.startswith(("models:/", "runs:/")):
        return [fetch_model(asked, tracking_uri)]
    if asked.startswith("s3://"):
        return _fetched(asked)
    root = Path(asked)
    inside = [file.parent for file in sorted(root.glob("*/model/config.json")) if is_saved(file.read_bytes(), "prior")]
    if inside:
        run = (root / "run.json").read_text() if (root / "run.json").is_file() else "{}"
        _check_whole(asked, run, [folder.parent.name for folder in inside])
        return inside
    if (root / "config.json").is_file():
        return [root]
    if (root / "run.json").is_file():
        raise FileNotFoundError(
            f"the run {root} holds no finished prior: train it to its end first (python recipes/cdrl_stage1.py)"
        )
    raise FileNotFoundError(
        f"no priors in {root}: give the folder of a finished stage-1 run, for instance --priors runs/cdrl-stage1, or registered ones, models:/NAME"
    )


def _fetched(location: str) -> list[Path]:
    """Priors of a run folder on S3, or the one prior that lies there, brought to the user's cache."""
    fs, root = open_filesystem(location)
    inside = {
        file.split("/")[-3]: file.rsplit("/", 1)[0]
        for file in sorted(fs.glob(f"{root}/*/model/config.json"))
        if is_saved(fs.cat_file(file), "prior")
    }
    if inside and fs.exists(f"{root}/run.json"):
        _check_whole(location, fs.cat_file(f"{root}/run.json").decode(), list(inside))
    if not inside and fs.exists(f"{root}/config.json"):
        inside = {"alone": root}
    if not inside:
        raise FileNotFoundError(
            f"no finished prior under {location}: train it to its end first (python recipes/cdrl_stage1.py)"
        )
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    return [_copied(fs, path, cache_folder("models") / f"{key}-{name}") for name, path in inside.items()]


def _copied(fs: Any, root: str, place: Path) -> Path:
    """The prior at `root`, in the local folder `place`. Workers of one machine copy side by side, so files appear whole."""
    place.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        with whole_file(place / file) as partial:
            fs.get_file(f"{root}/{file}", str(partial))
    return place


def _check_whole(asked: str, run: str, finished: Sequence[str]) -> None:
    """Refuse a stage-1 run of which only a part has finished; a run that never trained the other prior is whole."""
    known = kinds("priors")
    jobs = {name: job for name, job in json.loads(run).items() if isinstance(job, dict) and job.get("kind") in known}
    lacking = [name for name, job in jobs.items() if job.get("enabled") and name not in finished]
    if lacking:
        raise FileNotFoundError(
            f"the run {asked} has not finished {lacking[0]}: train it to its end first (python recipes/cdrl_stage1.py), "
            f"or name the finished prior alone: --priors {asked}/{finished[0]}/model"
        )


def _check(asked: str, config: dict[str, Any], data: Data, width: int) -> None:
    trained = Data(**config["data"])
    if config["hears"] and config["feature_dim"] != width:
        raise PriorMismatch(
            f"{asked}: this prior listens to {config['feature_dim']} speech features a frame, {data.shards} has {width}: "
            "prepare the shards with the same --speech, or train the priors on these shards"
        )
    if config["hears"] and trained.speech_window != data.speech_window:
        raise PriorMismatch(
            f"{asked}: this prior was trained with data.speech_window {trained.speech_window}, this run has {data.speech_window}: "
            f"give --data.speech-window {trained.speech_window}, or other priors"
        )
