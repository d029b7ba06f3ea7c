"""Trained priors and generators as registered models, named `models:/NAME`, `models:/NAME@champion`, `models:/NAME/3`."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spfem_dist.files import cache_folder, file_sha256
from spfem_dist.redact import redact
from spfem_dist.saved import check_weights, what_of
from spfem_dist.tracking import lineage
from spfem_dist.tracking.outbox import now
from spfem_dist.tracking.store import TrackingUnavailable, open_client, reachable

log = logging.getLogger(__name__)

#: The alias that follows the newest version.
CANDIDATE = "candidate"
#: What is registered: what a person reads about it. The script of the MLflow model is KIND_model.py, its artifact bears the kind's name.
KINDS = {
    "prior": "A prior trained by stage 1: `python recipes/cdrl_stage2.py --priors models:/{name}` trains a generator under it.",
    "generator": "A generator trained by stage 2: it changes the emotion of a talking face and keeps its speech. "
    "`spfem edit talk.mp4 --emotion happy --out edited.mp4 --generator models:/{name}@champion`, or mlflow.pyfunc.load_model.",
}
#: Stored beside a generator, for whoever looks how it is called.
EDIT_EXAMPLE = {"source": ["talk.mp4"], "out": ["edited.mp4"], "emotion": ["happy"]}
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))?")


def register_model(
    uri: str,
    folder: str | Path,
    name: str,
    run_id: str = "",
    metrics: Mapping[str, float] | None = None,
    samples: int = 0,
    tags: Mapping[str, Any] | None = None,
    alias: str = CANDIDATE,
    champion_metric: str = "",
) -> str:
    """Register the prior or generator saved in `folder` as the next version of model `name`; returns that version.

    uri: tracking store. run_id: the MLflow run that trained it. metrics: its figures, shown beside the model, at `samples`.
    tags: of the version, beside those of its origin. alias: moved to the new version; '' moves none.
    champion_metric: see `lineage.promote_champion`. The same weights twice give one version: the first is returned.
    Raises TrackingUnavailable where the store does not answer, FileNotFoundError where `folder` holds no weights,
    ValueError where they are damaged or not finite.
    """
    from mlflow.exceptions import MlflowException

    folder = Path(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"no model.safetensors in {folder}: give the folder of one prior or generator, as a finished run saved it"
        )
    config = json.loads((folder / "config.json").read_text())
    kind = what_of(config)
    if kind not in KINDS:
        raise ValueError(f"{folder} holds a {kind or 'model without a format'}: priors and generators are registered")
    check_weights(folder)
    client = _answering(uri)
    digest = file_sha256(weights)
    for known in client.search_model_versions(f"name = '{name}' and tags.sha256 = '{digest}'"):
        if (known.run_id or "") == run_id:
            _point(client, name, alias, known.version)
            return str(known.version)
    try:
        client.create_registered_model(name, description=KINDS[kind].format(name=name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = client.get_run(run_id).info.experiment_id if run_id else "0"
    model = client.create_logged_model(experiment, name=name, source_run_id=run_id or None, model_type=kind)
    try:
        with tempfile.TemporaryDirectory() as place:
            _save(Path(place) / "model", folder, kind, model.model_id, run_id)
            client.log_model_artifacts(model.model_id, str(Path(place) / "model"))
        client.finalize_logged_model(model.model_id, "READY")
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    if run_id:
        _link(client, run_id, model.model_id, metrics or {}, samples)
    guides = lineage.registered_priors(client, config)
    if run_id and guides:
        _descend(client, run_id, guides)
    told = {"sha256": digest, "samples": str(samples)} | lineage.tags_of(config, kind)
    told |= {f"prior.{key}": f"models:/{key}/{version.version}" for key, version in guides.items()}
    told |= {key: redact(value) for key, value in (tags or {}).items()}
    with _process_uses(uri):
        made = client.create_model_version(
            name,
            f"models:/{model.model_id}",
            run_id or None,
            tags=told,
            description=_described(kind, told),
            model_id=model.model_id,
        )
    _point(client, name, alias, made.version)
    lineage.promote_champion(client, name, str(made.version), champion_metric)
    return str(made.version)


def fetch_model(uri: str | Path, tracking_uri: str = "", into: str | Path | None = None) -> Path:
    """The folder of a prior or generator, ready for `load_prior` or `load_generator`, fetched from where `uri` says.

    uri: `models:/NAME` (newest version), `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/RUN_ID/PATH`, or a local folder.
    into: where files fetched from a server go; by default a folder under the user's cache.
    Raises FileNotFoundError that says what there is instead.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.utils.file_utils import local_file_uri_to_path

    text = str(uri)
    if not text.startswith(("models:/", "runs:/")):
        return _weights_inside(Path(text), text)
    if not tracking_uri:
        raise TrackingUnavailable(
            f"{text} names a tracked model, and tracking is turned off: set tracking.uri, or give a folder"
        )
    client = _answering(tracking_uri)
    source, key = text, text.removeprefix("runs:/").replace("/", "-")
    if text.startswith("models:/"):
        version = _resolve(client, text)
        source = client.get_model_version_download_uri(version.name, version.version)
        key = f"{version.name}-{version.version}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
        if source.startswith("file:"):  # on this machine, as with SQLite: nothing to fetch
            return _weights_inside(Path(local_file_uri_to_path(source)), text)
    place = Path(into) if into else cache_folder("models") / key
    place.mkdir(parents=True, exist_ok=True)
    try:
        found = download_artifacts(artifact_uri=source, dst_path=str(place), tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise FileNotFoundError(f"{text} could not be fetched from {redact(tracking_uri)}: {redact(error)}") from None
    return _weights_inside(Path(found), text)


@contextmanager
def _process_uses(uri: str) -> Iterator[None]:
    """A registry in a database looks up the logged model through the process's tracking URI, not its client's."""
    import mlflow

    if uri.startswith(("http://", "https://")):
        yield
        return
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


def _answering(uri: str) -> Any:
    reach = reachable(uri)
    if not uri or not reach.ok:
        raise TrackingUnavailable(
            f"the model registry at {redact(uri) or '(tracking is off)'} cannot be used: {reach.detail}"
        )
    return open_client(uri)


def _resolve(client: Any, uri: str) -> Any:
    """The model version that `uri` names."""
    from mlflow.exceptions import MlflowException

    parts = _URI.fullmatch(uri)
    if parts is None:
        raise FileNotFoundError(f"{uri} is not a model: write models:/NAME, models:/NAME@ALIAS or models:/NAME/VERSION")
    versions = sorted(client.search_model_versions(f"name = '{parts['name']}'"), key=lambda v: int(v.version))
    if not versions:
        known = ", ".join(f"models:/{m.name}" for m in client.search_registered_models()) or "none"
        raise FileNotFoundError(
            f"{uri} does not exist; registered models: {known}. Train stage 1 first, or give a folder"
        )
    if parts["alias"]:
        try:
            return client.get_model_version_by_alias(parts["name"], parts["alias"])
        except MlflowException:
            known = ", ".join(client.get_registered_model(parts["name"]).aliases) or "none"
            raise FileNotFoundError(f"{uri} does not exist; aliases of {parts['name']}: {known}") from None
    if parts["version"]:
        chosen = [v for v in versions if str(v.version) == parts["version"]]
        if not chosen:
            known = ", ".join(str(v.version) for v in versions)
            raise FileNotFoundError(f"{uri} does not exist; versions of {parts['name']}: {known}")
        return chosen[0]
    return versions[-1]


def _weights_inside(folder: Path, asked: str) -> Path:
    """The folder in or under `folder` that holds the weights."""
    found = sorted(file.parent for file in folder.rglob("model.safetensors")) if folder.is_dir() else []
    if len(found) != 1:
        what = f"{len(found)} models ({', '.join(map(str, found))})" if found else "no model.safetensors"
        raise FileNotFoundError(f"{asked} holds {what}; expected the folder of one model, or models:/NAME")
    return found[0]


def _save(target: Path, folder: Path, kind: str, model_id: str, run_id: str) -> None:
    """Write an MLflow model folder around what is in `folder`."""
    import mlflow.pyfunc
    from mlflow.models import Model

    with warnings.catch_warnings(
        record=True
    ):  # it asks a prior for an input example, which would store faces beside the model
        mlflow.pyfunc.save_model(
            target,
            python_model=str(Path(__file__).with_name(f"{kind}_model.py")),
            artifacts={kind: str(folder.resolve())},
            signature=_signature(folder) if kind == "prior" else _edit_signature(),
            input_example=None if kind == "prior" else pd.DataFrame(EDIT_EXAMPLE),
            pip_requirements=[f"{name}=={installed(name)}" for name in ("mlflow", "torch", "safetensors")],
            mlflow_model=Model(model_id=model_id, run_id=run_id or None),
        )


def _signature(folder: Path) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    config = json.loads((folder / "config.json").read_text())
    size, window = config["data"]["size"], config["data"]["speech_window"]
    inputs: list[Any] = [TensorSpec(np.dtype(np.uint8), (-1, 3, size, size), "frames")]
    if config["hears"]:
        inputs.append(TensorSpec(np.dtype(np.float32), (-1, window, config["feature_dim"]), "speech"))
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]))


def _edit_signature() -> Any:
    """A clip in a row, as `generator_model.py` takes it, and what it says of each."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    optional = ("emotion", "reference", "preview", "faces", "landmarks", "reference_landmarks")
    inputs: list[Any] = [ColSpec("string", "source"), ColSpec("string", "out")]
    inputs += [ColSpec("string", name, required=False) for name in optional]
    inputs += [ColSpec("double", "strength", required=False)]
    outputs = {"out": "string", "frames": "long", "seconds": "double", "remarks": "string"}
    return ModelSignature(Schema(inputs), Schema([ColSpec(kind, name) for name, kind in outputs.items()]))


def _described(kind: str, tags: Mapping[str, str]) -> str:
    """A version in a sentence, for the model's page."""
    guided = [f"`{value}`" for key, value in tags.items() if re.fullmatch(r"prior\.\w+", key)]
    under = f", guided by {' and '.join(guided)}" if guided else ", without guidance" if kind == "generator" else ""
    where = f" on `{redact(tags['data.shards'])}`" if "data.shards" in tags else ""
    return f"From run `{tags.get('run', '?')}` after {int(tags['samples']):,} samples{where}{under}."


def _descend(client: Any, run_id: str, guides: Mapping[str, Any]) -> None:
    """Name the priors as models that went into the run; the UI links them both ways."""
    from mlflow.entities import LoggedModelInput

    ids = [version.source.removeprefix("models:/") for version in guides.values()]
    client.log_inputs(run_id, models=[LoggedModelInput(model_id) for model_id in ids])


def _link(client: Any, run_id: str, model_id: str, metrics: Mapping[str, float], samples: int) -> None:
    from mlflow.entities import LoggedModelOutput, Metric

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=samples)])
    # A model's figure is a point of its run too. Where training logged that point already, the same moment makes it the same.
    logged = {(m.key, m.step): m.timestamp for m in client.get_run(run_id).data.to_proto().metrics}
    points = [
        Metric(key, float(value), logged.get((key, samples), now()), samples, model_id=model_id, run_id=run_id)
        for key, value in metrics.items()
    ]
    if points:
        client.log_batch(run_id, metrics=points)


def _point(client: Any, name: str, alias: str, version: str) -> None:
    if alias:
        client.set_registered_model_alias(name, alias, version)
