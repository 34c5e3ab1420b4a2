"""Sparse convolution layers over a voxel pyramid: plain PyTorch everywhere, spconv's kernels on CUDA where installed.

Both backends use the same parameters, in spconv's layout (out, kx, ky, kz, in), under the same names. Features are
rows in the order of a level's voxels. Knows nothing of the network built from the layers.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from liftgs.model import sparse_ops, sparse_spconv
from liftgs.model.sparse_ops import Precision
from liftgs.model.sparse_pyramid import Coarsening, Level, Pyramid, build_pyramid

__all__ = [
    "Coarsening",
    "InverseConv",
    "Level",
    "Precision",
    "Pyramid",
    "StridedConv",
    "SubmanifoldConv",
    "build_pyramid",
]


class _SparseConv(nn.Module):
    """Parameters that all kinds share.

    Args:
        precision: of products on float32 features: "auto" is bfloat16 on a CPU with instructions for it and float32
            elsewhere. Sums over blocks, results and gradients of weights stay float32.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, bias: bool = False, precision: Precision = "auto"
    ) -> None:
        super().__init__()
        self.kernel, self.precision = kernel, precision
        self.weight = nn.Parameter(torch.empty(out_channels, kernel, kernel, kernel, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(fan in), as spconv and torch.nn.Conv3d do."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Widths and kernel."""
        out_channels, *_, in_channels = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel={self.kernel}, bias={self.bias is not None}"

    def _offsets_weight(self) -> Tensor:
        return self.weight.flatten(1, 3)

    def _biased(self, features: Tensor) -> Tensor:
        return features if self.bias is None else features + self.bias


class SubmanifoldConv(_SparseConv):
    """Convolution whose output lives on the voxels of its input; odd kernel, no stride."""

    def forward(self, features: Float[Tensor, "n i"], level: Level) -> Float[Tensor, "n o"]:
        """Features of the level's voxels to features of the same voxels."""
        if self.kernel == 1:
            return nn.functional.linear(features, self.weight.flatten(1), self.bias)
        if sparse_spconv.usable(features):
            return self._biased(sparse_spconv.submanifold(features, self.weight, level))
        neighbours = level.neighbours(self.kernel)
        return self._biased(sparse_ops.submanifold(features, self._offsets_weight(), neighbours, self.precision))


class StridedConv(_SparseConv):
    """Kernel 2, stride 2: to the next coarser level. One gather of children and one product on every device."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False, precision: Precision = "auto") -> None:
        super().__init__(in_channels, out_channels, 2, bias, precision)

    def forward(self, features: Float[Tensor, "n i"], coarsening: Coarsening) -> Float[Tensor, "m o"]:
        """Features of the fine voxels to features of the coarse ones."""
        return self._biased(sparse_ops.strided(features, self._offsets_weight(), coarsening, self.precision))


class InverseConv(_SparseConv):
    """Kernel 2: back to the voxels that a `StridedConv` of the same coarsening came from."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False, precision: Precision = "auto") -> None:
        super().__init__(in_channels, out_channels, 2, bias, precision)

    def forward(self, features: Float[Tensor, "m i"], coarsening: Coarsening) -> Float[Tensor, "n o"]:
        """Features of the coarse voxels to features of the fine ones."""
        return self._biased(sparse_ops.inverse(features, self._offsets_weight(), coarsening, self.precision))
