"""Any folder or table of recordings becomes clips, and what cannot be understood is named by row and column."""

import json
import re
from pathlib import Path

import pytest

from spfem_dist.corpora import folder
from spfem_dist.emotions import Emotion


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def described(clips) -> set[tuple]:
    return {(c.speaker, c.sentence, str(c.emotion), c.level, c.take) for c in clips}


def test_names_and_folders_of_the_two_usual_patterns_are_read(tmp_path):
    put(tmp_path, "anna/hello_world_happy.mp4", "anna/neutral/hello_world.mov", "Ben/hello_SAD.webm")
    clips, rejects = folder.find_clips(tmp_path)
    assert described(clips) == {
        ("anna", "hello-world", "happy", 1, 1),
        ("anna", "hello-world", "neutral", 1, 1),
        ("Ben", "hello", "sad", 1, 1),
    }
    assert not rejects


def test_a_pattern_says_how_names_are_read(tmp_path):
    put(tmp_path, "2024/03-DFA-anger-2-x.mp4")
    (clip,), _ = folder.find_clips(tmp_path, "*/{speaker}-{sentence}-{emotion}-{level}-*")
    assert described([clip]) == {("03", "DFA", "angry", 2, 1)}


@pytest.mark.parametrize("pattern", ["{speaker}/{sentence}", "{speaker}/{sentence}_{mood}", "{speaker}{speaker}"])
def test_a_pattern_that_lacks_something_says_what(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"\{speaker\}, \{sentence\} and \{emotion\} once each"):
        folder.find_clips(tmp_path, pattern)


def test_what_does_not_match_is_a_row_with_the_patterns_and_emotions(tmp_path):
    put(tmp_path, "anna/hello_hapy.mp4", "anna/notes.txt", "anna/all.zip")
    clips, rejects = folder.find_clips(tmp_path)
    assert clips == []
    by_name = {Path(r.path).name: r for r in rejects}
    assert {name: r.reason for name, r in by_name.items()} == {
        "hello_hapy.mp4": "no-match",
        "notes.txt": "stray-file",
        "all.zip": "not-unpacked",
    }
    for part in ("{speaker}/{sentence}_{emotion}", "neutral, angry", "--pattern"):
        assert part in by_name["hello_hapy.mp4"].detail


def test_names_of_any_alphabet_and_length_become_keys_that_never_meet(tmp_path):
    long = "kids are talking by the door and dogs are sitting by it"
    put(tmp_path, f"Zoë/{long}_sad.mp4", "张三/你好_sad.mp4", "李四/你好_sad.mp4", "a b/x_sad.mp4", "a-b/x_sad.mp4")
    clips, rejects = folder.find_clips(tmp_path)
    assert (len({c.group for c in clips}), rejects) == (5, [])
    assert all(len(c.group) <= 64 and c.group.isascii() for c in clips)
    assert {c.speaker for c in clips if c.video.parent.name == "Zoë"} == {"Zoe"}


def test_equal_recordings_are_takes_in_order(tmp_path):
    put(tmp_path, "one.mp4", "two.mp4")
    rows = [{"path": name, "speaker": "a", "sentence": "s", "emotion": "sad"} for name in ("one.mp4", "two.mp4")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    clips, _ = folder.find_clips(tmp_path / "t.jsonl")
    assert [(c.video.name, c.recording) for c in clips] == [("one.mp4", "sad-1-1"), ("two.mp4", "sad-1-2")]


def test_a_table_names_files_parts_and_sound(tmp_path):
    put(tmp_path, "films/one.mp4", "films/one.wav")
    table = tmp_path / "t.csv"
    table.write_text(
        "\ufeffpath,speaker,sentence,emotion,start,end,audio,remark\n"
        'films/one.mp4,anna,"hello, world",joy,1.5,4,,x\n'
        "films/one.mp4,anna,bye,sad,4,,films/one.wav,\n"
    )
    (first, second), rejects = folder.find_clips(table)
    assert rejects == []
    assert (first.sentence, first.emotion, first.start, first.end) == ("hello-world", Emotion.HAPPY, 1.5, 4.0)
    assert (second.audio, second.start, second.end) == (tmp_path / "films/one.wav", 4.0, None)


HEAD = "path,speaker,sentence,emotion,start,end,take\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("one.mp4,a,s,hapy,,,", "row 2, column emotion: 'hapy'.*neutral, angry"),
        ("one.mp4,,s,sad,,,", "row 2, column speaker: empty"),
        ("none.mp4,a,s,sad,,,", "row 2, column path: no file .*none.mp4.*relative to"),
        ("one.mp4,a,s,sad,x,,", "row 2, column start: 'x'; use seconds"),
        ("one.mp4,a,s,sad,3,2,", "row 2, column end: 2 s is not after start, 3 s"),
        ("one.mp4,a,s,sad,,,0", "row 2, column take: '0'; use a whole number from 1 to 999"),
        ("one.mp4,a,s,sad,,,1,more", "row 2, it has more values"),
    ],
)
def test_a_bad_row_is_named_by_row_and_column_with_what_is_allowed(tmp_path, row, said):
    put(tmp_path, "one.mp4", "two.mp4")
    (tmp_path / "t.csv").write_text(f"{HEAD}{row}\ntwo.mp4,b,s,sad,,,\n")
    clips, (reject,) = folder.find_clips(tmp_path / "t.csv")
    assert [c.speaker for c in clips] == ["b"]
    assert reject.reason == "bad-row"
    assert re.search(said, reject.detail)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "t.csv",
            "path,speaker,sentence\n",
            "no column emotion; expected path, speaker, .*found path, speaker, sentence",
        ),
        ("t.csv", "path,speaker,sentence,emotion,strat\n", "'strat' is not known; is it 'start'"),
        ("t.csv", "", "no column path"),
        ("t.jsonl", "{", "row 1: not JSON"),
        ("t.jsonl", "[1]", "row 1: expected an object"),
        ("t.xlsx", "x", r"ends in \.csv, \.tsv or \.jsonl"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        folder.find_clips(tmp_path / name)


def test_a_table_that_is_no_utf8_says_so(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,é".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        folder.find_clips(tmp_path / "t.csv")
