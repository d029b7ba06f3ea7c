"""face-api's networks give the numbers that the package itself gives, and their weights are read strictly."""

import json
import shutil

import numpy as np
import pytest
import torch
from pulled import pulled

from spfem_dist.nets.face_api import ExpressionNetwork, LandmarkNetwork, RecognitionNetwork, load_network
from spfem_dist.nets.face_api.quantised import BadManifest, read_tensors

#: What `@vladmandic/face-api` 1.7.15 gives for `picture` with TensorFlow.js 4.22.0 on its CPU backend: the expression network before
#: its softmax, some of the landmarks (shares of the side), the first numbers of the descriptor.
LOGITS = [-0.100915, -5.29482, -7.9359, -5.05127, -10.141, -6.13593, 1.67404]
POINTS = {
    **{0: (0.219574, 0.490638), 8: (0.507605, 0.824123), 30: (0.483294, 0.5765), 36: (0.33759, 0.464462)},
    **{45: (0.671915, 0.447593), 48: (0.422679, 0.673099), 54: (0.570841, 0.703766), 57: (0.49575, 0.751779)},
}
DESCRIPTOR = [
    *(-0.0386546, 0.0851174, 0.0260739, 0.00894575, -0.0816727, -0.03985, -0.0752167, -0.0156238),
    *(0.0482452, -0.0381449, 0.194785, -0.0377021, -0.27163, -0.0282398, -0.0182783, 0.114227),
]
DESCRIPTOR_LENGTH = 1.326728


def picture(side: int) -> torch.Tensor:
    """A gradient in three colours with four discs where a face has its features, uint8 [1, 3, side, side]: whole numbers alone."""
    y, x = np.mgrid[:side, :side] * 240 // side
    rgb = np.stack([x, y, (x + 2 * y) % 256], -1)
    discs = (
        *((120, 130, 90, (205, 160, 140)), (85, 105, 14, (40, 30, 35))),
        *((155, 105, 14, (40, 30, 35)), (120, 175, 25, (150, 60, 70))),
    )
    for cx, cy, radius, colour in discs:
        rgb[(x - cx) ** 2 + (y - cy) ** 2 < radius * radius] = colour
    return torch.from_numpy(rgb.astype(np.uint8)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def folder():
    return pulled("face-api")


def test_the_expression_network_gives_the_packages_numbers(folder):
    network = load_network(ExpressionNetwork(), folder)
    assert network.outputs(picture(112))[0].tolist() == pytest.approx(LOGITS, abs=2e-5)
    wanted = torch.tensor(LOGITS).softmax(0).tolist()
    assert network(picture(112))[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_the_landmark_network_gives_the_packages_numbers(folder):
    found = load_network(LandmarkNetwork(), folder)(picture(112))
    assert found.shape == (1, 68, 2)
    for number, point in POINTS.items():
        assert found[0, number].tolist() == pytest.approx(point, abs=1e-5)


def test_the_recognition_network_gives_the_packages_numbers(folder):
    found = load_network(RecognitionNetwork(), folder)(picture(150))
    assert found.shape == (1, 128)
    assert found[0, :16].tolist() == pytest.approx(DESCRIPTOR, abs=2e-5)
    assert float(found.norm()) == pytest.approx(DESCRIPTOR_LENGTH, abs=1e-5)


def test_a_face_is_judged_alike_alone_and_in_a_batch(folder):
    network = load_network(RecognitionNetwork(), folder)
    faces = torch.cat([picture(150), picture(150).flip(3)])
    assert torch.allclose(network(faces)[:1], network(faces[:1]), atol=1e-6)
    assert not torch.allclose(*network(faces), atol=1e-2)


def test_a_picture_of_another_size_is_refused_in_words():
    with pytest.raises(ValueError, match=r"takes RGB faces \[N, 3, 112, 112\], found \[1, 3, 100, 112\]"):
        ExpressionNetwork()(torch.zeros(1, 3, 100, 112))


# --- stored weights -----------------------------------------------------------------------------------------------


def stored(folder, weights, content: bytes):
    """A manifest of `weights` and its bytes, in two files of `folder`."""
    manifest, file = folder / "m.json", folder / "m.bin"
    manifest.write_text(json.dumps([{"weights": weights, "paths": ["m.bin"]}]))
    file.write_bytes(content)
    return manifest, file


QUANTISED = {
    "name": "a",
    "shape": [2, 2],
    "dtype": "float32",
    "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1},
}
PLAIN = {"name": "b", "shape": [3], "dtype": "float32"}
CONTENT = bytes([0, 2, 4, 255]) + np.array([1, -2, 3], "<f4").tobytes()


def test_bytes_become_numbers_by_their_scale_and_minimum(tmp_path):
    found = read_tensors(*stored(tmp_path, [QUANTISED, PLAIN], CONTENT))
    assert found["a"].tolist() == [[-1.0, 0.0], [1.0, 126.5]]
    assert found["b"].tolist() == [1.0, -2.0, 3.0]


@pytest.mark.parametrize(
    ("change", "content", "said"),
    [
        ({}, CONTENT[:-1], "ends after 15 bytes, within b, which ends at 16"),
        ({}, CONTENT + b"x", "has 17 bytes, and the manifest lists 16"),
        ({}, CONTENT[:4] + np.array([1, np.nan, 3], "<f4").tobytes(), "b holds numbers that are none"),
        ({"name": "b"}, CONTENT, "b is listed twice"),
        ({"name": 7}, CONTENT, "entry 0 has no name"),
        ({"shape": [2, -2]}, CONTENT, r"a has the shape \[2, -2\]"),
        ({"shape": [2**40]}, CONTENT, "a has the shape"),
        ({"dtype": "int32"}, CONTENT, "a has the dtype 'int32'"),
        ({"quantization": {"dtype": "uint16", "scale": 1, "min": 0}}, CONTENT, "a has the quantization"),
        ({"quantization": {"dtype": "uint8", "scale": float("inf"), "min": 0}}, CONTENT, "a has scale and min"),
        ({"quantization": {"dtype": "uint8", "min": 0}}, CONTENT, "a has scale and min"),
    ],
)
def test_what_does_not_fit_together_is_named_with_its_file(tmp_path, change, content, said):
    with pytest.raises(BadManifest, match=rf"m\.(json|bin): .*{said}.*spfem weights pull face-api"):
        read_tensors(*stored(tmp_path, [QUANTISED | change, PLAIN], content))


@pytest.mark.parametrize("content", ["no json", '{"weights": []}', "[[]]"])
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    manifest, file = stored(tmp_path, [], b"")
    manifest.write_text(content)
    with pytest.raises(BadManifest, match=r"m\.json: it is no"):
        read_tensors(manifest, file)


def test_weights_of_another_network_are_refused_by_the_names_of_their_tensors(folder, tmp_path):
    for end in ("-weights_manifest.json", ".bin"):
        shutil.copyfile(folder / f"face_landmark_68_model{end}", tmp_path / f"face_expression_model{end}")
        shutil.copyfile(folder / f"face_landmark_68_model{end}", tmp_path / f"face_recognition_model{end}")
    with pytest.raises(BadManifest, match=r"fc/weights has the shape \[256, 136\], which does not make \[7, 256\]"):
        load_network(ExpressionNetwork(), tmp_path)
    with pytest.raises(BadManifest, match=r"it lacks conv128_1\.conv1\.conv\.bias, .* more"):
        load_network(RecognitionNetwork(), tmp_path)
