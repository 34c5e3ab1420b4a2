"""Every CPU backend against the dense float64 twin, and the twin against itself by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from liftgs.render import Gaussians, Pinhole, compile, native, plain
from liftgs.render.dense import project_dense, render_dense
from tests.liftgs.render import splats


def native_render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> tuple[Tensor, Tensor]:
    rasterization = native.NativeRasterization(gaussians, camera)
    return rasterization.composite(channels), rasterization.alpha


def plain_render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> tuple[Tensor, Tensor]:
    rasterization = plain.PlainRasterization(gaussians, camera)
    return rasterization.composite(channels), rasterization.alpha


needs_compiler = pytest.mark.skipif(compile.find_compiler() is None, reason="no C++ compiler")
BACKENDS = [pytest.param(native_render, id="native", marks=needs_compiler), pytest.param(plain_render, id="plain")]


@pytest.mark.parametrize(
    ("render", "count", "threads"),
    [pytest.param(native_render, c, t, marks=needs_compiler) for c in (1, 3, 16, 37, 200, 420) for t in (1, 2, 3)]
    + [pytest.param(plain_render, c, 2) for c in (3, 37)],
)
def test_values_and_gradients_agree_with_the_twin(render: splats.Render, count: int, threads: int) -> None:
    scene, view = splats.gaussians(), splats.camera()
    channels = torch.randn(300, count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = splats.values_and_gradients(render_dense, scene, view, channels, torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = splats.values_and_gradients(render, scene, view, channels, torch.float32)
    finally:
        torch.set_num_threads(before)
    splats.assert_agree(actual, expected)


def test_the_scene_hits_every_rule_of_the_blend() -> None:
    scene, view = splats.gaussians(), splats.camera()
    means2d, covars2d, depths = project_dense(scene, view)
    assert (depths < 0.01).any()  # behind the camera
    assert (scene.opacities < 1 / 255).any()  # too faint anywhere
    assert (scene.opacities > 0.9995).any()  # over the cap at its centre
    inside = (means2d > 0).all(1) & (means2d < torch.tensor([view.width, view.height])).all(1) & (depths > 0.01)
    assert (inside & (scene.opacities > 0.9995)).any()
    _, alpha = render_dense(scene, view, torch.ones(300, 1, dtype=torch.float64))
    _, alpha_without_stop = _blend_without_stop(scene, view)
    assert (alpha_without_stop - alpha > 1e-5).any()  # some pixel stops early
    assert 0.9 < splats.decided(scene, view).double().mean() < 1  # few pixels are on a threshold
    slopes = (means2d - view.K[:2, 2]) / torch.tensor([view.K[0, 0], view.K[1, 1]])
    assert (slopes.abs() > 0.9).any()  # past the clamp of the linearisation
    assert covars2d.isfinite().all()


def _blend_without_stop(scene: Gaussians, view: Pinhole) -> tuple[Tensor, Tensor]:
    """Alpha as 1 - the product of what every Gaussian lets through."""
    means2d, covars2d, depths = project_dense(scene, view)
    through = torch.ones(view.height, view.width, dtype=torch.float64)
    ys, xs = torch.meshgrid(torch.arange(view.height) + 0.5, torch.arange(view.width) + 0.5, indexing="ij")
    for i in torch.nonzero(depths > 0.01)[:, 0]:
        offset = torch.stack([xs, ys], -1).double() - means2d[i]
        power = torch.einsum("hwi,ij,hwj->hw", offset, torch.linalg.inv(covars2d[i]), offset)
        alpha = (scene.opacities[i] * torch.exp(-power / 2)).clamp(max=0.999)
        through = through * (1 - torch.where(alpha < 1 / 255, torch.zeros_like(alpha), alpha))
    return means2d, 1 - through


@pytest.mark.parametrize("render", BACKENDS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16), (17, 33), (64, 31)])
def test_any_image_size(render: splats.Render, size: tuple[int, int]) -> None:
    scene, view = splats.gaussians(), splats.camera(*size)
    channels = torch.randn(300, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = splats.values_and_gradients(render_dense, scene, view, channels, torch.float64)
    splats.assert_agree(splats.values_and_gradients(render, scene, view, channels, torch.float32), expected)


@pytest.mark.parametrize("render", BACKENDS)
def test_a_reflection_in_the_viewmat_mirrors_the_world(render: splats.Render) -> None:
    """Mirroring Gaussians and camera alike changes nothing, though no rotation does it."""
    scene, channels = splats.gaussians(), torch.rand(300, 4, dtype=torch.float64)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    mirrored = Gaussians(scene.means @ mirror, mirror @ scene.covars @ mirror, scene.opacities)
    straight = splats.values_and_gradients(render, scene, splats.camera(), channels, torch.float32)
    flipped = splats.values_and_gradients(render, mirrored, splats.camera(mirrored=True), channels, torch.float32)
    flipped["means"], flipped["covars"] = flipped["means"] @ mirror, mirror @ flipped["covars"] @ mirror
    splats.assert_agree(flipped, straight)
    twin = splats.values_and_gradients(render_dense, mirrored, splats.camera(mirrored=True), channels, torch.float64)
    twin["means"], twin["covars"] = twin["means"] @ mirror, mirror @ twin["covars"] @ mirror
    splats.assert_agree(flipped, twin)


@pytest.mark.parametrize("render", BACKENDS)
def test_order_of_the_input_does_not_matter(render: splats.Render) -> None:
    scene, channels = splats.gaussians(), torch.rand(300, 4, dtype=torch.float64)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    shuffled = Gaussians(scene.means[order], scene.covars[order], scene.opacities[order])
    expected, _ = render(scene, splats.camera(), channels)
    actual, _ = render(shuffled, splats.camera(), channels[order])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_gradients_of_the_twin_pass_finite_differences() -> None:
    scene, view = splats.gaussians(12, seed=3), splats.camera(7, 6)
    channels = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = [t.clone().requires_grad_() for t in (scene.means, scene.covars, scene.opacities, channels)]

    def function(means: Tensor, covars: Tensor, opacities: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        return render_dense(Gaussians(means, covars, opacities), view, channels)

    assert torch.autograd.gradcheck(function, leaves, eps=1e-7, atol=1e-5)
