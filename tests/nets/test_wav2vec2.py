"""wav2vec 2.0: the right layer of the right waveform, and clear words when its weights are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spfem_dist.nets.wav2vec2 import layer_features, load_wav2vec2, tiny_wav2vec2


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(16_000).astype(np.float32)


def test_features_come_at_50_hz_and_finite(speech):
    features = layer_features(tiny_wav2vec2(), speech, layer=1)
    assert features.shape == (49, 32)
    assert torch.isfinite(features).all()


def test_loudness_and_offset_of_the_waveform_do_not_matter(speech):
    model = tiny_wav2vec2()
    plain = layer_features(model, speech, layer=2)
    torch.testing.assert_close(layer_features(model, 0.5 * speech + 0.1, layer=2), plain, rtol=1e-3, atol=2e-3)
    assert plain.abs().max() > 0.5


def test_the_layer_is_counted_from_one_and_taken_before_the_final_norm(speech):
    model = tiny_wav2vec2()
    samples = torch.from_numpy((speech - speech.mean()) / np.sqrt(speech.var() + 1e-7))
    with torch.no_grad():
        final = model(samples[None]).last_hidden_state[0]
        last = layer_features(model, speech, layer=2)
        torch.testing.assert_close(model.encoder.layer_norm(last), final)
    assert not torch.allclose(last, final)
    assert not torch.allclose(layer_features(model, speech, layer=1), last)


def test_a_saved_network_loads_frozen_and_gives_the_same(tmp_path, speech):
    model = tiny_wav2vec2()
    model.save_pretrained(tmp_path)
    loaded = load_wav2vec2(tmp_path)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(layer_features(loaded, speech, 1), layer_features(model, speech, 1))


def test_missing_weights_say_what_they_are_and_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"(?s)wav2vec2-large-xlsr-53.*licence"):
        load_wav2vec2()


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        load_wav2vec2(tmp_path)


@pytest.mark.parametrize(
    ("samples", "layer", "message"), [(16_000, 3, "choose 1 to 2"), (16_000, 0, "choose 1"), (399, 1, "400")]
)
def test_impossible_requests_are_refused(samples, layer, message):
    with pytest.raises(ValueError, match=message):
        layer_features(tiny_wav2vec2(), np.ones(samples, np.float32), layer)
