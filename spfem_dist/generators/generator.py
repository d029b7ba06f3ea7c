"""What a generator is: editing and evaluation ask it for a motion of the face, then for its pictures.

A generator's method is a package `spfem_dist.generators.<kind>`, its room, which exports

    Settings        a `JobSettings` whose `kind` is the package's name: a field of the recipe's run
    Stage           what trains it (see `spfem_dist.stage`)
    load(folder)    the trained generator that the stage exported, a `Generator`
    CARD            a `GeneratorCard`, what a model card says of it

`find` gives the room, `load.load_generator` a trained generator from wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spfem_dist import rooms
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.rendered import Rendered

if TYPE_CHECKING:
    import torch

#: Shortest clip that can be driven, frames: below it there is no motion to speak of.
SHORTEST = 3


@dataclass(frozen=True)
class Face:
    """The moving face of one clip.

    landmarks: float32 [T, L, 2], pixels of square crops of side `size`. valid: bool [T], False where they are filled in.
    topology: order of the landmarks, `mesh478`, `mesh468` or `ibug68`.
    """

    landmarks: np.ndarray
    valid: np.ndarray
    size: int
    topology: str


@dataclass(frozen=True)
class Motion:
    """What the face of a clip is, and what it shall become. Made by `Generator.drive`, read by `Generator.render`.

    source, target: float32 [T, L, 2], landmarks of the clip and of the edited clip, pixels of the generator's size.
    coefficients: float32 [2, T, C], the same in the generator's own terms, source and target; None: it finds them from the landmarks.
    """

    source: np.ndarray
    target: np.ndarray
    coefficients: np.ndarray | None = None


class Generator(Protocol):
    """A trained generator, frozen.

    size: side of the crops it draws, pixels. topology: landmarks that it was trained on.
    """

    size: int
    topology: str

    def to(self, device: torch.device | str) -> Generator:
        """Compute on `device`; what goes in and comes out stays on the host."""
        ...

    def drive(
        self, source: Face, emotion: Emotion | None = None, reference: Face | None = None, strength: float = 1.0
    ) -> Motion:
        """The motion of the whole clip: the source's words, shown with `emotion` or in the manner of `reference` (or both).

        strength: 0 leaves the face as it is, 1 is the full edit; more exaggerates.
        Raises ValueError where neither is given, the emotion is not one of SEVEN, or a clip is too short.
        """
        ...

    def render(self, frames: np.ndarray, motion: Motion, first: int = 0, flow_side: int | None = None) -> Rendered:
        """The edit of frames first, first + 1, ... of the clip.

        frames: uint8 [N, size, size, 3] RGB crops of the source. flow_side: the side F of the flow, where the crop was cut from a larger
        picture; None: `size`. A generator that moves nothing gives a flow of any side.
        """
        ...


def refuse_unknown(emotion: Emotion | None, reference: Face | None) -> None:
    """Raises ValueError where a clip is asked to become nothing, or an emotion that generators do not know."""
    if emotion is None and reference is None:
        raise ValueError("an edit needs an emotion, a reference clip, or both")
    if emotion is not None and emotion not in SEVEN:
        raise ValueError(f"emotion {emotion}: this generator knows {', '.join(SEVEN)}")


def landmarks_of(face: Face, which: str, topology: str, size: int) -> np.ndarray:
    """The face's landmarks in pixels of a generator of `size` that was trained on `topology`: float32 [T, L, 2].

    which: what the error calls the clip. Raises ValueError for landmarks of another order, and for a clip that is too short.
    """
    if face.topology not in (topology, "synthetic" if topology == "ibug68" else topology):
        raise ValueError(f"the {which} has {face.topology} landmarks, this generator was trained on {topology}")
    if len(face.landmarks) < SHORTEST:
        raise ValueError(
            f"the {which} has {len(face.landmarks)} frames; at least {SHORTEST} are needed: give a longer clip"
        )
    return (face.landmarks * (size / face.size)).astype(np.float32)


def find(kind: str) -> ModuleType:
    """The room of the generators of this kind: `spfem_dist.generators.<kind>`. ValueError lists the rooms there are."""
    return rooms.find("generators", kind)
