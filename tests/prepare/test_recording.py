"""A recording is opened at constant rate with its speech in step, or refused with the reason and the file's name."""

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from spfem_dist.corpora import mead
from spfem_dist.emotions import Emotion
from spfem_dist.prepare import recording
from spfem_dist.prepare.faces import AlignedFinder, CascadeFinder, MeshFinder
from spfem_dist.prepare.recording import SPEECH_RATE, Limits, load_recording, probe
from spfem_dist.records import Clip, Unusable

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips" / "MEAD"


def picture(index: int, width: int = 64, height: int = 64) -> np.ndarray:
    """Frame `index` of the test films: its grey level says which one it is, four levels a frame."""
    return np.full((height, width, 3), 8 + 4 * (index % 60), np.uint8)


def film(
    path: Path,
    frames: int = 30,
    rate: Fraction | int = 30,
    codec: str = "libx264",
    sound: float | None = 1.0,
    times: list[float] | None = None,
    tone: float = 0.5,
    sound_start: float = 0.0,
    width: int = 64,
    height: int = 64,
    index_first: bool = True,
    b_frames: int = 0,
) -> Path:
    """A film of `picture(0..frames)` with `sound` seconds of a 440 Hz tone (None: no track), which starts late."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" and index_first else {}
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream(codec, rate=rate, width=width, height=height, pix_fmt="yuv420p")
        if codec == "libx264":
            video.options = {"crf": "10", "preset": "ultrafast", "bf": str(b_frames)}
        video.time_base = video.codec_context.time_base = Fraction(1, 90_000) if times else 1 / Fraction(rate)
        audio_codec = {".flv": "libmp3lame"}.get(path.suffix, "aac")
        audio = container.add_stream(audio_codec, rate=44_100, layout="stereo") if sound is not None else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(times[index] * 90_000) if times else index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            wave = tone * np.sin(2 * np.pi * 440 * np.arange(int(sound * 44_100)) / 44_100)
            for begin in range(0, len(wave), 1152):
                block = np.stack([wave[begin : begin + 1152]] * 2).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.time_base = 44_100, Fraction(1, 44_100)
                frame.pts = begin + round(sound_start * 44_100)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def clip_of(video: Path, audio: Path | None = None) -> Clip:
    return Clip("mead", "M005", "001", Emotion.HAPPY, 3, 1, video, audio)


def load(video: Path, audio: Path | None = None, fps: float = 25.0, size: int = 64, **more):
    return load_recording(clip_of(video, audio), size, fps, AlignedFinder(), **more)


def indexes(frames: np.ndarray) -> list[int]:
    return [round((float(f.mean()) - 8) / 4) for f in frames]


def refused(reason: str, video: Path, audio: Path | None = None, **more) -> str:
    with pytest.raises(Unusable) as error:
        load(video, audio, **more)
    assert error.value.reason == reason, error.value.detail
    assert (audio or video).name in error.value.detail or video.name in error.value.detail
    return error.value.detail


def test_frames_and_speech_have_one_duration(tmp_path):
    result = load(film(tmp_path / "a.mp4", frames=25, rate=25))
    assert result.frames.shape == (25, 64, 64, 3)
    assert result.frames.dtype == np.uint8
    assert indexes(result.frames) == list(range(25))
    assert result.speech.shape == (SPEECH_RATE,)
    assert result.speech.dtype == np.float32
    assert result.valid.all()
    assert result.landmarks is None


def test_speech_keeps_its_pitch_and_level(tmp_path):
    speech = load(film(tmp_path / "a.mp4", frames=25, rate=25)).speech
    spectrum = np.abs(np.fft.rfft(speech[2000:14000]))
    assert np.fft.rfftfreq(12000, 1 / SPEECH_RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(speech[2000:14000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.flv", "flv"), ("a.mov", "mpeg4"), ("a.mkv", "libx264")]
)
def test_any_codec_and_container_is_read(tmp_path, name, codec):
    result = load(film(tmp_path / name, frames=30, rate=30, codec=codec), fps=30)
    assert np.abs(np.array(indexes(result.frames)) - np.arange(30)).max() <= 1
    assert len(result.speech) == SPEECH_RATE


def test_frames_stored_out_of_order_come_in_order(tmp_path):
    result = load(film(tmp_path / "a.mp4", frames=30, rate=30, b_frames=3), fps=30)
    assert indexes(result.frames) == list(range(30))


def test_full_scale_stereo_is_not_clipped(tmp_path):
    speech = load(film(tmp_path / "a.mp4", frames=25, rate=25, tone=0.95)).speech
    assert np.mean(np.abs(speech) > 0.99) < 0.01


def test_2997_frames_a_second_become_30_without_drift(tmp_path):
    result = load(film(tmp_path / "a.mp4", frames=60, rate=Fraction(30_000, 1001), sound=2.0), fps=30)
    assert indexes(result.frames) == list(range(60))


def test_2997_frames_a_second_become_25_by_nearest_time(tmp_path):
    result = load(film(tmp_path / "a.mp4", frames=60, rate=Fraction(30_000, 1001), sound=2.0), fps=25)
    assert len(result.frames) == 50
    wanted = [min(range(60), key=lambda i, k=k: abs(i * 1001 / 30_000 - k / 25)) for k in range(50)]
    assert indexes(result.frames) == wanted


def test_irregular_times_are_resampled_by_time(tmp_path):
    times = np.arange(40) / 30 + 0.008 * np.random.default_rng(0).standard_normal(40)
    times = np.sort(times - times[0]).tolist()
    result = load(film(tmp_path / "a.mp4", frames=40, times=times, sound=1.33), fps=30)
    wanted = [
        min(range(40), key=lambda i, k=k: (abs(round(times[i], 5) - k / 30), i)) for k in range(len(result.frames))
    ]
    assert np.mean(np.array(indexes(result.frames)) == wanted) > 0.9
    assert np.abs(np.array(indexes(result.frames)) - wanted).max() <= 1


def test_late_sound_is_moved_to_its_place(tmp_path):
    speech = load(film(tmp_path / "a.mp4", frames=30, rate=25, sound=1.0, sound_start=0.2), fps=25).speech
    assert np.abs(speech[: int(0.15 * SPEECH_RATE)]).max() < 0.01
    assert np.abs(speech[int(0.25 * SPEECH_RATE) : int(0.5 * SPEECH_RATE)]).max() > 0.3


def test_speech_comes_from_the_clips_sound_file_where_there_is_one(tmp_path):
    video = film(tmp_path / "a.mp4", frames=25, rate=25, sound=None)
    audio = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=1.0)
    assert np.abs(load(video, audio).speech).max() > 0.3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_part_of_a_film_is_the_same_frames_and_sound_as_in_the_whole(tmp_path, name, b_frames):
    path = film(tmp_path / name, frames=60, rate=25, sound=2.4, sound_start=0.1, b_frames=b_frames)
    whole = load(path)
    for start, end in ((0.0, 0.8), (0.8, 1.6), (1.2, None)):
        part = load_recording(replace(clip_of(path), start=start, end=end), 64, 25.0, AlignedFinder())
        frames = slice(round(start * 25), None if end is None else round(end * 25))
        assert indexes(part.frames) == list(range(60))[frames]
        samples = slice(round(start * SPEECH_RATE), None if end is None else round(end * SPEECH_RATE))
        wanted = whole.speech[samples]
        assert np.abs(part.speech[: len(wanted)] - wanted).max() < 1e-6


def test_a_part_of_a_film_takes_that_part_of_its_sound_file(tmp_path):
    path = film(tmp_path / "a.mp4", frames=60, rate=25, sound=None)
    speech = np.linspace(-0.5, 0.5, round(2.4 * SPEECH_RATE), dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", speech, SPEECH_RATE, subtype="FLOAT")
    clip = replace(clip_of(path, tmp_path / "a.wav"), start=0.8, end=1.6)
    part = load_recording(clip, 64, 25.0, AlignedFinder())
    assert len(part.frames) == 20
    # The resampler has its own delay of some samples.
    assert np.abs(part.speech - speech[round(0.8 * SPEECH_RATE) :][: len(part.speech)]).max() < 0.01


@pytest.mark.parametrize(("start", "end", "reason"), [(9.0, None, "beyond-the-end"), (1.0, 1.2, "too-short")])
def test_a_part_that_is_not_there_is_refused_with_its_place(tmp_path, start, end, reason):
    path = film(tmp_path / "a.mp4", frames=60, rate=25, sound=2.4)
    with pytest.raises(Unusable) as error:
        load_recording(replace(clip_of(path), start=start, end=end), 64, 25.0, AlignedFinder())
    assert error.value.reason == reason


def test_a_turned_film_is_set_upright(tmp_path):
    """The display matrix of a telephone held upright: what is stored at the right belongs at the bottom."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        stored = np.zeros((64, 64, 3), np.uint8)
        stored[:, 40:] = 255
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(video.encode(None))
    data = path.read_bytes()
    plain = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 0x40000000)
    track = data.index(b"tkhd")
    at = data.index(plain, track)
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    sound = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=1.0)
    frame = load(path, sound).frames[0]
    assert frame[50:].mean() > 200
    assert frame[:35].mean() < 50


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    """A DVD-like film: 48 x 64 pixels stored, to be shown 64 x 64."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, width=48, height=64, pix_fmt="yuv420p")
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(index, 48, 64), format="rgb24")))
        container.mux(video.encode(None))
    sound = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=1.0)
    assert load(path, sound).frames.shape == (25, 64, 64, 3)  # the aligned finder refuses what is not square


def test_a_long_clip_is_decoded_twice_to_the_same_frames(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", frames=30, rate=30)
    held = load(path).frames
    monkeypatch.setattr(recording, "_HELD_BYTES", 5 * 64 * 64 * 3)
    assert np.array_equal(load(path).frames, held)


def test_missing_and_empty_files_are_named(tmp_path):
    refused("missing-file", tmp_path / "nowhere.mp4")
    (tmp_path / "empty.mp4").touch()
    refused("empty-file", tmp_path / "empty.mp4")


def test_garbage_is_unreadable(tmp_path):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    refused("unreadable", tmp_path / "a.mp4")


def test_a_git_lfs_pointer_says_how_to_get_the_file(tmp_path):
    (tmp_path / "a.flv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert "git lfs pull" in refused("git-lfs-pointer", tmp_path / "a.flv")


def test_an_mp4_that_lost_its_index_is_unreadable(tmp_path):
    data = film(tmp_path / "a.mp4", frames=60, rate=30, sound=2.0, index_first=False).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(0.9 * len(data))])
    assert "cut short" in refused("unreadable", tmp_path / "cut.mp4")


def test_an_mp4_cut_inside_its_index_is_refused(tmp_path):
    data = film(tmp_path / "a.mp4", frames=60, rate=30, sound=2.0).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:200])
    assert "cut short" in refused("no-video", tmp_path / "cut.mp4")


@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_an_mp4_cut_in_its_pictures_is_truncated(tmp_path, share):
    data = film(tmp_path / "a.mp4", frames=60, rate=30, sound=None).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(share * len(data))])
    sound = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=2.0)
    assert "fetch" in refused("truncated", tmp_path / "cut.mp4", sound)


@pytest.mark.parametrize("name", ["a.flv", "a.mkv"])
def test_a_cut_flv_or_mkv_is_truncated_by_its_stated_duration(tmp_path, name):
    codec = "flv" if name == "a.flv" else "libx264"
    data = film(tmp_path / name, frames=60, rate=30, codec=codec, sound=2.0).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
    sound = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=2.0)
    refused("truncated", tmp_path / f"cut-{name}", sound)


def test_a_cut_sound_file_is_refused(tmp_path):
    video = film(tmp_path / "a.mp4", frames=60, rate=30, sound=None)
    data = film(tmp_path / "a.mp4.mp4", frames=1, rate=25, sound=2.0).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(Unusable) as error:
        load(video, tmp_path / "cut.mp4")
    assert error.value.reason in ("truncated-audio", "unreadable-audio")
    assert "cut.mp4" in error.value.detail


def test_pictures_that_cannot_be_decoded_are_damaged(tmp_path):
    path = film(tmp_path / "a.mp4", frames=60, rate=30, sound=None)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[20:]:
        data[position : position + size] = bytes(size)  # the file's index stays whole, its pictures do not
    path.write_bytes(bytes(data))
    sound = film(tmp_path / "a.m4a", frames=1, rate=25, codec="mpeg4", sound=2.0)
    refused("damaged", path, sound)


def test_no_sound_track_is_refused(tmp_path):
    assert "sound file" in refused("no-audio", film(tmp_path / "a.mp4", sound=None))


def test_silence_is_refused(tmp_path):
    refused("silent", film(tmp_path / "a.mp4", tone=0.0))


def test_a_sound_file_as_video_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    refused("no-video", tmp_path / "a.mp4")


def test_a_film_without_frames_is_refused(tmp_path):
    with pytest.raises(Unusable) as error:
        load(film(tmp_path / "a.mkv", frames=0))
    assert error.value.reason in ("no-frames", "no-video")


def test_wrong_rates_lengths_and_gaps_are_refused(tmp_path):
    assert "15.00" in refused("wrong-fps", film(tmp_path / "a.mp4", frames=30, rate=15, sound=2.0), fps=25)
    refused("too-short", film(tmp_path / "b.mp4", frames=5, rate=25, sound=0.2))
    refused("too-long", film(tmp_path / "c.mp4", frames=30, rate=30), limits=Limits(longest=0.9))
    gap = [i / 30 if i < 15 else i / 30 + 0.4 for i in range(30)]
    refused("frames-missing", film(tmp_path / "d.mp4", frames=30, times=gap, sound=1.4))


def test_speech_of_another_clip_is_refused_by_its_duration(tmp_path):
    detail = refused("duration-mismatch", film(tmp_path / "a.mp4", frames=30, rate=30, sound=2.5))
    assert "2.5" in detail
    assert "1.00" in detail


def test_slightly_short_speech_is_filled_with_silence(tmp_path):
    speech = load(film(tmp_path / "a.mp4", frames=30, rate=30, sound=0.8)).speech
    assert len(speech) == SPEECH_RATE
    assert np.abs(speech[-2000:]).max() == 0


def test_a_clip_without_a_face_is_refused_with_the_share(tmp_path):
    path = film(tmp_path / "a.mp4")
    with pytest.raises(Unusable, match=r"face-not-found.*100%"):
        load_recording(clip_of(path), 64, 25, CascadeFinder())


def test_a_wide_film_is_not_aligned(tmp_path):
    with pytest.raises(Unusable, match="not-square"):
        load(film(tmp_path / "a.mp4", width=96))


def test_facts_come_from_the_packets(tmp_path):
    facts = probe(film(tmp_path / "a.mp4", frames=60, rate=Fraction(30_000, 1001), sound=2.0))
    assert facts.frames == 60
    assert facts.fps == pytest.approx(29.97, abs=0.01)
    assert facts.duration == pytest.approx(60 * 1001 / 30_000, abs=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real clips are not beside the repository")
def test_real_clips_are_opened_with_a_face_in_nearly_every_frame(mesh):
    clips, _ = mead.find_clips(SHARED, sentences="number")
    finder = MeshFinder()
    for clip in [c for c in clips if c.group == "M003_033"]:
        result = load_recording(clip, 64, 25.0, finder)
        assert result.valid.mean() > 0.9
        assert result.landmarks.shape == (len(result.frames), 478, 2)
        assert np.isfinite(result.landmarks).all()
        assert len(result.speech) == round(len(result.frames) * SPEECH_RATE / 25)
        centre = result.landmarks[result.valid].mean((0, 1))
        assert centre == pytest.approx([32, 32], abs=6)
