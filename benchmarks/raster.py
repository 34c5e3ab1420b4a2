"""The CPU renderer at 50,000 Gaussians, 512x512 and up to 3 + 512 + 256 channels, against every CPU peer that runs.

`forward` makes the image; `all` also the gradients to means, covariances, opacities and channels. Ours projects, sorts
and weighs anew each time; peers get what is in view already (benchmarks/_raster_peers.py). Peers that are not part of
this repository come from checkouts: `--opensplat PATH` (pierotofy/OpenSplat, AGPL) as it is, with its three channels
made a loop, and `--torch-splatting PATH` (hbb1/torch-splatting). gsplat's torch path runs where gsplat is installed, up
to 32 channels: it gathers a row of channels for each of 4 million pairs. Images of peers are compared with ours before
the clock runs. Every timed call follows one of the same, as in a loop: a core that slept while a peer ran on one
thread is slow to come back. Ours and torch have a thread per core, OpenSplat one in all.

The bound is what the arithmetic (2 flops per weight and channel, and as many for either gradient) or the memory traffic
(the image written once, its gradient read once) takes at rates measured in the same run, whichever is more.

The training view is what a pretraining step renders: colours, 30 dot products with segments' embeddings and 72 matched
masks, blended at once; loss and all gradients included. Against it stands our rasteriser with the image of all 771
channels, forward and backward, without any loss.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import _raster_peers as peers
from benchmarks._processes import in_child, peak_growth_bytes
from benchmarks._splats import room, view
from benchmarks.common import Row, cost_row, interleaved_seconds, plain_row, report
from benchmarks.sparse_unet import KEEP_FREED_MEMORY
from liftgs.losses.grounding import mask_losses
from liftgs.losses.pixels import contrastive_loss, photometric_loss
from liftgs.render import Gaussians, compile, render
from liftgs.render.buffers import POOL

CHANNELS = (3, 32, 259, 771)
REPEATS = 5
THREADS = os.cpu_count() or 1
HEADS, TARGETS = 9, 8  # the paper's decoder, and its most instances of a view
Call = Callable[[], Any]


@dataclass(frozen=True)
class Checkouts:
    """Where the peers lie that are not part of this repository."""

    opensplat: Path | None
    torch_splatting: Path | None


def measure(checkouts: Checkouts, repeats: int) -> Iterator[Row]:
    """Times per channel count, the training view, then memory; in processes with the allocator of training jobs."""
    torch.set_num_threads(THREADS)
    flops, written, read = flops_per_s(), write_bytes_per_s(), read_bytes_per_s()
    yield plain_row("arithmetic, fused multiply-adds", flops / 1e9, "GFLOP/s")
    yield plain_row("memory, written past the cache", written / 1e9, "GB/s")
    yield plain_row("memory, read", read / 1e9, "GB/s")
    camera = view()
    weights = len(peers.pairs(room(), camera).weights)
    yield plain_row("weights over zero per pixel", weights / camera.width / camera.height, "")
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": str(THREADS)}):
        for count in CHANNELS:
            image_bytes = camera.width * camera.height * count * 4
            products = 2 * weights * count
            bounds = {
                "forward": max(products / flops, image_bytes / written),
                "all": max(3 * products / flops, image_bytes / written + image_bytes / read),
            }
            for what, bound in bounds.items():
                yield from in_child(compare, checkouts, count, what, bound, repeats)
        yield in_child(training_view, repeats)
    for count in (CHANNELS[0], CHANNELS[-1]):
        yield plain_row(f"memory above inputs, {count} channels, all", in_child(peak_bytes, count) / 1e9, "GB")


def compare(checkouts: Checkouts, count: int, what: str, bound_s: float, repeats: int) -> list[Row]:
    """One row per peer that can, among them torch.sparse, which is given the weights."""
    torch.set_num_threads(THREADS)
    scene, camera = room(), view()
    found = peers.pairs(scene, camera)
    channels = torch.randn(len(scene), count, generator=torch.Generator().manual_seed(0))
    v_image = torch.randn(camera.height, camera.width, count, generator=torch.Generator().manual_seed(1))
    calls = {"ours": call(ours, scene, channels, v_image, what)}
    expected = ours(scene, camera, channels)
    for name, make in rasterisers(checkouts, found).items():
        if feasible(name, count, what):
            peer = make()
            check(name, peer(scene, camera, channels), expected)
            calls[name] = call(peer, scene, channels, v_image, what)
    sparse = peers.SparseWeights(found, len(scene), camera)
    flat = v_image.flatten(0, 1)
    if what == "forward":
        calls["torch.sparse, weights given"] = lambda: sparse.forward(channels)
    else:
        calls["torch.sparse, weights given"] = lambda: sparse.all(channels, flat)
    del expected
    seconds = dict(zip(calls, interleaved_seconds(repeats, *calls.values(), warm=True), strict=True))
    ours_ms = seconds.pop("ours") * 1e3
    return [
        cost_row(f"{count} channels, {what}", ours_ms, peer_s * 1e3, name, "ms", bound_s * 1e3)
        for name, peer_s in seconds.items()
    ]


def rasterisers(checkouts: Checkouts, found: peers.Pairs) -> dict[str, Callable[[], peers.Peer]]:
    """How to build each peer that is here."""
    makers: dict[str, Callable[[], peers.Peer]] = {}
    if (opensplat := checkouts.opensplat) is not None:
        makers["OpenSplat"] = lambda: peers.opensplat(opensplat, any_channels=True)
        makers["OpenSplat as is"] = lambda: peers.opensplat(opensplat, any_channels=False)
    if (torch_splatting := checkouts.torch_splatting) is not None:
        makers["torch-splatting"] = lambda: peers.torch_splatting(torch_splatting)
    if gsplat := peers.gsplat_torch(found):
        makers["gsplat torch"] = lambda: gsplat
    return makers


def ours(scene: Gaussians, camera: Any, channels: Tensor) -> Tensor:
    """The image."""
    return render(scene, camera, channels)[0]


def feasible(name: str, count: int, what: str) -> bool:
    """Whether a peer is worth the wait, or the memory."""
    limits = {"OpenSplat as is": 32, "gsplat torch": 32}
    return count <= limits.get(name, count) and (name != "torch-splatting" or what == "forward")


def call(peer: peers.Peer, scene: Gaussians, channels: Tensor, v_image: Tensor, what: str) -> Call:
    """A peer's work as one call."""
    camera = view()
    if what == "forward":

        def forward() -> None:
            with torch.no_grad():
                peer(scene, camera, channels)

        return forward
    leaves = [t.clone().requires_grad_() for t in (scene.means, scene.covars, scene.opacities, channels)]

    def everything() -> None:
        torch.autograd.grad(peer(Gaussians(*leaves[:3]), camera, leaves[3]), leaves, v_image)

    return everything


def check(name: str, image: Tensor, expected: Tensor) -> None:
    """Raise if a peer makes another image. Peers stop, cut and cap a little differently; most pixels agree closely."""
    error = (image - expected).abs().amax(2).flatten()
    median = error.median() / expected.abs().max()
    if median > 0.01:
        raise RuntimeError(f"{name} renders something else: off by {median:.1%} in the median pixel")


def training_view(repeats: int) -> Row:
    """A view of a pretraining step against the rasteriser with all channels written out."""
    torch.set_num_threads(THREADS)
    scene, camera = room(), view()
    leaves = [
        t.clone().requires_grad_() for t in (scene.means, scene.covars, scene.opacities, torch.randn(50_000, 105))
    ]
    photo = torch.rand(camera.height, camera.width, 3)
    segments = torch.randint(0, 30, (camera.height, camera.width))
    masks = (torch.rand(camera.height * camera.width, TARGETS) < 0.1).float().T

    def step() -> None:
        image, _ = render(Gaussians(*leaves[:3]), camera, leaves[3])
        colours, dots, logits = image.split([3, 30, HEADS * TARGETS], 2)
        entropy, dice = mask_losses(logits.flatten(0, 1).T.unflatten(0, (HEADS, TARGETS)), masks)
        loss = photometric_loss(colours, photo) + contrastive_loss(dots, segments, temperature=0.07)
        torch.autograd.grad(loss + entropy.sum() + dice.sum(), leaves)

    wide = torch.randn(50_000, 771)
    unfused = call(ours, scene, wide, torch.randn(camera.height, camera.width, 771), "all")
    ours_s, unfused_s = interleaved_seconds(repeats, step, unfused, warm=True)
    return cost_row("a training view, loss and all gradients", ours_s * 1e3, unfused_s * 1e3, "771 channels, all", "ms")


def peak_bytes(count: int) -> int:
    """Peak of one forward and backward pass in a fresh process."""
    torch.set_num_threads(THREADS)
    scene, camera = room(), view()
    once = call(ours, scene, torch.randn(50_000, count), torch.randn(camera.height, camera.width, count), "all")
    return peak_growth_bytes(once)


# ---- limits of the machine

_LIMITS = """
#include "vectors.h"
extern "C" float multiply_add(long n) {
  typedef float zmm __attribute__((vector_size(64)));
  zmm a[CHAINS] = {}, b = zmm{} + 0.999f, c = zmm{} + 1e-3f;
  asm volatile("" : "+m"(b), "+m"(c));
  for (long i = 0; i < n; ++i)
    for (int k = 0; k < CHAINS; ++k) a[k] = a[k] * b + c;
  float sum = 0;
  for (int k = 0; k < CHAINS; ++k) sum += a[k][0];
  return sum;
}
extern "C" void write(float* to, long n) {
  for (long i = 0; i < n; i += LANES) stream(to + i, vec{});
  stream_end();
}
"""
_CHAINS = 12


@functools.cache
def limits() -> ctypes.CDLL:
    """Arithmetic in registers and stores past the cache, compiled as the renderer's kernels are."""
    compiler = compile.find_compiler()
    assert compiler is not None, "this benchmark needs a C++ compiler"
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "limits.cpp"), Path(folder, "limits.so")
        source.write_text(_LIMITS)
        flags = [*compile.FLAGS, *compile.TARGETS[0], f"-DCHAINS={_CHAINS}", f"-I{compile.SOURCES}"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.multiply_add.argtypes, loaded.multiply_add.restype = [ctypes.c_long], ctypes.c_float
    loaded.write.argtypes, loaded.write.restype = [ctypes.c_void_p, ctypes.c_long], None
    return loaded


def on_all_cores_s(work: Callable[[int], Any]) -> float:
    """Seconds of `work(core)` on every core at once."""

    def once() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))

    return best_s(once)


def flops_per_s() -> float:
    """What the cores do with nothing but multiply-adds in registers."""
    n = 5_000_000
    return THREADS * n * _CHAINS * 16 * 2 / on_all_cores_s(lambda _: limits().multiply_add(n))


def write_bytes_per_s() -> float:
    """Filling memory that was touched before and lies in huge pages, past the cache, as the kernels do."""
    share = 100_000_000 // 16 * 16
    block = POOL.empty(THREADS * share).zero_()
    return block.numel() * 4 / on_all_cores_s(lambda core: limits().write(block.data_ptr() + 4 * share * core, share))


def read_bytes_per_s() -> float:
    """Summing memory that lies in huge pages."""
    block = POOL.empty(200_000_000).zero_()
    return block.numel() * 4 / best_s(block.sum)


def best_s(work: Call) -> float:
    """Least of five: a limit is not an average."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one object {'rows': [...]} instead of a table")
    parser.add_argument("--opensplat", type=Path, help="a checkout of github.com/pierotofy/OpenSplat")
    parser.add_argument("--torch-splatting", type=Path, help="a checkout of github.com/hbb1/torch-splatting")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    for name, there in (
        ("OpenSplat", arguments.opensplat),
        ("torch-splatting", arguments.torch_splatting),
        ("gsplat", importlib.util.find_spec("gsplat")),
    ):
        if there is None:
            print(f"not measured, for want of it: {name}", file=sys.stderr)
    report(
        measure(Checkouts(arguments.opensplat, arguments.torch_splatting), arguments.repeats),
        parser.description or "",
        arguments.json,
    )


if __name__ == "__main__":
    main()
