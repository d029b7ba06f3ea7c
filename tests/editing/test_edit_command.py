"""`spfem edit` as a user types it: the documented commands, and bad input, which ends in one clear message."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pytest
from documented import words_of
from doors import command, well
from toy_generator import film, shown, sound_packets, talking_head, toys_are_loaded

GENERATOR = "runs/demo-stage2"


def spfem(*words, **more):
    return command("spfem", *words, before=toys_are_loaded, **more)


def edit(source, out, *flags, generator="toy-ibug68", **more):
    return spfem("edit", source, "--out", out, "--generator", generator, *flags, **more)


def refused(done, *phrases):
    assert done.code == 1, done.said
    assert "Traceback" not in done.out + done.err, done.err
    assert done.said.count("error:") == 1, done.said
    for phrase in phrases:
        assert str(phrase) in done.said, f"{phrase!r} is not said: {done.said}"


@pytest.fixture
def talk(tmp_path) -> Path:
    return film(tmp_path / "talk.mp4", talking_head().frames)


@pytest.fixture
def aligned(known):
    """Flags for a crop whose landmarks are known."""
    return ["--faces", "aligned", "--landmarks", known, "--emotion", "happy"]


# --- the documented commands --------------------------------------------------------------------------------------


def test_the_shortest_call_needs_no_generator_and_no_place_for_the_result(tmp_path, talk, mesh):
    line = "spfem edit talk.mp4 --emotion happy"
    done = well(command(*words_of(line), cwd=tmp_path, SPFEM_HOME=str(tmp_path)))
    assert "by the generator of the package (--generator names another)" in done.said
    assert sound_packets(tmp_path / "talk-happy.mp4") == sound_packets(talk)
    assert (np.stack(shown(tmp_path / "talk-happy.mp4")[1]) != np.stack(shown(talk)[1])).any()


def test_a_clip_takes_on_the_manner_of_a_reference(tmp_path, talk, mesh):
    line = "spfem edit talk.mp4 --reference angry.mp4 --out edited.mp4 --generator runs/demo-stage2"
    film(tmp_path / "angry.mp4", talking_head(2).frames[:17], rate=30, sound=None)
    done = well(command(*words_of(line), cwd=tmp_path, before=toys_are_loaded))
    assert sound_packets(tmp_path / "edited.mp4") == sound_packets(talk)
    assert "30 frames (1.2 s)" in done.said
    with av.open(str(tmp_path / "edited.mp4")) as container:
        assert "in the manner of angry.mp4" in container.metadata["comment"]


def test_a_clip_takes_on_an_emotion_and_is_shown_beside_its_source(tmp_path, talk, mesh):
    line = "spfem edit talk.mp4 --emotion happy --strength 0.7 --out edited.mp4 --preview side.mp4 --generator runs/demo-stage2"
    well(command(*words_of(line), cwd=tmp_path, before=toys_are_loaded))
    assert shown(tmp_path / "side.mp4")[1][0].shape == (128, 256, 3)
    assert shown(tmp_path / "edited.mp4")[0] == shown(talk)[0]


def test_a_folder_is_edited_in_parallel_and_only_what_is_missing_again(tmp_path, mesh):
    line = "spfem edit clips --emotion happy --out edited --ray --generator runs/demo-stage2"
    for name in ("a.mp4", "inner/b.mov", "c.mkv"):
        film(tmp_path / "clips" / name, talking_head().frames[:12], sound="flac" if name == "c.mkv" else "aac")
    (tmp_path / "clips" / "notes.txt").write_text("not a film")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"\0" * 5000)
    here = str(Path(__file__).parents[1])  # where Ray's workers find the toy
    done = command(*words_of(line), cwd=tmp_path, before=toys_are_loaded, PYTHONPATH=here)
    assert done.code == 1, done.said
    assert "3 clips edited" in done.said
    assert "not edited: " in done.said
    assert "broken.mp4" in done.said
    results = sorted(str(p.relative_to(tmp_path / "edited")) for p in (tmp_path / "edited").rglob("*") if p.is_file())
    assert results == ["a.mp4", "c.mp4", "inner/b.mp4"]
    (tmp_path / "clips" / "broken.mp4").unlink()
    (tmp_path / "edited" / "c.mp4").unlink()
    times = {name: (tmp_path / "edited" / name).stat().st_mtime_ns for name in ("a.mp4", "inner/b.mp4")}
    again = well(command(*words_of(line)[:-3], "--generator", GENERATOR, cwd=tmp_path, before=toys_are_loaded))
    assert "2 of 3 done already and kept" in again.said
    assert {name: (tmp_path / "edited" / name).stat().st_mtime_ns for name in times} == times
    assert (tmp_path / "edited" / "c.mp4").is_file()


def test_a_face_crop_is_edited_by_its_known_landmarks(tmp_path, known):
    line = "spfem edit head.mp4 --faces aligned --landmarks head.npy --emotion sad --out sad.mp4 --generator runs/demo-stage2"
    film(tmp_path / "head.mp4", talking_head().frames)
    shutil.copy(known, tmp_path / "head.npy")
    words = words_of(line, {GENERATOR: "toy-ibug68"})
    well(command(*words, cwd=tmp_path, before=toys_are_loaded))
    change = shown(tmp_path / "sad.mp4")[1][0].astype(float) - shown(tmp_path / "head.mp4")[1][0]
    assert change[54:74, 54:74].mean() > 15, "half of what the toy paints is added"


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_wish_that_is_none_or_unknown_is_refused(tmp_path, talk, aligned):
    out = tmp_path / "e.mp4"
    refused(edit(talk, out, *aligned[:-2]), "--emotion happy", "--reference")
    refused(edit(talk, out, *aligned[:-1], "hapy"), "unknown emotion 'hapy'", "surprised")
    refused(edit(talk, out, *aligned[:-1], "calm"), "--emotion calm", "surprised")
    refused(edit(talk, out, *aligned, "--strength", "-1"), "--strength is -1")
    assert not out.exists()


def test_an_output_that_cannot_be_is_refused(tmp_path, talk, aligned):
    before = talk.read_bytes()
    refused(edit(talk, talk, *aligned), talk, "the original is kept")
    refused(edit(talk, tmp_path / "a" / ".." / "talk.mp4", *aligned), "the original is kept")
    refused(edit(talk, tmp_path / "e.avi", *aligned), "e.avi", ".mp4")
    refused(edit(talk, tmp_path / "e.mp4", *aligned, "--preview", tmp_path / "e.mp4"), "--preview")
    (tmp_path / "file").write_text("in the way")
    refused(edit(talk, tmp_path / "file" / "e.mp4", *aligned), "file", "cannot be written", "another --out")
    refused(edit("/dev/null", tmp_path / "e.mp4", *aligned), "/dev/null")
    assert talk.read_bytes() == before


def test_files_that_are_not_there_are_named_by_their_flag(tmp_path, talk, aligned):
    out, gone = tmp_path / "e.mp4", tmp_path / "gone"
    refused(edit(gone, out, *aligned), gone, "does not exist", "a film or a folder")
    for flag in ("--reference", "--landmarks"):
        refused(edit(talk, out, *aligned, flag, gone), f"{flag} {gone} does not exist")
    refused(edit(talk, out, *aligned, "--reference-landmarks", talk), "--reference-landmarks", "--reference")
    refused(edit(talk, out, "--emotion", "sad", "--faces", "aligned"), "--faces mesh", "--landmarks")


def toys_on_a_full_disk() -> None:
    import resource

    toys_are_loaded()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, talk, aligned):
    out = tmp_path / "new" / "e.mp4"
    words = ["spfem", "edit", talk, "--out", out, "--generator", "toy-ibug68", *aligned]
    refused(command(*words, before=toys_on_a_full_disk), out, "is the disk full?")
    assert list(out.parent.iterdir()) == []


def test_a_missing_output_folder_is_made(tmp_path, talk, aligned):
    well(edit(talk, tmp_path / "new" / "folder" / "e.mp4", *aligned))
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["e.mp4"]


def test_what_is_there_is_kept_unless_it_may_be_overwritten(tmp_path, talk, aligned):
    out = tmp_path / "e.mp4"
    out.write_bytes(b"of somebody else")
    refused(edit(talk, out, *aligned), "e.mp4 is there", "--overwrite")
    assert out.read_bytes() == b"of somebody else"
    well(edit(talk, out, *aligned, "--overwrite"))
    first = out.read_bytes()
    assert "done already and kept" in well(edit(talk, out, *aligned)).said
    refused(edit(talk, out, *aligned, "--strength", "0.5"), "--overwrite")
    assert out.read_bytes() == first
    os.utime(talk, (time.time() + 9, time.time() + 9))
    assert "30 frames" in well(edit(talk, out, *aligned)).said


def damaged(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "bad.mp4"
    whole = film(tmp_path / "whole.mp4", talking_head().frames).read_bytes()
    if kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path = tmp_path / "bad.txt"
        path.write_text("no film at all\n" * 100)
    elif kind == "picture":
        path = tmp_path / "bad.png"
        import cv2

        cv2.imwrite(str(path), talking_head().frames[0])
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            track = container.add_stream("aac", rate=44_100, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 44_100
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    elif kind == "overwritten":
        middle = len(whole) // 3
        path.write_bytes(whole[:middle] + bytes(middle) + whole[2 * middle :])
    elif kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])  # its index is at the end, and gone
    elif kind == "cut behind its index":
        with av.open(str(tmp_path / "whole.mp4")) as a, av.open(str(path), "w", options={"movflags": "faststart"}) as b:
            tracks = {s.index: b.add_stream_from_template(s) for s in a.streams}
            for packet in a.demux():
                if packet.size:
                    packet.stream = tracks[packet.stream.index]
                    b.mux(packet)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    "kind", ["noise", "empty", "text", "picture", "sound", "overwritten", "cut", "cut behind its index"]
)
def test_a_file_that_is_no_whole_film_is_named(tmp_path, aligned, kind):
    bad, out = damaged(kind, tmp_path), tmp_path / "out" / "e.mp4"
    refused(edit(bad, out, *aligned), bad.name)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_clip_of_five_frames_is_edited_or_the_generators_word_is_passed_on(tmp_path):
    short, points = film(tmp_path / "short.mp4", talking_head().frames[:5]), tmp_path / "p.npy"
    np.save(points, talking_head().landmarks[:5])
    flags = ["--faces", "aligned", "--landmarks", points, "--emotion", "sad"]
    well(edit(short, tmp_path / "e.mp4", *flags))
    assert len(shown(tmp_path / "e.mp4")[0]) == 5
    one = film(tmp_path / "one.mp4", talking_head().frames[:1], sound=None)
    np.save(points, talking_head().landmarks[:1])
    refused(edit(one, tmp_path / "f.mp4", *flags), "one.mp4", "1 frames; at least 2 are needed")


def test_a_folder_without_films_and_names_that_meet_are_refused(tmp_path, aligned):
    (tmp_path / "clips").mkdir()
    flags = ["--emotion", "happy", "--faces", "aligned", "--landmarks", tmp_path / "clips"]
    refused(edit(tmp_path / "clips", tmp_path / "out", *flags), "no films in it")
    film(tmp_path / "clips" / "a.mp4", talking_head().frames[:4])
    film(tmp_path / "clips" / "a.mov", talking_head().frames[:4])
    refused(edit(tmp_path / "clips", tmp_path / "out", *flags), "a.mov", "rename one")
    refused(edit(tmp_path / "clips", tmp_path / "out.mp4", *flags), "out.mp4 must be one too")


def test_the_synthetic_corpus_is_edited_from_a_folder_with_its_landmarks(tmp_path):
    for number, name in enumerate(("a", "b")):
        head = talking_head(number + 1, size=64)
        film(tmp_path / "clips" / f"{name}.mp4", head.frames)
        np.save(tmp_path / "clips" / f"{name}.npy", head.landmarks)
    flags = ["--emotion", "happy", "--faces", "aligned", "--landmarks", tmp_path / "clips"]
    flags += ["--reference", tmp_path / "clips" / "b.mp4", "--reference-landmarks", tmp_path / "clips" / "b.npy"]
    done = well(edit(tmp_path / "clips", tmp_path / "clips" / "edited", *flags))
    assert "2 clips edited" in done.said
    assert "2 of 2 done already" in well(edit(tmp_path / "clips", tmp_path / "clips" / "edited", *flags)).said


def test_a_folder_as_it_comes_from_a_camera_is_edited_and_the_rest_is_named(tmp_path):
    clips = tmp_path / "clips"
    for name in ("00001.MTS", "two.Mov", "take [/red].mp4", os.fsdecode(b"caf\xe9.avi")):
        suffix = Path(name).suffix.lower()
        made = film(tmp_path / f"made{suffix}", talking_head().frames[:6], sound=None)
        (clips / name).parent.mkdir(exist_ok=True, parents=True)
        made.rename(clips / name)
        np.save((clips / name).with_suffix(".npy"), talking_head().landmarks[:6])
    (clips / "notes [1].txt").write_text("about them")
    (clips / "._two.Mov").write_bytes(b"what a Mac leaves")
    (clips / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (clips / "list.mp4").write_text("ffconcat version 1.0\nfile two.Mov\n")
    flags = ["--emotion", "happy", "--faces", "aligned", "--landmarks", clips]
    done = edit(clips, tmp_path / "out", *flags)
    assert done.code == 1, done.said
    assert "Traceback" not in done.err
    assert "4 clips edited" in done.said
    assert "notes [1].txt" in done.said
    assert "take [/red].mp4: there was no sound to copy" in done.said
    for name in ("gone.mp4", "list.mp4"):
        assert f"not edited: {clips / name}" in done.said
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 4


def without_rights() -> None:
    """The superuser may read everything; the tests of permissions are another user's."""
    toys_are_loaded()
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


def test_what_may_not_be_read_is_named_and_the_rest_is_edited(tmp_path, known):
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own folders are closed to others
        folder = Path(scratch)
        folder.chmod(0o777)
        for name in ("a.mp4", "closed.mp4", "inner/b.mp4", "shut/c.mp4"):
            film(folder / "clips" / name, talking_head().frames[:6], sound=None)
            np.save((folder / "clips" / name).with_suffix(".npy"), talking_head().landmarks[:6])
        (folder / "clips" / "closed.mp4").chmod(0)
        (folder / "clips" / "shut").chmod(0)
        flags = ["--emotion", "happy", "--faces", "aligned", "--landmarks", folder / "clips"]
        words = ["spfem", "edit", folder / "clips", "--out", folder / "out", "--generator", "toy-ibug68", *flags]
        done = command(*words, before=without_rights, cwd=folder)
        (folder / "clips" / "shut").chmod(0o755)
        assert done.code == 1, done.said
        assert "2 clips edited" in done.said
        for name in ("closed.mp4", "shut"):
            assert f"not edited: {folder / 'clips' / name}" in done.said
        assert done.said.count("Permission denied") == 2


def test_addresses_are_refused_before_anything_is_read(tmp_path, talk, aligned):
    refused(edit(talk, "s3://bucket/e.mp4", *aligned, cwd=tmp_path), "--out s3:/bucket/e.mp4", "aws s3 cp")
    refused(edit(talk, "e.mp4", *aligned, "--preview", "s3://b/p.mp4", cwd=tmp_path), "--preview s3:/b/p.mp4")
    refused(edit("s3://bucket/talk.mp4", "e.mp4", *aligned, cwd=tmp_path), "copy it first")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]


def test_sound_that_does_not_fit_is_said_before_the_generator_is_loaded(tmp_path, aligned):
    source = film(tmp_path / "a.mov", talking_head().frames, sound="pcm_mulaw")
    for more in ([], ["--preview", tmp_path / "p.mp4"]):
        out = tmp_path / ("e.mov" if more else "e.mp4")
        done = spfem("edit", source, "--out", out, "--generator", "/not/there", *aligned, *more)
        refused(done, "pcm_mulaw", "give --out" if not more else "cannot be copied into .mp4")


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
import toy_generator
toy_generator.toys_are_loaded()
toy_generator.Brightener.render = lambda *_: time.sleep(5)  # longer than any chunk takes
print("ready", flush=True)
from spfem_dist.cli import main
main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_edit_leaves_no_half_file(tmp_path, talk, aligned, how):
    code = SLOW.format(tests=str(Path(__file__).parents[1]))
    out = tmp_path / "new" / "e.mp4"
    words = ["edit", talk, "--out", out, "--generator", "toy-ibug68", *aligned]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (out.parent.is_dir() and list(out.parent.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [p.name for p in out.parent.iterdir()] == [".e.mp4.part"]
        time.sleep(0.7)
        process.send_signal(how)
        said = process.communicate(timeout=30)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 128 + how
    assert "Traceback" not in said
    assert len(said.split("\n")) <= 3
    assert list(out.parent.iterdir()) == []


# --- memory -------------------------------------------------------------------------------------------------------

PEAK = """
import resource, sys
sys.path.insert(0, {tests!r})
import toy_generator
toy_generator.toys_are_loaded()
from spfem_dist.cli import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_clip(tmp_path):
    """Six times the frames take a seventh more memory at most; held as pictures, they would take a third."""
    peaks = []
    for count in (60, 360):
        head = talking_head(1, 128, 30)
        points = np.concatenate([head.landmarks] * (count // 30)) * 2
        frames = (np.kron(head.frames[n % 30], np.ones((2, 2, 1), np.uint8)) for n in range(count))
        source = film(tmp_path / f"{count}.mp4", frames)
        np.save(tmp_path / f"{count}.npy", points)
        words = ["edit", source, "--out", tmp_path / f"e{count}.mp4", "--generator", "toy-ibug68", "--emotion", "happy"]
        words += ["--faces", "aligned", "--landmarks", tmp_path / f"{count}.npy"]
        code = PEAK.format(tests=str(Path(__file__).parents[1]))
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split("peak")[1]))
    assert peaks[1] < 1.15 * peaks[0], peaks
