"""What every caller may rely on, for each CPU backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from liftgs import render
from liftgs.render import Gaussians, Pinhole, Rasterization, compile, native, plain
from liftgs.scene import Camera
from tests.liftgs.render import splats

needs_compiler = pytest.mark.skipif(compile.find_compiler() is None, reason="no C++ compiler")
BACKENDS = [
    pytest.param(native.NativeRasterization, id="native", marks=needs_compiler),
    pytest.param(plain.PlainRasterization, id="plain"),
]


def scene32() -> Gaussians:
    scene = splats.gaussians()
    return Gaussians(scene.means.float(), scene.covars.float(), scene.opacities.float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_channel_sets_share_one_rasterisation(backend: type[Rasterization]) -> None:
    """Composited apart or together: same images, same gradients, geometry's included."""
    channels = torch.rand(300, 40)
    leaves = [t.clone().requires_grad_() for t in (*vars(scene32()).values(), channels)]
    together = backend(Gaussians(*leaves[:3]), splats.camera())
    apart = backend(Gaussians(*leaves[:3]), splats.camera())
    image = together.composite(leaves[3])
    parts = torch.cat([apart.composite(leaves[3][:, a:b]) for a, b in ((0, 3), (3, 20), (20, 40))], 2)
    torch.testing.assert_close(parts, image, atol=1e-6, rtol=0)
    v_image, v_alpha = torch.randn_like(image), torch.randn_like(together.alpha)
    expected = torch.autograd.grad([image, together.alpha], leaves, [v_image, v_alpha])
    actual = torch.autograd.grad([parts, apart.alpha], leaves, [v_image, v_alpha])
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=5e-5 * float(e.abs().max()), rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_blending_is_linear_in_the_channels(backend: type[Rasterization]) -> None:
    rasterization, channels, mix = backend(scene32(), splats.camera()), torch.rand(300, 20), torch.randn(20, 4)
    before, after = rasterization.composite(channels @ mix), rasterization.composite(channels) @ mix
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        rasterization.composite(torch.ones(300, 1))[..., 0], rasterization.alpha, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", ["channels", "geometry", "alpha", "none"])
def test_only_what_is_asked_for_gets_a_gradient(backend: type[Rasterization], wanted: str) -> None:
    leaves = [t.clone() for t in (*vars(scene32()).values(), torch.rand(300, 20))]
    asked = {"channels": leaves[3:], "geometry": leaves[:3], "alpha": leaves[:3], "none": []}[wanted]
    full = [t.clone().requires_grad_() for t in leaves]
    for leaf in asked:
        leaf.requires_grad_()
    rasterization, reference = backend(Gaussians(*leaves[:3]), splats.camera()), None
    image = rasterization.composite(leaves[3])
    if wanted == "none":
        assert not image.requires_grad
        assert not rasterization.alpha.requires_grad
        return
    reference = backend(Gaussians(*full[:3]), splats.camera())
    v = torch.randn(53, 61, 20)
    output, expected = (
        (rasterization.alpha * v[..., 0], reference.alpha * v[..., 0])
        if wanted == "alpha"
        else (image * v, reference.composite(full[3]) * v)
    )
    inputs = [f for f, leaf in zip(full, leaves, strict=True) if leaf.requires_grad]
    gradients = zip(torch.autograd.grad(output.sum(), asked), torch.autograd.grad(expected.sum(), inputs), strict=True)
    for a, e in gradients:
        torch.testing.assert_close(a, e, atol=1e-6 * float(e.abs().max()), rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_alpha_has_its_gradient_though_it_was_looked_at_without(backend: type[Rasterization]) -> None:
    """As where matching composites first, without gradients, and the losses then."""
    leaves = [t.clone().requires_grad_() for t in vars(scene32()).values()]
    rasterization = backend(Gaussians(*leaves), splats.camera())
    with torch.no_grad():
        rasterization.composite(torch.rand(300, 3))
        before = rasterization.alpha.clone()
    torch.testing.assert_close(rasterization.alpha, before)
    slopes = torch.autograd.grad(rasterization.alpha.sum(), leaves, allow_unused=True)
    assert all(slope is not None and slope.any() for slope in slopes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_view_is_empty(backend: type[Rasterization]) -> None:
    scene, view = scene32(), splats.camera()
    away = view.viewmat.clone()
    away[2, 3] = -100  # everything behind the camera
    for gaussians, camera in (
        (scene, Pinhole(away, view.K, view.width, view.height)),
        (Gaussians(scene.means[:0], scene.covars[:0], scene.opacities[:0]), view),
    ):
        leaves = [t.clone().requires_grad_() for t in vars(gaussians).values()]
        channels = torch.rand(len(gaussians), 20, requires_grad=True)
        rasterization = backend(Gaussians(*leaves), camera)
        image = rasterization.composite(channels)
        assert not image.any()
        assert not rasterization.alpha.any()
        for gradient in torch.autograd.grad(image.sum() + rasterization.alpha.sum(), [*leaves, channels]):
            assert not gradient.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_layout_does_not_matter(backend: type[Rasterization]) -> None:
    """Transposed and strided inputs, an image gradient that is expanded, transposed or of wider rows."""
    scene, view, channels = scene32(), splats.camera(), torch.rand(300, 20)
    wide = torch.rand(300, 30)
    wide[:, 5:25] = channels
    strided = Gaussians(
        scene.means.T.contiguous().T, scene.covars.mT.contiguous().mT, torch.stack([scene.opacities] * 2, 1)[:, 0]
    )
    expected = backend(scene, view).composite(channels)
    for layout in (channels.T.contiguous().T, wide[:, 5:25]):
        torch.testing.assert_close(backend(strided, view).composite(layout), expected)
    leaf = channels.clone().requires_grad_()
    image = backend(scene, view).composite(leaf)
    v = torch.randn(53, 61, 20)
    (expected,) = torch.autograd.grad(image, leaf, v, retain_graph=True)
    for layout in (v.permute(2, 0, 1).contiguous().permute(1, 2, 0), torch.cat([v, v], 2)[..., :20]):
        (actual,) = torch.autograd.grad(image, leaf, layout, retain_graph=True)
        torch.testing.assert_close(actual, expected)
    (ones,) = torch.autograd.grad(image, leaf, torch.ones(53, 61, 20), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(image.sum(), leaf)[0], ones)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["means", "covars", "opacities"])
def test_non_finite_gaussians_are_refused(backend: type[Rasterization], name: str, bad: float) -> None:
    tensors: dict[str, Any] = {key: value.clone() for key, value in vars(scene32()).items()}
    tensors[name].view(-1)[-1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        backend(Gaussians(**tensors), splats.camera())


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_finite_channels_of_what_is_seen_are_refused(backend: type[Rasterization]) -> None:
    rasterization, channels = backend(scene32(), splats.camera()), torch.rand(300, 20)
    leaf = channels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rasterization.composite(leaf).sum(), leaf)
    channels[gradient.sum(1).argmax(), 19] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        rasterization.composite(channels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_channels_must_be_a_row_per_gaussian(backend: type[Rasterization]) -> None:
    rasterization = backend(scene32(), splats.camera())
    for wrong in (torch.rand(299, 3), torch.rand(300), torch.rand(300, 0)):
        with pytest.raises(ValueError, match="expected"):
            rasterization.composite(wrong)


def test_shapes_that_do_not_fit_are_refused() -> None:
    scene, view = scene32(), splats.camera()
    with pytest.raises(ValueError, match="expected"):
        Gaussians(scene.means, scene.covars[:-1], scene.opacities)
    with pytest.raises(ValueError, match="expected"):
        Pinhole(view.viewmat[:3], view.K, 4, 4)
    with pytest.raises(ValueError, match="not positive"):
        Pinhole(view.viewmat, view.K, 0, 4)


def test_a_scene_camera_becomes_a_pinhole() -> None:
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    camera = Camera(np.array([[50.0, 0, 30], [0, 60, 25], [0, 0, 1]]), pose, 61, 53)
    pinhole = Pinhole.of(camera)
    torch.testing.assert_close(pinhole.viewmat[:3, 3], torch.tensor([-1.0, -2, -3]))
    assert (pinhole.K[1, 1], pinhole.width, pinhole.height) == (60, 61, 53)


@needs_compiler
def test_gradients_are_the_same_in_every_run() -> None:
    leaves = [t.clone().requires_grad_() for t in (*vars(scene32()).values(), torch.rand(300, 420))]
    v = torch.randn(53, 61, 420)
    runs = [
        torch.autograd.grad(render.render(Gaussians(*leaves[:3]), splats.camera(), leaves[3])[0], leaves, v)
        for _ in range(3)
    ]
    for run in runs[1:]:
        for a, b in zip(run, runs[0], strict=True):
            assert torch.equal(a, b)


@needs_compiler
def test_an_image_keeps_its_values_while_others_are_made() -> None:
    """Memory is used again only when nobody holds a view of it."""
    rasterization = render.rasterize(scene32(), splats.camera(256, 256))
    first = rasterization.composite(torch.ones(300, 32))[..., :1]
    before = first.clone()
    for _ in range(3):
        rasterization.composite(torch.zeros(300, 32))
    assert torch.equal(first, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_computed_in_single(backend: type[Rasterization]) -> None:
    rasterization, channels = backend(scene32(), splats.camera()), torch.rand(300, 20).bfloat16()
    leaf = channels.clone().requires_grad_()
    image = rasterization.composite(leaf)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, rasterization.composite(channels.float()))
    assert torch.autograd.grad(image.sum(), leaf)[0].dtype == torch.bfloat16
