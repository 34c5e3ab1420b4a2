"""On a GPU: gsplat against our CPU kernels, and what contracting channels before compositing saves.

The scene is that of `benchmarks.raster`: 50,000 Gaussians at 512x512. A training view there blends 105 channels
(colours, 30 dot products with segments' embeddings, 72 matched masks) instead of all 771; against it stands gsplat with
the whole image written, and the same losses taken from it. Memory is what PyTorch allocated at most above the inputs.
Without CUDA and gsplat there are no rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from benchmarks._splats import room, view
from benchmarks.common import Row, cost_row, main
from liftgs.render import Gaussians, render

CHANNELS = (3, 32, 771)
REPEATS = 5


def measure() -> Iterator[Row]:
    """Against the CPU per channel count, then the training view."""
    if not torch.cuda.is_available() or find_spec("gsplat") is None:
        print("not measured, for want of CUDA or gsplat: benchmarks.raster_cuda", file=sys.stderr)
        return
    threads = torch.get_num_threads()
    for count in CHANNELS:
        for what, backward in (("forward", False), ("all", True)):
            on_gpu = seconds_of(partial(image, "cuda", count, backward))
            on_cpu = seconds_of(partial(image, "cpu", count, backward))
            peer = f"our CPU kernels, {threads} threads"
            yield cost_row(f"gsplat, {count} channels, {what}", on_gpu * 1e3, on_cpu * 1e3, peer, "ms")
    steps = (contracted_view(), written_out_view())
    ours_s, theirs_s = (seconds_of(step) for step in steps)
    ours_b, theirs_b = (peak_bytes(step) for step in steps)
    peer = "771 channels written out"
    yield cost_row("a training view, loss and all gradients", ours_s * 1e3, theirs_s * 1e3, peer, "ms")
    yield cost_row("its memory", ours_b / 2**30, theirs_b / 2**30, peer, "GiB")


def image(device: str, count: int, backward: bool) -> None:
    """Render, and differentiate."""
    leaves = inputs(device, count)
    rendered, _ = render(Gaussians(*leaves[:3]), view(), leaves[3])
    if backward:
        torch.autograd.grad(rendered.sum(), leaves)


@cache
def inputs(device: str, count: int) -> list[Tensor]:
    """Means, covariances, opacities and channels, to be differentiated."""
    scene = room()
    channels = torch.randn(len(scene), count, generator=torch.Generator().manual_seed(0))
    tensors = (scene.means, scene.covars, scene.opacities, channels)
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def contracted_view() -> Callable[[], None]:
    """Embeddings and matched masks are multiplied in before compositing."""
    leaves = inputs("cuda", 3 + 512 + 256)
    loss_of, embeds, chosen = losses()

    def step() -> None:
        colours, features, masks = leaves[3].split((3, 512, 256), 1)
        channels = torch.cat((colours, features @ embeds.T, masks[:, chosen]), 1)
        rendered, _ = render(Gaussians(*leaves[:3]), view(), channels)
        torch.autograd.grad(loss_of(*rendered.split((3, len(embeds), len(chosen)), 2)), leaves)

    return step


def written_out_view() -> Callable[[], None]:
    """The image of all channels first, then the same losses."""
    leaves = inputs("cuda", 3 + 512 + 256)
    loss_of, embeds, chosen = losses()

    def step() -> None:
        rendered, _ = render(Gaussians(*leaves[:3]), view(), leaves[3])
        colours, features, masks = rendered.split((3, 512, 256), 2)
        torch.autograd.grad(loss_of(colours, features @ embeds.T, masks[..., chosen]), leaves)

    return step


def losses() -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Tensor, Tensor]:
    """Loss of colours, dot products and mask logits; the embeddings; which masks matched."""
    generator = torch.Generator().manual_seed(1)
    camera = view()
    photo = torch.rand(camera.height, camera.width, 3, generator=generator).cuda()
    segments = torch.randint(0, 30, (camera.height * camera.width,), generator=generator).cuda()
    targets = (torch.rand(camera.height, camera.width, 72, generator=generator) < 0.1).float().cuda()
    embeds = torch.nn.functional.normalize(torch.randn(30, 512, generator=generator), dim=1).cuda()
    chosen = torch.randperm(256, generator=generator)[:72].cuda()

    def loss_of(colours: Tensor, dots: Tensor, logits: Tensor) -> Tensor:
        contrastive = cross_entropy(dots.flatten(0, 1) / 0.07, segments)
        return (colours - photo).abs().mean() + contrastive + binary_cross_entropy_with_logits(logits, targets)

    return loss_of, embeds, chosen


def seconds_of(work: Callable[[], None]) -> float:
    """Median of some, after a warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[REPEATS // 2]


def peak_bytes(work: Callable[[], None]) -> int:
    """What one more run allocates at most."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    main(measure, "rendering on a GPU")
