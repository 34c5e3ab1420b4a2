"""The CPU backend: weights once per view, as blocks of eight pixels, and every channel set as a product with them."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from liftgs.render import compile
from liftgs.render.base import Rasterization, check_channels
from liftgs.render.buffers import POOL
from liftgs.render.gaussians import Gaussians, NotFinite, Pinhole


class NativeRasterization(Rasterization):
    """One view's weights, made by the compiled kernels.

    Raises:
        compile.NoKernels: they cannot be built here.
        NotFinite: a number of the Gaussians is NaN or infinite.
    """

    def __init__(self, gaussians: Gaussians, camera: Pinhole):
        self._n = len(gaussians)
        self._plan = _Plan(gaussians, camera)
        self._weights, self.alpha = _Weigh.apply(
            self._plan, gaussians.means.float(), gaussians.covars.float(), gaussians.opacities.float()
        )

    def composite(self, channels: Float[Tensor, "n c"]) -> Float[Tensor, "h w c"]:
        """See `Rasterization.composite`."""
        check_channels(channels, self._n)
        return _Composite.apply(self._plan, self._weights, channels.float())


class _Plan:
    """A view's splats and the places of its weights, in the library's memory."""

    def __init__(self, gaussians: Gaussians, camera: Pinhole):
        self.library = compile.load()
        self.width, self.height = camera.width, camera.height
        inputs = [_dense(t) for t in (gaussians.means, gaussians.covars, gaussians.opacities, camera.viewmat, camera.K)]
        pointers = [t.data_ptr() for t in inputs]
        self.handle = self.library.liftgs_plan(len(gaussians), *pointers, self.width, self.height, _threads())
        if not self.handle:
            raise NotFinite("Gaussians hold NaN or infinity")
        weakref.finalize(self, self.library.liftgs_free, self.handle).atexit = False
        self.floats = 8 * self.library.liftgs_blocks(self.handle)


class _Weigh(torch.autograd.Function):
    """Gaussians -> weights (in blocks, of no meaning outside the library) and alpha."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, means: Tensor, covars: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
        weights, alpha = POOL.empty(plan.floats), torch.empty(plan.height, plan.width)
        plan.library.liftgs_weigh(plan.handle, weights.data_ptr(), alpha.data_ptr(), _threads())
        ctx.plan = plan
        ctx.save_for_backward(_dense(means), _dense(covars), weights)
        ctx.set_materialize_grads(False)
        return weights, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_weights: Tensor | None, v_alpha: Tensor | None) -> tuple[Tensor | None, ...]:
        plan = ctx.plan
        means, covars, weights = ctx.saved_tensors
        v_weights = torch.zeros_like(weights) if v_weights is None else _dense(v_weights)
        v_alpha = torch.zeros(plan.height, plan.width) if v_alpha is None else _dense(v_alpha)
        v_means, v_covars = torch.zeros_like(means), torch.zeros_like(covars)
        v_opacities = means.new_zeros(len(means))
        tensors = (means, covars, weights, v_weights, v_alpha, v_means, v_covars, v_opacities)
        plan.library.liftgs_weigh_backward(plan.handle, *[t.data_ptr() for t in tensors], _threads())
        return None, v_means, v_covars, v_opacities


class _Composite(torch.autograd.Function):
    """Weights, channels -> image."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, weights: Tensor, channels: Tensor) -> Tensor:
        channels = channels if _rows_are_dense(channels) else channels.contiguous()
        count = channels.shape[1]
        image = POOL.empty(plan.height, plan.width, _padded(count))
        finite = plan.library.liftgs_composite(
            plan.handle, weights.data_ptr(), channels.data_ptr(), channels.stride(0), count,
            image.data_ptr(), image.stride(1), _threads(),
        )  # fmt: skip
        if not finite:
            raise NotFinite("channels of visible Gaussians hold NaN or infinity")
        ctx.plan = plan
        ctx.save_for_backward(weights, channels)
        return image[..., :count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor) -> tuple[Tensor | None, ...]:
        plan = ctx.plan
        weights, channels = ctx.saved_tensors
        n, count = channels.shape
        v_image = v_image.float()
        v_image = v_image if v_image.stride(2) == 1 else v_image.contiguous()
        v_channels = POOL.empty(n, _padded(count))
        want_weights = ctx.needs_input_grad[1]
        v_weights = POOL.empty(plan.floats) if want_weights else None
        threads = _threads()
        scratch = POOL.empty(plan.library.liftgs_scratch(plan.handle, count, want_weights, threads))
        plan.library.liftgs_composite_backward(
            plan.handle, weights.data_ptr(), channels.data_ptr(), channels.stride(0), count,
            v_image.data_ptr(), v_image.stride(0), v_image.stride(1), v_channels.data_ptr(), v_channels.stride(0),
            None if v_weights is None else v_weights.data_ptr(), scratch.data_ptr(), threads,
        )  # fmt: skip
        return None, v_weights, v_channels[:, :count]


def _padded(count: int) -> int:
    """Channels a row has room for: the kernels write whole vectors of up to 16."""
    return -(-count // 16) * 16


def _threads() -> int:
    return torch.get_num_threads()


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _rows_are_dense(tensor: Tensor) -> bool:
    return tensor.stride(1) == 1 and tensor.stride(0) >= tensor.shape[1]
