"""What the page does with the films of its visits; it knows no page, and says what is the matter by `Refused`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spfem_dist.editing.clip import Edited, EditTarget, Settings, edit_clip
from spfem_dist.editing.face import finder_for, follow
from spfem_dist.editing.film import suffix_for
from spfem_dist.editing.request import PAINT, STRONGEST, EditRequest, Faces, strength_of_words, usual_strength
from spfem_dist.editing.still import Still, still
from spfem_dist.editing.video import EditError, Picture
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.unit_wish import UnitWish
from spfem_dist.generators.generator import Generator
from spfem_dist.web.films import Limits, Refused, accepted, in_words
from spfem_dist.web.visits import Dropped, Gone, Visit, Visits
from spfem_dist.weights import MissingWeights
from spfem_dist.words import text_map
from spfem_dist.words.wish import NotUnderstood, understand

#: The preview shows the face and this much around it, in sides of its crop, on at most so many pixels.
_AROUND_FACE, _PREVIEW_SIDE = 1.4, 480

Advance = Callable[[float], object]
Before = np.ndarray
After = np.ndarray


@dataclass(frozen=True)
class Choice:
    """What somebody chose. emotion: a name, or nothing for the reference's manner (or the words) alone. strength: None is the emotion's own. text: what
    the face shall show in words, upon the emotion."""

    emotion: str = Emotion.HAPPY.value
    strength: float | None = None
    paint: float = PAINT
    text: str = ""

    @property
    def usual_strength(self) -> float:
        """The strength that the emotion has by itself."""
        return usual_strength(self.emotion)


@dataclass(frozen=True)
class Result:
    """An edited film. side: source and edit beside each other."""

    edited: Edited
    side: Path
    comment: str


class Editor:
    """Edits by one generator. location: what the generator is called in the films' comments. faces: as in `EditRequest`."""

    def __init__(
        self, visits: Visits, generator: Generator, location: str, limits: Limits | None = None, faces: Faces = "auto"
    ):
        self.visits, self.limits = visits, limits or Limits()
        self._generator, self._location, self._faces = generator, location, faces
        self._text_map: text_map.TextMap | None = None
        self._reading = threading.Lock()

    def take(self, page: str, path: Path | None, which: str = "film") -> Dropped | None:
        """The film (or the reference) that was dropped on a page, in place of the one before; None takes that one away."""
        visit = self.visits.of(page)
        visit.drop(which, None if path is None else self.visits.claim(path))
        if path is None:
            return None
        taken = Dropped(accepted(path, self.limits, "The film" if which == "film" else "The reference"))
        setattr(visit, which, taken)
        return taken

    def look(self, page: str, seconds: float) -> Still:
        """Choose the frame that is shown `seconds` after the first one for the preview."""
        visit, dropped = self._film(page)
        with _words(dropped):
            dropped.still = still(dropped.film, seconds, self._generator, self._finder(), dropped.followed)
        return dropped.still

    def follow(self, page: str, advance: Advance = lambda share: None) -> float:
        """Follow the face through the whole film, once. Returns the time of a frame that shows it, for the preview."""
        visit, dropped = self._film(page)
        if dropped.followed is None:
            dropped.followed = self._followed(visit, dropped, advance)
        times = np.array(dropped.followed.ticks) * float(dropped.film.time_base) - dropped.film.facts.start
        now = dropped.still
        if now is not None and now.picture.pts in dropped.followed.ticks:
            at = dropped.followed.ticks.index(now.picture.pts)
            if dropped.followed.weights[at] > 0:
                dropped.still = Still(dropped.film, now.picture, dropped.followed, at)
                return float(times[at])
        middle = np.abs(np.arange(len(times)) - len(times) / 2) + len(times) * (dropped.followed.weights == 0)
        seconds = float(times[int(middle.argmin())])
        self.look(page, seconds)
        return seconds

    def take_manner(self, page: str, advance: Advance = lambda share: None) -> None:
        """Read the manner of the reference: its face, followed."""
        visit = self.visits.of(page)
        dropped = visit.reference
        if dropped is None:
            return
        visit.manner = self._followed(visit, dropped, advance, "The reference").face

    def preview(self, page: str, choice: Choice) -> tuple[Before, After] | None:
        """The chosen frame around its face, before and after, uint8 RGB; None where there is none to show."""
        visit, dropped = self._film(page)
        now = dropped.still
        if now is None:
            return None
        with _words(dropped):
            edited = now.edited(self._generator, self._target(visit, choice))
        return _around_face(now, now.picture), _around_face(now, edited)

    def edit(self, page: str, choice: Choice, advance: Advance = lambda share: None) -> Result:
        """Edit the whole film, into a folder of the visit."""
        visit, dropped = self._film(page)
        target = self._target(visit, choice)
        film = dropped.film
        with _words(dropped):
            suffix = suffix_for(film)
            folder = visit.new_folder()
            reference = Path("reference.mp4") if target.reference is not None else None
            alone = target.wish is not None and target.emotion is None and reference is None
            strength = target.wish.strength if alone and target.wish else target.strength
            comment = EditRequest(
                film.path, folder, self._location, reference, choice.emotion, strength, target.paint, text=choice.text
            ).comment
            rounds = 2 if dropped.followed is None else 1
            out, side = folder / f"edited{suffix}", folder / f"side{suffix}"
            edited = edit_clip(
                film,
                out,
                self._generator,
                target,
                self._finder(),
                preview=side,
                settings=Settings(comment),
                advance=_counting(visit, dropped, advance, rounds * film.frames),
                followed=dropped.followed,
            )
        return Result(edited, side, comment)

    def _film(self, page: str) -> tuple[Visit, Dropped]:
        visit = self.visits.of(page)
        if visit.film is None:
            raise Refused("Drop a film first, or record one. (A film is kept for an hour at most.)")
        return visit, visit.film

    def _finder(self):
        return finder_for(self._faces, False)

    def _followed(self, visit: Visit, dropped: Dropped, advance: Advance, what: str = "The film"):
        generator, advanced = self._generator, _counting(visit, dropped, advance, dropped.film.frames)
        with _words(dropped, what):
            return follow(dropped.film, self._finder(), generator.size, generator.topology, advance=advanced)

    def _target(self, visit: Visit, choice: Choice) -> EditTarget:
        emotion = Emotion.parse(choice.emotion) if choice.emotion else None
        if emotion is not None and emotion not in SEVEN:
            raise Refused(f"Generators know {', '.join(SEVEN)}.")
        if emotion is None and visit.manner is None and not choice.text:
            raise Refused("Drop a reference film, or choose an emotion.")
        strength = choice.usual_strength if choice.strength is None else choice.strength
        if not (0 <= strength <= STRONGEST and 0 <= choice.paint <= 1):
            raise Refused(f"Strength is 0 to {STRONGEST:g}, and paint 0 to 1.")
        wish = self._wish(choice, strength) if choice.text else None
        return EditTarget(emotion, visit.manner, strength, choice.paint, wish)

    def _wish(self, choice: Choice, strength: float) -> UnitWish:
        try:
            with self._reading:
                self._text_map = self._text_map or text_map.load()
            understood = understand(choice.text, self._text_map)
        except (NotUnderstood, MissingWeights) as error:
            raise Refused(str(error)) from error
        return understood.wish(strength_of_words(strength, choice.emotion, beside=True))


def _counting(visit: Visit, dropped: Dropped, advance: Advance, frames: int) -> Callable[..., None]:
    """What is called after each of `frames` frames: tells `advance` the share that is done, and stops work that nobody waits for."""
    done = itertools.count(1)

    def advanced(*_: object) -> None:
        visit.alive(dropped)
        advance(min(1.0, next(done) / frames))

    return advanced


@contextmanager
def _words(dropped: Dropped, what: str = "The film") -> Iterator[None]:
    """Errors about a film become `Refused`; where its file has gone, nobody waits for it."""
    try:
        yield
    except (EditError, OSError) as error:
        if not dropped.film.path.exists():
            raise Gone from error
        raise Refused(in_words(error, dropped.film.path, what)) from error


def _around_face(still: Still, picture: Picture) -> np.ndarray:
    """The face of the frame and what is around it, uint8 RGB."""
    rgb = picture.rgb()
    height, width = rgb.shape[:2]
    region = still.followed.regions[still.index]
    side = round(min(height, width, _AROUND_FACE * region.side))
    left = round(min(max(0, region.x - side / 2), width - side))
    top = round(min(max(0, region.y - side / 2), height - side))
    cut = rgb[top : top + side, left : left + side]
    if side > _PREVIEW_SIDE:
        cut = cv2.resize(cut, (_PREVIEW_SIDE, _PREVIEW_SIDE), interpolation=cv2.INTER_AREA)
    return cut
