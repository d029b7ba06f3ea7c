"""Linear concept erasure: the label goes, the rest stays."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from spfem_dist.nets.erasure import LinearErasure

CLASSES, WIDTH = 4, 12
MIXING = np.random.default_rng(5).normal(size=(WIDTH, WIDTH))


def labelled(seed, count=2000):
    """Vectors whose first three numbers tell the label and whose others do not, mixed by a fixed map."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    vectors = rng.normal(size=(count, WIDTH))
    vectors[:, :3] += 1.5 * np.random.default_rng(9).normal(size=(CLASSES, 3))[labels]
    return torch.from_numpy(vectors @ MIXING).float(), torch.from_numpy(labels)


def learnt(parts=1, classes=CLASSES):
    erasure = LinearErasure(WIDTH, classes)
    vectors, labels = labelled(0)
    for v, y in zip(vectors.chunk(parts), labels.chunk(parts), strict=True):
        erasure.observe(v, y, torch.ones(len(v), dtype=torch.bool))
    return erasure


def probe(erasure):
    train, test = labelled(0), labelled(1)
    change = erasure or (lambda x: x)
    found = LogisticRegression(max_iter=500).fit(change(train[0]), train[1])
    return float((found.predict(change(test[0])) == test[1].numpy()).mean())


def test_no_linear_classifier_finds_the_label_any_more():
    assert probe(None) > 0.6
    assert probe(learnt()) < 1 / CLASSES + 0.05


def test_class_means_are_equal_and_the_rest_hardly_moves():
    erasure, (vectors, labels) = learnt(), labelled(0)
    changed = erasure(vectors)
    means = torch.stack([changed[labels == c].mean(0) for c in range(CLASSES)])
    assert (means - means.mean(0)).abs().max() < 0.05 * vectors.std()
    kept, plain = ((t.double().numpy() @ np.linalg.inv(MIXING))[:, 3:].flatten() for t in (changed, vectors))
    assert np.corrcoef(kept, plain)[0, 1] > 0.99


def test_nothing_changes_before_two_classes_were_seen():
    erasure, (vectors, _) = LinearErasure(WIDTH, CLASSES), labelled(0)
    assert erasure(vectors).equal(vectors)
    erasure.observe(vectors, torch.zeros(len(vectors), dtype=torch.int64), torch.ones(len(vectors), dtype=torch.bool))
    assert erasure(vectors).equal(vectors)


def test_a_class_that_never_comes_is_no_trouble():
    assert probe(learnt(classes=CLASSES + 5)) < 1 / CLASSES + 0.05


def test_rows_that_do_not_count_are_not_seen():
    erasure, (vectors, labels) = learnt(), labelled(0)
    again = LinearErasure(WIDTH, CLASSES)
    strange = torch.cat([vectors, 100 + vectors]), torch.cat([labels, labels])
    again.observe(*strange, torch.arange(2 * len(vectors)) < len(vectors))
    for mine, theirs in zip(erasure.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_old_observations_fade():
    erasure, (vectors, labels) = LinearErasure(WIDTH, CLASSES, memory=0.5), labelled(0)
    for _ in range(3):
        erasure.observe(vectors, labels, torch.ones(len(vectors), dtype=torch.bool))
    assert erasure.count.sum() == pytest.approx(len(vectors) * 1.75)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_its_sums_are_never_kept_in_half_precision(dtype):
    erasure = learnt().to(dtype)
    assert {b.dtype for b in erasure.buffers()} == {torch.promote_types(dtype, torch.float32)}
    assert erasure(labelled(0)[0].to(dtype)).dtype == dtype


def test_checkpoints_hold_what_was_seen():
    again = LinearErasure(WIDTH, CLASSES)
    again.load_state_dict(learnt().state_dict())
    assert again(labelled(1)[0]).equal(learnt()(labelled(1)[0]))
