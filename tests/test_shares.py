"""Shares of a batch: every sample once, equal work, and a mean over all of it that is the mean over samples."""

import pytest

from spfem_dist.shares import share_of

SIZES = [
    (12, 5, None),
    (12, 5, 2),
    (12, 5, 1),
    (8, 3, None),
    (8, 3, 2),
    (7, 7, None),
    (4, 3, 1),
    (13, 4, 3),
    (3, 5, None),
]


@pytest.mark.parametrize(("batch", "size", "micro"), SIZES)
def test_every_sample_counts_once_whatever_divides(batch, size, micro):
    shares = [share_of(batch, rank, size, micro) for rank in range(size)]
    weight = dict.fromkeys(range(batch), 0.0)
    for share in shares:
        for span, part in zip(share.spans(), share.weights, strict=True):
            for sample in span:
                weight[sample] += part / len(span) / (share.steps * size)
    assert list(weight.values()) == pytest.approx([1 / batch] * batch)
    assert len({share.steps for share in shares}) == 1, "every worker makes as many steps: they wait for each other"
    assert max(s.samples for s in shares) - min(s.samples for s in shares) <= 1
    assert max(share.micro_batch for share in shares) <= (micro or batch)


@pytest.mark.parametrize(("batch", "size", "micro"), [(12, 1, None), (12, 2, 3), (12, 4, 3), (8, 8, None), (12, 1, 6)])
def test_equal_shares_weigh_exactly_one(batch, size, micro):
    for rank in range(size):
        share = share_of(batch, rank, size, micro)
        assert set(share.weights) == {1.0}
        assert set(share.micro_batches) == {micro or batch // size}
        assert [k for span in share.spans() for k in span] == list(
            range(rank * batch // size, (rank + 1) * batch // size)
        )


def test_a_rank_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="rank 2 is not one of the 2 workers 0 to 1"):
        share_of(8, 2, 2)
