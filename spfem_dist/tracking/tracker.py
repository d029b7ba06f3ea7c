"""One MLflow run as training sees it: metrics by samples seen, pictures, files, and an honest end.

A training run is one parent, with a child for each job. The job's headlines and pictures (see `sender`) are kept by both, so that
parents can be compared. Metric names are `train/<loss>`, `val/<loss>`, `perf/<figure>` and
`priors/<figure>`; the step axis is samples seen, so runs of any world size line up in the compare view.

Starting a new run is synchronous and fails fast; from then on nothing waits for the store (see `outbox`). A resumed run continues:
the store's last step of every metric is read, and points up to it are dropped, since they are there already. Where the store is away
at that moment, the run goes on and this happens once it answers.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from spfem_dist.config import Run
from spfem_dist.files import cache_folder
from spfem_dist.redact import redact, redact_settings
from spfem_dist.tracking import environment, stored, view
from spfem_dist.tracking.outbox import Item, Outbox, now, spooled
from spfem_dist.tracking.sender import Sender
from spfem_dist.tracking.store import (
    NOTE,
    TrackingUnavailable,
    flatten,
    open_client,
    open_experiment,
    reachable,
    wait_until_reachable,
)

log = logging.getLogger(__name__)

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
PARAM_LIMIT, TAG_LIMIT, PARAMS_PER_REQUEST = 6000, 5000, 100

_NAME = re.compile(r"[\w./ -]{1,250}")


class Tracker:
    """An open MLflow run, or, where `client` is None, one that keeps nothing. Made by `start`, `attach` or `silent`.

    greeting: given where the store was away at the start: what to tell it first, once it answers. Until then nothing is asked of it.
    As a context manager it ends the run by what happened: FINISHED, KILLED on Ctrl-C or exit, FAILED otherwise.
    """

    def __init__(
        self,
        client: Any = None,
        run_id: str = "",
        spool: Path | None = None,
        uri: str = "",
        parent_run_id: str = "",
        own: Collection[str] = (),
        greeting: Callable[[Tracker], None] | None = None,
    ):
        self.client, self.run_id, self.uri = client, run_id, uri
        self._ended = False
        self._last: dict[str, int] = {}
        if client is not None:
            self._spool = Path(spool or cache_folder("tracking") / run_id)
            if greeting is None:
                self._last = stored.last_steps(client, run_id)
            for item in spooled(self._spool):  # left by an attempt that died while the store was away
                if item.kind == "metric":
                    self._last[item.key] = max(item.step, self._last.get(item.key, -1))
            sender = Sender(client, run_id, parent_run_id, own, greeting and (lambda: greeting(self)))
            self.outbox = Outbox(sender.deliver, self._spool, name=f"tracking store {redact(uri)}")

    # --- what training calls ---------------------------------------------------------------------------------------

    def metrics(self, values: Mapping[str, float], samples: int) -> None:
        """Queue one point of each metric at `samples` seen. Points the store has already are left out.

        Raises ValueError for a name MLflow would refuse. Values that are not finite are kept: they are news.
        """
        if self.client is None:
            return
        moment, points = now(), []
        for name, value in values.items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"metric name {name!r}: use letters, digits and _ . / - and spaces, at most 250, e.g. train/content/contrast"
                )
            if samples > self._last.get(name, -1):
                self._last[name] = samples
                points.append(Item("metric", name, float(value), moment, samples))
        if points:
            self.outbox.put(*points)

    def picture(self, key: str, image: np.ndarray, samples: int) -> None:
        """Queue a picture, uint8 [H, W, 3] RGB; one `key` gets a slider over samples seen in the UI."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"picture {key!r} is {image.dtype} {image.shape}; expected uint8 [height, width, 3]")
        if not _NAME.fullmatch(key):
            raise ValueError(f"picture key {key!r}: use letters, digits and _ . / - and spaces, at most 250")
        if self.client is not None:
            self.outbox.put(Item("picture", key, image.copy(), now(), samples))

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """Queue a file, or a folder with all that is in it, for upload; it must stay where it is until then."""
        path = Path(path).resolve()
        if not path.exists():
            raise FileNotFoundError(f"{path} cannot be kept as an artifact: no such file")
        if self.client is not None:
            self.outbox.put(Item("artifact", folder, str(path), now()))

    def table(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Queue rows as `name`.json, which the UI shows as a table and can compare between runs."""
        rows = list(rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self.text(f"{name}.json", json.dumps({"columns": columns, "data": data}, default=str), kind="table")

    def settings(self, name: str, values: Mapping[str, Any]) -> None:
        """Queue nested `values` as the file `name` (JSON), without secrets."""
        self.text(name, json.dumps(redact_settings(values), indent=2, default=str) + "\n")

    def text(self, name: str, text: str, kind: str = "text") -> None:
        """Queue `text` as the file `name`."""
        if self.client is not None:
            self.outbox.put(Item(kind, name, text, now()))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Queue tags; secrets are redacted, long values cut."""
        if self.client is not None:
            self.outbox.put(*(Item("tag", key, _cut(redact(value), TAG_LIMIT), now()) for key, value in values.items()))

    def params(self, settings: Mapping[str, Any]) -> None:
        """Log settings (nested or dotted) now, without secrets. MLflow cannot change a parameter: where a resumed run's
        setting differs, the first value stays and a tag `changed.<name>` says what it is now."""
        if self.client is None:
            return
        from mlflow.entities import Param

        flat = {key: _cut(_plain(value), PARAM_LIMIT) for key, value in flatten(redact_settings(settings)).items()}
        there = self.client.get_run(self.run_id).data.params
        missing = [Param(key, value) for key, value in flat.items() if key not in there]
        for i in range(0, len(missing), PARAMS_PER_REQUEST):
            self.client.log_batch(self.run_id, params=missing[i : i + PARAMS_PER_REQUEST])
        changed = {key: value for key, value in flat.items() if key in there and there[key] != value}
        for key, value in changed.items():
            self.client.set_tag(self.run_id, f"changed.{key}", _cut(f"{there[key]} -> {value}", TAG_LIMIT))
        if changed:
            log.warning("run %s continues with other settings than it began with: %s", self.run_id, ", ".join(changed))

    def dataset(
        self, name: str, digest: str, source: str, counts: Mapping[str, float], context: str = "training"
    ) -> None:
        """Say which data the run reads: `digest` of the shard index, `source` folder or URI, `counts` such as groups, clips."""
        if self.client is None:
            return
        facts = {
            "name": name[:500],
            "digest": digest[:12],  # the table of runs shows all of it; the whole one is a tag of each model
            "source": redact(source),
            "counts": dict(counts),
            "context": context,
        }
        self.outbox.put(Item("dataset", name, json.dumps(facts), now()))
        self.tags({f"data.{context}": f"{name} {digest[:12]} {redact(source)}"})

    def secure(self) -> None:
        """Write what has not arrived to disk. Called with each checkpoint, so that a killed job loses no point before it."""
        if self.client is not None:
            self.outbox.spool()

    def flush(self, timeout: float = 20.0, patient: bool = False) -> bool:
        """Wait until everything has arrived, at most `timeout` seconds; not for a store that is away, unless `patient`."""
        return self.client is None or self.outbox.flush(timeout, patient)

    def finish(self, status: str = FINISHED, reason: str = "", timeout: float = 20.0, patient: bool = False) -> None:
        """End the run as FINISHED, FAILED or KILLED (stopped), with the reason as a tag. A second call does nothing.

        timeout, patient: see `flush`; what has not arrived by then stays in the spool folder.
        """
        if status not in (FINISHED, FAILED, KILLED):
            raise ValueError(f"status {status!r}; expected {FINISHED}, {FAILED} or {KILLED}")
        if self.client is None or self._ended:
            return
        self._ended = True
        self.tags({"end.status": status.lower(), "end.reason": reason or "-"})
        self.outbox.put(Item("status", "status", status, now()))
        self.outbox.close(timeout, patient)

    def close(self, timeout: float = 20.0) -> None:
        """Deliver and let go, leaving the run's status as it is."""
        if self.client is not None and not self._ended:
            self._ended = True
            self.outbox.close(timeout)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish(FINISHED)
        elif isinstance(error, KeyboardInterrupt | SystemExit) or getattr(error, "stopped", False):
            self.finish(KILLED, f"stopped: {error}" if str(error) else "stopped")
        else:
            self.finish(FAILED, f"{type(error).__name__}: {error}")


def silent() -> Tracker:
    """A tracker that keeps nothing: tracking turned off, and every rank but 0."""
    return Tracker()


def start_parent(run: Run, resume_run_id: str | None = None, tags: Mapping[str, str] | None = None) -> str:
    """Open (or continue) the MLflow run of the whole training run; returns its id, '' where tracking is off.

    Raises TrackingUnavailable where the store does not answer a run that is new; a resumed one goes on without it.
    """
    above = {"mlflow.parentRunId": run.tracking.parent} if run.tracking.parent else {}
    above |= {"sweep": run.tracking.sweep} if run.tracking.sweep else {}
    tracker = _open(run, run.name, None, resume_run_id, {"kind": "training", **above, **(tags or {})}, 0)
    tracker.close()
    return tracker.run_id


def finish_parent(run: Run, run_id: str, status: str = FINISHED, reason: str = "") -> None:
    """End the parent run. A store that is away is waited for, `tracking.wait_s` at most."""
    if run.tracking.uri and run_id:
        client = open_client(run.tracking.uri)
        parent = Tracker(client, run_id, _spool(run, run_id), run.tracking.uri, greeting=lambda _tracker: None)
        parent.finish(status, reason, run.tracking.wait_s, patient=status == FINISHED)
        keep_view(parent)


def start(
    run: Run,
    job: str,
    parent_run_id: str | None = None,
    resume_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    samples: int = 0,
) -> Tracker:
    """Open (or continue) the MLflow run of one job, child of `parent_run_id`. samples: seen at the resumed checkpoint.
    tags: among them `method`, where that is not the job's name.

    Where the store is away, a resumed run goes on and tells it later; a new one waits `tracking.wait_s` if its parent was
    opened before. Raises TrackingUnavailable after that.
    """
    if parent_run_id and not resume_run_id:
        wait_until_reachable(run.tracking.uri, run.tracking.wait_s)
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    return _open(
        run,
        f"{run.name}-{job}",
        job,
        resume_run_id,
        {"kind": "job", "job": job, "method": job, **parent, **(tags or {})},
        samples,
    )


def attach(run: Run, run_id: str) -> Tracker:
    """The tracker of a run that is there, whatever its status: to add final figures or pictures. End it with `close`."""
    if not run.tracking.uri or not run_id:
        return silent()
    client = open_client(run.tracking.uri)
    tags = client.get_run(run_id).data.tags
    parent, own = tags.get("mlflow.parentRunId", ""), _own(tags)
    return Tracker(client, run_id, _spool(run, run_id), run.tracking.uri, parent, own)


def deliver_leftovers(run: Run, timeout: float = 20.0) -> int:
    """Send what earlier attempts of this run left in its spool folder; returns the number of items still there."""
    left = 0
    for folder in sorted(_spool(run, "").glob("*/")):
        if any(True for _ in spooled(folder)):
            left += attach(run, folder.name).outbox.close(timeout)
    return left


def keep_view(tracker: Tracker) -> None:
    """The experiment's saved view, with what this run has had. A convenience: what stands in its way is said and no more."""
    from mlflow.exceptions import MlflowException

    if tracker.client is None:
        return
    try:
        view.keep(tracker.client, tracker.run_id)
    except (MlflowException, ValueError, KeyError, TypeError) as error:
        log.info("the saved view of the experiment stays as it was: %s", redact(error))


def _own(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The first parts of the names of what the job logs that has these tags."""
    return tuple(tags[key] for key in ("job", "method") if key in tags)


def _open(run: Run, title: str, job: str | None, resume: str | None, tags: dict[str, str], samples: int) -> Tracker:
    uri = run.tracking.uri
    if not uri:
        return silent()
    from mlflow.exceptions import MlflowException

    tags = {"mlflow.runName": title, **environment.tags(run), **tags}
    tags = {key: _cut(redact(value), TAG_LIMIT) for key, value in tags.items()}
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    parent, client = tags.get("mlflow.parentRunId", ""), open_client(uri)

    def greet(tracker: Tracker, attempt: int = 0) -> None:
        """Tell the store that the run goes on, and with what."""
        if not attempt:
            attempt = int(client.get_run(tracker.run_id).data.tags.get("attempt", "1")) + 1
            client.update_run(tracker.run_id, status="RUNNING")
        tracker.params(run.model_dump(mode="json"))
        tracker.settings("run.json", run.model_dump(mode="json"))
        tracker.text("command.sh", environment.command(run))
        world = run.scaling.most
        told = {
            "attempt": str(attempt),
            f"attempt.{attempt}": f"{when} workers={world} host={tags['host']} samples={samples}",
        }
        tracker.tags({**tags, **told, "workers": str(world)})
        tracker.metrics({"run/workers": world, "run/attempt": attempt}, samples)

    try:
        experiment = open_experiment(uri, run.tracking.experiment, f"{run.checkpoint.storage.rstrip('/')}/mlartifacts")
        run_id = _continued(client, resume, uri)
        new = run_id is None
        if run_id is None:
            note = {
                NOTE: _cut(redact(environment.note(run, job)), TAG_LIMIT)
            }  # once: a person may have written it anew
            if job is None:
                note |= {view.COLOR: view.color(client, experiment)}
            run_id = client.create_run(experiment, run_name=title, tags=tags | note).info.run_id
        tracker = Tracker(client, run_id, _spool(run, run_id), uri, parent, _own(tags))
        greet(tracker, attempt=int(new))
    except (MlflowException, TrackingUnavailable) as error:
        if resume and reachable(uri).away:
            place = _spool(run, resume)
            log.warning("tracking store %s is away; the run goes on, and what it logs waits in %s", redact(uri), place)
            return Tracker(client, resume, place, uri, parent, _own(tags), greet)
        if isinstance(error, TrackingUnavailable):
            raise
        raise TrackingUnavailable(f"tracking store {redact(uri)} refused run {title!r}: {redact(error)}") from None
    return tracker


def _continued(client: Any, run_id: str | None, uri: str) -> str | None:
    """`run_id` if the store has it (brought back if it was deleted), else None."""
    if not run_id:
        return None
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        log.warning(
            "run %s is not in tracking store %s (another store, or emptied); a new MLflow run begins",
            run_id,
            redact(uri),
        )
        return None
    if found.info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    return run_id


def _spool(run: Run, run_id: str) -> Path:
    """Folder for what waits: in the run's folder, or under the home folder where the run lies in object storage."""
    folder = run.folder()
    root = cache_folder("tracking") / run.name if "://" in folder else Path(folder) / "tracking"
    return root / run_id


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."
