"""Trained judges in a folder: safetensors and a config.json that rebuilds them, with the figures that vouch for them."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spfem_dist.evaluation.judges.networks import IdentityNetwork, OracleNetwork, SynchronyNetwork
from spfem_dist.evaluation.judges.published import published_judges
from spfem_dist.evaluation.judges.settings import Identity, JudgeSettings, Oracle, Synchrony
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.saved import load_weights, misfit, read_config, save_model
from spfem_dist.storage import open_filesystem

NAMES = ("oracle", "identity", "synchrony")


@dataclass(frozen=True)
class Judges:
    """The three judges, frozen, and what their config.json files say.

    configs: by judge name; `facts` holds the run, the corpus and `figures`, their scores on held-out speakers and sentences.
    digest: of all their weights; equal judges give equal scores. kind: which networks they are, for every table.
    """

    oracle: OracleNetwork
    identity: IdentityNetwork
    synchrony: SynchronyNetwork
    configs: dict[str, dict[str, Any]]
    digest: str
    kind: str = "corpus"

    def __str__(self) -> str:
        facts = self.configs["oracle"]["facts"]
        return f"{self.kind}-trained judges {facts['run']!r}, corpus {facts['corpus']} {facts['digest'][:12]}, weights {self.digest}"

    def figures(self) -> dict[str, Estimate]:
        """The judges' own scores on held-out data, by path: `oracle/emotion_accuracy`, ..."""
        found: dict[str, Estimate] = {}
        for name, config in self.configs.items():
            spans = config["facts"].get("intervals", {})
            for key, value in config["facts"].get("figures", {}).items():
                low, high, *clips = spans.get(key, (value, value))
                found[f"{name}/{key}"] = Estimate(value, low, high, clips[0] if clips else 0)
        return found


def build_judge(name: str, settings: JudgeSettings, shape: dict[str, Any]) -> nn.Module:
    """A fresh judge. shape: what the corpus decides: `topology` (oracle), `speakers` (identity), `feature_dim` and
    `speech_window` (synchrony). Raises ValueError for a name or settings that belong to no judge.
    """
    if name == "oracle" and isinstance(settings, Oracle):
        return OracleNetwork(settings, shape["topology"])
    if name == "identity" and isinstance(settings, Identity):
        return IdentityNetwork(settings, shape["speakers"], shape.get("speaker_of"))
    if name == "synchrony" and isinstance(settings, Synchrony):
        return SynchronyNetwork(settings, shape["feature_dim"], shape["speech_window"])
    raise ValueError(f"no judge called {name!r} takes settings of type {type(settings).__name__}; judges: {NAMES}")


def save_judge(
    folder: Path | str,
    judge: nn.Module,
    *,
    name: str,
    settings: JudgeSettings,
    shape: dict[str, Any],
    facts: dict[str, Any],
) -> Path:
    """Write `model.safetensors` and `config.json` into `folder` (made if missing) and return the folder."""
    kept = {key: value for key, value in shape.items() if key != "speaker_of"}
    described = {"settings": settings.model_dump(mode="json"), "shape": kept, "facts": facts}
    return save_model(folder, "judge", name, judge, described)


def load_judge(folder: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The judge saved in `folder`, frozen, and its config.json.

    Raises FileNotFoundError where a file is missing and ValueError where the folder holds something else.
    """
    config = read_config(folder, "judge")
    try:
        settings = {"oracle": Oracle, "identity": Identity, "synchrony": Synchrony}[config["kind"]]
        judge = build_judge(config["kind"], settings(**config["settings"]), config["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "judge", error) from None
    load_weights(judge, folder, "judge")
    return judge.eval().requires_grad_(False), config


def load_judges(location: str) -> Judges:
    """The three judges of a finished run of recipes/metric_nets.py (a folder, or s3://bucket/prefix), or `published`.

    Raises FileNotFoundError that names the judge which is missing, or the weights (see `published_judges`).
    """
    if location == "published":
        published_judges()
    if location == "open":
        raise ValueError(
            "open judges score films of real faces (spfem evaluate real FOLDER), not crops of shards: give the folder of a run of "
            "recipes/metric_nets.py"
        )
    fs, root = open_filesystem(location)
    found: dict[str, nn.Module] = {}
    configs: dict[str, dict[str, Any]] = {}
    digest = hashlib.sha256()
    for name in NAMES:
        if not fs.exists(f"{root}/{name}/model/model.safetensors"):
            raise FileNotFoundError(
                f"no judge {name!r} under {location}: train the judges to their end (python recipes/metric_nets.py) "
                "and give the folder of that run"
            )
        with tempfile.TemporaryDirectory() as scratch:
            for file in ("config.json", "model.safetensors"):
                fs.get_file(f"{root}/{name}/model/{file}", f"{scratch}/{file}")
            found[name], configs[name] = load_judge(scratch)
            digest.update((Path(scratch) / "model.safetensors").read_bytes())
    oracle, identity, synchrony = (found[name] for name in NAMES)
    assert isinstance(oracle, OracleNetwork)
    assert isinstance(identity, IdentityNetwork)
    assert isinstance(synchrony, SynchronyNetwork)
    return Judges(oracle, identity, synchrony, configs, digest.hexdigest()[:12])
