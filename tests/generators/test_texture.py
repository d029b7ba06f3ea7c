"""The expression texture: it learns the lines that coefficients draw, draws them where the face is, and nowhere that moves by itself."""

import numpy as np
import pytest
import torch

from spfem_dist.generators.face.maps import FaceMaps, _covering
from spfem_dist.generators.face.model import COEFFICIENTS, FaceModel
from spfem_dist.generators.face.recordings import learnt_model, read_recordings
from spfem_dist.generators.face.texture import ExpressionTexture, TextureFit
from spfem_dist.streaming.loader import Source

SIZE, SIDE = 64, 128


@pytest.fixture(scope="module")
def faces(toy):
    """A face model of the corpus, its maps, and the landmarks of one clip at SIZE."""
    data = toy.data.model_copy(update={"size": SIZE})
    found = read_recordings(Source(data, landmarks=True), lambda _: True, 4, 4)
    model = learnt_model(found, "ibug68")
    return model, FaceMaps(model), found[0].landmarks


def vertices(maps: FaceMaps, landmarks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([landmarks, maps.anchors(landmarks)], 1))


@pytest.fixture(scope="module")
def lined(faces):
    """A texture fitted to grey faces on which coefficient 7 draws a dark line across the forehead; where that line lies, in pixels."""
    model, maps, landmarks = faces
    fit, rng = TextureFit(maps, SIDE), np.random.default_rng(0)
    shape = vertices(maps, landmarks[:24])
    brows = landmarks[:24, list(model.topology.brows), 1].mean(1)
    rows = np.clip(np.round(brows - 0.12 * SIZE), 0, SIZE - 1).astype(int)
    for _ in range(3):
        coefficients = torch.from_numpy(rng.normal(size=(24, COEFFICIENTS)).astype(np.float32))
        frames = torch.full((24, 3, SIZE, SIZE), 120.0)
        for frame, row, depth in zip(frames, rows, coefficients[:, 7], strict=True):
            frame[:, row - 1 : row + 1] -= 60 * depth.clamp(0, 1.5)
        fit.add_speaker([(frames.to(torch.uint8), shape, coefficients)])
    return fit.solve(), shape, rows


def drawn(texture: ExpressionTexture, maps: FaceMaps, shape: torch.Tensor, number: int, amount: float) -> torch.Tensor:
    """Log light of one coefficient's change on the first face."""
    before, after = torch.zeros(1, COEFFICIENTS), torch.zeros(1, COEFFICIENTS)
    after[0, number] = amount
    seen, _ = maps.draw(shape[:1], shape[:1], SIZE)
    return texture.light(before, after, seen)[0]


def test_a_coefficient_draws_the_line_that_it_was_seen_with_and_others_draw_none(faces, lined):
    _, maps, _ = faces
    texture, shape, rows = lined
    light = drawn(texture, maps, shape, 7, 1.0).mean(0)
    middle = light[:, SIZE // 2 - 3 : SIZE // 2 + 3].mean(1)
    assert abs(int(middle.argmin()) - (rows[0] - 0.5)) <= 2, "pixels from the line"
    assert middle.min() < -0.2, "a fifth of the light"
    other = drawn(texture, maps, shape, 12, 1.0)
    assert other.abs().max() < 0.3 * -light.min()
    assert drawn(texture, maps, shape, 7, 0.0).abs().max() == 0


def test_eyes_lips_and_the_edge_are_left_alone(faces, lined):
    _, maps, _ = faces
    texture, shape, _ = lined
    seen, _ = maps.draw(shape[:1], shape[:1], SIZE)
    light = drawn(texture, maps, shape, 7, 1.0).abs().amax(0)
    inside = seen[0, 3:6].amax(0) > 0.5
    assert inside.sum() > 20
    assert light[inside].max() < 0.02
    assert light[seen[0, -1] == 0].max() == 0


def test_what_a_picture_earns_reaches_coefficients_and_landmarks(faces, lined):
    _, maps, _ = faces
    texture, shape, _ = lined
    after = torch.zeros(1, COEFFICIENTS, requires_grad=True)
    moved = shape[:1].clone().requires_grad_()
    seen, _ = maps.draw(moved, shape[:1], SIZE)
    picture = texture.drawn_on(torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, COEFFICIENTS), after, seen)
    assert picture.min() >= -1
    assert picture.max() <= 1
    picture.square().sum().backward()
    assert after.grad[0, 7].abs() > 0
    assert moved.grad.abs().sum() > 0


def test_speakers_tone_is_no_expression(faces):
    """Two speakers, one dark and one light, who hold one expression each: within speakers nothing varies."""
    _, maps, landmarks = faces
    shape, fit = vertices(maps, landmarks[:4]), TextureFit(maps, SIDE)
    for level, amount in ((60, 2.0), (200, -2.0)):
        fit.add_speaker(
            [(torch.full((4, 3, SIZE, SIZE), level, dtype=torch.uint8), shape, torch.full((4, 51), amount))]
        )
    assert fit.solve().pictures.abs().max() < 1e-6


def test_it_is_kept_with_the_generator_and_a_damaged_file_is_named(lined, tmp_path):
    texture = lined[0]
    texture.save(tmp_path / "texture.safetensors")
    again = ExpressionTexture.load(tmp_path / "texture.safetensors", SIDE)
    torch.testing.assert_close(again.codes, texture.codes)
    torch.testing.assert_close(again.pictures, texture.pictures, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"texture.safetensors has in another shape pictures"):
        ExpressionTexture.load(tmp_path / "texture.safetensors", 256)


def test_a_device_draws_what_opencv_draws(faces, monkeypatch):
    _, maps, landmarks = faces
    shape, source = (vertices(maps, landmarks[at : at + 3]).float() for at in (0, 10))
    of_opencv, grid = maps.draw(shape, source, SIZE)
    monkeypatch.setattr(maps, "_filled", lambda v, size: _covering(v, maps.corners, size))
    of_device, there = maps.draw(shape, source, SIZE)
    both = (of_opencv[:, -1] > 0) & (of_device[:, -1] > 0)
    assert (of_opencv[:, -1] != of_device[:, -1]).float().mean() < 0.03, "OpenCV fills the outline's pixels too"
    assert both.float().mean() > 0.2
    away = (grid - there).norm(dim=-1)[both] * SIZE / 2
    assert away.median() < 1e-3, "pixels"
    assert away.quantile(0.98) < 0.5, "pixels: one on an edge belongs to either side"


def test_the_model_that_is_saved_draws_the_same(faces, tmp_path):
    model, maps, landmarks = faces
    model.save(tmp_path / "face.safetensors")
    again = FaceMaps(FaceModel.load(tmp_path / "face.safetensors", "ibug68"))
    shape = vertices(maps, landmarks[:1])
    for one, other in zip(maps.draw(shape, shape, SIZE), again.draw(shape, shape, SIZE), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
