"""One face is followed: the largest, through gaps, with landmarks of the kind that the generator was trained on."""

from pathlib import Path

import numpy as np
import pytest
from toy_generator import Brightener, film, shown, talking_head

from spfem_dist import weights
from spfem_dist.editing.clip import EditTarget, edit_clip
from spfem_dist.editing.face import finder_for, follow
from spfem_dist.editing.landmark_file import read_landmarks
from spfem_dist.editing.video import EditError, footage, pictures
from spfem_dist.prepare.faces import CascadeFinder
from spfem_dist.prepare.landmarks import converted

FIELD = Path(__file__).resolve().parents[2] / ".." / "shared" / "field"


def followed(path, topology="mesh468", faces="mesh", landmarks=None, size=64):
    return follow(footage(path), finder_for(faces, landmarks is not None), size, topology, landmarks)


def beside(left, right) -> list[np.ndarray]:
    """Two rows of pictures joined, the smaller ones padded below."""
    height = max(left[0].shape[0], right[0].shape[0])
    pad = [[np.pad(f, ((0, height - f.shape[0]), (0, 0), (0, 0)), "edge") for f in row] for row in (left, right)]
    return [np.concatenate(pair, axis=1) for pair in zip(*pad, strict=True)]


def test_the_largest_of_two_faces_is_edited_and_it_is_said(tmp_path, mesh):
    frames = beside(talking_head(2, 128).frames, talking_head(1, 192).frames)
    source = film(tmp_path / "a.mp4", frames, sound=None)
    done = edit_clip(footage(source), tmp_path / "e.mp4", Brightener(), EditTarget(), finder_for(mesh, False))
    change = np.stack(shown(tmp_path / "e.mp4")[1]).astype(float) - np.stack(shown(source)[1])
    assert change[:, 86:106, 214:234].mean() > 25
    assert np.abs(change[:, :, :100]).mean() < 3
    assert any("2 faces" in remark and "largest" in remark for remark in done.remarks)


def wide_shot(path, frames: int = 4):
    """1080p in which a head takes a tenth of the width."""
    heads = talking_head(1, 200).frames[:frames]
    canvas = np.full((frames, 1080, 1920, 3), 110, np.uint8)
    canvas[:, 300:500, 1100:1300] = heads
    return film(path, canvas, sound=None)


def test_a_small_face_in_a_wide_picture_is_found(tmp_path, mesh):
    track = followed(wide_shot(tmp_path / "a.mp4"))
    assert track.lost == 0
    assert track.faces == 1
    for region in track.regions:
        assert (region.x, region.y) == pytest.approx((1200, 400), abs=30)
        assert 100 < region.side < 300


def test_the_cascade_finds_a_small_face_too(tmp_path):
    source = wide_shot(tmp_path / "a.mp4")
    track = CascadeFinder().track([picture.rgb() for picture in pictures(footage(source))])
    assert track.found.all()
    assert track.poses[:, :2].mean(0) == pytest.approx((1200, 400), abs=40)


def test_a_film_without_a_face_is_answered_with_what_helps(tmp_path, mesh):
    grey = np.full((3, 128, 128, 3), 110, np.uint8)
    with pytest.raises(EditError, match=r"a\.mp4.*no face in any of 3 frames.*-vf crop="):
        followed(film(tmp_path / "a.mp4", grey, sound=None))


@pytest.mark.skipif(not FIELD.is_dir(), reason="the field's inputs are not beside the repository")
def test_the_wide_shot_from_the_field_shows_its_face(mesh):
    assert followed(FIELD / "wide_shot.mp4").lost == 0


def test_another_face_is_not_taken_for_the_one_that_left(tmp_path, mesh):
    small, large = talking_head(2, 128, 48).frames, talking_head(1, 192, 48).frames.copy()
    large[16:32] = 110
    track = followed(film(tmp_path / "a.mp4", beside(small, large), sound=None))
    assert track.faces == 2
    assert track.lost == 16
    assert all(region.x > 128 for region in track.regions)
    assert track.face.valid[34:].all()


def test_frames_without_the_face_stay_as_they_are_and_the_edit_fades(tmp_path, mesh):
    frames = talking_head(1, 128, 48).frames.copy()
    frames[18:30] = 110
    source = film(tmp_path / "a.mp4", frames, sound=None)
    done = edit_clip(footage(source), tmp_path / "e.mp4", Brightener(), EditTarget(), finder_for(mesh, False))
    assert done.lost == 12
    assert any("12 of 48 frames show no face" in remark for remark in done.remarks)
    change = np.stack(shown(tmp_path / "e.mp4")[1]).astype(float) - np.stack(shown(source)[1])
    middle = change[:, 54:74, 54:74].mean((1, 2, 3))
    assert np.abs(middle[18:30]).max() < 3
    assert middle[:12].min() > 30
    rising = middle[30:35]
    assert (np.diff(rising) > 2).all()


def test_a_face_lost_for_two_frames_is_carried_on(tmp_path, mesh):
    frames = talking_head(1, 128, 24).frames.copy()
    frames[10:12] = 110
    track = followed(film(tmp_path / "a.mp4", frames, sound=None))
    assert track.lost == 0
    assert list(np.flatnonzero(~track.face.valid)) == [10, 11]
    assert (track.weights == 1).all()


def test_a_generator_trained_on_68_points_gets_them_from_the_mesh(tmp_path, mesh):
    source = film(tmp_path / "a.mp4", talking_head().frames[:8], sound=None)
    many, few = followed(source), followed(source, "ibug68")
    assert few.face.topology == "ibug68"
    plain = followed(source, "mesh468")
    np.testing.assert_array_equal(plain.face.landmarks, followed(source, "mesh478").face.landmarks[:, :468])
    np.testing.assert_allclose(few.face.landmarks, converted(many.face.landmarks, "mesh468", "ibug68"), atol=1e-3)


def test_landmarks_given_are_the_ones_used_in_pixels_of_the_crop(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames, sound=None)
    track = followed(source, "ibug68", "aligned", known, size=64)
    np.testing.assert_allclose(track.face.landmarks, talking_head().landmarks / 2, atol=1e-3)
    assert track.face.size == 64
    assert track.face.valid.all()


def test_unknown_rows_of_given_landmarks_are_frames_without_the_face(tmp_path):
    points = talking_head().landmarks.copy()
    points[10:20] = np.nan
    np.save(tmp_path / "p.npy", points)
    source = film(tmp_path / "a.mp4", talking_head().frames, sound=None)
    track = followed(source, "ibug68", "aligned", tmp_path / "p.npy")
    assert list(np.flatnonzero(track.weights == 0)) == list(range(10, 20))
    assert np.isfinite(track.face.landmarks).all()


@pytest.mark.parametrize("faces", ["cascade", "aligned"])
def test_a_finder_without_landmarks_names_those_with(faces):
    with pytest.raises(ValueError, match=r"--faces mesh.*aligned-mesh.*--landmarks"):
        finder_for(faces, landmarks_given=False)


@pytest.mark.parametrize("faces", ["auto", "mesh", "aligned-mesh"])
@pytest.mark.parametrize("landmarks_given", [True, False])
def test_the_mesh_is_fetched_where_it_is_missing(faces, landmarks_given, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "ensure", asked.append)
    finder_for(faces, landmarks_given)
    assert asked == ["face-mesh"]


def test_a_mesh_that_cannot_be_fetched_names_the_command(monkeypatch, tmp_path):
    def no_network(entry, scratch):
        raise weights.MissingWeights(weights._how_to_get(entry, ["face_landmark.tflite"]))

    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "_download_wheel", no_network)
    for faces in ("auto", "mesh"):
        with pytest.raises(weights.MissingWeights, match="spfem weights pull face-mesh"):
            finder_for(faces, landmarks_given=False)


def test_landmarks_of_68_points_are_no_mesh(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames, sound=None)
    with pytest.raises(EditError, match=r"head\.npy.*ibug68.*mesh468.*--faces mesh"):
        followed(source, "mesh468", "aligned", known)


def test_landmarks_of_another_clip_are_refused(tmp_path, known):
    source = film(tmp_path / "a.mp4", talking_head().frames[:20], sound=None)
    with pytest.raises(EditError, match=r"head\.npy.*30 frames.*a\.mp4 has 20"):
        followed(source, "ibug68", "aligned", known)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda p: p / 128, r"normalised.*numpy\.load\('p\.npy'\) \* \[128, 128\]"),
        (lambda p: p / 64 - 1, "normalised"),
        (lambda p: p * np.nan, "no frame has landmarks"),
        (lambda p: np.full_like(p, 64.0), "no frame has landmarks"),
        (lambda p: p * 0.03 + 60, "pixels large"),
        (lambda p: p * 8, "outside of the film"),
        (lambda p: (p - 64) * 1e6 + 64, "outside of the film"),
        (lambda p: p + 500, r"outside of the film.*128 x 128"),
    ],
)
def test_landmarks_that_cannot_be_pixels_of_the_film_are_refused(tmp_path, given, said):
    source = film(tmp_path / "a.mp4", talking_head().frames, sound=None)
    np.save(tmp_path / "p.npy", given(talking_head().landmarks))
    with pytest.raises(EditError, match=rf"p\.npy.*{said}"):
        followed(source, "ibug68", "aligned", tmp_path / "p.npy")


def test_zeros_in_place_of_landmarks_are_frames_without_the_face(tmp_path):
    points = talking_head().landmarks.copy()
    points[10:20] = 0
    np.save(tmp_path / "p.npy", points)
    source = film(tmp_path / "a.mp4", talking_head().frames, sound=None)
    track = followed(source, "ibug68", "aligned", tmp_path / "p.npy")
    assert list(np.flatnonzero(track.weights == 0)) == list(range(10, 20))
    np.testing.assert_allclose(track.face.landmarks[:10], points[:10] / 2, atol=1e-3)
    assert track.face.landmarks[10:20].min() > 0


def test_a_file_that_holds_no_landmarks_is_refused(tmp_path):
    np.save(tmp_path / "p.npy", np.zeros((30, 5, 2)))
    with pytest.raises(EditError, match=r"p\.npy.*68, 468 or 478.*\[30, 5, 2\]"):
        read_landmarks(tmp_path / "p.npy")
    (tmp_path / "q.npy").write_bytes(b"no array")
    with pytest.raises(EditError, match=r"q\.npy.*numpy\.save"):
        read_landmarks(tmp_path / "q.npy")
    np.save(tmp_path / "r.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(EditError, match=r"r\.npy"):
        read_landmarks(tmp_path / "r.npy")


def test_a_clip_without_a_face_is_refused(tmp_path, mesh):
    grey = [np.full((96, 96, 3), 100 + i, np.uint8) for i in range(10)]
    with pytest.raises(EditError, match=r"a\.mp4: no face in any of 10 frames"):
        followed(film(tmp_path / "a.mp4", grey, sound=None))
