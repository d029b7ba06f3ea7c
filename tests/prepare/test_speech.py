"""Speech features are in step with the frames, for any length and rate."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from spfem_dist.prepare.speech import LogMel, Wav2Vec2Features, frame_windows, speech_features

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Wav2Vec2Model:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )
    return Wav2Vec2Model(config)


@pytest.mark.parametrize("fps", [25.0, 29.97, 30.0, 60.0])
@pytest.mark.parametrize("frames", [1, 2, 50, 151])
def test_logmel_has_a_row_for_every_frame(frames, fps):
    features = LogMel()(noise(frames / fps), frames, fps)
    assert features.shape == (frames, 160)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("samples", [0, 1, 399, 400])
def test_logmel_copes_with_missing_speech(samples):
    assert np.isfinite(LogMel()(noise(1)[:samples], 10, 25.0)).all()


def test_logmel_hears_a_click_in_its_own_frame():
    speech = 1e-4 * noise(4.0)
    speech[round(3.2 * RATE)] = 0.9  # frame 96 at 30 fps, where a rounded hop would be off by several windows
    features = LogMel()(speech, 120, 30.0)
    assert abs(int(features.mean(axis=1).argmax()) - 96) <= 1


def test_logmel_takes_loudness_away():
    quiet, loud = LogMel()(0.05 * noise(2.0), 50, 25.0), LogMel()(0.5 * noise(2.0), 50, 25.0)
    np.testing.assert_allclose(quiet, loud, atol=1e-3)
    np.testing.assert_allclose(loud.reshape(200, 40).std(axis=0), 1.0, atol=1e-3)


def test_speech_that_goes_on_after_the_video_changes_no_row_of_silence():
    assert speech_features("logmel").dim == 160
    with pytest.raises(ValueError, match="at least one row"):
        LogMel()(noise(1.0), 0, 25.0)


@pytest.mark.parametrize("frames", [*range(1, 131), 240, 241, 242, 354, 500])
def test_windows_tile_the_frames_for_any_length(frames):
    covered = [frame for start, end, dropped in frame_windows(frames) for frame in range(start + dropped, end)]
    assert covered == list(range(frames))
    assert all(end - start <= 128 for start, end, _ in frame_windows(frames))


def test_windows_after_the_first_have_fifteen_frames_of_left_context():
    assert frame_windows(300)[:3] == [(0, 128, 0), (113, 241, 15), (226, 300, 15)]


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("frames", [1, 2, 15, 127, 128, 129, 143, 242])
def test_wav2vec_has_a_row_for_every_frame(network, frames, fps):
    features = Wav2Vec2Features(network, layer=2)(noise(frames / fps), frames, fps)
    assert features.shape == (frames, 32)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_wav2vec_takes_the_layer_before_any_final_norm(network):
    speech = noise(2.0)
    normal = (speech - speech.mean()) / np.sqrt(speech.var() + 1e-7)
    with torch.inference_mode():
        states = network(torch.from_numpy(normal)[None], output_hidden_states=True).hidden_states[2][0]
    features = Wav2Vec2Features(network, layer=2)(speech, 60, 30.0)
    np.testing.assert_allclose(features[[0, -1]], states[[0, -1]].numpy(), atol=1e-5)


def test_wav2vec_does_not_hear_the_microphone_gain(network):
    features = Wav2Vec2Features(network, layer=2)
    np.testing.assert_allclose(features(noise(1.0), 30, 30.0), features(5 * noise(1.0) + 0.1, 30, 30.0), atol=1e-4)


class LocalNetwork(torch.nn.Module):
    """Hears 20 ms of the waveform and nothing else, so that windows can only differ by their interpolation."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.config = Wav2Vec2Config(hidden_size=2, num_hidden_layers=20, num_attention_heads=1)

    def forward(self, waveform, output_hidden_states):
        pieces = waveform[0].unfold(0, 400, 320)
        states = torch.stack([pieces.mean(1), pieces[:, 200]], dim=1)[None] * self.scale
        return type("Output", (), {"hidden_states": [states] * 21})


def test_windows_agree_with_one_long_window():
    frames, fps = 400, 25.0
    seconds = np.arange(round(frames / fps * RATE)) / RATE
    speech = np.sin(2 * np.pi * 0.7 * seconds).astype(np.float32)
    windowed = Wav2Vec2Features(LocalNetwork())(speech, frames, fps)
    whole = Wav2Vec2Features(LocalNetwork(), window=frames)(speech, frames, fps)
    # align_corners ties the first and last 50 Hz row to the first and last frame: up to half a frame between the two.
    assert np.abs(windowed - whole).max() < 0.7 * 2 * np.pi / fps * np.abs(whole).max()


def test_a_layer_that_is_not_there_is_refused(network):
    with pytest.raises(ValueError, match="choose 1 to 3"):
        Wav2Vec2Features(network, layer=20)
