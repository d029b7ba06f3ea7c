"""Which films are evaluated, whose they are, and where their edits lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spfem_dist.corpora.files import VIDEO, visible_files
from spfem_dist.editing.film import suffix_for
from spfem_dist.editing.video import EditError, footage
from spfem_dist.emotions import Emotion
from spfem_dist.files import is_address
from spfem_dist.records import Reject


@dataclass(frozen=True)
class RealFilm:
    """A film to evaluate. name: its path in the folder, or its file's name. person: the subfolder that it lies in, or ""."""

    path: Path
    name: str
    person: str = ""

    @classmethod
    def inside(cls, folder: Path, path: Path) -> RealFilm:
        """The film `path` in `folder`."""
        place = path.relative_to(folder)
        return cls(path, place.as_posix(), place.parts[0] if len(place.parts) > 1 else "")


@dataclass(frozen=True)
class Place:
    """The folder that an evaluation writes to: `edits/<emotion>/...` and `sources/...`, summary.json, edits.json, report.html."""

    folder: Path

    def edit(self, film: RealFilm, emotion: Emotion) -> Path:
        """Where the edit of `film` belongs; its container is one that holds the film's sound. Raises EditError for what is no film."""
        return (self.folder / "edits" / emotion.value / film.name).with_suffix(suffix_for(footage(film.path)))

    def source(self, film: RealFilm) -> Path:
        """Where the report finds the unchanged film."""
        return self.folder / "sources" / film.name


def find_films(source: Path, out: Path) -> tuple[list[RealFilm], list[Reject]]:
    """The films of a folder in order of names, or the one film, and what in the folder cannot be read.

    Films in one subfolder are taken to be of one person, as `spfem prepare folder` takes them. Raises EditError where there is
    no film, two would share a name among the edits, or `out` is no place for them.
    """
    if is_address(source) or is_address(out):
        raise EditError("films are read from and written to folders: copy them first (aws s3 cp)")
    if not source.exists():
        raise EditError(f"{source} does not exist: give a film or a folder of films")
    if out.exists() and not out.is_dir():
        raise EditError(f"--out {out} is a file: give a folder")
    if not source.is_dir():
        return [RealFilm(source, source.name)], []
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise EditError(f"--out {out} lies in {source}, whose films are read: give a folder elsewhere")
    closed: list[Reject] = []
    files = [p for p in visible_files(source, closed) if p.suffix.lower() in VIDEO and not p.name.startswith(".")]
    if not files:
        raise EditError(closed[0].detail if closed else f"{source}: no films in it (mp4, mov, mkv, webm, avi, ...)")
    films = []
    named: dict[Path, Path] = {}
    for path in files:
        other = named.setdefault(path.relative_to(source).with_suffix(""), path)
        if other is not path:
            raise EditError(f"the edits of {other} and {path} would share a name: rename one of them")
        films.append(RealFilm.inside(source, path))
    return films, closed
