"""How items reach MLflow: what the outbox's thread calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from typing import Any

from spfem_dist.tracking import stored
from spfem_dist.tracking.outbox import Item, Refused

TABLES_TAG = "mlflow.loggedArtifacts"  # the UI lists tables by this tag

_NEVER = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"


#: Training losses of a job that its parent shows too; the child has all of them.
HEADLINES = 5


class Sender:
    """Sends items to the run `run_id`, and to `parent` the headlines: the job's own held-out losses, its first `HEADLINES` training
    losses, its pictures. The UI's charts show the runs of its table, where children appear only under a parent that somebody opened: so
    two training runs are compared by what their parents have.

    own: names of the job and its method, the first parts of the names of its losses.
    greeting: called before the first item where the store was away when the run was resumed; points that the store has already
    are known only from then on, and are dropped here.
    """

    def __init__(
        self,
        client: Any,
        run_id: str,
        parent: str = "",
        own: Collection[str] = (),
        greeting: Callable[[], None] | None = None,
    ):
        self.client, self.run_id, self._parent, self._own = client, run_id, parent, own
        self._headlines: set[str] | None = None
        self._greeting = greeting
        self._known: dict[str, int] = {}
        self._pictures: set[tuple[str, int]] | None = None

    def deliver(self, items: list[Item]) -> None:
        """Send `items`; raises Refused for what the store will never take."""
        from mlflow.entities import Metric, RunTag
        from mlflow.exceptions import MlflowException

        tags = [RunTag(i.key, i.value) for i in {i.key: i for i in items if i.kind == "tag"}.values()]
        try:
            if self._greeting is not None:  # the store was away when the run began
                known = stored.last_steps(self.client, self.run_id)
                greeting, self._greeting = self._greeting, None
                try:
                    greeting()
                except BaseException:
                    self._greeting = greeting
                    raise
                self._known = known
            news = [i for i in items if i.kind == "metric" and i.step > self._known.get(i.key, -1)]
            points = [Metric(i.key, i.value, i.time, i.step) for i in news]
            for i in range(0, max(len(tags), 1), 100):
                if points or tags:
                    self.client.log_batch(self.run_id, metrics=points if i == 0 else [], tags=tags[i : i + 100])
            mirrored = [point for point in points if self._is_headline(point.key)]
            if mirrored:
                self.client.log_batch(self._parent, metrics=mirrored)
            for item in items:
                if item.kind == "picture":
                    self._send_picture(item)
                elif item.kind == "text":
                    self.client.log_text(self.run_id, item.value, item.key)
                elif item.kind == "table":
                    self._send_table(item)
                elif item.kind == "artifact":
                    self._send_file(item)
                elif item.kind == "dataset":
                    self._send_dataset(json.loads(item.value))
                elif item.kind == "status":
                    self.client.set_terminated(self.run_id, item.value, end_time=item.time)
        except MlflowException as error:
            if error.error_code in _NEVER:
                raise Refused(str(error)) from error
            raise

    def _is_headline(self, name: str) -> bool:
        """Whether the parent shows the metric `name` too."""
        kind, *path = name.split("/")
        if not self._parent or len(path) != 2 or path[0] not in self._own:
            return False
        if kind == "train":
            if self._headlines is None:  # of an earlier start
                there = self.client.get_run(self._parent).data.metrics
                self._headlines = {key for key in there if key.startswith(tuple(f"train/{one}/" for one in self._own))}
            if len(self._headlines) < HEADLINES:
                self._headlines.add(name)
            return name in self._headlines
        return kind == "val"

    def _send_picture(self, item: Item) -> None:
        from PIL import Image

        if self._pictures is None:
            self._pictures = stored.pictures(self.client, self.run_id)
        if (item.key, item.step) not in self._pictures:
            picture = Image.open(BytesIO(item.value)) if isinstance(item.value, bytes) else Image.fromarray(item.value)
            shown = self._parent and item.key.split("/")[0] in self._own
            for run_id in (self.run_id, self._parent) if shown else (self.run_id,):
                self.client.log_image(run_id, picture, key=item.key, step=item.step, timestamp=item.time)
            self._pictures.add((item.key, item.step))

    def _send_file(self, item: Item) -> None:
        path = Path(item.value)
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), item.key or path.name)
        elif path.exists():
            self.client.log_artifact(self.run_id, str(path), item.key or None)
        else:
            raise Refused(f"{path} is gone")

    def _send_table(self, item: Item) -> None:
        self.client.log_text(self.run_id, item.value, item.key)
        listed = json.loads(self.client.get_run(self.run_id).data.tags.get(TABLES_TAG, "[]"))
        entry = {"path": item.key, "type": "table"}
        if entry not in listed:
            self.client.set_tag(self.run_id, TABLES_TAG, json.dumps([*listed, entry]))

    def _send_dataset(self, facts: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=facts["name"],
            digest=facts["digest"],
            source_type="s3" if facts["source"].startswith("s3://") else "local",
            source=json.dumps({"uri": facts["source"]}),
            profile=json.dumps(facts["counts"]),
        )
        label = InputTag("mlflow.data.context", facts["context"])
        for run_id in filter(None, (self.run_id, self._parent)):
            self.client.log_inputs(run_id, datasets=[DatasetInput(data, [label])])
