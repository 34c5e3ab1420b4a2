"""The CPU backend where nothing compiles: the same weights in plain torch, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from liftgs.render.base import Rasterization, check_channels
from liftgs.render.gaussians import Gaussians, NotFinite, Pinhole
from liftgs.render.projection import Splats, project

TILE = 16


@dataclass(frozen=True)
class _Tile:
    """Weights of the Gaussians `ids` on the pixels `[y, x]`, row by row."""

    y: slice
    x: slice
    ids: Int64[Tensor, " m"]
    weights: Float[Tensor, "pixels m"]


class PlainRasterization(Rasterization):
    """One view's weights as a dense matrix per tile. Any dtype, any device.

    Raises:
        NotFinite: a number of the Gaussians is NaN or infinite.
    """

    def __init__(self, gaussians: Gaussians, camera: Pinhole):
        for tensor in (gaussians.means, gaussians.covars, gaussians.opacities):
            if not tensor.isfinite().all():
                raise NotFinite("Gaussians hold NaN or infinity")
        self._n, self._camera = len(gaussians), camera
        splats = project(gaussians, camera)
        self._tiles = [_weigh(splats, y, x, ids) for y, x, ids in _bin(splats, camera)]
        self._seen = torch.zeros(self._n, dtype=torch.bool, device=gaussians.means.device)
        for tile in self._tiles:
            self._seen[tile.ids] = True
        self.alpha = self._assemble([tile.weights.sum(1, keepdim=True) for tile in self._tiles], 1)[..., 0]

    def composite(self, channels: Float[Tensor, "n c"]) -> Float[Tensor, "h w c"]:
        """See `Rasterization.composite`."""
        check_channels(channels, self._n)
        if not channels[self._seen].isfinite().all():
            raise NotFinite("channels of visible Gaussians hold NaN or infinity")
        channels = channels.to(self.alpha.dtype)
        return self._assemble([tile.weights @ channels[tile.ids] for tile in self._tiles], channels.shape[1])

    def _assemble(self, values: list[Float[Tensor, "pixels c"]], count: int) -> Float[Tensor, "h w c"]:
        image = self._tiles[0].weights.new_zeros(self._camera.height, self._camera.width, count)
        for tile, value in zip(self._tiles, values, strict=True):
            image[tile.y, tile.x] = value.view(tile.y.stop - tile.y.start, -1, count)
        return image


def _bin(splats: Splats, camera: Pinhole) -> Iterator[tuple[slice, slice, Int64[Tensor, " m"]]]:
    """Tiles and, front to back, the Gaussians whose bounding boxes meet them."""
    order = torch.argsort(splats.depths.detach(), stable=True)
    order = order[splats.visible[order]]
    low, high = (splats.means2d - splats.radii)[order].detach(), (splats.means2d + splats.radii)[order].detach()
    for top in range(0, camera.height, TILE):
        for left in range(0, camera.width, TILE):
            y, x = slice(top, min(top + TILE, camera.height)), slice(left, min(left + TILE, camera.width))
            inside: Bool[Tensor, " m"] = (high[:, 0] > x.start) & (low[:, 0] < x.stop)
            inside = inside & (high[:, 1] > y.start) & (low[:, 1] < y.stop)
            yield y, x, order[inside]


def _weigh(splats: Splats, y: slice, x: slice, ids: Int64[Tensor, " m"]) -> _Tile:
    means2d, conics, opacities = splats.means2d[ids], splats.conics[ids], splats.opacities[ids]
    ys = torch.arange(y.start, y.stop, device=ids.device) + 0.5
    xs = torch.arange(x.start, x.stop, device=ids.device) + 0.5
    dx = (xs[None, :, None] - means2d[:, 0]).expand(len(ys), -1, -1).flatten(0, 1)  # pixels m
    dy = (ys[:, None, None] - means2d[:, 1]).expand(-1, len(xs), -1).flatten(0, 1)
    a, b, c = conics.unbind(1)
    sigmas = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alphas = (opacities * torch.exp(-sigmas)).clamp(max=0.999)
    alphas = torch.where((alphas >= 1 / 255) & (sigmas >= 0), alphas, 0.0)
    passed = torch.cumprod(1 - alphas, 1)
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], 1)
    return _Tile(y, x, ids, torch.where(passed > 1e-4, alphas * before, 0.0))
