"""What of a film that somebody dropped can be edited here, and what is the matter with one that cannot, in words for its owner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spfem_dist.corpora.files import VIDEO
from spfem_dist.editing.film import refuse_unfit_sound, suffix_for
from spfem_dist.editing.video import EditError, Footage, footage


@dataclass(frozen=True)
class Limits:
    """megabytes: of a file (2^20 bytes). seconds: of a film."""

    megabytes: int = 200
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.megabytes < 1 or not self.seconds > 0:
            raise ValueError(
                "--megabytes and --seconds are the largest film that is taken: give 1 or more, and more than 0"
            )

    @property
    def bytes(self) -> int:
        """The largest file."""
        return self.megabytes << 20


class Refused(ValueError):
    """A film that is not edited; the text tells its owner why, and what to do."""


def suffix_of(name: str) -> str:
    """The end of a film's name if it is one of a film's, else `.bin`. Nothing else of a name is ever used."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in VIDEO else ".bin"


def accepted(path: Path, limits: Limits, what: str = "The film") -> Footage:
    """The film in `path`. Raises Refused where it is none, damaged, too large or too long, or its sound cannot be copied."""
    if path.stat().st_size > limits.bytes:
        raise Refused(f"{what} is larger than {limits.megabytes} MB: cut it, or write it smaller.")
    try:
        film = footage(path)
        if film.facts.duration > limits.seconds:
            raise Refused(
                f"{what} lasts {film.facts.duration:.0f} s; up to {limits.seconds:g} s are taken here. Cut it first."
            )
        refuse_unfit_sound(film, path.with_suffix(suffix_for(film)))
    except (EditError, OSError) as error:
        raise Refused(in_words(error, path, what)) from error
    return film


def in_words(error: Exception, path: Path, what: str = "The film") -> str:
    """The message of an error about the film in `path`, which its owner knows by no name of ours."""
    said = str(error).replace(f"{path}: ", "").replace(str(path), "it").replace(path.name, f"film{path.suffix}")
    said = said.replace("fetch the file again", "choose the file again")
    return f"{what} cannot be edited: {said.removesuffix('.')}."
