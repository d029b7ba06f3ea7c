"""Personal style in the rendered corpus: every speaker shows emotions in its own way, and nothing else changes."""

import json

import numpy as np
import pytest
from rich.console import Console

from spfem_dist.config import Data
from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.corpora.synthetic.expression import personal_style
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.evaluation_set import rendered_corpus
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.shard_format import INDEX_NAME, ShardIndex
from spfem_dist.streaming.loader import Source

PLAIN, STYLED = (SyntheticCorpus.small(2, 2, size=32, style=style) for style in (0.0, 1.0))


def test_without_style_all_factors_are_one_and_nothing_is_added():
    own = personal_style(0, 3, 0.0)
    assert (own.factor == 1).all()
    assert not own.rest.any()
    assert not own.lean.any()


def test_speakers_differ_by_as_much_as_it_says_and_a_neutral_face_tells_something_of_it():
    people = [personal_style(0, speaker, 1.0) for speaker in range(100)]
    factor, rest, lean = (np.stack([getattr(p, name) for p in people]) for name in ("factor", "rest", "lean"))
    assert np.log(factor).std() == pytest.approx(0.35, abs=0.05)
    assert rest.std() == pytest.approx(0.25, abs=0.03)
    assert lean.std() == pytest.approx(0.2, abs=0.03)
    assert np.corrcoef(np.log(factor).ravel(), rest.ravel())[0, 1] == pytest.approx(0.8, abs=0.05)
    assert (factor > 0).all()


@pytest.mark.parametrize("emotion", [Emotion.NEUTRAL, Emotion.SAD])
def test_style_changes_the_face_and_neither_words_nor_voice_nor_timing(emotion):
    plain, styled = (c.render(c.clip(1, 0, emotion)) for c in (PLAIN, STYLED))
    assert (plain.frames != styled.frames).any((1, 2, 3)).all()
    np.testing.assert_array_equal(plain.speech, styled.speech)
    for name in ("visemes", "phase"):
        np.testing.assert_array_equal(plain.truth[name], styled.truth[name])


def test_a_speaker_keeps_its_style_in_every_recording():
    def left_brow_over_right(corpus, sentence):
        """How much higher one brow is than the other above its eye, over a clip."""
        points = corpus.render(corpus.clip(1, sentence, Emotion.SURPRISED)).landmarks.mean(0)
        heights = [
            points[brow, 1].mean() - points[eye, 1].mean()
            for brow, eye in (((17, 18, 19), (36, 37, 38, 39)), ((24, 25, 26), (42, 43, 44, 45)))
        ]
        return heights[0] - heights[1]

    changes = [left_brow_over_right(STYLED, s) - left_brow_over_right(PLAIN, s) for s in (0, 1)]
    assert min(map(abs, changes)) > 0.05
    assert np.sign(changes[0]) == np.sign(changes[1])


def test_the_true_target_has_the_speakers_style():
    clip = STYLED.clip(0, 1, Emotion.NEUTRAL)
    np.testing.assert_array_equal(STYLED.target(clip, Emotion.NEUTRAL).frames, STYLED.render(clip).frames)
    assert (STYLED.target(clip, Emotion.HAPPY).frames != PLAIN.target(clip, Emotion.HAPPY).frames).any()


@pytest.mark.parametrize("style", [-0.1, 2.1])
def test_styles_out_of_range_are_refused(style):
    with pytest.raises(ValueError, match=r"use 0 \(nobody's own\) to 2"):
        SyntheticCorpus(style=style)
    with pytest.raises(ValueError, match="style"):
        PrepareSettings(style=style)


def test_style_belongs_to_rendered_corpora_alone(tmp_path):
    with pytest.raises(ValueError, match="leave it out for ravdess"):
        PrepareSettings(corpus="ravdess", root=tmp_path, style=1.0)


def test_prepared_shards_say_their_style_and_targets_are_rendered_with_it(tmp_path):
    asked = {"corpus": "synthetic", "identities": 1, "synthetic_sentences": 1, "size": 32, "local": True}
    digests = set()
    for style in (0.0, 1.0):
        out = tmp_path / f"style-{style}"
        job.run(PrepareSettings(**asked, out=out, style=style), Console(quiet=True))
        index = ShardIndex.load(out)
        digests.add(index.digest)
        assert index.style == style
        assert ("style" in json.loads((out / INDEX_NAME).read_text())) == bool(style)
        corpus = rendered_corpus(Source(Data(shards=str(out), size=32)), 48)
        assert (corpus.style, corpus.size) == (style, 48)
    assert len(digests) == 2
    with pytest.raises(ValueError, match="settings"):
        job.run(PrepareSettings(**asked, out=tmp_path / "style-1.0", style=0.5), Console(quiet=True))
