"""CLIP's towers and prompts with learned words."""

from __future__ import annotations

import json

import pytest
import torch

from spfem_dist.emotions import ALPHABETICAL, SEVEN, Emotion
from spfem_dist.nets.clip import (
    PromptedText,
    image_features,
    load_clip,
    load_tokeniser,
    prompt_ids,
    read_descriptors,
    tiny_clip,
    word_tokeniser,
)
from spfem_dist.priors.cerl.settings import DESCRIPTORS


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def prompted(clip, positional: bool = True, order=ALPHABETICAL) -> PromptedText:
    torch.manual_seed(0)
    texts = read_descriptors(DESCRIPTORS)
    return PromptedText(clip, {e: texts[e] for e in order}, word_tokeniser(512), positional=positional)


def test_a_prompt_of_known_words_equals_clips_own_text_tower(clip):
    text = prompted(clip)
    places = torch.randint(1, 500, (7, 8), generator=torch.Generator().manual_seed(1))
    ids = text.ids.clone()
    ids[:, 1:9] = places
    with torch.no_grad():
        text.ctx.copy_(clip.text_model.embeddings.token_embedding(places))
        expected = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
        torch.testing.assert_close(text(clip), torch.nn.functional.normalize(expected, dim=-1))


def test_places_after_the_last_end_are_left_out_also_of_prompts_that_were_loaded(clip):
    text, longer = prompted(clip), prompted(clip)
    assert text.used < text.ids.shape[1]
    state = text.state_dict()
    state["ids"] = torch.cat([state["ids"][:, :20], state["ids"][:, 19:-1]], 1)
    longer.load_state_dict(state)
    assert longer.used == text.used + 1


def test_positions_change_the_text_only_where_they_are_kept(clip):
    kept, dropped = prompted(clip, True)(clip), prompted(clip, False)(clip)
    assert not torch.allclose(kept, dropped, atol=1e-3)


def test_vectors_have_unit_norm_and_only_the_context_learns(clip):
    text = prompted(clip)
    vectors = text(clip)
    assert vectors.shape == (7, 64)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(7))
    vectors.sum().backward()
    assert text.ctx.grad.abs().sum() > 0
    assert all(p.grad is None for p in clip.parameters())


def test_a_shift_is_added_to_every_learned_word_of_its_own_set(clip):
    text = prompted(clip)
    shift = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
    shift[1] = 0
    found = text(clip, shift)
    assert found.shape == (2, 7, 64)
    torch.testing.assert_close(found[1], text(clip))
    with torch.no_grad():
        text.ctx += shift[0]
    torch.testing.assert_close(found[0], text(clip))


def test_nothing_after_the_end_token_matters(clip):
    text = prompted(clip)
    before = text(clip)
    end = text.ids.argmax(-1)
    after = torch.arange(text.ids.shape[1]) > end[:, None]
    text.ids[after] = 7
    torch.testing.assert_close(text(clip), before)


def test_image_features_equal_the_models_own(clip):
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    own = clip.get_image_features(pixel_values=pixels)
    own = own if isinstance(own, torch.Tensor) else own.pooler_output
    torch.testing.assert_close(image_features(clip, pixels), own)


def test_a_saved_clip_loads_frozen_and_gives_the_same(tmp_path, clip):
    clip.save_pretrained(tmp_path)
    loaded = load_clip(tmp_path)
    pixels = torch.ones(1, 3, 64, 64)
    torch.testing.assert_close(image_features(loaded, pixels), image_features(clip, pixels))
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt"):
        load_tokeniser(tmp_path)


def test_clips_tokeniser_reads_its_vocabulary_files(tmp_path):
    units = [
        "<|startoftext|>",
        "<|endoftext|>",
        "a</w>",
        "fa",
        "face</w>",
        "ce</w>",
        "f",
        "a",
        "c",
        "e",
        "e</w>",
        "c</w>",
    ]
    (tmp_path / "vocab.json").write_text(json.dumps({unit: i for i, unit in enumerate(units)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nf a\nc e</w>\nfa ce</w>\n")
    assert load_tokeniser(tmp_path)("A face") == [units.index("a</w>"), units.index("face</w>")]


@pytest.mark.parametrize("load", [load_clip, load_tokeniser])
def test_missing_weights_say_what_they_are_and_where_they_belong(tmp_path, monkeypatch, load):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"(?s)clip-vit-base-patch32.*MIT"):
        load()


def test_prompts_have_start_places_text_end_and_zeros():
    ids = prompt_ids(["one two"], lambda text: [5, 6], context=3, length=10, start=98, end=99)
    assert ids.tolist() == [[98, 0, 0, 0, 5, 6, 99, 0, 0, 0]]


def test_a_description_that_does_not_fit_is_refused_not_cut():
    with pytest.raises(ValueError, match="at most 5 fit"):
        prompt_ids(["long"], lambda text: [1] * 6, context=3, length=10, start=98, end=99)


def test_our_descriptions_cover_the_seven_and_are_different():
    texts = read_descriptors(DESCRIPTORS)
    assert set(texts) == set(SEVEN)
    assert len(set(texts.values())) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1", "not JSON"), ('{"happy": ""}', "non-empty"), ('{"joyful": "a face"}', "unknown emotion")],
)
def test_a_bad_descriptor_file_is_named(tmp_path, content, message):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_descriptors(path)


def test_a_user_may_give_other_descriptions(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"happy": "a grin"}))
    assert read_descriptors(tmp_path / "d.json") == {Emotion.HAPPY: "a grin"}


def test_word_ids_are_the_same_everywhere_and_leave_the_special_ones_free():
    words = word_tokeniser(512)("A face, at rest")
    assert words == word_tokeniser(512)("a FACE , at rest")
    assert all(0 < w < 510 for w in words)
    assert words[:2] == [98, 102] or len(set(words)) == len(words)
