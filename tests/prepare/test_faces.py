"""Crops are upright, of one scale, steady, and honest about frames where the face was lost."""

import math
import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pulled import pulled

from spfem_dist import weights
from spfem_dist.cropping import RIGID
from spfem_dist.prepare.faces import (
    AlignedFinder,
    CascadeFinder,
    FaceTrack,
    MeshFinder,
    crop_landmarks,
    crop_regions,
    cut_face,
    face_finder,
    pose_of,
)
from spfem_dist.prepare.landmarks import mouth_opening
from spfem_dist.prepare.mesh import Region
from spfem_dist.records import Unusable

CLIP = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips" / "MEAD/M003/video/front/neutral/level_1/033.mp4"
#: A frontal face in eye distances: the order of RIGID.
FACE = np.array(
    [
        [-0.72, -0.22],
        [-0.28, -0.22],
        [0.28, -0.22],
        [0.72, -0.22],
        [0, -0.3],
        [0, -0.19],
        [0, -0.08],
        [0, 0.02],
        [0, 0.49],
        [-0.28, 0.46],
        [0.28, 0.46],
    ]
)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    if not CLIP.is_file():
        pytest.skip("real clips are not beside the repository")
    with av.open(str(CLIP)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:24]


@pytest.fixture(scope="module")
def mesh(frames) -> MeshFinder:
    pulled("face-mesh")
    return MeshFinder()


def moved(points: np.ndarray, roll: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    turn = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    return points @ turn + np.array([x, y])


def track_of(poses, landmarks=None) -> FaceTrack:
    poses = np.array(poses, float)
    return FaceTrack(poses, np.isfinite(poses).all(1), landmarks)


@pytest.mark.parametrize("roll", [-0.8, 0.0, 0.3, 2.5])
def test_pose_follows_size_place_and_roll_exactly(roll):
    x, y, side, angle = pose_of(moved(FACE * 60, roll, 300, 200))
    upright_x, upright_y, upright_side, upright_angle = pose_of(FACE * 60)
    assert side == pytest.approx(upright_side)
    assert angle - upright_angle == pytest.approx(roll)
    assert [x, y] == pytest.approx(moved(np.array([upright_x, upright_y]), roll, 300, 200))


def test_eyes_lie_level_and_at_the_same_place_in_every_crop():
    for roll, scale in ((0.0, 40.0), (0.5, 90.0), (-0.4, 12.0)):
        points = moved(FACE * scale, roll, 200, 150)
        region = Region(*pose_of(points))
        eyes = region.from_picture(points[[0, 3]], 256)
        assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=1e-6)
        assert eyes[1, 0] - eyes[0, 0] == pytest.approx(256 * 1.44 / 3.4, rel=0.02)
        assert 60 < eyes[0, 1] < 110


def test_picture_and_crop_coordinates_are_inverse():
    region = Region(100.0, 80.0, 64.0, 0.4)
    points = np.random.default_rng(0).uniform(0, 200, (5, 2))
    assert region.to_picture(region.from_picture(points, 128), 128) == pytest.approx(points)


def test_landmarks_stay_on_the_pixels_they_mark():
    frame = np.zeros((240, 320, 3), np.uint8)
    dot = np.array([150.5, 100.5])  # the centre of pixel (150, 100)
    cv2.circle(frame, (150, 100), 3, (255, 255, 255), -1)
    track = track_of([[140, 110, 120, 0.5]], np.array([[dot]], np.float32))
    (region,) = crop_regions(track, 25)
    crop = cut_face(frame, region, 240)[..., 0].astype(float)
    y, x = np.mgrid[:240, :240] + 0.5
    centre = [(crop * x).sum() / crop.sum(), (crop * y).sum() / crop.sum()]
    assert crop_landmarks(track, [region], 240)[0, 0] == pytest.approx(centre, abs=0.2)


def test_a_crop_is_never_squeezed():
    frame = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(frame, (160, 120), 50, (255, 255, 255), -1)
    for region in (Region(160, 120, 150, 0.0), Region(160, 120, 150, 0.7)):
        rows, columns = np.nonzero(cut_face(frame, region, 128)[..., 0] > 127)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
        assert np.ptp(rows) == pytest.approx(100 * 128 / 150, abs=1.5)


def test_lost_frames_are_filled_in_between_and_held_at_the_ends():
    nan = [math.nan] * 4
    landmarks = np.full((6, 1, 2), np.nan, np.float32)
    landmarks[[1, 4]] = [[[10, 20]], [[40, 20]]]
    track = track_of([nan, [10, 20, 50, 0], nan, nan, [40, 20, 50, 0], nan], landmarks)
    regions = crop_regions(track, 25, smoothing=0)
    assert [r.x for r in regions] == pytest.approx([10, 10, 20, 30, 40, 40])
    assert track.found.tolist() == [False, True, False, False, True, False]
    filled = crop_landmarks(track, regions, 50)
    assert np.isfinite(filled).all()
    assert filled[:, 0] == pytest.approx(np.full((6, 2), 25.0))


def test_smoothing_removes_jitter_and_keeps_slow_motion():
    time = np.arange(100) / 25
    slow = 100 + 20 * np.sin(2 * np.pi * 0.3 * time)
    jitter = np.random.default_rng(0).normal(0, 2, 100)
    track = track_of(np.stack([slow + jitter, np.full(100, 80), np.full(100, 60), np.zeros(100)], 1))
    x = np.array([r.x for r in crop_regions(track, 25)])
    assert np.abs(x - slow).mean() < 0.6 * np.abs(jitter).mean()
    assert np.abs(np.diff(x)).max() < 2.5
    assert np.abs(np.diff(slow + jitter)).max() > 4


def test_a_track_without_a_face_is_unusable():
    with pytest.raises(Unusable, match="face-not-found"):
        crop_regions(track_of([[math.nan] * 4] * 3), 25)


def test_aligned_gives_the_pictures_back_unchanged():
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    track = AlignedFinder().track(frames)
    crops = [cut_face(f, r, 64) for f, r in zip(frames, crop_regions(track, 25), strict=True)]
    assert np.array_equal(crops, frames)
    assert track.found.all()
    assert crop_landmarks(track, crop_regions(track, 25), 64) is None


def test_aligned_refuses_a_picture_that_is_not_square():
    with pytest.raises(Unusable, match=r"not-square.*640 x 360"):
        AlignedFinder().track([np.zeros((360, 640, 3), np.uint8)])


@pytest.mark.parametrize("finder", ["cascade", "aligned"])
def test_no_frames_make_an_empty_track(finder):
    assert face_finder(finder).track([]).found.shape == (0,)


def test_cascade_finds_no_face_in_noise():
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)
    track = CascadeFinder().track(noise)
    assert not track.found.any()
    assert track.poses.shape == (3, 4)


def test_unknown_finder_lists_the_names():
    with pytest.raises(ValueError, match="mesh, cascade, aligned"):
        face_finder("dlib")


def test_missing_mesh_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(weights.MissingWeights, match="spfem weights pull face-mesh"):
        MeshFinder().track([np.zeros((64, 64, 3), np.uint8)])


def test_finders_can_be_sent_to_another_process():
    for name in ("mesh", "cascade", "aligned", "aligned-mesh"):
        assert pickle.loads(pickle.dumps(face_finder(name))).topology == face_finder(name).topology


def test_mesh_follows_a_real_face(mesh, frames):
    track = mesh.track(frames)
    assert track.found.all()
    assert track.landmarks.shape == (24, 478, 2)
    inside = (track.landmarks > 0) & (track.landmarks < 256)
    assert inside.all()
    eye_line = track.landmarks[:, 263] - track.landmarks[:, 33]
    assert np.linalg.norm(eye_line, axis=1) == pytest.approx(np.full(24, 88), rel=0.15)
    opening = mouth_opening(track.landmarks, "mesh478")
    assert opening.max() > 0.15  # he speaks
    assert opening.min() < 0.1


def test_irises_lie_within_the_open_eyes_of_a_real_face(mesh, frames):
    points = mesh.track(frames).landmarks
    for iris, (one, other) in ((points[:, 468:473], (33, 133)), (points[:, 473:], (263, 362))):
        width = np.linalg.norm(points[:, one] - points[:, other], axis=-1)
        radius = np.linalg.norm(iris[:, 1:] - iris[:, :1], axis=-1)
        assert radius.mean(1) == pytest.approx(0.2 * width, rel=0.35)  # 11.7 mm across, in an eye of about 30
        off = np.linalg.norm(iris[:, 0] - (points[:, one] + points[:, other]) / 2, axis=-1)
        assert (off < 0.3 * width).all()


def test_mesh_gives_the_same_numbers_every_time(mesh, frames):
    first, again = mesh.track(frames[:6]), MeshFinder().track(frames[:6])
    assert np.array_equal(first.landmarks, again.landmarks)
    assert np.array_equal(first.poses, again.poses)


def test_a_rolled_small_face_in_a_wide_picture_gives_the_same_upright_crop(mesh, frames):
    """The same face, at 0.8 of its size, rolled by 20 degrees, in the corner of a 640 x 360 picture."""
    angle = math.radians(20)
    matrix = 0.8 * np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    matrix[:, 2] = [450, 180] - matrix[:, :2] @ [128, 128]
    wide = [cv2.warpAffine(f, matrix, (640, 360), flags=cv2.INTER_AREA) for f in frames[:10]]
    plain, rolled = mesh.track(frames[:10]), mesh.track(wide)
    assert rolled.found.all()
    assert np.degrees(rolled.poses[:, 3] - plain.poses[:, 3]) == pytest.approx(np.full(10, 20), abs=2)
    assert rolled.poses[:, 2] / plain.poses[:, 2] == pytest.approx(np.full(10, 0.8), rel=0.03)
    points = [crop_landmarks(t, crop_regions(t, 30), 256) for t in (plain, rolled)]
    assert np.abs(points[0] - points[1]).mean() < 3.0
    eyes = points[1][:, [33, 263], 1]
    assert np.abs(eyes[:, 0] - eyes[:, 1]).max() < 6


def test_frames_without_a_face_are_marked_and_the_face_is_found_again(mesh, frames):
    black = np.zeros_like(frames[0])
    track = mesh.track([*frames[:5], black, black, *frames[5:10]])
    assert track.found.tolist() == [True] * 5 + [False] * 2 + [True] * 5
    assert np.isnan(track.landmarks[5:7]).all()
    filled = crop_landmarks(track, crop_regions(track, 30), 256)
    assert np.isfinite(filled).all()


def test_cascade_agrees_with_the_mesh_on_a_real_face(mesh, frames):
    ours, theirs = CascadeFinder().track(frames), mesh.track(frames)
    assert ours.found.mean() > 0.9
    difference = ours.poses[ours.found] - theirs.poses[ours.found]
    side = theirs.poses[ours.found, 2]
    assert np.abs(difference[:, 0] / side).max() < 0.08
    assert np.abs(difference[:, 1] / side).max() < 0.08
    assert np.abs(difference[:, 2] / side).max() < 0.2
    assert np.degrees(np.abs(difference[:, 3])).max() < 8


def test_aligned_with_mesh_keeps_the_picture_and_adds_landmarks(mesh, frames):
    finder = AlignedFinder(mesh)
    track = finder.track(frames[:5])
    regions = crop_regions(track, 30)
    assert np.array_equal(cut_face(frames[0], regions[0], 256), frames[0])
    assert crop_landmarks(track, regions, 256) == pytest.approx(track.landmarks, abs=1e-3)
    assert finder.topology == "mesh478"


def test_rigid_points_have_a_template_each():
    assert len(RIGID) == len(FACE)
