"""How fast the synthetic corpus is drawn and spoken on one core, and how hard its time warps are.

python benchmarks/render.py                 # 40 recordings at 64, 128 and 256 px, and 126 held-out pairs
python benchmarks/render.py --recordings 4 --pairs 7 --sizes 64
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import librosa
import numpy as np
from figures import hardware, today

from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import SEVEN


def speed(size: int, recordings: int) -> tuple[float, float, float]:
    """Frames/s drawn, frames/s with speech, and seconds of speech made in a second; CPU time of one process."""
    corpus = SyntheticCorpus(size=size)
    clips = corpus.clips()
    chosen = clips[:: max(1, len(clips) // recordings)][:recordings]
    corpus.render(chosen[0])
    start = time.process_time()
    frames = sum(len(corpus.render(clip).frames) for clip in chosen)
    both = time.process_time() - start
    start = time.process_time()
    seconds = sum(len(corpus.speech(clip)) for clip in chosen) / 16_000
    voice = time.process_time() - start
    return frames / (both - voice), frames / both, seconds / voice


def hardness(seed: int, pairs: int) -> dict[str, float]:
    """Linear stretch and MFCC + DTW against the true warp, over pairs of emotions of the test split."""
    corpus = SyntheticCorpus(seed=seed)
    groups: dict[str, list] = {}
    for clip in corpus.clips("test"):
        groups.setdefault(clip.group, []).append(clip)
    rng = np.random.default_rng(0)
    share = -(-pairs // len(groups))
    stretch, warped, used = [], [], 0
    for group in groups.values():
        every = list(itertools.combinations(range(len(SEVEN)), 2))
        for i, j in (every[q] for q in rng.permutation(len(every))[: min(share, pairs - used)]):
            a, b = (corpus.truth(group[q])["phase"] for q in (i, j))
            true = np.interp(a, b, np.arange(len(b)))
            stretch.append(np.abs(np.arange(len(a)) * (len(b) - 1) / (len(a) - 1) - true))
            rows = [_rows(corpus.speech(group[q]), len(phase)) for q, phase in ((i, a), (j, b))]
            path = librosa.sequence.dtw(*rows, metric="cityblock")[1]
            warped.append(np.abs(np.array([path[path[:, 0] == t, 1].mean() for t in range(len(a))]) - true))
            used += 1
    stretch_error, warp_error = np.concatenate(stretch), np.concatenate(warped)
    return {
        "pairs": used,
        "linear_stretch_within_2": float((stretch_error <= 2).mean()),
        "dtw_within_2": float((warp_error <= 2).mean()),
        "dtw_mean_error_frames": float(warp_error.mean()),
    }


def _rows(sound: np.ndarray, frames: int) -> np.ndarray:
    """MFCC with the mean taken out, one column per video frame at 25 fps."""
    mfcc = librosa.feature.mfcc(y=sound, sr=16_000, n_mfcc=13, hop_length=640, n_fft=1024)[:, :frames]
    return mfcc - mfcc.mean(1, keepdims=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=126)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--smoke", action="store_true", help="as little of everything as shows that it runs")
    asked = parser.parse_args()
    if asked.smoke:
        asked.recordings, asked.pairs, asked.sizes, asked.seeds = 2, 2, [64], [0]
    warnings.filterwarnings("ignore", category=UserWarning)
    print(f"{hardware()}; {today()}; one process, one thread, CPU time")
    for size in asked.sizes:
        drawn, both, voice = speed(size, asked.recordings)
        print(f"{size:4d} px: {drawn:6.0f} frames/s drawn, {both:6.0f} with speech; speech {voice:4.0f} x real time")
    for seed in asked.seeds:
        found = hardness(seed, asked.pairs)
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" if k != "pairs" else f"{v} pairs" for k, v in found.items()))


if __name__ == "__main__":
    main()
