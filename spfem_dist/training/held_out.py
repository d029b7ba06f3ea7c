"""Held-out figures in a run's folder while it trains: RUN/JOB/validation.json, for whoever watches many runs (see `sweep`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spfem_dist.training.loop import Recorder
    from spfem_dist.training.runfolder import RunFolder

#: The file of a job: `rows`, oldest first, each with `samples` seen and `values` by name.
NAME = "validation.json"


class HeldOut:
    """A recorder that keeps what each validation gave in the file and hands everything on to `then`."""

    def __init__(self, folder: RunFolder, job: str, then: Recorder) -> None:
        self._folder, self._path, self._then = folder, f"{job}/{NAME}", then
        self._rows: dict[int, dict[str, float]] = {}

    def metrics(self, values: dict[str, float], samples: int) -> None:
        """Hand the figures on; write the file where held-out ones are among them."""
        if found := {name: value for name, value in values.items() if name.startswith("val/")}:
            self._rows[samples] = found
            rows = [{"samples": at, "values": row} for at, row in sorted(self._rows.items())]
            self._folder.write(self._path, {"rows": rows})
        self._then.metrics(values, samples)

    def picture(self, key: str, image: Any, samples: int) -> None:
        """Hand a picture on."""
        self._then.picture(key, image, samples)

    def text(self, name: str, content: str) -> None:
        """Hand a text on."""
        self._then.text(name, content)

    def secure(self) -> None:
        """See `Tracker.secure`."""
        self._then.secure()
