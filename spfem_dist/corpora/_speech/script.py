"""What is said and when: phonemes, sentences, and the timing of one recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream
from spfem_dist.corpora._speech.prosody import PROSODY
from spfem_dist.emotions import SEVEN, Emotion


@dataclass(frozen=True)
class Phoneme:
    """One speech sound.

    seconds: canonical duration. viseme: (open, width, round, teeth) in 0..1. grip: how strongly each of them holds
    against its neighbours (co-articulation). formants: Hz. voice, noise: source strengths. band: centre and width of
    the noise, Hz. burst: a closure followed by a release.
    """

    seconds: float
    viseme: tuple[float, float, float, float]
    grip: tuple[float, float, float, float]
    formants: tuple[float, float, float]
    voice: float
    noise: float = 0.0
    band: tuple[float, float] = (3000.0, 1500.0)
    burst: bool = False


SILENCE = "_"
VOWELS = ("a", "e", "i", "o", "u", "@")
PHONEMES: dict[str, Phoneme] = {
    SILENCE: Phoneme(0.14, (0.0, 0.45, 0.1, 0.0), (0.8, 0.5, 0.5, 0.8), (500, 1500, 2500), 0.0),
    "a": Phoneme(0.15, (1.0, 0.55, 0.0, 0.25), (1.0, 0.7, 0.7, 0.8), (760, 1250, 2550), 1.0),
    "e": Phoneme(0.13, (0.55, 0.85, 0.0, 0.45), (1.0, 1.0, 0.7, 0.8), (520, 1850, 2600), 1.0),
    "i": Phoneme(0.13, (0.28, 1.0, 0.0, 0.75), (1.0, 1.2, 0.7, 0.8), (290, 2250, 3000), 0.9),
    "o": Phoneme(0.14, (0.65, 0.2, 0.75, 0.0), (1.0, 1.0, 1.2, 0.8), (480, 880, 2450), 1.0),
    "u": Phoneme(0.13, (0.28, 0.0, 1.0, 0.0), (1.0, 1.2, 1.5, 0.8), (310, 780, 2350), 0.9),
    "@": Phoneme(0.09, (0.42, 0.5, 0.1, 0.2), (0.7, 0.5, 0.5, 0.5), (500, 1450, 2500), 0.8),
    "m": Phoneme(0.09, (0.0, 0.5, 0.1, 0.0), (2.5, 0.4, 0.4, 1.5), (260, 1050, 2200), 0.45),
    "p": Phoneme(0.10, (0.0, 0.45, 0.2, 0.0), (2.5, 0.4, 0.4, 1.5), (400, 1000, 2300), 0.0, 0.5, (900, 900), True),
    "f": Phoneme(0.10, (0.14, 0.6, 0.0, 1.0), (2.0, 0.6, 0.6, 2.0), (400, 1300, 2400), 0.0, 0.25, (5500, 3500)),
    "s": Phoneme(0.11, (0.16, 0.85, 0.0, 1.0), (1.8, 0.9, 0.7, 1.8), (350, 1600, 2600), 0.0, 0.6, (6000, 1300)),
    "S": Phoneme(0.11, (0.28, 0.2, 0.85, 0.9), (1.8, 1.0, 1.3, 1.8), (350, 1700, 2500), 0.0, 0.65, (3000, 900)),
    "t": Phoneme(0.09, (0.22, 0.7, 0.0, 0.8), (1.2, 0.4, 0.4, 1.0), (350, 1800, 2700), 0.0, 0.6, (4500, 1500), True),
    "k": Phoneme(0.09, (0.38, 0.5, 0.1, 0.3), (0.9, 0.3, 0.3, 0.7), (350, 2000, 2300), 0.0, 0.6, (2000, 600), True),
    "n": Phoneme(0.08, (0.25, 0.6, 0.0, 0.5), (1.0, 0.4, 0.4, 0.8), (270, 1600, 2550), 0.5),
    "l": Phoneme(0.08, (0.42, 0.6, 0.0, 0.3), (0.9, 0.4, 0.4, 0.7), (370, 1150, 2850), 0.7),
    "w": Phoneme(0.09, (0.10, 0.0, 1.0, 0.0), (1.5, 1.2, 1.8, 1.0), (300, 620, 2200), 0.7),
}
CONSONANTS = tuple(p for p in PHONEMES if p not in VOWELS and p != SILENCE)

_ANTICIPATION = np.array((0.2, 0.6, 0.6, 0.2))  # how far a silent mouth takes up its neighbour's shape
_GRID = 0.005  # seconds between points of the canonical viseme and formant curves


def sentences(seed: int, count: int) -> list[tuple[str, ...]]:
    """`count` distinct sentences of 10 to 14 phonemes in three words, with a short silence around each word.

    All draw on the same sixteen sounds, so a picture does not tell the sentence; within a sentence a sound comes back
    after eight others at the earliest, so a picture says much about the place in it.
    """
    found: list[tuple[str, ...]] = []
    for number in range(count):
        rng = stream(seed, Factor.SENTENCE, number)
        while (sentence := _sentence(rng)) in found:
            continue
        found.append(sentence)
    return found


def _sentence(rng: np.random.Generator) -> tuple[str, ...]:
    length = int(rng.integers(10, 15))
    vowel = bool(rng.uniform() < 0.3)
    sounds: list[str] = []
    while len(sounds) < length:
        choices = [p for p in (VOWELS if vowel else CONSONANTS) if p not in sounds[-8:]]
        sounds.append(str(rng.choice(choices)))
        vowel = not vowel if rng.uniform() < 0.85 or vowel else vowel
    first, second = length // 3 + int(rng.integers(0, 2)), 2 * length // 3 + int(rng.integers(0, 2))
    return (SILENCE, *sounds[:first], SILENCE, *sounds[first:second], SILENCE, *sounds[second:], SILENCE)


@dataclass(frozen=True)
class Canon:
    """A sentence on its own clock ("phase", canonical seconds), the same for every speaker and emotion.

    sounds: phonemes. stress: [P], how fully each is spoken, about 1. starts: float64 [P+1], phase of each boundary.
    phase: float64 [G]. visemes: [G, 4]. formants: [G, 3].
    """

    sounds: tuple[str, ...]
    stress: np.ndarray
    starts: np.ndarray
    phase: np.ndarray
    visemes: np.ndarray
    formants: np.ndarray


def canons(seed: int, count: int) -> list[Canon]:
    """The first `count` sentences of the corpus with this seed, each with its own stress pattern."""
    return [
        canon(sounds, np.where([p in VOWELS for p in sounds], _stress(seed, number, len(sounds)), 1.0))
        for number, sounds in enumerate(sentences(seed, count))
    ]


def _stress(seed: int, number: int, length: int) -> np.ndarray:
    return stream(seed, Factor.SENTENCE, number, 1).uniform(0.75, 1.25, length)


def canon(sounds: tuple[str, ...], stress: np.ndarray) -> Canon:
    """The canonical curves of a sentence: phoneme targets blended by dominance functions (Cohen and Massaro 1993)."""
    table = [PHONEMES[p] for p in sounds]
    target = np.array([p.viseme for p in table])
    target[:, 0] = np.minimum(target[:, 0] * stress, 1)
    for place in np.flatnonzero([p == SILENCE for p in sounds]):
        # The mouth waits in a posture on its way to what comes next (or left by what came last).
        neighbour = place + 1 if place + 1 < len(sounds) else place - 1
        target[place] += _ANTICIPATION * (target[neighbour] - target[place])
    seconds = np.array([p.seconds for p in table])
    starts = np.concatenate([[0.0], np.cumsum(seconds)])
    phase = np.arange(0.0, starts[-1] + _GRID, _GRID)
    centre, spread = (starts[:-1] + starts[1:]) / 2, 0.32 * seconds + 0.006
    reach = np.exp(-0.5 * ((phase[:, None] - centre) / spread) ** 2) + 1e-9
    grip = np.array([p.grip for p in table])
    visemes = (reach @ (grip * target)) / (reach @ grip)
    formants = (reach @ np.array([p.formants for p in table])) / reach.sum(1, keepdims=True)
    return Canon(sounds, stress, starts, phase, visemes, formants)


@dataclass(frozen=True)
class Timing:
    """One recording's clock: phoneme p of the canon begins at second starts[p]; starts[-1] is the duration."""

    starts: np.ndarray
    canon_starts: np.ndarray

    @property
    def seconds(self) -> float:
        return float(self.starts[-1])

    def phase(self, times: np.ndarray) -> np.ndarray:
        """Canonical phase at `times` (seconds of this recording); strictly increasing within the recording."""
        return np.interp(times, self.starts, self.canon_starts)

    def time(self, phase: np.ndarray) -> np.ndarray:
        """Seconds of this recording at canonical `phase`: the inverse of `phase`."""
        return np.interp(phase, self.canon_starts, self.starts)


def timing(seed: int, key: tuple[int, int], emotion: Emotion, take: int, sentence: Canon) -> Timing:
    """When (speaker, sentence) = key says each phoneme in `emotion`.

    Phonemes last their canonical time x the emotion's slowness x the word's tempo exp(N(0, 0.2)) x exp(N(0, 0.35));
    pauses between words last 0.02 to 0.4 s (log-uniform) whatever the emotion, so a linear stretch between two
    recordings misses.
    """
    rng = stream(seed, Factor.TIMING, *key, SEVEN.index(emotion), take)
    pauses = np.array([p == SILENCE for p in sentence.sounds])
    tempo = np.exp(0.2 * rng.standard_normal(pauses.sum()))[np.cumsum(pauses) - 1]
    seconds = np.diff(sentence.starts) * PROSODY[emotion].slowness * tempo
    seconds = np.clip(seconds * np.exp(0.35 * rng.standard_normal(len(seconds))), 0.04, 0.40)
    seconds[pauses] = np.exp(rng.uniform(np.log(0.02), np.log(0.40), pauses.sum()))
    seconds[[0, -1]] = rng.uniform(0.03, 0.12, 2)
    return Timing(np.concatenate([[0.0], np.cumsum(seconds)]), sentence.starts)
