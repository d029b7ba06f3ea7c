"""What one call of `spfem edit` asks for, checked before any work: which clips become which files, and what is done already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spfem_dist.corpora.files import VIDEO, visible_files
from spfem_dist.editing.film import CONTAINERS, refuse_unfit_sound, suffix_for
from spfem_dist.editing.video import EditError, footage
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.files import is_address
from spfem_dist.prepare.media import open_media
from spfem_dist.records import Reject, Unusable

Faces = Literal["auto", "mesh", "cascade", "aligned", "aligned-mesh"]
#: The strongest edit that is not a slip of the finger.
STRONGEST = 10.0
#: Letters of a wish in words that a file's name takes from it.
_LONGEST_NAME = 60
#: How strong an edit is unless said otherwise, by emotion: where the shipped generator's edits of recorded films still look like the
#: person (docs/editing.md has the curves). BY_REFERENCE: without an emotion. BY_TEXT: of words. PAINT: how much of its lines is painted.
STRENGTHS = {
    Emotion.SURPRISED: 2.5,
    Emotion.ANGRY: 2.2,
    Emotion.FEAR: 1.8,
    Emotion.SAD: 1.8,
    Emotion.DISGUSTED: 1.4,
    Emotion.HAPPY: 1.0,
}
BY_REFERENCE, BY_TEXT, PAINT = 1.5, 1.0, 0.5


def usual_strength(emotion: str) -> float:
    """How strong an edit is where nobody says: the emotion's own; "" is the reference's manner alone."""
    return STRENGTHS.get(Emotion.parse(emotion), 1.0) if emotion else BY_REFERENCE


def strength_of_words(strength: float | None, emotion: str, beside: bool) -> float:
    """How strong words are taken: as said; beside an emotion or a reference, as a share of how strong that one usually is."""
    if strength is None:
        return BY_TEXT
    return BY_TEXT * strength / usual_strength(emotion) if beside else strength


@dataclass(frozen=True)
class EditRequest:
    """One call of `spfem edit`; the fields are the command's flags (see `spfem_dist.cli.edit`)."""

    source: Path
    out: Path
    generator: str
    reference: Path | None = None
    emotion: str = ""
    strength: float | None = None
    paint: float = PAINT
    preview: Path | None = None
    faces: Faces = "auto"
    landmarks: Path | None = None
    reference_landmarks: Path | None = None
    ray: bool = False
    overwrite: bool = False
    compose: str = ""
    text: str = ""
    words: Path | None = None

    @property
    def amount(self) -> float:
        """The strength asked for, or the emotion's own."""
        return usual_strength(self.emotion) if self.strength is None else self.strength

    @property
    def text_amount(self) -> float:
        """The strength of the words."""
        return strength_of_words(self.strength, self.emotion, bool(self.emotion or self.reference))

    @property
    def comment(self) -> str:
        """What the result says about itself; by it a second call knows a clip that is done."""
        manner = [f"emotion {self.emotion}"] if self.emotion else []
        manner += [f"in the manner of {self.reference.name}"] if self.reference else []
        manner += [f"strength {self.amount:g}"] if manner else []
        if self.text:
            by = f" by the map {self.words}" if self.words else ""
            manner += [f"as in the words {self.text!r}{by}", f"strength of words {self.text_amount:g}"]
        manner += [f"paint {self.paint:g}", f"generator {self.generator}"]
        manner += [f"composed by {self.compose}"] if self.compose else []
        return f"edited by spfem: {', '.join(manner)}"


def beside(source: Path, emotion: str, reference: Path | None, text: str = "") -> Path:
    """Where an edit of `source` is written if nobody says: beside it, talk-happy.mp4, talk-like-angry.mp4 or, by words, talk-a-bitter-smile.mp4;
    for a folder clips-happy.

    Raises EditError where there is no film to name.
    """
    spoken = "-".join(re.findall(r"\w+", text.lower()))[:_LONGEST_NAME].strip("-")
    manner = "-".join(part for part in (emotion, f"like-{reference.stem}" if reference else "", spoken) if part)
    if source.is_dir():
        return source.with_name(f"{source.resolve().name}-{manner}")
    if is_address(source) or not source.exists():
        return source.with_name(f"{source.stem}-{manner}.mp4")  # what is wrong with it is said when it is read
    return source.with_name(f"{source.stem}-{manner}{suffix_for(footage(source))}")


@dataclass(frozen=True)
class Task:
    """One clip to edit."""

    source: Path
    out: Path
    landmarks: Path | None
    preview: Path | None


def checked_emotion(request: EditRequest) -> Emotion | None:
    """The emotion asked for, after a check of the whole request; raises EditError that names the flag and the fix."""
    _refuse_addresses(request)
    if not request.emotion and request.reference is None and not request.text.strip():
        raise EditError(
            "say what the face shall become: give --emotion happy, --reference angry.mp4, or --text 'a bitter smile' (or several)"
        )
    if request.words is not None and not request.text:
        raise EditError("--words is the map that reads a --text, and none is given")
    if request.strength is not None and not 0 <= request.strength <= STRONGEST:  # nor NaN
        raise EditError(
            f"--strength is {request.strength}: 0 leaves the face as it is, 1 is the full edit, more exaggerates "
            f"(at most {STRONGEST:g})"
        )
    if not 0 <= request.paint <= 1:
        raise EditError(
            f"--paint is {request.paint}: 0 only moves the film's own pixels, 1 adds all lines that the generator paints"
        )
    if request.reference_landmarks is not None and request.reference is None:
        raise EditError("--reference-landmarks are those of a --reference, and none is given")
    _refuse_missing(request)
    if not request.emotion:
        return None
    emotion = Emotion.parse(request.emotion)
    if emotion not in SEVEN:
        raise EditError(f"--emotion {emotion}: generators know {', '.join(SEVEN)}")
    return emotion


def _refuse_addresses(request: EditRequest) -> None:
    for flag, path in (("--out", request.out), ("--preview", request.preview)):
        if path is not None and is_address(path):
            raise EditError(
                f"{flag} {path}: films are written to files and folders: give one, and copy it afterwards (aws s3 cp)"
            )
    read = (request.source, request.reference, request.landmarks, request.reference_landmarks)
    for path in read:
        if path is not None and is_address(path):
            raise EditError(f"{path}: films and landmarks are read from files and folders: copy it first (aws s3 cp)")


def _refuse_missing(request: EditRequest) -> None:
    if not request.source.exists():
        raise EditError(f"{request.source} does not exist: give a film or a folder of films")
    many = request.source.is_dir()
    if request.landmarks is not None and not (request.landmarks.is_dir() if many else request.landmarks.is_file()):
        kind = "folder with an .npy file for each clip" if many else ".npy file"
        raise EditError(f"--landmarks {request.landmarks} does not exist: give a {kind}")
    for flag, path in (("--reference", request.reference), ("--reference-landmarks", request.reference_landmarks)):
        if path is not None and not path.is_file():
            raise EditError(f"{flag} {path} does not exist: give one file")


@dataclass(frozen=True)
class Found:
    """What a call is about. aside: files of the folder whose names are no films'. closed: what there cannot be read."""

    tasks: list[Task]
    aside: list[Path]
    closed: list[Reject]


def find(request: EditRequest) -> Found:
    """What is to be edited, a clip or a folder of them in order of names. Raises EditError where names do not fit."""
    if not request.source.is_dir():
        single = Task(request.source, request.out, request.landmarks, request.preview)
        _refuse_names(request, single)
        film = footage(request.source)
        for path in (request.out, request.preview):
            if path is not None:
                refuse_unfit_sound(film, path)
        return Found([single], [], [])
    for flag, path in (("--out", request.out), ("--preview", request.preview)):
        if path is not None and (path.is_file() or path.suffix.lower() in CONTAINERS):
            raise EditError(f"{request.source} is a folder, so {flag} {path} must be one too")
    written = [path.resolve() for path in (request.out, request.preview) if path is not None]
    written = [folder for folder in written if folder != request.source.resolve()]
    closed: list[Reject] = []
    files = [
        path
        for path in visible_files(request.source, closed)
        if not path.name.startswith(".") and not any(folder in path.resolve().parents for folder in written)
    ]
    clips = [path for path in files if path.suffix.lower() in VIDEO]
    if not clips:
        raise EditError(
            closed[0].detail if closed else f"{request.source}: no films in it (mp4, mov, mkv, webm, avi, ...)"
        )
    found = [_in_folder(request, clip) for clip in clips]
    by_name: dict[Path, Task] = {}
    for task in found:
        _refuse_names(request, task)
        other = by_name.setdefault(task.out, task)
        if other is not task:
            raise EditError(f"{other.source} and {task.source} would both become {task.out}: rename one of them")
    aside = [path for path in files if path.suffix.lower() not in (*VIDEO, ".npy")]
    return Found(found, aside, closed)


def is_done(request: EditRequest, task: Task) -> bool:
    """Whether `task.out` is there from an equal call; raises EditError where another file is in its place."""
    if request.overwrite or not task.out.exists():
        return False
    given = (task.source, task.landmarks, request.reference, request.reference_landmarks)
    inputs = [path for path in given if path is not None and path.exists()]
    if _comment(task.out) != request.comment:
        raise EditError(f"{task.out} is there, and not from a call like this: give --overwrite, or another --out")
    newer = any(path.stat().st_mtime > task.out.stat().st_mtime for path in inputs)
    return not newer and (task.preview is None or task.preview.exists())


def _in_folder(request: EditRequest, clip: Path) -> Task:
    inside = clip.relative_to(request.source)
    try:
        suffix = suffix_for(footage(clip))
    except (EditError, OSError):
        suffix = ".mp4"  # what is wrong with it is said when its turn comes
    marks = request.landmarks / inside.with_suffix(".npy") if request.landmarks is not None else None
    preview = request.preview / inside.with_suffix(suffix) if request.preview is not None else None
    return Task(clip, request.out / inside.with_suffix(suffix), marks, preview)


def _refuse_names(request: EditRequest, task: Task) -> None:
    read = [task.source, *(path for path in (request.reference, task.landmarks) if path is not None)]
    for flag, path in (("--out", task.out), ("--preview", task.preview)):
        if path is None:
            continue
        if path.is_dir() or path.suffix.lower() not in CONTAINERS:
            raise EditError(f"{flag} {path} must be a file's name that ends in {', '.join(CONTAINERS)}")
        for other in read:
            if path.resolve() == other.resolve():
                raise EditError(f"{flag} {path} is the file that is read: give another name, the original is kept")
    if task.preview is not None and task.preview.resolve() == task.out.resolve():
        raise EditError(f"--preview and --out are both {task.out}: give the preview another name")


def _comment(path: Path) -> str | None:
    try:
        with open_media(path) as container:
            # Matroska spells its names in capitals.
            found = {name.lower(): value for name, value in container.metadata.items()}
    except Unusable:
        return None
    return found.get("comment")
