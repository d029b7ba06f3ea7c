"""The dense cross-attention computes what the released one does, and the clean gate treats every item alone."""

import pytest
import torch
from released_golden import filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.compositors.dgad.attention import DenseCrossAttention, zero_exit

#: Blocks of the published size by their width, and what they and their exits have to train.
PAPER_BLOCKS, PAPER_PARAMETERS = {1280: 8, 640: 4, 320: 3}, 346_283_215


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
def test_the_block_and_its_gradient_equal_the_authors(rule):
    description, arrays = fixture("dgad_dense_cross_attention")
    block = DenseCrossAttention(32, "released")
    block.load_state_dict(filled(description, rule))
    drawn, head = (input_of(description["inputs"][name], rule) for name in ("query map", "appearance map"))
    drawn.requires_grad_()
    out = block(drawn, head)
    (gradient,) = torch.autograd.grad(out.square().sum() / 2, drawn)
    assert relative_error(out, description, arrays, f"{rule}.out") < 1e-4
    assert relative_error(gradient, description, arrays, f"{rule}.grad_query") < 1e-3


@pytest.mark.parametrize(("gate", "alone"), [("clean", True), ("released", False)])
def test_only_the_clean_gate_gives_an_item_the_same_result_in_any_batch(gate, alone):
    torch.manual_seed(0)
    block = DenseCrossAttention(8, gate).double()
    drawn, head = torch.randn(2, 3, 8, 6, 6, dtype=torch.float64) * torch.tensor([1.0, 4, 9])[:, None, None, None]
    whole, part = block(drawn, head)[:1], block(drawn[:1], head[:1])
    assert torch.allclose(whole, part, atol=1e-9) == alone


def test_published_blocks_have_the_published_parameters():
    with torch.device("meta"):
        each = {
            width: sum(p.numel() for part in (DenseCrossAttention(width), zero_exit(width)) for p in part.parameters())
            for width in PAPER_BLOCKS
        }
    assert sum(PAPER_BLOCKS[width] * count for width, count in each.items()) == PAPER_PARAMETERS
