"""`--preset`: sizes that belong together, set before the flags that stand beside it.

laptop   64-pixel faces, small networks: minutes to hours on a CPU
paper    256-pixel faces, published networks, batches of 16: GPUs, and weights of `spfem weights list`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spfem_dist.config import Run

#: Preset -> (settings of `data`, settings of every job that has them). The published networks look at 224 pixels of the box around a
#: face's landmarks, which measures 0.86 of the height of a crop that `spfem prepare` makes: 224 of 256.
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "laptop": ({"size": 64}, {"network": "small"}),
    "paper": ({"size": 256}, {"network": "paper", "global_batch": 16, "crop": 0.875, "crop_row": 0.52}),
}
FLAG = {"--preset": "Sizes that belong together: laptop (64 px, small) or paper (256 px)"}


def with_preset(made: Run, arguments: Sequence[str]) -> list[str]:
    """Set the preset that `arguments` name, if any, on `made`; returns the other arguments. Raises ValueError for an unknown one."""
    rest, names = [], []
    words = iter(arguments)
    for word in words:
        if word == "--preset" or word.startswith("--preset="):
            names.append(word.partition("=")[2] or next(words, ""))
        else:
            rest.append(word)
    for name in names[-1:]:
        if name not in PRESETS:
            raise ValueError(f"--preset {name!r} is not known; use one of {', '.join(PRESETS)}")
        data, job_settings = PRESETS[name]
        for section, settings in ((made.data, data), *((job, job_settings) for job in made.jobs().values())):
            for field, value in settings.items():
                if field in type(section).model_fields:
                    setattr(section, field, value)
    return rest
