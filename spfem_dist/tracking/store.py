"""Where runs are kept: the tracking store behind a URI, and whether it answers."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import logging
import os
import re
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from spfem_dist.redact import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MENDING = (
    "give another store, e.g. --tracking.uri sqlite:///runs/mlflow.db, or turn tracking off with --tracking.uri ''"
)

#: Opens the experiment in the UI's model training view instead of the one for language-model applications.
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}
#: The key of the saved view that `view.keep` writes: a part of its tag, and of the address that opens it.
VIEW = "losses"
#: The description of a run or an experiment in the UI, Markdown.
NOTE = "mlflow.note.content"
ABOUT = """One parent for each training run, with a child for each network that it trains. The step axis is samples seen, so that curves of any
number of workers lie over each other: tick two parents, *Compare*, *Show diff only*. `train/` and `val/` are losses, `perf/` is speed,
`priors/` and `stage2/` are scores of `spfem evaluate`. Finished networks are registered models; the alias `champion` is the one to use."""

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REFUSED = 401, 403


class TrackingUnavailable(RuntimeError):
    """The tracking store cannot be used; the message names it (secrets redacted) and the way out."""


class Reach(NamedTuple):
    """Whether the store answers, and what was found, fit to print."""

    ok: bool
    detail: str
    away: bool = False
    """It does not answer now and may later, as opposed to: it refuses, or is no such store."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names: `{"data": {"size": 64}}` is `{"data.size": 64}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def reachable(uri: str, timeout: float = 5.0) -> Reach:
    """Ask the store at `uri` for a sign of life, and change nothing there.

    timeout: seconds until it has to be connected. An MLflow server that is new makes its tables before its first answer, so for that it
    gets four times as long.
    """
    if not uri:
        return Reach(True, "tracking is turned off")
    try:
        scheme = urlsplit(uri).scheme
        if scheme == "sqlite":
            return _sqlite_reachable(_sqlite_file(uri))
        if scheme in ("http", "https"):
            return _server_reachable(uri, timeout)
        database = scheme.split("+")[0]
        if database in _DATABASE_PORTS:
            return _database_reachable(uri, _DATABASE_PORTS[database], timeout)
    except ValueError:  # whose text holds a part of the address, and so perhaps of its password
        return Reach(
            False,
            f"{redact(uri)} is not a usable URI: its host or port is none; in a password [ ] / : @ are written as %5B %5D %2F %3A %40",
        )
    known = "sqlite:///file.db, http(s)://server:port, postgresql://..."
    return Reach(False, f"tracking.uri {redact(uri)!r} is not a store MLflow can write to; it knows {known}")


def wait_until_reachable(uri: str, seconds: float, every: float = 2.0) -> bool:
    """Wait for a store that is away, at most `seconds`; whether it answers. What waiting does not mend is not waited for."""
    deadline, told = time.monotonic() + seconds, False
    while not (reach := reachable(uri)).ok and reach.away and time.monotonic() < deadline:
        if not told:
            log.warning("waiting up to %.0f s for the tracking store: %s", seconds, reach.detail)
            told = True
        time.sleep(every)
    return reach.ok


def open_client(uri: str) -> MlflowClient:
    """A client for the tracking store and model registry at `uri`. No server is contacted yet; a new SQLite file gets its tables.

    Raises TrackingUnavailable for what MLflow cannot open, such as a folder of files or a database of another version.
    """
    # Printing run links would show a password in the URI; long retries are the outbox's business, not each request's.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would run through the status line
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _opened(uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise TrackingUnavailable(
            f"tracking store {redact(uri)} cannot be used: {redact(error)}. Fix it, or {MENDING}"
        ) from None


def _opened(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:///"):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    file = _sqlite_file(uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start together on a new file would both make its tables, and one of them would fail.
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_experiment(uri: str, experiment: str, artifacts: str | None = None) -> str:
    """The id of `experiment` at `uri`, made if it is not there (and brought back if it was deleted).

    artifacts: folder or URI for files of a new experiment; by default beside an SQLite file, or the server's choice.
    Raises TrackingUnavailable where the store does not answer.
    """
    reach = reachable(uri)
    if not reach.ok:
        raise TrackingUnavailable(f"tracking store {redact(uri)} cannot be used: {reach.detail}. Fix it, or {MENDING}")
    from mlflow.exceptions import MlflowException

    client = open_client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            try:
                where = _artifact_location(uri, experiment, artifacts)
                return client.create_experiment(experiment, artifact_location=where, tags=TRAINING_VIEW | {NOTE: ABOUT})
            except MlflowException:  # another process made it between the two calls
                found = client.get_experiment_by_name(experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    except MlflowException as error:
        raise TrackingUnavailable(
            f"tracking store {redact(uri)} refused experiment {experiment!r}: {redact(error)}. Fix it, or {MENDING}"
        ) from None


def experiment_page(
    experiment_id: str, server: str = "http://127.0.0.1:5000", runs: Sequence[str] = (), view: str = VIEW
) -> str:
    """Address of an experiment's charts in the UI, in its view for model training; with `runs`, of their comparison. view: a saved one."""
    server = redact(server).rstrip("/")
    if runs:
        return f"{server}/#/compare-runs?runs={quote(json.dumps(list(runs)))}&experiments={quote(json.dumps([experiment_id]))}"
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={view}"


def _artifact_location(uri: str, experiment: str, artifacts: str | None) -> str | None:
    if uri.startswith(("http://", "https://")):
        return None  # the server knows where its files go
    if uri.startswith("sqlite:"):
        artifacts = str(_sqlite_file(uri).parent / "mlartifacts")
    if artifacts is None:
        artifacts = "mlartifacts"
    folder = re.sub(r"[^\w.-]+", "-", experiment)
    if "://" in artifacts:
        return f"{artifacts.rstrip('/')}/{folder}"
    return (Path(artifacts).expanduser().resolve() / folder).as_uri()


def _sqlite_file(uri: str) -> Path:
    return Path(urlsplit(uri).path.removeprefix("/") or "mlflow.db").resolve()


def _sqlite_reachable(file: Path) -> Reach:
    if file.is_dir():
        return Reach(False, f"{file} is a folder; name a file in it, e.g. sqlite:///{file}/mlflow.db")
    if file.exists():
        if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
            return Reach(
                False, f"{file} (or its folder) cannot be written; change its permissions or choose another file"
            )
        try:
            # To read what a killed process was writing SQLite first takes it back, which needs mode=rw; nothing else is written.
            with sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=1) as database:
                tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
                versions = (
                    [row[0] for row in database.execute("select version_num from alembic_version")]
                    if "alembic_version" in tables
                    else []
                )
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                return Reach(False, f"{file} cannot be opened: {error}")
        except sqlite3.DatabaseError as error:
            return Reach(False, f"{file} is not an SQLite database ({error}); choose another file")
        if versions and (known := _schema_versions()) and set(versions) != known:
            return Reach(
                False,
                f"{file} was written by another version of MLflow (its schema is {', '.join(versions)}, this one's {', '.join(known)}): "
                f"keep a copy and run `mlflow db upgrade sqlite:///{file}`, or choose another file",
            )
        return Reach(True, f"SQLite file {file}")
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Reach(False, f"{file} cannot be made: {folder} is not a writable folder")
    return Reach(True, f"SQLite file {file}, will be made")


def _schema_versions() -> set[str]:
    """The newest schema that the installed MLflow knows; nothing where its migrations are not where they used to be."""
    found = importlib.util.find_spec("mlflow")
    folder = Path(found.origin).parent / "store/db_migrations/versions" if found and found.origin else Path()
    ours = {"revision": set[str](), "down_revision": set[str]()}
    for file in folder.glob("*.py") if folder.name == "versions" else ():
        for name, value in re.findall(
            r"""^(revision|down_revision)\s*=\s*["'](\w+)["']""", file.read_text(), re.MULTILINE
        ):
            ours[name].add(value)
    return ours["revision"] - ours["down_revision"]


def _server_reachable(uri: str, timeout: float) -> Reach:
    import requests

    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    try:
        answer = requests.post(
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search",
            json={"max_results": 1},
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(user, password) if user and password and not token else None,
            verify=os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true"),
            timeout=(timeout, 4 * timeout),
        )
    except requests.Timeout as error:
        waited = timeout if isinstance(error, requests.ConnectTimeout) else 4 * timeout
        detail = f"{redact(uri)} did not answer within {waited:g} s; is the server up and the address right?"
        return Reach(False, detail, away=True)
    except requests.RequestException as error:
        reason = str(getattr(error, "reason", None) or error.__class__.__name__)
        detail = f"{redact(uri)} does not answer ({redact(reason)}); is the server up and the address right?"
        return Reach(False, detail, away=True)
    if answer.status_code in _REFUSED:
        return Reach(
            False,
            f"{redact(uri)} refuses access (HTTP {answer.status_code}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment",
        )
    if not answer.ok:
        detail = f"{redact(uri)} answers HTTP {answer.status_code}; is this an MLflow server?"
        return Reach(False, detail, away=answer.status_code >= 500)
    try:
        answer.json()
    except ValueError:
        return Reach(False, f"{redact(uri)} answers, but not as an MLflow server does; is the address right?")
    return Reach(True, f"MLflow server {redact(uri)}")


def _database_reachable(uri: str, default_port: int, timeout: float) -> Reach:
    parts = urlsplit(uri)
    host, port = parts.hostname or "localhost", parts.port or default_port
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError as error:
        detail = f"{host}:{port} does not answer ({error}); is the database up and the address right?"
        return Reach(False, detail, away=True)
    return Reach(True, f"database {redact(uri)}: {host}:{port} answers (log-in not tried)")
