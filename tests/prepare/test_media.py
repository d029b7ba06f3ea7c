"""What cameras and other tools leave on a disk is read in order and at its times, or refused; nothing else is opened."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_recording import clip_of, film, indexes, load, picture, refused

from spfem_dist.prepare.faces import AlignedFinder
from spfem_dist.prepare.media import probe, shown
from spfem_dist.prepare.recording import load_recording
from spfem_dist.records import Unusable

FIELD = Path(__file__).resolve().parents[2] / ".." / "shared" / "field"


def times_of(path: Path) -> list[float]:
    facts = probe(path)
    return [float(ticks * facts.time_base) for _, ticks, *_ in shown(path, facts)]


def packed_anew(source: Path, out: Path, later: float = 0.0, container: str | None = None) -> Path:
    """The packets of `source` in another container, all `later` seconds later."""
    with av.open(str(source)) as a, av.open(str(out), "w", format=container) as b:
        tracks = {stream.index: b.add_stream_from_template(stream) for stream in a.streams}
        for packet in a.demux():
            if packet.size:
                moved = round(later / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = tracks[packet.stream.index]
                b.mux(packet)
    return out


def camera(
    path: Path,
    codec: str = "mpeg4",
    frames: int = 75,
    dropped: tuple[int, ...] = (),
    drawn: Callable[[int], np.ndarray] = picture,
    **options: str,
) -> Path:
    """A film of 25 frames a second without sound, from which a busy camera left some out."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        video.options = options
        video.codec_context.bit_rate = 4_000_000
        for index in sorted(set(range(frames)) - set(dropped)):
            frame = av.VideoFrame.from_ndarray(drawn(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture
def sound(tmp_path) -> Path:
    return film(tmp_path / "sound.m4a", frames=1, rate=25, codec="mpeg4", sound=3.0)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_avi_with_b_frames_gives_its_frames_in_order_and_equally_spaced(tmp_path, sound, codec):
    """An .avi keeps no times for pictures that are stored out of order."""
    path = camera(tmp_path / "a.avi", codec, bf="3")
    result = load(path, sound)
    assert np.abs(np.array(indexes(result.frames)) - np.arange(75) % 60).max() <= (codec == "mpeg4")
    assert times_of(path) == pytest.approx([k / 25 for k in range(75)])


def test_an_avi_with_b_frames_that_lost_some_is_refused(tmp_path, sound):
    path = camera(tmp_path / "a.avi", "libx264", bf="3", g="250", crf="10")
    with av.open(str(path)) as container:
        places = [(packet.pos + 8, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[30:33]:
        data[position : position + size] = bytes(size)
    path.write_bytes(bytes(data))
    with pytest.raises(Unusable, match=r"damaged|truncated"):
        load(path, sound)


def test_an_avi_with_b_frames_from_which_a_camera_dropped_some_has_no_times(tmp_path, sound):
    assert "out of order" in refused("no-times", camera(tmp_path / "a.avi", "libx264", dropped=(10, 11, 30)), sound)


def test_a_trimmed_clip_is_what_it_shows(tmp_path, sound):
    """Cut by `ffmpeg -ss -c copy`, QuickTime or a phone: an edit list hides the first frames."""
    whole = camera(tmp_path / "a.mp4", "libx264", frames=75)
    trimmed = packed_anew(whole, tmp_path / "b.mp4", later=-0.4)
    assert probe(trimmed).frames == 65
    assert indexes(load(trimmed, sound, fps=25, limits=None).frames) == [k % 60 for k in range(10, 75)]


def test_a_trimmed_clip_that_was_cut_short_is_still_truncated(tmp_path, sound):
    whole = camera(tmp_path / "a.mp4", "libx264", frames=75, preset="ultrafast", crf="1")
    with av.open(str(whole)) as a, av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as b:
        track = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux():
            if packet.size:
                earlier = round(0.4 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - earlier, packet.dts - earlier, track
                b.mux(packet)
    data = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: int(0.7 * len(data))])
    refused("truncated", tmp_path / "b.mp4", sound)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.flv", "a.mov"])
def test_a_film_that_starts_at_ten_seconds_is_whole(tmp_path, name):
    path = packed_anew(film(tmp_path / "from0.mp4", frames=50, rate=25, sound=2.0), tmp_path / name, later=10.0)
    result = load(path)
    assert indexes(result.frames) == list(range(50))
    assert np.abs(result.speech).max() > 0.3


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264")])
def test_frames_that_a_camera_dropped_are_no_loss_of_the_file(tmp_path, sound, name, codec):
    dropped = (10, 11, 30, 31, 32, 50, 60, 61, 70)
    path = camera(tmp_path / name, codec, dropped=dropped)
    there = [k for k in range(75) if k not in dropped]
    result = load(path, sound)
    nearest = [min(there, key=lambda t, k=k: (abs(t - k), t)) % 60 for k in range(75)]
    assert np.abs(np.array(indexes(result.frames)) - nearest).max() <= (codec == "mpeg4")


def test_an_avi_that_was_cut_short_is_truncated(tmp_path, sound):
    data = camera(tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    refused("truncated", tmp_path / "cut.avi", sound)


def moving_bar(index: int) -> np.ndarray:
    """A bar that is 6 pixels further in the second half of the time that a frame is shown."""
    frame = np.full((64, 64, 3), 60, np.uint8)
    for field in (0, 1):
        at = 4 + 12 * (index % 4) + 6 * field
        frame[field::2, at : at + 8] = 200
    return frame


def combs(frame: np.ndarray) -> float:
    grey = frame.astype(float).mean(-1)
    return float(np.abs(grey[2:] + grey[:-2] - 2 * grey[1:-1]).mean() / 4)


@pytest.mark.parametrize(
    ("codec", "order"), [("libx264", "tff=1"), ("libx264", "bff=1"), ("mpeg2video", ""), ("mpeg4", "")]
)
def test_interlaced_pictures_are_deinterlaced_one_for_each(tmp_path, codec, order):
    options = {"x264-params": order, "crf": "1"} if order else {"flags": "+ildct+ilme", "qscale": "1"}
    path = camera(tmp_path / "a.mkv", codec, frames=20, drawn=moving_bar, **options)
    facts = probe(path)
    seen = list(shown(path, facts))
    frames = [picture.frame.to_ndarray(format="rgb24") for picture in seen]
    assert all(picture.deinterlaced for picture in seen)
    assert len(frames) == 20
    assert times_of(path) == pytest.approx([k / 25 for k in range(20)], abs=1e-3)
    assert np.mean([combs(frame) for frame in frames]) < 0.5 * np.mean([combs(moving_bar(k)) for k in range(20)])


def test_progressive_pictures_are_left_alone(tmp_path):
    path = camera(tmp_path / "a.mkv", "libx264", frames=10, drawn=moving_bar)
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours = [frame.to_ndarray(format="rgb24") for frame, *_ in shown(path, probe(path))]
    np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile neighbour.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nneighbour.mp4\n"],
)
def test_a_playlist_under_a_films_name_opens_nothing(tmp_path, text):
    film(tmp_path / "neighbour.mp4")
    (tmp_path / "list.mp4").write_text(text)
    refused("unreadable", tmp_path / "list.mp4")


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "http:b.mp4", "c%03d.mp4", "[d].mp4", "-e.mp4"):
        film(tmp_path / name, frames=3)
        assert probe(Path(name)).frames == 3


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_are_no_film(tmp_path, seed):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(seed).bytes(200_000))
    with pytest.raises(Unusable, match=r"a\.mp4"):
        probe(tmp_path / "a.mp4")


def test_a_name_that_is_no_utf8_is_opened(tmp_path):
    path = film(tmp_path / "a.mp4", frames=3).rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert probe(path).frames == 3


@pytest.mark.skipif(not FIELD.is_dir(), reason="the field's inputs are not beside the repository")
def test_the_inputs_from_the_field_are_read():
    avi = FIELD / "mead_h264_avi" / "M001" / "video" / "front"
    for path in sorted(avi.rglob("*.avi")):
        facts = probe(path)
        lumas = [float(f.to_ndarray(format="gray").mean()) for f, *_ in shown(path, facts)]
        assert len(lumas) == facts.frames
        assert (np.diff(lumas) > 0).all(), "a brightness ramp in its order"
    for path in sorted((FIELD / "ravdess_trimmed").rglob("*.mp4")):
        raw = load_recording(clip_of(path), 64, 25.0, AlignedFinder())
        assert len(raw.frames) == round(probe(path).duration * 25)
    woven = list(shown(FIELD / "head_interlaced.mp4", probe(FIELD / "head_interlaced.mp4")))
    assert all(picture.deinterlaced and not picture.frame.interlaced_frame for picture in woven)
