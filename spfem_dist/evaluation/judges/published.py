"""The papers' own judges: ArcFace ResNet-18 for FAD, EfficientFace for CSIM, SyncNet v2 for LSE-D.

A door, and not yet a room: their arithmetic is here (`evaluation.distances`, checked against the published scripts), their
networks are not, since nothing that could be compared with was there to build them against. Figures of judges that were
trained on the corpus must never stand in a table with the papers' figures.
"""

from __future__ import annotations

from typing import NoReturn

from spfem_dist import weights

#: What each judge would be, by its name in `spfem weights list`.
PUBLISHED = {
    "identity": "resnet18-arcface",
    "oracle": "efficientface-affectnet7",
    "synchrony": "syncnet-v2",
}


def published_judges() -> NoReturn:
    """Always raises: MissingWeights that says where the first absent file comes from, or RuntimeError once all are here."""
    for name in PUBLISHED.values():
        weights.locate(name)
    raise RuntimeError(
        "the weights of the published judges are here, but this version cannot run their networks: give --judges the folder "
        "of a run of recipes/metric_nets.py, and say in your tables that its judges were trained on the corpus"
    )
