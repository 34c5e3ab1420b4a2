"""Other rasterisers that run on a CPU, each as a function from splats to an image, differentiable.

All get what helps them: splats that are in view, already projected; for gsplat and torch.sparse even the list of
(pixel, Gaussian) pairs. Code of others is read from a checkout and compiled or executed from there, never kept here.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liftgs.render import Gaussians, Pinhole
from liftgs.render.plain import PlainRasterization
from liftgs.render.projection import Splats, project

#: Gaussians, camera, channels of all -> image.
Peer = Callable[[Gaussians, Pinhole, Tensor], Tensor]


@dataclass(frozen=True)
class Visible:
    """Splats in view."""

    ids: Tensor
    means2d: Tensor
    conics: Tensor
    covars2d: Tensor
    opacities: Tensor
    depths: Tensor


def visible(gaussians: Gaussians, camera: Pinhole) -> Visible:
    """Projected by our torch path, with autograd."""
    splats: Splats = project(gaussians, camera)
    ids = torch.nonzero(splats.visible)[:, 0]
    a, b, c = splats.conics[ids].unbind(1)
    inverse = torch.stack([torch.stack([a, b], 1), torch.stack([b, c], 1)], 1)
    return Visible(
        ids,
        splats.means2d[ids],
        splats.conics[ids],
        torch.linalg.inv(inverse),
        splats.opacities[ids],
        splats.depths[ids],
    )


# ---- OpenSplat (AGPL): its CPU rasteriser, compiled from the checkout

_BINDING = """
#include <torch/extension.h>
#include "bindings.h"
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", [](int w, int h, torch::Tensor a, torch::Tensor b, torch::Tensor c, torch::Tensor d, torch::Tensor e,
                      torch::Tensor f, torch::Tensor g) {
    auto [image, T, lists] = rasterize_forward_tensor_cpu(w, h, a, b, c, d, e, f, g);
    return std::make_tuple(image, T, (int64_t)lists);
  });
  m.def("backward", [](int h, int w, torch::Tensor a, torch::Tensor b, torch::Tensor c, torch::Tensor d,
                       torch::Tensor e, torch::Tensor f, torch::Tensor g, torch::Tensor T, int64_t lists,
                       torch::Tensor v, torch::Tensor va) {
    return rasterize_backward_tensor_cpu(h, w, a, b, c, d, e, f, g, T, (std::vector<int32_t>*)lists, v, va);
  });
  m.def("free", [](int64_t lists) { delete[] (std::vector<int32_t>*)lists; });
}
"""


def opensplat(checkout: Path, any_channels: bool) -> Peer:
    """OpenSplat's rasteriser: as is, three channels a pass, or with its three written-out channels made a loop."""
    from torch.utils.cpp_extension import load

    source = checkout / "rasterizer" / "gsplat-cpu"
    text = (source / "gsplat_cpu.cpp").read_text()
    with tempfile.TemporaryDirectory() as folder:
        patched = Path(folder, "gsplat_cpu.cpp")
        text = text.replace('"../gsplat/config.h"', f'"{checkout}/rasterizer/gsplat/config.h"')
        patched.write_text(_with_channel_loops(text) if any_channels else text)
        Path(folder, "binding.cpp").write_text(_BINDING)
        library = load(
            f"opensplat_{'any' if any_channels else 'rgb'}",
            [str(patched), str(Path(folder, "binding.cpp"))],
            extra_cflags=["-O3", "-march=native", "-ffast-math"],
            extra_include_paths=[str(source)],
            build_directory=folder,
        )

    class Rasterize(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, size: tuple[int, int], *inputs: Tensor) -> Tensor:
            xys, conics, colours, opacities, covars2d, depths = (t.detach().contiguous() for t in inputs)
            h, w = size
            black = torch.zeros(3)
            image, T, lists = library.forward(w, h, xys, conics, colours, opacities, black, covars2d, depths)
            ctx.size, ctx.lists = size, lists
            ctx.save_for_backward(xys, conics, colours, opacities, black, covars2d, depths, T)
            if not any(ctx.needs_input_grad):
                library.free(lists)
            return image

        @staticmethod
        def backward(ctx: Any, v_image: Tensor) -> tuple[Tensor | None, ...]:
            h, w = ctx.size
            v_alpha = torch.zeros(h, w)
            saved = ctx.saved_tensors
            v_xy, v_conic, v_colours, v_opacity = library.backward(
                h, w, *saved, ctx.lists, v_image.contiguous(), v_alpha
            )
            library.free(ctx.lists)
            v_conic = v_conic * torch.tensor([1.0, 2.0, 1.0])  # it counts half of the mixed term
            return None, v_xy, v_conic, v_colours, v_opacity[:, 0], None, None

    def render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> Tensor:
        seen, colours = visible(gaussians, camera), channels
        xys, size = seen.means2d - 0.5, (camera.height, camera.width)  # its pixels are at whole numbers
        covars2d, depths = seen.covars2d.detach(), seen.depths.detach()
        fills = torch.nn.functional.pad(colours, (0, -colours.shape[1] % 3))  # it reads and writes three, come what may
        passes = [colours] if any_channels else fills.split(3, 1)
        images = [
            Rasterize.apply(size, xys, seen.conics, part[seen.ids], seen.opacities, covars2d, depths) for part in passes
        ]
        return images[0] if any_channels else torch.cat(images, 2)[..., : colours.shape[1]]

    return render


def _with_channel_loops(text: str) -> str:
    """The source with every triple of statements, terms or numbers for three channels as one loop over `channels`."""
    loop = r"#pragma GCC ivdep\nfor (int c = 0; c < channels; ++c) "
    at = r"\[(\w+) \* 3 \+ 0\]"
    number = 0

    def replace(pattern: str, by: str) -> None:
        nonlocal text, number
        text, count = re.subn(pattern, by, text, flags=re.DOTALL)
        number += count

    # the background is black: its terms go, in both directions
    replace(r"\n *pOutImg\[pixIdx \* 3 \+ \d\] \+= T \* bg\w;", "")
    replace(
        r"float v_alpha = .*?;\n",
        "float v_alpha = Tfinal * ra * pv_outputAlpha[pixIdx];\n"
        + loop.replace(r"\n", "\n")
        + "v_alpha += (pColors[gaussianId * channels + c] * T - buffer[c] * ra) * pv_output[pixIdx * channels + c];\n",
    )
    replace(r"float buffer\[3\] = \{[^}]*\};", "std::vector<float> buffer(channels, 0.0f);")
    replace(
        rf"(\w+){at} \+= (\w+) \* (\w+){at};\s*\w+\[\w+ \* 3 \+ 1\][^;]*;\s*\w+\[\w+ \* 3 \+ 2\][^;]*;",
        loop + r"\1[\2 * channels + c] += \3 * \4[\5 * channels + c];",
    )
    replace(r"buffer\[0\] \+= [^;]*;\s*buffer\[1\][^;]*;\s*buffer\[2\][^;]*;",
            loop + "buffer[c] += pColors[gaussianId * channels + c] * fac;")  # fmt: skip
    if number != 8:
        raise RuntimeError(f"OpenSplat's source has changed: {number} of 8 places found")
    return text


# ---- torch-splatting: its tile loop, executed from the checkout


def torch_splatting(checkout: Path) -> Peer:
    """Forward only: the graph of its dense 64-pixel tiles would not fit in memory."""
    text = (checkout / "gaussian_splatting" / "gauss_render.py").read_text()
    for old, new in (
        (".to('cuda')", ""),
        ("from einops import reduce\n", ""),  # it only imports it
        ("torch.arange(256), torch.arange(256)", "torch.arange(512), torch.arange(512)"),
        ("*self.pix_coord.shape[:2], 3)", "*self.pix_coord.shape[:2], color.shape[1])"),
        # instead of [pixels, splats, channels]
        ("(T * alpha * sorted_color[None]).sum(dim=1)", "((T * alpha)[..., 0] @ sorted_color)"),
    ):
        if old not in text:
            raise RuntimeError(f"torch-splatting's source has changed: no {old!r}")
        text = text.replace(old, new)
    package = "torch_splatting_peer"
    utils = checkout / "gaussian_splatting" / "utils"
    for name, path in ((package, checkout / "gaussian_splatting"), (f"{package}.utils", utils)):
        module = types.ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    module = types.ModuleType(f"{package}.gauss_render")
    module.__package__ = package
    exec(compile(text, "gauss_render.py", "exec"), module.__dict__)
    renderer = module.GaussRenderer(white_bkgd=False)

    @torch.no_grad()
    def render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> Tensor:
        seen = visible(gaussians, camera)
        size = types.SimpleNamespace(image_width=camera.width, image_height=camera.height)
        out = renderer.render(
            size, seen.means2d - 0.5, seen.covars2d, channels[seen.ids], seen.opacities[:, None], seen.depths
        )
        return out["render"]

    return render


# ---- on our weights: gsplat's torch path and torch.sparse


@dataclass(frozen=True)
class Pairs:
    """(pixel, Gaussian) pairs of a view that count, by pixel, front to back."""

    pixels: Tensor
    gaussians: Tensor
    weights: Tensor


def pairs(gaussians: Gaussians, camera: Pinhole) -> Pairs:
    """From our plain torch path."""
    with torch.no_grad():
        tiles = PlainRasterization(gaussians, camera)._tiles
    index = torch.arange(camera.height * camera.width).view(camera.height, camera.width)
    pixels, ids, weights = [], [], []
    for tile in tiles:
        p, k = torch.nonzero(tile.weights, as_tuple=True)
        pixels.append(index[tile.y, tile.x].flatten()[p])
        ids.append(tile.ids[k])
        weights.append(tile.weights[p, k])
    order = torch.argsort(torch.cat(pixels), stable=True)
    return Pairs(torch.cat(pixels)[order], torch.cat(ids)[order], torch.cat(weights)[order])


def gsplat_torch(found: Pairs) -> Peer | None:
    """gsplat's `accumulate` in torch, with its nerfacc (CUDA only) replaced by two torch functions."""
    if importlib.util.find_spec("gsplat") is None:
        return None
    from gsplat.cuda._torch_impl import accumulate

    nerfacc: Any = types.ModuleType("nerfacc")
    nerfacc.render_weight_from_alpha = _render_weight_from_alpha
    nerfacc.accumulate_along_rays = _accumulate_along_rays
    sys.modules.setdefault("nerfacc", nerfacc)

    def render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> Tensor:
        splats = project(gaussians, camera)
        image, _ = accumulate(
            splats.means2d[None], splats.conics[None], splats.opacities[None], channels[None],
            found.gaussians, found.pixels, torch.zeros_like(found.pixels), camera.width, camera.height,
        )  # fmt: skip
        return image[0]

    return render


def _render_weight_from_alpha(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    logs = torch.log1p(-alphas.double())
    before = torch.cumsum(logs, 0) - logs
    counts = torch.bincount(ray_indices, minlength=n_rays)
    first = (torch.cumsum(counts, 0) - counts)[ray_indices]
    passed = torch.exp(before - before[first]).float()
    return alphas * passed, passed


def _accumulate_along_rays(weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
    rows = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, rows.shape[1]).index_add(0, ray_indices, rows)


class SparseWeights:
    """Our weights as torch.sparse matrices, and the three products that a compositing is."""

    def __init__(self, found: Pairs, n: int, camera: Pinhole):
        shape = (camera.height * camera.width, n)
        index = torch.stack([found.pixels, found.gaussians])
        self.forward_matrix = torch.sparse_coo_tensor(index, found.weights, shape).to_sparse_csr()
        self.backward_matrix = torch.sparse_coo_tensor(index.flip(0), found.weights, shape[::-1]).to_sparse_csr()

    def forward(self, channels: Tensor) -> Tensor:
        """Image [pixels, c]."""
        return self.forward_matrix @ channels

    def all(self, channels: Tensor, v_image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image, gradient of the channels, gradient of the weights."""
        image = self.forward_matrix @ channels
        v_channels = self.backward_matrix @ v_image
        v_weights = torch.sparse.sampled_addmm(self.forward_matrix, v_image, channels.T, beta=0.0)
        return image, v_channels, v_weights
