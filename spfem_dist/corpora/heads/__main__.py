"""A contact sheet of the rendered heads, to look at.

python -m spfem_dist.corpora.heads --sheet sheet.png                            # a row for each person, a column for each emotion
python -m spfem_dist.corpora.heads --sheet talk.png --what time --first 20      # frames of one recording in a row
python -m spfem_dist.corpora.heads --sheet layers.png --what layers             # picture, landmarks, depth, normals, mask
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from spfem_dist.corpora.heads.corpus import HeadsCorpus
from spfem_dist.emotions import SEVEN
from spfem_dist.records import Clip

#: Colours of what a mask shows, in the order of `scene.LABELS`.
_PALETTE = np.array(
    [(0, 0, 0), (224, 172, 140), (200, 60, 80), (90, 150, 230), (245, 245, 235), (230, 110, 110), (90, 20, 30), (110, 70, 40), (20, 20, 20), (70, 120, 80)],
    np.uint8,
)  # fmt: skip


def frame_of(corpus: HeadsCorpus, clip: Clip, share: float) -> np.ndarray:
    """The frame at `share` of a recording, uint8 [S, S, 3]; only that one is drawn."""
    scene, moved, units = corpus.staged(clip, clip.emotion)
    step = round(share * (len(moved) - 1))
    return scene.frame(moved[step], units[step], step)


def layers_of(corpus: HeadsCorpus, clip: Clip) -> list[np.ndarray]:
    """A frame, the same with its landmarks, depth, normals and mask, uint8 [S, S, 3] each."""
    scene, moved, units = corpus.staged(clip, clip.emotion)
    step = len(moved) // 2
    frame = scene.frame(moved[step], units[step], step)
    marked = cv2.resize(frame, None, fx=3, fy=3)
    for x, y in (scene.landmarks(moved)[step] * 3).tolist():
        cv2.circle(marked, (round(x), round(y)), 1, (60, 255, 90), -1)
    marked = cv2.resize(marked, (corpus.size, corpus.size), interpolation=cv2.INTER_AREA)
    shown = scene.layers(moved, (step,))
    depth = shown.depth[0]
    near = np.where(np.isfinite(depth), 1 - (depth - depth.min()) / np.ptp(depth[np.isfinite(depth)]), 0)
    grey = np.repeat((255 * near)[..., None], 3, axis=2).astype(np.uint8)
    return [frame, marked, grey, (127.5 * (shown.normals[0] + 1)).astype(np.uint8), _PALETTE[shown.mask[0]]]


def main() -> None:
    """Write the picture named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", required=True, help="the picture to write, .png or .jpg")
    parser.add_argument("--what", choices=("emotions", "time", "layers"), default="emotions")
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", type=float, default=0.0)
    asked = parser.parse_args()
    if not Path(asked.sheet).absolute().parent.is_dir() or Path(asked.sheet).suffix not in (".png", ".jpg"):
        raise SystemExit(f"cannot write {asked.sheet}: its folder must exist and its name must end in .png or .jpg")
    corpus = HeadsCorpus(asked.first + asked.people, 1, size=asked.size, seed=asked.seed, style=asked.style)
    rows = []
    for person in range(asked.first, asked.first + asked.people):
        if asked.what == "emotions":
            row = [frame_of(corpus, corpus.clip(person, 0, emotion), 0.6) for emotion in SEVEN]
        elif asked.what == "time":
            row = [frame_of(corpus, corpus.clip(person, 0, SEVEN[person % 7]), t) for t in np.linspace(0.05, 0.95, 12)]
        else:
            row = layers_of(corpus, corpus.clip(person, 0, SEVEN[person % 7]))
        rows.append(np.concatenate(row, axis=1))
    sheet = np.concatenate(rows, axis=0)
    if not cv2.imwrite(asked.sheet, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 88)):
        raise SystemExit(f"cannot write {asked.sheet}: is the disk full, or the file not yours?")
    print(f"wrote {asked.sheet}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
