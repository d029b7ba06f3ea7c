"""What each open page has: its films, its face, its results, in a folder of its own that goes when the page does."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spfem_dist.editing.face import Followed
from spfem_dist.editing.still import Still
from spfem_dist.editing.video import Footage
from spfem_dist.generators.generator import Face

#: Files are deleted after so many seconds whatever happens, and looked for so often.
KEPT, SWEPT_EVERY = 3600.0, 20.0
_PREFIX = "spfem-web-"


class Gone(Exception):
    """The page was closed, or another film dropped, while this one was worked on."""


@dataclass
class Dropped:
    """A film that somebody dropped, and what was found in it."""

    film: Footage
    followed: Followed | None = None
    still: Still | None = None


@dataclass
class Visit:
    """One open page. folder: of results. uploads: the folders of its film and its reference; an example has none, as it stays.

    Work on a visit asks `alive` now and then.
    """

    folder: Path
    uploads: dict[str, Path] = field(default_factory=dict)
    film: Dropped | None = None
    reference: Dropped | None = None
    manner: Face | None = None
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def alive(self, film: Dropped) -> None:
        """Raises Gone where nobody waits for work on `film` any more."""
        if self.closed or (film is not self.film and film is not self.reference):
            raise Gone

    def new_folder(self) -> Path:
        """An empty folder for a result; those before go."""
        for old in self.folder.glob("*"):
            remove(old)
        made = self.folder / secrets.token_urlsafe(16)
        made.mkdir(parents=True, mode=0o700)
        return made

    def drop(self, which: str, upload: Path | None = None) -> None:
        """A new `film` or `reference` takes the place of the one before, whose file goes, and so does what was made of it.

        upload: the folder of the new one, from now on the visit's.
        """
        with self.lock:
            before = self.uploads.pop(which, None)
            setattr(self, which, None)
            if which == "reference":
                self.manner = None
            if upload is not None:
                self.uploads[which] = upload
        if before is not None:
            remove(before)
        if which == "film":
            for made in self.folder.glob("*"):
                remove(made)


class Visits:
    """All open pages, below one folder `root` that is deleted at the end; where a process was killed, by the next one."""

    def __init__(self, now: Callable[[], float] = time.time):
        _remove_left_behind()
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._alive = (self.root / ".lock").open("w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self.uploads = self.root / "uploads"
        self.uploads.mkdir(mode=0o700)
        self._now = now
        self._visits: dict[str, Visit] = {}
        self._claimed: set[Path] = set()
        self._lock = threading.Lock()

    def of(self, page: str) -> Visit:
        """The visit of an open page, by what the browser calls it."""
        with self._lock:
            if page not in self._visits:
                folder = self.root / "results" / secrets.token_urlsafe(16)
                folder.mkdir(parents=True, mode=0o700)
                self._visits[page] = Visit(folder)
            return self._visits[page]

    def upload(self, suffix: str) -> Path:
        """Where to write a file that comes in: in a folder that nobody can guess."""
        folder = self.uploads / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder / f"film{suffix}"

    def claim(self, path: Path) -> Path | None:
        """The folder of an uploaded file, which is its visit's from now on; None where it is no upload. Raises Gone where it is not there."""
        if path.parent.parent != self.uploads:
            return None
        with self._lock:
            if path.parent in self._claimed or not path.exists():
                raise Gone
            self._claimed.add(path.parent)
        return path.parent

    def end(self, page: str) -> None:
        """The page was closed: its files go, and work on them stops."""
        with self._lock:
            visit = self._visits.pop(page, None)
        if visit is not None:
            _end(visit)

    def sweep(self) -> None:
        """Delete what has been kept for too long, and what was uploaded for a page that never asked for it."""
        late = self._now() - KEPT
        with self._lock:
            visits = list(self._visits.values())
        for visit in visits:
            for which, folder in list(visit.uploads.items()):
                if _made(folder) < late:
                    visit.drop(which)
        for folder in [*self.uploads.glob("*"), *(self.root / "results").glob("*/*")]:
            if _made(folder) < late:
                remove(folder)

    def close(self) -> None:
        """Delete everything."""
        with self._lock:
            visits, self._visits = list(self._visits.values()), {}
        for visit in visits:
            _end(visit)
        remove(self.root)
        self._alive.close()


def remove(path: Path) -> None:
    """Delete a folder, also one that work which is about to stop still writes to."""
    for _ in range(100):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)
    raise OSError(f"{path} cannot be deleted: delete it")


def _end(visit: Visit) -> None:
    visit.closed = True
    visit.drop("film")
    visit.drop("reference")
    remove(visit.folder)


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove_left_behind() -> None:
    """The folders of processes that are no more. A live one holds its lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with (folder / ".lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
        except OSError:  # alive, somebody else's, or just being made
            continue
