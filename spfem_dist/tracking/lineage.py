"""Where a registered model comes from, and which version of it is the champion."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spfem_dist.redact import redact
from spfem_dist.saved import PARAMETERS

log = logging.getLogger(__name__)

#: The alias of the version to use.
CHAMPION = "champion"


def tags_of(config: Mapping[str, Any], kind: str) -> dict[str, str]:
    """What the export's config.json says of its origin, as tags of the version: run, seed, form, shards, priors with their sums."""
    facts, settings, data = (config.get(key) or {} for key in ("facts", "settings", "data"))
    tags = {"kind": kind, "form": settings.get("form"), "network": settings.get("network")}
    tags |= {key: facts.get(key) for key in ("run", "seed")}
    tags |= {"data.shards": data.get("shards"), "data.split": data.get("split")}
    for name, source in facts.get("priors", {}).items():
        tags |= {f"prior.{name}": source["from"], f"prior.{name}.sha256": source["sha256"]}
    tags[PARAMETERS] = config.get(PARAMETERS)
    return {key: portable(redact(value)) for key, value in tags.items() if value not in (None, "")}


def portable(text: str) -> str:
    """A folder of this machine by its last two names, which mean something elsewhere too; anything else as it is."""
    return "/".join(Path(text).parts[-2:]) if Path(text).is_absolute() else text


def registered_priors(client: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """By name, the newest registered version of each prior that guided this generator; priors that are not registered are left out."""
    found = {}
    for name, source in (config.get("facts") or {}).get("priors", {}).items():
        versions = client.search_model_versions(f"name = '{name}' and tags.{PARAMETERS} = '{source['sha256']}'")
        if versions:
            found[name] = max(versions, key=lambda version: int(version.version))
    return found


def promote_champion(client: Any, name: str, version: str, metric: str = "") -> bool:
    """Give `version` of model `name` the alias `champion` where the rule says so; returns whether it has it now.

    The first version gets it. A later one takes it over where its `metric` (a loss: lower is better) is below the champion's, both
    trained on shards of the same digest. Without a metric the alias stays where it is until somebody moves it.
    """
    from mlflow.exceptions import MlflowException

    try:
        champion = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        champion = None
    if champion is not None and str(champion.version) != version:
        challenger = client.get_model_version(name, version)
        if not metric or challenger.tags.get("data.digest") != champion.tags.get("data.digest"):
            return False
        old, new = (_figure(client, one, metric) for one in (champion, challenger))
        if new is None:
            log.warning("models:/%s/%s has no figure %s, so %s stays as it is", name, version, metric, CHAMPION)
            return False
        if old is not None and old <= new:
            return False
    client.set_registered_model_alias(name, CHAMPION, version)
    return True


def _figure(client: Any, version: Any, metric: str) -> float | None:
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    points = [point for point in model.metrics or () if point.key == metric]
    return max(points, key=lambda point: point.step).value if points else None
