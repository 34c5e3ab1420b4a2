"""Parity with gsplat: its torch projection on CPU, its kernels on a GPU."""

from __future__ import annotations

import pytest
import torch

from liftgs.render import Gaussians, Pinhole, rasterize
from liftgs.render.dense import project_dense, render_dense
from liftgs.render.projection import project
from tests.liftgs.render import splats


@pytest.mark.parametrize("mirrored", [False, True])
def test_projection_is_gsplats(mirrored: bool) -> None:
    torch_impl = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed (extra `gpu`)")
    scene, view = splats.gaussians(2000), splats.camera(mirrored=mirrored)
    radii, means2d, depths, conics, _ = torch_impl._fully_fused_projection(
        scene.means, scene.covars, view.viewmat[None], view.K[None], view.width, view.height
    )
    opaque = Gaussians(scene.means, scene.covars, torch.ones_like(scene.opacities))  # gsplat's torch ignores opacity
    ours = project(opaque, view)
    # ours is tighter by opacity: sqrt(2 ln 255) = 3.329 instead of 3.33 standard deviations, at times a pixel less
    seen, tighter = (radii[0] > 0).all(1), (radii[0] - ours.radii > 0).any(1)
    assert torch.equal(ours.visible | tighter, seen | tighter)
    assert (tighter & seen).sum() < 0.02 * seen.sum()
    assert 100 < seen.sum() < 1900
    assert torch.equal(ours.radii[seen & ~tighter].int(), radii[0][seen & ~tighter])
    torch.testing.assert_close(ours.means2d[seen], means2d[0][seen])
    torch.testing.assert_close(ours.conics[seen], conics[0][seen])
    torch.testing.assert_close(ours.depths[seen], depths[0][seen])
    twin_means2d, twin_covars2d, _ = project_dense(scene, view)
    torch.testing.assert_close(twin_means2d[seen], means2d[0][seen])
    a, b, c = conics[0][seen].unbind(1)
    inverse = torch.stack([torch.stack([a, b], 1), torch.stack([b, c], 1)], 1)
    torch.testing.assert_close(torch.linalg.inv(twin_covars2d[seen]), inverse)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("count", [3, 40])
def test_gsplat_on_cuda_agrees_with_the_twin(count: int) -> None:
    pytest.importorskip("gsplat", reason="gsplat is not installed (extra `gpu`)")
    scene, view = splats.gaussians(), splats.camera()
    channels = torch.randn(300, count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def on_cuda(gaussians: Gaussians, camera: Pinhole, channels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved = Gaussians(*(tensor.cuda() for tensor in vars(gaussians).values()))
        rasterization = rasterize(moved, camera)
        return rasterization.composite(channels.cuda()).cpu(), rasterization.alpha.cpu()

    expected = splats.values_and_gradients(render_dense, scene, view, channels, torch.float64)
    actual = splats.values_and_gradients(on_cuda, scene, view, channels, torch.float32)
    splats.assert_agree(actual, expected, tolerance=1e-3)
