"""`--preset`: sizes that belong together, set before the flags that stand beside it.

laptop       64-pixel faces, small networks: minutes to hours on a CPU
paper        256-pixel faces, published networks, batches of 16: GPUs, and weights of `spfem weights list`
paper-h100   the same, computed as a GPU of 2020 or later does it fastest: bf16 products, compiled networks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spfem_dist.config import Run

#: What the published sizes are to every job that has such a setting. The published networks look at 224 pixels of the box around a
#: face's landmarks, which measures 0.86 of the height of a crop that `spfem prepare` makes: 224 of 256.
PAPER = {"network": "paper", "global_batch": 16, "crop": 0.875, "crop_row": 0.52}
#: Preset -> (settings of the run's sections, settings of every job that has them).
PRESETS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "laptop": ({"data": {"size": 64}}, {"network": "small"}),
    "paper": ({"data": {"size": 256}}, PAPER),
    "paper-h100": (
        {"data": {"size": 256}, "zero": {"precision": "bf16-mixed"}, "speed": {"compile": True}},
        PAPER,
    ),
}
FLAG = {"--preset": "Sizes that belong together: laptop (64 px, small), paper (256 px), paper-h100 (compiled, in bf16)"}


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
        sections, job_settings = PRESETS[name]
        whole = [(getattr(made, section), settings) for section, settings in sections.items()]
        for section, settings in (*whole, *((job, job_settings) for job in made.jobs().values())):
            for field, value in settings.items():
                if field in type(section).model_fields:
                    setattr(section, field, value)
    return rest
