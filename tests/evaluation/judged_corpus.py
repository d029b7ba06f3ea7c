"""What makes corpus and judges small: two speakers to train on and two to test, three steps for each judge."""

SPLIT = {
    "corpus": "synthetic",
    "description": "two speakers train and two are tested",
    "source": "the tests",
    "train": {"speakers": ["S00", "S01"], "sentences": ["00"]},
    "validation": {"speakers": [], "sentences": []},
    "test": {"speakers": ["S02", "S03"], "sentences": ["01", "02"]},
}
BRIEF_PROTOCOL = {
    "corpus": "synthetic",
    "description": "two emotions",
    "source": "the tests",
    "split": "",
    "emotions": ["happy", "sad"],
    "sentences": 1,
    "ring": {},
}
#: What makes the judges' recipe a matter of seconds.
BRIEF = ["--local", "--tracking.uri", "", "--tracking.log-every-steps", "1", "--data.frames-per-recording", "12"]
for judge in ("oracle", "identity", "synchrony"):
    BRIEF += [f"--{judge}.steps", "3", f"--{judge}.global-batch", "2", f"--{judge}.optimizer.warmup-steps", "1"]
