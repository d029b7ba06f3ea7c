"""What an index of shards says of its data at a glance: who shows which emotion, and what is lacking for training."""

from __future__ import annotations

from spfem_dist.emotions import Emotion
from spfem_dist.shard_format import GroupEntry, ShardIndex


def groups_of(index: ShardIndex) -> list[GroupEntry]:
    """Every utterance group, in the order of the shards."""
    return [group for shard in index.shards for group in shard.groups]


def speakers_by_emotion(index: ShardIndex) -> dict[str, dict[Emotion, int]]:
    """Recordings of each speaker (in name order) in each emotion that occurs (in the order of `Emotion`), 0 for none."""
    found = {r.emotion for group in groups_of(index) for r in group.recordings}
    table = {group.speaker: {e: 0 for e in Emotion if e in found} for group in groups_of(index)}
    for group in groups_of(index):
        for recording in group.recordings:
            table[group.speaker][recording.emotion] += 1
    return dict(sorted(table.items()))


def lacking_pairs(index: ShardIndex) -> str:
    """What is lacking, and what to do, where no speaker says a sentence in two emotions; "" where some speaker does."""
    groups = groups_of(index)
    if any(len({r.emotion for r in group.recordings}) > 1 for group in groups):
        return ""
    emotions = sorted({r.emotion.value for group in groups for r in group.recordings})
    fix = {
        "mead": "MEAD's emotions share the sentences 001 to 003; where equal clip numbers are the same sentence (as in edited "
        "clips), prepare again with --sentences number and a new --out",
    }.get(index.corpus, "prepare recordings of the same sentence in further emotions too")
    return (
        f"no speaker says any sentence in two emotions (the shards show {', '.join(emotions)}), and content is learned from the "
        f"same words in two: {fix}"
    )
