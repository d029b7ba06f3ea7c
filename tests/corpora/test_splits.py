"""Splits are data: the papers' lists are there, parts do not overlap, and mistakes name their fix."""

import json

import pytest

from spfem_dist.config import Data
from spfem_dist.corpora.splits import PARTS, Split, known_splits, own_split

EVALUATION = {"M003", "M009", "M012", "M030", "W015", "W029"}


def write(tmp_path, **changes):
    data = {
        "corpus": "mead",
        "description": "a test",
        "source": "here",
        "train": {"speakers": ["M005", "M007"], "sentences": None},
        "validation": {"speakers": ["M009"], "sentences": None},
        "test": {"speakers": ["M011"], "sentences": None},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v != "absent"}))
    return path


@pytest.mark.parametrize("name", known_splits())
def test_every_shipped_split_loads_and_describes_itself(name):
    split = Split.load(name)
    assert split.description
    assert not split.part("train").overlaps(split.part("test"))
    assert not split.part("train").overlaps(split.part("validation"))


def test_stage_one_is_the_papers_36_speakers_with_w021_held_out():
    split = Split.load("mead_stage1")
    assert len(split.part("train").speakers | split.part("test").speakers) == 36
    assert split.part("test").speakers == {"W021"}
    assert split.accepts("train", "M005", "happy017")
    assert not split.accepts("train", "W021", "happy017")
    assert not EVALUATION & (split.part("train").speakers | split.part("test").speakers)


def test_evaluation_speakers_form_one_ring():
    ring = Split.load("mead_evaluation").ring
    assert ring["M003"] == "W015"
    seen, speaker = [], "M003"
    while speaker not in seen:
        seen.append(speaker)
        speaker = ring[speaker]
    assert set(seen) == EVALUATION
    ravdess = Split.load("ravdess").ring
    assert ravdess["actor01"] == "actor06"
    assert all(ravdess[f"actor{k:02d}"] == f"actor{k - 1:02d}" for k in range(2, 7))


def test_evaluation_holds_out_three_clips_of_each_emotion_and_four_of_neutral():
    split = Split.load("mead_evaluation")
    for part in ("test", "validation"):
        held_out = sorted(split.part(part).sentences)
        assert len([s for s in held_out if s.startswith("neutral")]) == 4
        for emotion in ("angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised"):
            assert len([s for s in held_out if s.startswith(emotion)]) == 3
    assert all(split.accepts("train", "M003", shared) for shared in ("001", "002", "003"))


def test_every_mead_sentence_belongs_to_exactly_one_part():
    split = Split.load("mead_evaluation")
    sentences = ["001", "002", "003", *(f"neutral{n:03d}" for n in range(4, 41))]
    sentences += [f"{e}{n:03d}" for e in ("angry", "happy", "sad") for n in range(4, 31)]
    sentences += [f"disgusted{n:03d}" for n in range(1, 31)]
    for sentence in sentences:
        assert sum(split.accepts(part, "W015", sentence) for part in PARTS) == 1, sentence


def test_cremad_is_speaker_disjoint_and_complete():
    split = Split.load("cremad")
    parts = [split.part(p).speakers for p in PARTS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 91


def test_none_takes_everything_for_training():
    split = Split.load("none")
    assert split.accepts("train", "anyone", "anything")
    assert not split.accepts("test", "anyone", "anything")
    assert not split.accepts("validation", "anyone", "anything")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mead_stage2.*mead_evaluation, mead_stage1.*none"):
        Split.load("mead_stage2")


def test_a_file_of_ones_own_is_a_split(tmp_path):
    split = Split.load(write(tmp_path))
    assert split.name == "mine"
    assert split.accepts("train", "M007", "001")
    assert not split.accepts("train", "M011", "001")
    with pytest.raises(ValueError, match="train, validation, test"):
        split.part("dev")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_overlap_with_training_is_refused(tmp_path, part):
    path = write(tmp_path, **{part: {"speakers": ["M005", "W009"], "sentences": None}})
    with pytest.raises(ValueError, match=rf"train and {part} overlap in speakers M005"):
        Split.load(path)
    with pytest.raises(ValueError, match="overlap"):
        Split.load(write(tmp_path, **{part: {"speakers": None, "sentences": None}}))


def test_the_same_speaker_may_be_tested_on_other_sentences(tmp_path):
    path = write(
        tmp_path,
        train={"speakers": ["M005"], "sentences": ["001"]},
        test={"speakers": ["M005"], "sentences": ["002"]},
    )
    assert Split.load(path).accepts("test", "M005", "002")


@pytest.mark.parametrize(
    "changes",
    [
        {"train": "absent"},
        {"extra": 1},
        {"train": {"speakers": ["M005"]}},
        {"train": {"speakers": "M005", "sentences": None}},
        {"train": {"speakers": [5], "sentences": None}},
        {"train": {"speakers": ["M005", "M005"], "sentences": None}},
        {"ring": {"M005": 3}},
    ],
)
def test_malformed_files_are_refused_by_name(tmp_path, changes):
    with pytest.raises(ValueError, match=r"mine\.json"):
        Split.load(write(tmp_path, **changes))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json does not exist"):
        Split.load(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not JSON"):
        Split.load(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("speakers", "sentences", "sizes"),
    [(10, 3, (7, 1, 2)), (3, 3, (1, 1, 1)), (2, 9, (1, 0, 1)), (1, 10, (7, 1, 2)), (1, 1, (1, 0, 0))],
)
def test_data_without_a_split_get_one_by_speakers_or_sentences(tmp_path, speakers, sentences, sizes):
    names = [f"P{n}" for n in range(speakers)], [f"s{n}" for n in range(sentences)]
    path = tmp_path / "split.json"
    path.write_text(json.dumps(own_split(*names)))
    split = Split.load(path)
    held = names[0] if speakers > 1 else names[1]
    counts = []
    for part in ("train", "validation", "test"):
        accepted = [(p, s) for p in names[0] for s in names[1] if split.accepts(part, p, s)]
        counts.append(len({p if speakers > 1 else s for p, s in accepted}))
    assert (tuple(counts), sum(counts)) == (sizes, len(held))


def test_priors_and_generator_can_learn_from_speakers_who_do_not_meet():
    """12 and 6 of the rendered corpus's training speakers; whom they are scored on stays."""
    whole = Split.load("synthetic")
    priors, generator = (Split.of(Data(speakers=(name,))) for name in ("priors", "generator"))
    seen = [split.part("train").speakers for split in (priors, generator)]
    assert [len(speakers) for speakers in seen] == [12, 6]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == whole.part("train").speakers
    assert priors.part("test") == generator.part("test") == whole.part("test")
    assert priors.part("train").sentences == whole.part("train").sentences


def test_training_speakers_are_chosen_by_name_where_the_split_has_no_sets(tmp_path):
    split = Split.of(Data(split=str(write(tmp_path)), speakers=("M007",)))
    assert split.part("train").speakers == {"M007"}
    assert Split.of(Data(split="none", speakers=("anna",))).part("train").speakers == {"anna"}


def test_speakers_that_do_not_train_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"data.speakers names 'S20', .* the sets priors, generator and the speakers S00, S01"
    ):
        Split.of(Data(speakers=("S20",)))
    with pytest.raises(ValueError, match="'priors', which split mine does not have for training: it has no sets"):
        Split.of(Data(split=str(write(tmp_path)), speakers=("priors",)))


@pytest.mark.parametrize(
    ("sets", "phrase"),
    [
        ({"mine": ["M011"]}, "the set 'mine' has M011, who do not train"),
        ({"M005": ["M007"]}, "the set 'M005' has the name of a speaker"),
        ({"mine": []}, "sets must map names to lists"),
    ],
)
def test_sets_name_training_speakers_only(tmp_path, sets, phrase):
    with pytest.raises(ValueError, match=phrase):
        Split.load(write(tmp_path, sets=sets))
