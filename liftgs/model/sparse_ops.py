"""Sparse convolution in plain PyTorch, forward and backward: gather the neighbours, one product, never a scatter.

Knows tables of rows and weights (out, offsets, in), not coordinates. The gradient of a gather from neighbours is again
a gather from neighbours, since neighbourhood is mutual; that of a gather from children is one from the parent.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from liftgs.model.sparse_pyramid import Coarsening

Precision = Literal["auto", "fp32", "bf16"]

#: Rows are gathered in blocks of about so many bytes, which stay in the second-level cache of most processors and
#: need no fresh pages.
BLOCK_BYTES = 4 << 20
LEAST_ROWS = 256


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16 or AMX), not only emulation."""
    has = torch.cpu
    return has._is_avx512_bf16_supported() or has._is_amx_tile_supported()


def compute_dtype(features: Tensor, precision: Precision) -> torch.dtype:
    """Type in which features are multiplied. Only float32 is ever lowered, and by "auto" only where that is faster."""
    if features.dtype != torch.float32 or precision == "fp32":
        return features.dtype
    if precision == "bf16" or (features.device.type == "cpu" and cpu_multiplies_bf16()):
        return torch.bfloat16
    return features.dtype


def submanifold(
    features: Float[Tensor, "n i"],
    weight: Float[Tensor, "o k i"],
    neighbours: Int[Tensor, "n k"],
    precision: Precision = "auto",
) -> Float[Tensor, "n o"]:
    """Sum over offsets of weight times the neighbour there; absent neighbours (row n) count as zero."""
    return cast(Tensor, _Submanifold.apply(features, weight, neighbours, compute_dtype(features, precision)))


def strided(
    features: Float[Tensor, "n i"],
    weight: Float[Tensor, "o 8 i"],
    coarsening: Coarsening,
    precision: Precision = "auto",
) -> Float[Tensor, "m o"]:
    """Each coarse voxel from its up to eight children; kernel 2, stride 2."""
    return cast(Tensor, _Strided.apply(features, weight, coarsening, compute_dtype(features, precision)))


def inverse(
    features: Float[Tensor, "m i"],
    weight: Float[Tensor, "o 8 i"],
    coarsening: Coarsening,
    precision: Precision = "auto",
) -> Float[Tensor, "n o"]:
    """Each fine voxel from its parent, by the weight of its octant; back to the voxels that `strided` came from."""
    return cast(Tensor, _Inverse.apply(features, weight, coarsening, compute_dtype(features, precision)))


class _Submanifold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, neighbours: Tensor, dtype: torch.dtype) -> Tensor:
        source = _with_zero_row(features, dtype)
        ctx.save_for_backward(source, weight, neighbours)
        ctx.like = features.dtype
        return _gather_product(source, neighbours, weight.flatten(1).to(dtype), features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        source, weight, neighbours = ctx.saved_tensors
        needs_features, needs_weight = ctx.needs_input_grad[:2]
        grad_features = grad_weight = None
        if needs_features:
            # Voxel b sees a at the offset opposite to that at which a sees b.
            turned = weight.flip(1).permute(2, 1, 0).flatten(1).to(source.dtype)
            grads = _with_zero_row(grad, source.dtype)
            grad_features, moment = _gather_both(grads, neighbours, turned, source if needs_weight else None, ctx.like)
            if moment is not None:
                grad_weight = moment.view(weight.shape[2], -1, weight.shape[0]).flip(1).permute(2, 1, 0)
        elif needs_weight:
            moment = _gather_moment(source, neighbours, grad.to(source.dtype))
            grad_weight = moment.view(weight.shape)
        return grad_features, _like(grad_weight, weight), None, None


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, coarsening: Coarsening, dtype: torch.dtype) -> Tensor:
        source = _with_zero_row(features, dtype)
        ctx.save_for_backward(source, weight)
        ctx.coarsening, ctx.like = coarsening, features.dtype
        return _gather_product(source, coarsening.children, weight.flatten(1).to(dtype), features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        source, weight = ctx.saved_tensors
        grad = grad.to(source.dtype)
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            to_children = weight.flatten(1).t().to(source.dtype)
            grad_features = _spread(grad, to_children, ctx.coarsening).to(ctx.like)
        if ctx.needs_input_grad[1]:
            grad_weight = _gather_moment(source, ctx.coarsening.children, grad).view(weight.shape)
        return grad_features, _like(grad_weight, weight), None, None


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, coarsening: Coarsening, dtype: torch.dtype) -> Tensor:
        source = features.to(dtype)
        ctx.save_for_backward(source, weight)
        ctx.coarsening, ctx.like = coarsening, features.dtype
        to_children = weight.transpose(0, 1).flatten(0, 1).to(dtype)
        return _spread(source, to_children, coarsening).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        source, weight = ctx.saved_tensors
        to_parent = weight.permute(2, 1, 0).flatten(1).to(source.dtype)
        grads = _with_zero_row(grad, source.dtype)
        needs_weight = ctx.needs_input_grad[1]
        other = source if needs_weight else None
        grad_features, moment = _gather_both(grads, ctx.coarsening.children, to_parent, other, ctx.like)
        grad_weight = None if moment is None else moment.view(weight.shape[2], 8, weight.shape[0]).permute(2, 1, 0)
        return grad_features, _like(grad_weight, weight), None, None


def _with_zero_row(features: Tensor, dtype: torch.dtype) -> Tensor:
    """What an absent neighbour points to is appended."""
    rows, width = features.shape
    source = features.new_empty(rows + 1, width, dtype=dtype)
    source[:rows] = features
    source[rows] = 0
    return source


def _gather_product(source: Tensor, table: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of `source` side by side as the table says, times weight [o, k i]."""
    result = source.new_empty(len(table), len(weight), dtype=dtype)
    for rows, gathered in _Blocks(source, table):
        result[rows] = linear(gathered, weight)[: rows.stop - rows.start]
    return result


def _gather_moment(source: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    """Sum over rows of grad [o] times what is gathered there: [o, k i], accumulated in float32 or better."""
    width = source.shape[1] * table.shape[1]
    moment = _accumulator(grad, grad.shape[1], width)
    for rows, gathered in _Blocks(source, table):
        moment += _padded(grad[rows], len(gathered)).t() @ gathered
    return moment


def _gather_both(
    source: Tensor, table: Tensor, weight: Tensor, other: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """`_gather_product`, and from the same gather the sum of `other` times it (`other` may have more rows)."""
    result = source.new_empty(len(table), len(weight), dtype=dtype)
    moment = None if other is None else _accumulator(source, other.shape[1], weight.shape[1])
    for rows, gathered in _Blocks(source, table):
        result[rows] = linear(gathered, weight)[: rows.stop - rows.start]
        if moment is not None and other is not None:
            moment += _padded(other[rows], len(gathered)).t() @ gathered
    return result, moment


def _spread(features: Tensor, weight: Tensor, coarsening: Coarsening) -> Tensor:
    """Each coarse row times weight [8 o, i], of which each fine voxel takes its octant's part."""
    parts = linear(_padded(features, _round_up(len(features))), weight).view(-1, len(weight) // 8)
    return parts.index_select(0, coarsening.parents * 8 + coarsening.octants)


class _Blocks:
    """Iterates over blocks of gathered rows, which share one buffer; the last is filled up with absent ones."""

    def __init__(self, source: Tensor, table: Tensor) -> None:
        self._source, self._table = source, table
        row_bytes = table.shape[1] * source.shape[1] * source.element_size()
        self._most = _round_up(min(len(table), max(LEAST_ROWS, BLOCK_BYTES // row_bytes)))

    def __iter__(self) -> Any:
        rows, offsets = self._table.shape
        buffer = self._source.new_empty(self._most * offsets, self._source.shape[1])
        for start in range(0, rows, self._most):
            stop = min(start + self._most, rows)
            height = _round_up(stop - start)
            gathered = buffer[: height * offsets]
            taken = (stop - start) * offsets
            torch.index_select(self._source, 0, self._table[start:stop].flatten(), out=gathered[:taken])
            gathered[taken:] = 0
            yield slice(start, stop), gathered.view(height, -1)


def _round_up(rows: int) -> int:
    """The next 2^n or 1.5 * 2^n.

    Products of bfloat16 are compiled for each shape that comes by, which takes ten times longer than the product of a
    small room's coarse voxels; no two rooms have as many, so the last block would be compiled at every step.
    """
    power = 1 << max(rows - 1, 1).bit_length()
    return power * 3 // 4 if rows <= power * 3 // 4 else power


def _padded(rows: Tensor, height: int) -> Tensor:
    """With rows of zeros below."""
    return rows if len(rows) == height else torch.nn.functional.pad(rows, (0, 0, 0, height - len(rows)))


def _accumulator(like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32))


def _like(grad: Tensor | None, parameter: Tensor) -> Tensor | None:
    return None if grad is None else grad.to(parameter.dtype)
