"""What a compositor is: it is given a scene, a hole in it and an edited head, and fills the hole with that head.

A compositor's method is a package `spfem_dist.compositors.<kind>`, its room, which exports

    Settings        a `JobSettings` whose `kind` is the package's name: a field of the recipe's run
    Stage           what trains it (see `spfem_dist.stage`)
    load(folder)    the trained compositor that the stage exported, a `Compositor`
    CARD            a `CompositorCard`, what a model card says of it

`find` gives the room, `load.load_compositor` a trained compositor from wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import cv2
import numpy as np

from spfem_dist import rooms


class Compositor(Protocol):
    """A trained compositor, frozen.

    size: side of the pictures it works on, pixels. topology: landmarks that it was trained on. grow: how far a hole reaches beyond
    the landmarks, a share of the side (see `holes`).
    """

    size: int
    topology: str
    grow: float

    def compose(self, scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray, covers: np.ndarray) -> np.ndarray:
        """The scenes with the heads in them, uint8 [N, S, S, 3]; outside the holes every number is the scene's own.

        scenes: uint8 [N, S, S, 3] RGB; what they show within the holes is not looked at. masks: bool [N, S, S], the holes.
        heads: uint8 [N, S, S, 3], pictures with the heads, about where they shall be; covers: bool [N, S, S], where in them the heads
        are. Frames of one clip are filled alike: all chance is the same for each of them.
        """
        ...


@dataclass(frozen=True)
class CompositorCard:
    """title: what it is, after "NAME: ". about: what it does, a format string with {size} (side, pixels), {topology}, {form}."""

    title: str
    about: str


def find(kind: str) -> ModuleType:
    """The room of the compositors of this kind: `spfem_dist.compositors.<kind>`. ValueError lists the rooms there are."""
    return rooms.find("compositors", kind)


def holes(landmarks: np.ndarray, size: int, grow: float) -> np.ndarray:
    """Where a face is to be put in: bool [N, S, S], the convex hulls of landmarks [N, L, 2] (pixels), grown by a share of the side."""
    reach = round(grow * size)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    found = np.zeros((len(landmarks), size, size), np.uint8)
    for hole, points in zip(found, landmarks, strict=True):
        # A coordinate of 0 is the left edge of the first pixel here and its centre in OpenCV.
        outline = cv2.convexHull(np.rint(points.clip(-size, 2 * size) - 0.5).astype(np.int32))
        cv2.fillConvexPoly(hole, outline, 1)
        hole[:] = cv2.dilate(hole, disc)
    return found.astype(bool)
