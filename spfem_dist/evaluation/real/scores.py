"""The scores of one edit of a real film, and of the source unchanged: numbers by name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from spfem_dist.editing.video import pictures
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.open_judges.judges import FACE_API, FER, OpenJudges
from spfem_dist.evaluation.open_judges.seen import Look, SeenFilm, see
from spfem_dist.evaluation.real.measures import Comparison, lag, series_correlation
from spfem_dist.prepare.faces import FaceTrack


def compared(
    source: SeenFilm, edit: Path, judges: OpenJudges, advance: Callable[[], object] = lambda: None
) -> tuple[SeenFilm, Comparison]:
    """The edit of the film `source` as the judges see it, and its measures against the source, which is read again beside it."""
    made: list[Comparison] = []

    def beside(track: FaceTrack) -> Look:
        if len(track.found) != len(source.track.found):
            raise ValueError(f"{edit} has {len(track.found)} frames, its source {len(source.track.found)}")
        comparison = Comparison(source.track, track, source.film.fps)
        made.append(comparison)
        unchanged = pictures(source.film)

        def look(number: int, frame: np.ndarray) -> None:
            if (picture := next(unchanged, None)) is None:
                raise ValueError(f"{source.film.path} ends before its edit does: is it being written?")
            comparison.look(number, picture.rgb(), frame)

        return look

    seen = see(edit, judges, beside, advance)
    return seen, made[0]


def scores(
    source: SeenFilm, edit: SeenFilm, comparison: Comparison, emotion: Emotion
) -> tuple[dict[str, float], dict[str, float]]:
    """The edit's scores for the wanted emotion, and the copy's, the unchanged source held to the same; what is not defined is left out."""
    mine, copy = comparison.values()
    for seen, values in ((edit, mine), (source, copy)):
        values["fer_probability"] = seen.probability(emotion, FER)
        values["face_api_probability"] = seen.probability(emotion, FACE_API)
        values["emotion_probability"] = seen.probability(emotion)
        values["mouth_corr"] = series_correlation(seen.opening, source.opening)
        values["mouth_corr_68"] = series_correlation(seen.opening_68, source.opening_68)
        values["mouth_lag"] = abs(lag(seen.opening, source.opening, source.film.fps))
        values["identity_distance"] = identity_distance(source, seen)
    finite = [{name: value for name, value in values.items() if math.isfinite(value)} for values in (mine, copy)]
    return finite[0], finite[1]


def identity_distance(source: SeenFilm, edit: SeenFilm) -> float:
    """Mean Euclidean distance of the descriptors of frames at the same time; not a number where none is known in both."""
    _, mine, theirs = np.intersect1d(source.identity_frames, edit.identity_frames, return_indices=True)
    if not len(mine):
        return math.nan
    return float(np.linalg.norm(source.identity[mine] - edit.identity[theirs], axis=1).mean())


def film_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean Euclidean distance of the descriptors [N, 128] and [M, 128] of two films, over all pairs of frames."""
    return float(cdist(a, b).mean())


def distances_of_films(films: list[tuple[str, np.ndarray]]) -> dict[str, list[float]]:
    """Distances of two films of one person, and of two of different people, by the figure's name; one without a pair is left out.

    films: (person, descriptors); "" is nobody known, and is compared with nobody.
    """
    known = [(person, found) for person, found in films if person and len(found)]
    found: dict[str, list[float]] = {"same_person_distance": [], "different_people_distance": []}
    for (one, a), (other, b) in itertools.combinations(known, 2):
        found["same_person_distance" if one == other else "different_people_distance"].append(film_distance(a, b))
    return {name: values for name, values in found.items() if values}
