"""An edited head put back into its frame by a trained compositor, in place of the blend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spfem_dist.compositors.compositor import Compositor, holes
from spfem_dist.editing.video import EditError
from spfem_dist.emotions import Emotion
from spfem_dist.generators.generator import Face, Generator, Motion
from spfem_dist.generators.rendered import Rendered
from spfem_dist.prepare.landmarks import converted

if TYPE_CHECKING:
    import torch


class Composed:
    """A generator whose edits a compositor puts back: it decides the motion, and where the face was and shall be is drawn anew.

    paint: share of the generator's residual. Beyond the hole the frame's own pixels stay. Raises EditError where the two do not fit.
    """

    def __init__(self, generator: Generator, compositor: Compositor, paint: float):
        if compositor.size != generator.size:
            raise EditError(
                f"--compose draws {compositor.size} x {compositor.size} pixels, and the generator's crops have {generator.size}: train a "
                f"compositor with --data.size {generator.size} (python recipes/compose.py), or give a generator of {compositor.size} pixels"
            )
        points = np.zeros((1, int(generator.topology.lstrip("meshibug")), 2))
        if converted(points, generator.topology, compositor.topology) is None:
            raise EditError(
                f"--compose was trained on {compositor.topology} landmarks, and the generator on {generator.topology}: train a compositor on "
                "shards with the generator's"
            )
        self.generator, self.compositor, self.paint = generator, compositor, paint
        self.size, self.topology = generator.size, generator.topology

    def to(self, device: torch.device | str) -> Composed:
        """See `Generator`; the compositor stays where it is."""
        self.generator.to(device)
        return self

    def drive(
        self, source: Face, emotion: Emotion | None = None, reference: Face | None = None, strength: float = 1.0
    ) -> Motion:
        """See `Generator`."""
        return self.generator.drive(source, emotion, reference, strength)

    def render(self, frames: np.ndarray, motion: Motion, first: int = 0, flow_side: int | None = None) -> Rendered:
        """See `Generator`; nothing is moved, all is drawn."""
        edit = self.generator.render(frames, motion, first, flow_side)
        heads = replace(edit, residual=self.paint * edit.residual).crops(frames)
        now = slice(first, first + len(frames))
        points = [
            converted(part[now], self.topology, self.compositor.topology) for part in (motion.source, motion.target)
        ]
        masks = holes(np.concatenate(points, 1), self.size, self.compositor.grow)  # type: ignore[arg-type]
        composed = self.compositor.compose(frames, masks, heads, masks)
        return Rendered.painted(frames, composed, masks)


@dataclass(frozen=True)
class Composing:
    """Loads a generator whose edits the compositor at `location` puts back; travels to Ray's workers. load: of the generator."""

    load: Callable[[str], Generator]
    location: str
    paint: float

    def __call__(self, generator: str, /) -> Generator:
        """Raises EditError where the two do not fit, FileNotFoundError and ValueError where one cannot be loaded."""
        from spfem_dist.compositors.load import load_compositor

        try:
            compositor = load_compositor(self.location)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"--compose: {error}") from None
        return Composed(self.load(generator), compositor, self.paint)
