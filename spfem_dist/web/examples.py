"""Films to try the page with: rendered people who talk, made once for each user and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spfem_dist.corpora import rendered
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.film import filmed
from spfem_dist.files import cache_folder, whole_file

_SIDE = 320
#: Changed when the films would be others.
_VERSION = 1


def examples(say: Callable[[str], object] = print) -> list[Path]:
    """The example films; rendered where they are not in the cache yet, which takes a while and is said."""
    folder = cache_folder(f"examples-{_VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        folder / f"example-{kind}-{speaker}-{sentence}.mp4": (kind, speaker, sentence)
        for kind in rendered.kinds()
        for speaker, sentence in getattr(rendered.find(kind), "SHOWN", ())
    }
    missing = [film for film in wanted if not film.exists()]
    if missing:
        say(f"rendering {len(missing)} example films into {folder}, once: half a minute")
    for film in missing:
        kind, speaker, sentence = wanted[film]
        corpus = rendered.corpus(kind, size=_SIDE)
        made = corpus.render(corpus.clip(speaker, sentence, Emotion.NEUTRAL))
        with whole_file(film) as temporary:
            temporary.write_bytes(filmed(made.frames, made.fps, made.speech))
    return list(wanted)
