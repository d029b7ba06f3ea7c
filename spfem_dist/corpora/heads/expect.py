"""What units to expect of people who talk: the statistics in `head/expected.npz`, over the corpus's programme of speech and emotions.

    python -m spfem_dist.corpora.heads.expect         # two minutes

A fit of units to landmarks (`generators/face/units.py`) takes them as its prior. Nothing is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from spfem_dist.corpora.heads.corpus import HeadsCorpus
from spfem_dist.emotions import SEVEN
from spfem_dist.head import asset

#: People of other seeds than any corpus that is trained or tested on, each with a manner of its own.
_PEOPLE, _SENTENCES, _STYLE, _SEED = 60, 14, 0.8, 1000


def statistics(clips: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Of units of clips, each [T, 52]: the fields of `asset.Expected`, float32."""
    means = np.stack([clip.mean(0) for clip in clips])
    around = np.concatenate([clip - clip.mean(0) for clip in clips])
    steps = np.concatenate([np.diff(clip, axis=0) for clip in clips])
    found = {
        "mean": means.mean(0),
        "between": np.cov(means.T),
        "within": np.cov(around.T),
        "step": np.sqrt((steps**2).mean(0)),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def main() -> None:
    """Write the file that `--out` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(asset.__file__).with_name("expected.npz"))
    asked = parser.parse_args()
    corpus = HeadsCorpus(_PEOPLE, _SENTENCES, seed=_SEED, style=_STYLE, crossed=True)
    clips = [
        corpus.truth(corpus.clip(speaker, (speaker + turn) % _SENTENCES, emotion))["units"]
        for speaker in range(_PEOPLE)
        for turn, emotion in enumerate(SEVEN)
    ]
    arrays: dict[str, Any] = statistics(clips)
    np.savez_compressed(asked.out, **arrays)
    print(f"wrote {asked.out}: {sum(map(len, clips))} frames of {len(clips)} recordings")


if __name__ == "__main__":
    main()
