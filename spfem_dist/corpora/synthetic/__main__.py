"""A contact sheet of the synthetic corpus, to look at.

python -m spfem_dist.corpora.synthetic --sheet sheet.png
python -m spfem_dist.corpora.synthetic --sheet visemes.png --what visemes --size 128
python -m spfem_dist.corpora.synthetic --sheet styles.png --style 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import SEVEN


def identities_by_emotions(corpus: SyntheticCorpus) -> np.ndarray:
    """One row for each identity, one column for each emotion: uint8 [rows x S, 7 x S, 3] RGB."""
    rows = []
    for speaker in range(corpus.identities):
        frames = [corpus.render(corpus.clip(speaker, speaker % corpus.sentences, e)).frames for e in SEVEN]
        rows.append(np.concatenate([f[len(f) // 2] for f in frames], axis=1))
    return np.concatenate(rows, axis=0)


def identities_by_time(corpus: SyntheticCorpus, columns: int = 14) -> np.ndarray:
    """One row for each identity, evenly spaced frames of one recording as columns."""
    rows = []
    for speaker in range(corpus.identities):
        frames = corpus.render(corpus.clip(speaker, 0, SEVEN[speaker % 7])).frames
        rows.append(np.concatenate(list(frames[np.linspace(3, len(frames) - 4, columns).astype(int)]), axis=1))
    return np.concatenate(rows, axis=0)


def main() -> None:
    """Write the picture named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", required=True, help="the picture to write, .png")
    parser.add_argument("--what", choices=("emotions", "visemes"), default="emotions")
    parser.add_argument("--identities", type=int, default=8)
    parser.add_argument("--sentences", type=int, default=14)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", type=float, default=0.0)
    asked = parser.parse_args()
    if not Path(asked.sheet).absolute().parent.is_dir() or Path(asked.sheet).suffix != ".png":
        raise SystemExit(f"cannot write {asked.sheet}: its folder must exist and its name must end in .png")
    corpus = SyntheticCorpus(
        asked.identities, asked.sentences, size=asked.size, seed=asked.seed, crossed=True, style=asked.style
    )
    sheet = identities_by_emotions(corpus) if asked.what == "emotions" else identities_by_time(corpus)
    if not cv2.imwrite(asked.sheet, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"cannot write {asked.sheet}: is the disk full, or the file not yours?")
    print(f"wrote {asked.sheet}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
