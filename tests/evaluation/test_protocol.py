"""What is edited: sources, emotions and references by the protocol's data files, and errors that name what is missing."""

import json

import pytest

from spfem_dist.corpora.splits import Split
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.protocol import Protocol, ProtocolError, protocol_for
from spfem_dist.shard_format import GroupEntry, RecordingEntry


def group(speaker, sentence, emotions=SEVEN, levels=(1,)):
    recordings = [
        RecordingEntry(name=f"{e.value}-{level}-1", emotion=e, level=level, take=1, frames=30)
        for e in emotions
        for level in levels
    ]
    return GroupEntry(
        key=f"{speaker}_{sentence}", speaker=speaker, sentence=sentence, offset=0, bytes=512, recordings=recordings
    )


def synthetic(speakers=range(20, 26), sentences=(11, 12, 13), **more):
    return [group(f"S{a}", f"{b}", **more) for a in speakers for b in sentences]


def edits(groups, **more):
    return protocol_for("synthetic").edits(groups, Split.load("synthetic"), **more)


def test_each_neutral_source_is_shown_in_six_emotions_with_two_kinds_of_reference():
    found = edits(synthetic())
    assert len(found) == 6 * 6 * 2
    assert {e.source.emotion for e in found} == {Emotion.NEUTRAL}
    assert all(e.reference.emotion is e.emotion for e in found)
    assert all((e.reference.speaker == e.source.speaker) == (e.reference_identity == "intra") for e in found)


def test_references_say_another_sentence_where_there_is_one():
    assert all(e.reference.sentence != e.source.sentence for e in edits(synthetic()))
    alone = edits(synthetic(sentences=(11,)))
    assert {e.reference.sentence for e in alone} == {"11"}


def test_more_sentences_give_more_sources_and_other_references():
    found = [
        e for e in edits(synthetic(), sentences=3) if e.source.speaker == "S20" and e.reference_identity == "cross"
    ]
    assert {e.source.sentence for e in found} == {"11", "12", "13"}
    assert len({e.reference.sentence for e in found}) > 1


def test_the_strongest_level_is_the_reference():
    found = edits(synthetic(levels=(1, 3, 2)))
    assert {e.reference.recording.split("-")[1] for e in found} == {"3"}


@pytest.mark.parametrize("name", ["synthetic", "heads", "mead", "ravdess"])
def test_rings_are_those_of_the_splits_and_pass_every_test_speaker(name):
    protocol = Protocol.load(name)
    split = Split.load(protocol.split)
    speakers = split.part("test").speakers
    assert set(protocol.ring) == set(protocol.ring.values()) == speakers
    assert protocol.ring == (split.ring or protocol.ring)
    seen, speaker = [], min(speakers)
    while speaker not in seen:
        seen.append(speaker)
        speaker = protocol.ring[speaker]
    assert set(seen) == speakers


def test_the_papers_ring_drives_m003_by_w015():
    assert protocol_for("mead").ring["M003"] == "W015"
    assert protocol_for("ravdess").ring["actor01"] == "actor06"


def test_other_speakers_stand_in_a_ring_of_their_own(tmp_path):
    split = {
        "corpus": "x",
        "description": "",
        "train": {"speakers": [], "sentences": []},
        "validation": {"speakers": [], "sentences": []},
        "test": {"speakers": None, "sentences": None},
    }
    (tmp_path / "x.json").write_text(json.dumps(split))
    groups = [group(s, "1") for s in "ABC"]
    found = protocol_for("synthetic").edits(groups, Split.load(tmp_path / "x.json"))
    assert {(e.source.speaker, e.reference.speaker) for e in found if e.reference_identity == "cross"} == {
        ("A", "C"),
        ("B", "A"),
        ("C", "B"),
    }


def test_what_is_missing_is_named():
    with pytest.raises(ProtocolError, match="no test recording in these shards: choose a split"):
        edits([])
    without = [e for e in SEVEN if e is not Emotion.SAD]
    with pytest.raises(ProtocolError, match="S20 has no test recording of sad, the intra reference for S20"):
        edits(synthetic(emotions=without))
    with pytest.raises(ProtocolError, match="S20 has no neutral test recording"):
        edits(synthetic(emotions=SEVEN[1:]))
    with pytest.raises(ProtocolError, match="S25, whose recordings are the reference for S20"):
        edits(synthetic(speakers=(20, 21)))
    with pytest.raises(ProtocolError, match="no protocol 'cremad'; known: heads, mead, ravdess, synthetic"):
        protocol_for("cremad")


def test_a_malformed_protocol_is_refused(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"corpus": "x"}))
    with pytest.raises(ProtocolError, match="expected the keys"):
        Protocol.load(tmp_path / "p.json")
