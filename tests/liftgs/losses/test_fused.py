"""The kernels of the mask loss against the same sums and slopes in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from liftgs.losses import fused, grounding
from liftgs.render import compile

pytestmark = pytest.mark.skipif(compile.find_compiler() is None, reason="no C++ compiler")


def rendered(heads: int, k: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Logits as a slice of an image with other channels, some of them far out, and masks."""
    torch.manual_seed(heads)
    image = 4 * torch.randn(pixels, 2 + heads * k + 3)
    image[0], image[1] = 150, -150
    return image[:, 2 : 2 + heads * k].T.unflatten(0, (heads, k)), (torch.rand(k, pixels) < 0.3).float()


# Less than a vector and a run of pixels; columns that fill no vector; several shares.
@pytest.mark.parametrize(("heads", "k", "pixels"), [(1, 1, 5), (2, 3, 700), (9, 8, 9000)])
def test_sums_and_slopes_are_those_of_double_precision(heads: int, k: int, pixels: int) -> None:
    logits, masks = rendered(heads, k, pixels)
    assert fused.readable(logits, masks)
    exact, truth = logits.double(), masks.double()
    torch.testing.assert_close(fused.sums(logits, masks).double(), grounding._sums(exact, truth), rtol=1e-6, atol=1e-5)
    columns = torch.randn(3, heads, k)
    expected = grounding._slopes(exact, truth, *columns.double())
    slopes = fused.slopes(logits, masks, *columns)
    torch.testing.assert_close(slopes.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_number_of_threads_changes_no_bit() -> None:
    logits, masks = rendered(9, 8, 20_000)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(fused.sums(logits, masks))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_what_is_not_finite_stays_so() -> None:
    logits, masks = rendered(2, 3, 100)
    logits[1, 2, 50] = math.nan
    entropy, _, _ = fused.sums(logits, masks)
    assert entropy.isnan().tolist() == [[False] * 3, [False, False, True]]


def test_other_orders_of_memory_and_types_are_left_to_torch() -> None:
    logits, masks = rendered(2, 3, 100)
    assert not fused.readable(logits.contiguous(), masks)
    assert not fused.readable(logits.double(), masks)
