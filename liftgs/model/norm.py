"""Batch normalisation whose statistics are those of all workers' rows.

PyTorch's own `SyncBatchNorm` runs on GPUs alone; this one sums with whatever it is given, so the network computes the
same on CPUs, and the same on any number of workers up to rounding. Without a sum it is `nn.BatchNorm1d`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: Sums a vector over all workers; each must call it as often and in the same order.
Sum = Callable[[Float[Tensor, " c"]], Float[Tensor, " c"]]


class BatchNorm(nn.BatchNorm1d):
    """As `nn.BatchNorm1d`, of rows [n, c].

    Attributes:
        sum_over_workers: None = there are no others.
        counted: whether this worker's rows are part of the statistics; without, it takes part only in the sums.
    """

    sum_over_workers: Sum | None = None
    counted: bool = True

    def forward(self, rows: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Normalised. In training the running statistics follow, the same on all workers."""
        if not self.training or (self.sum_over_workers is None and len(rows) > 1):  # one row alone torch refuses
            return super().forward(rows)
        total = self.sum_over_workers or (lambda sums: sums)
        result, mean, var, count = cast(
            tuple[Tensor, ...],
            _Normalise.apply(rows, self.weight, self.bias, self.eps, total, self.counted),
        )
        self._follow(mean, var, count)
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None  # a norm without running statistics is never built
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        unbiased = var * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class _Normalise(torch.autograd.Function):
    """(rows - mean) / sqrt(var + eps) * weight + bias, with mean and var over all workers' rows.

    With g the gradient by the result times weight, x the normalised rows and E the mean over all rows, the gradient by
    the rows is (g - E[g] - x E[g x]) / sqrt(var + eps): Ioffe and Szegedy (2015), section 3. Sums are in float64.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float, total: Sum, counted: bool
    ) -> tuple[Tensor, ...]:
        x = rows.float()
        own = torch.cat([x.sum(0, dtype=torch.float64), x.square().sum(0, dtype=torch.float64), x.new_ones(1) * len(x)])
        sums = total(own if counted else torch.zeros_like(own))
        count, width = sums[-1], rows.shape[1]
        mean, square = (sums[:-1] / count).split(width)
        var = (square - mean.square()).clamp(min=0)
        scale = (var + eps).rsqrt()
        normalised = (x - mean.float()) * scale.float()
        ctx.save_for_backward(normalised, weight, scale, count)
        ctx.total, ctx.counted = total, counted
        ctx.mark_non_differentiable(mean, var, count)
        return (normalised * weight + bias).to(rows.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalised, weight, scale, count = ctx.saved_tensors
        gradient = gradients[0].float()
        of_bias, of_weight = gradient.sum(0, dtype=torch.float64), (gradient * normalised).sum(0, dtype=torch.float64)
        own = torch.cat([of_bias, of_weight])
        mean, along = (ctx.total(own if ctx.counted else torch.zeros_like(own)) / count).float().split(len(weight))
        through_statistics = mean + normalised * along if ctx.counted else 0.0
        of_rows = (gradient - through_statistics) * (weight * scale.float())
        return of_rows.to(gradients[0].dtype), of_weight.float(), of_bias.float(), None, None, None


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """All of a network's."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@contextmanager
def uncounted(model: nn.Module) -> Iterator[None]:
    """Within, this worker's rows are no part of any statistics."""
    for norm in batch_norms(model):
        norm.counted = False
    try:
        yield
    finally:
        for norm in batch_norms(model):
            norm.counted = True
