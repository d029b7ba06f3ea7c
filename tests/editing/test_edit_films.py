"""An edited film has the frames, times and sound of its source; only the face is another."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from toy_generator import Brightener, film, shown, sound_packets, talking_head

from spfem_dist.editing.clip import Edited, EditTarget, edit_clip
from spfem_dist.editing.face import finder_for, follow
from spfem_dist.editing.video import EditError, footage, pictures
from spfem_dist.emotions import Emotion

FIELD = Path(__file__).resolve().parents[2] / ".." / "shared" / "field"
CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"


def edit(source: Path, out: Path, known: Path | None = None, generator=None, faces="aligned", **more) -> Edited:
    generator = generator or Brightener(topology="ibug68" if known else "mesh468")
    target = EditTarget(Emotion.HAPPY)
    return edit_clip(footage(source), out, generator, target, finder_for(faces, known is not None), known, **more)


def brighter(source: Path, out: Path) -> np.ndarray:
    """float [T, H, W]: how much lighter the result is shown."""
    pairs = zip(shown(source)[1], shown(out)[1], strict=True)
    return np.stack([b.astype(float).mean(-1) - a.mean(-1) for a, b in pairs])


@pytest.mark.parametrize(
    ("name", "out", "codec"),
    [
        ("a.mp4", "e.mp4", "aac"),
        ("a.mov", "e.mp4", "pcm_s16le"),
        ("a.mov", "e.mov", "pcm_mulaw"),
        ("a.mkv", "e.mp4", "libopus"),
        ("a.mkv", "e.mkv", "flac"),
        ("a.webm", "e.mp4", "libopus"),
        ("a.mkv", "e.mp4", "aac"),
        ("a.mp4", "e.mp4", "libmp3lame"),
        ("a.avi", "e.mp4", "pcm_s16le"),  # which counts its channels and does not name them
        ("a.avi", "e.mov", "pcm_s16le"),
        ("a.avi", "e.mkv", "libmp3lame"),
        ("a.ts", "e.mp4", "ac3"),
    ],
)
def test_sound_is_copied_packet_by_packet(tmp_path, known, name, out, codec):
    rate = 48_000 if codec == "libopus" else 44_100
    source = film(tmp_path / name, talking_head().frames, sound=codec, sound_rate=rate)
    done = edit(source, tmp_path / out, known)
    before, after = sound_packets(source), sound_packets(tmp_path / out)
    assert [p[-1] for p in after] == [p[-1] for p in before]
    assert done.packets == len(before) > 5
    with av.open(str(source)) as a, av.open(str(tmp_path / out)) as b:
        one, two = a.streams.audio[0], b.streams.audio[0]
        times = [[p[1] * s.time_base for p in ps] for ps, s in ((before, one), (after, two))]
        assert np.abs(np.array(times[0]) - times[1]).max() <= max(one.time_base, two.time_base)
        assert (one.rate, one.layout.nb_channels, one.codec_context.extradata) == (
            two.rate,
            two.layout.nb_channels,
            two.codec_context.extradata,
        )


def test_channels_that_an_avi_only_counts_are_written_and_heard(tmp_path, known):
    mono = film(tmp_path / "mono.avi", talking_head().frames, codec="mjpeg", sound=None, pixels="yuvj420p")
    source = tmp_path / "a.avi"
    with av.open(str(mono)) as a, av.open(str(source), "w") as b:
        pictures_track = b.add_stream_from_template(a.streams.video[0])
        sound = b.add_stream("pcm_s16le", rate=16_000, layout="stereo")
        wave = np.arange(2 * 19_200, dtype=np.int16)[None]
        whole = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
        whole.sample_rate = 16_000
        for packet in a.demux():
            if packet.size:
                packet.stream = pictures_track
                b.mux(packet)
        b.mux([*sound.encode(whole), *sound.encode(None)])
    edit(source, tmp_path / "e.mp4", known)
    with av.open(str(tmp_path / "e.mp4")) as edited:
        heard = np.concatenate([frame.to_ndarray() for frame in edited.decode(audio=0)], axis=1)
        assert edited.streams.audio[0].layout.name == "stereo"
    np.testing.assert_array_equal(heard, wave)


def test_h264_in_an_avi_is_edited_in_its_order(tmp_path, known):
    frames = talking_head().frames.copy()
    for number, frame in enumerate(frames):
        frame[:16, :16] = 8 * number
    source = film(tmp_path / "a.avi", frames, sound="libmp3lame", b_frames=3)
    edit(source, tmp_path / "e.mp4", known)
    times, after = shown(tmp_path / "e.mp4")
    assert times == [Fraction(k, 25) for k in range(30)]
    assert [round(picture[4:12, 4:12].mean() / 8) for picture in after] == list(range(30))


def test_an_interlaced_film_comes_out_progressive_and_it_is_said(tmp_path, known):
    whole = talking_head().frames
    woven = whole.copy()
    woven[:-1, 1::2] = whole[1:, 1::2]  # the lower lines are of the next moment
    source = film(tmp_path / "a.mp4", woven, options={"x264-params": "tff=1", "crf": "8"})
    done = edit(source, tmp_path / "e.mp4", known)
    assert done.frames == 30
    assert "interlaced" in " ".join(done.remarks)
    with av.open(str(tmp_path / "e.mp4")) as edited:
        assert not any(frame.interlaced_frame for frame in edited.decode(video=0))
    assert shown(tmp_path / "e.mp4")[0] == shown(source)[0]


def test_sound_of_an_mp4_keeps_every_number_and_two_tracks_stay_two(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames, sound_seconds=1.7)
    twice = tmp_path / "twice.mp4"
    with av.open(str(source)) as a, av.open(str(source)) as again, av.open(str(twice), "w") as b:
        tracks = [(a, stream, b.add_stream_from_template(stream)) for stream in a.streams]
        tracks.append((again, again.streams.audio[0], b.add_stream_from_template(again.streams.audio[0])))
        tracks[1][2].metadata["language"], tracks[2][2].metadata["language"] = "eng", "deu"
        for packet in [*a.demux(), *again.demux(audio=0)]:
            if packet.size:
                packet.stream = tracks[packet.stream.index][2] if packet.stream.container is a else tracks[2][2]
                b.mux(packet)
    edit(twice, tmp_path / "e.mp4", known)
    assert sound_packets(tmp_path / "e.mp4") == sound_packets(twice) == sound_packets(source) * 2
    with av.open(str(tmp_path / "e.mp4")) as edited:
        assert [track.language for track in edited.streams.audio] == ["eng", "deu"]


def test_every_frame_keeps_its_time_at_a_variable_rate(tmp_path, known):
    times = np.cumsum([0.033, 0.05, 0.02] * 10).round(3)
    source = film(tmp_path / "a.mp4", talking_head().frames, times=times)
    edit(source, tmp_path / "e.mp4", known)
    assert shown(source)[0][:3] == [Fraction(33, 1000), Fraction(83, 1000), Fraction(103, 1000)]
    assert shown(tmp_path / "e.mp4")[0] == shown(source)[0]


def test_a_film_that_was_trimmed_without_coding_it_anew_keeps_what_is_shown(tmp_path):
    whole, trimmed = film(tmp_path / "a.mp4", talking_head().frames), tmp_path / "b.mp4"
    with av.open(str(whole)) as a, av.open(str(trimmed), "w") as b:
        tracks = {stream.index: b.add_stream_from_template(stream) for stream in a.streams}
        for packet in a.demux():
            if packet.size:
                earlier = round(0.4 / packet.time_base)  # the first ten frames lie before the film's beginning
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - earlier,
                    packet.dts - earlier,
                    tracks[packet.stream.index],
                )
                b.mux(packet)
    np.save(tmp_path / "p.npy", talking_head().landmarks[10:])
    edit(trimmed, tmp_path / "e.mp4", tmp_path / "p.npy")
    assert shown(tmp_path / "e.mp4")[0] == shown(trimmed)[0]
    assert len(shown(trimmed)[0]) == 20
    assert sound_packets(tmp_path / "e.mp4") == sound_packets(trimmed) != []


def test_frame_rate_and_length_are_the_sources(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames, rate=30)
    done = edit(source, tmp_path / "e.mp4", known)
    with av.open(str(source)) as a, av.open(str(tmp_path / "e.mp4")) as b:
        old, new = a.streams.video[0], b.streams.video[0]
        assert (new.frames, new.average_rate) == (old.frames, old.average_rate) == (30, 30)
        assert new.duration * new.time_base == old.duration * old.time_base
        assert (new.codec_context.name, new.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert (done.frames, done.seconds) == (30, pytest.approx(1.0))


def test_the_face_is_edited_and_the_rest_stays(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames)
    edit(source, tmp_path / "e.mp4", known)
    change = brighter(source, tmp_path / "e.mp4")
    assert change[:, 54:74, 54:74].mean() == pytest.approx(40, abs=3)
    corners = np.concatenate([change[:, :16, :16], change[:, -16:, -16:]])
    assert np.abs(corners).mean() < 2


@pytest.mark.parametrize("colours", [{"colorspace": 1, "color_range": 1}, {"colorspace": 6, "color_range": 2}, {}])
def test_colours_are_shown_and_named_as_in_the_source(tmp_path, known, colours):
    source = film(tmp_path / "a.mp4", talking_head().frames, colours=colours)
    edit(source, tmp_path / "e.mp4", known, Brightener(topology="ibug68", by=0))
    for before, after in zip(shown(source)[1], shown(tmp_path / "e.mp4")[1], strict=True):
        assert np.abs(before.astype(int) - after).mean() < 2.5
    with av.open(str(source)) as a, av.open(str(tmp_path / "e.mp4")) as b:
        old, new = (c.streams.video[0].codec_context for c in (a, b))
        assert (new.colorspace, max(1, new.color_range)) == (old.colorspace, max(1, old.color_range))


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p"])
def test_finer_colour_is_taken_as_420(tmp_path, known, pixels):
    source = film(tmp_path / "a.mp4", talking_head().frames, pixels=pixels)
    edit(source, tmp_path / "e.mp4", known, Brightener(topology="ibug68", by=0))
    assert np.abs(brighter(source, tmp_path / "e.mp4")).mean() < 3


def test_a_generator_that_does_nothing_gives_the_very_frames_to_the_encoder(tmp_path, known, monkeypatch):
    source = film(tmp_path / "a.mp4", talking_head().frames)
    given = []
    from spfem_dist.editing import clip

    write = clip.Film.write
    monkeypatch.setattr(clip.Film, "write", lambda self, picture: (given.append(picture), write(self, picture)))
    edit(source, tmp_path / "e.mp4", known, Brightener(topology="ibug68", by=0))
    for mine, theirs in zip(given, pictures(footage(source)), strict=True):
        for name in "yuv":
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_a_picture_turned_by_a_flag_comes_out_upright(tmp_path, known):
    source = film(tmp_path / "a.mp4", [np.rot90(f, -1) for f in talking_head().frames], turned=90)
    edit(source, tmp_path / "e.mp4", known)
    with av.open(str(tmp_path / "e.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
    change = brighter(source, tmp_path / "e.mp4")
    assert change[:, 54:74, 54:74].mean() == pytest.approx(40, abs=4)
    assert np.abs(change[:, :16, :16]).mean() < 3


def test_portrait_stays_portrait(tmp_path, mesh):
    wide = [np.rot90(np.pad(f, ((40, 40), (0, 0), (0, 0)), "edge"), -1) for f in talking_head(size=128).frames[:8]]
    source = film(tmp_path / "a.mp4", wide, turned=90)
    edit(source, tmp_path / "e.mp4", faces=mesh)
    assert shown(tmp_path / "e.mp4")[1][0].shape == (208, 128, 3)
    assert brighter(source, tmp_path / "e.mp4").max() > 25


def test_odd_sides_gain_one_line(tmp_path, mesh):
    frames = [f[:127, :125] for f in talking_head(size=128).frames[:8]]
    source = film(tmp_path / "a.mkv", frames, codec="ffv1", sound="flac")
    edit(source, tmp_path / "e.mp4", faces=mesh)
    after = shown(tmp_path / "e.mp4")[1]
    assert after[0].shape == (128, 126, 3)
    assert np.abs(after[0][:127, :125].astype(int) - shown(source)[1][0])[:, :8].mean() < 4


def test_pixels_that_are_not_square_become_so(tmp_path, known):
    source = film(tmp_path / "a.mp4", [f[:, ::2] for f in talking_head().frames])
    stretched = tmp_path / "wide.mp4"
    with av.open(str(source)) as a, av.open(str(stretched), "w") as b:
        new = b.add_stream("libx264", rate=25, width=64, height=128, pix_fmt="yuv420p")
        new.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for frame in a.decode(video=0):
            frame.pict_type = 0
            b.mux(new.encode(frame))
        b.mux(new.encode(None))
    edit(stretched, tmp_path / "e.mp4", known)
    assert shown(tmp_path / "e.mp4")[1][0].shape == (128, 128, 3)


def test_the_preview_shows_both_with_the_sound(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames)
    edit(source, tmp_path / "e.mp4", known, preview=tmp_path / "side.mp4")
    assert sound_packets(tmp_path / "side.mp4") == sound_packets(source)
    left, right = np.split(np.stack(shown(tmp_path / "side.mp4")[1]).astype(float), 2, axis=2)
    assert np.abs(left - np.stack(shown(source)[1])).mean() < 3
    assert np.abs(right - np.stack(shown(tmp_path / "e.mp4")[1])).mean() < 3


def test_a_film_without_sound_is_edited_and_it_is_said(tmp_path, known):
    done = edit(film(tmp_path / "a.mp4", talking_head().frames, sound=None), tmp_path / "e.mp4", known)
    assert done.packets == 0
    assert done.remarks == ("there was no sound to copy",)
    assert len(shown(tmp_path / "e.mp4")[0]) == 30


def test_a_4k_film_is_edited(tmp_path, mesh):
    canvas = np.full((2160, 3840, 3), 90, np.uint8)
    head = np.kron(talking_head(size=128).frames[0], np.ones((10, 10, 1), np.uint8))
    canvas[400:1680, 1200:2480] = head
    source = film(tmp_path / "a.mp4", [canvas] * 3, sound=None)
    edit(source, tmp_path / "e.mp4", faces=mesh, preview=tmp_path / "side.mp4")
    after = shown(tmp_path / "e.mp4")[1]
    change = after[1].astype(float).mean(-1) - shown(source)[1][1].mean(-1)
    assert change[1000:1100, 1800:1880].mean() > 25
    assert np.abs(change[:300]).mean() < 1
    assert shown(tmp_path / "side.mp4")[1][0].shape == (1080, 3840, 3)


def test_an_error_on_the_way_leaves_what_was_there(tmp_path, known):
    class Broken(Brightener):
        def render(self, frames, motion, first=0, flow_side=None):
            raise RuntimeError("out of memory")

    source, out = film(tmp_path / "a.mp4", talking_head().frames), tmp_path / "new" / "e.mp4"
    with pytest.raises(RuntimeError, match="out of memory"):
        edit(source, out, known, Broken(topology="ibug68"))
    assert list(out.parent.iterdir()) == []
    out.write_bytes(b"of before")
    with pytest.raises(RuntimeError, match="out of memory"):
        edit(source, out, known, Broken(topology="ibug68"))
    assert out.read_bytes() == b"of before"


@pytest.mark.skipif(not FIELD.is_dir(), reason="the field's inputs are not beside the repository")
@pytest.mark.parametrize("name", ["head_h264.avi", "head_stereo_pcm.avi", "head_interlaced.mp4", "folder/00001.MTS"])
def test_the_inputs_from_the_field_are_edited(tmp_path, name):
    points = {"head_interlaced.mp4": "head_interlaced.npy", "folder/00001.MTS": "folder_npy/00001.npy"}
    film = footage(FIELD / name)
    done = edit(FIELD / name, tmp_path / "e.mp4", FIELD / points.get(name, "head.npy"))
    assert done.frames == film.frames
    assert done.packets > 5
    assert sound_packets(tmp_path / "e.mp4")
    times = [float(time) for time in shown(tmp_path / "e.mp4")[0]]
    assert np.diff(times) == pytest.approx(np.full(done.frames - 1, 1 / film.fps), abs=1e-3)


def test_sound_that_no_container_here_holds_is_refused_with_the_fix(tmp_path, known):
    source = film(tmp_path / "a.avi", talking_head().frames, codec="mpeg4", sound="adpcm_ms")
    from spfem_dist.editing.film import refuse_unfit_sound

    with pytest.raises(EditError, match=r"a\.avi.*adpcm_ms.*\.mp4.*ffmpeg -i a\.avi"):
        refuse_unfit_sound(footage(source), tmp_path / "e.mp4")
    mulaw = film(tmp_path / "b.mov", talking_head().frames, sound="pcm_mulaw")
    with pytest.raises(EditError, match=r"pcm_mulaw.*give --out .*e\.mov"):
        refuse_unfit_sound(footage(mulaw), tmp_path / "e.mp4")


def test_a_real_clip_changes_in_the_face_alone(tmp_path, mesh):
    source = CLIPS / "MEAD" / "M003" / "video" / "front" / "neutral" / "level_1" / "033.mp4"
    if not source.is_file():
        pytest.skip("real clips are not beside the repository")
    edit(source, tmp_path / "e.mp4", generator=Brightener(256), faces=mesh)
    assert sound_packets(tmp_path / "e.mp4") == sound_packets(source)
    assert shown(tmp_path / "e.mp4")[0] == shown(source)[0]
    change = brighter(source, tmp_path / "e.mp4")
    followed = follow(footage(source), finder_for(mesh, False), 256, "mesh468")
    outside, inside = [], []
    for number, region in enumerate(followed.regions):
        y, x = np.mgrid[:256, :256] + 0.5
        place = region.from_picture(np.stack([x, y], -1), 1.0) - 0.5
        distance = np.hypot(place[..., 0], 0.8 * place[..., 1])
        outside.append(np.abs(change[number])[distance > 0.36].mean())
        inside.append(change[number][distance < 0.15].mean())
    assert np.mean(outside) < 2
    assert np.mean(inside) > 25


def test_sound_that_nothing_here_knows_is_named(tmp_path):
    clip = film(tmp_path / "talk.mp4", talking_head(frames=4).frames)
    clip.write_bytes(clip.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"yyyy"))
    assert footage(clip).sound == ("unknown",)
