"""The sparse U-Net in plain PyTorch on the CPU, `base` and `tiny`, against spconv's CPU build on the same voxels.

Ours is what a training step pays: the voxel pyramid with its kernel maps is built anew each time (shown by itself too).
The peer is the same network of spconv's modules with the same weights and, like ours, its index pairs built anew; that
both give the same output is checked first. spconv's CPU build has no backward, and in two threads its output changes
from run to run (2.3.8), so the comparison is of forwards in one thread. Where it cannot be imported (`pip install
spconv`) there is no peer. Products are bfloat16 where the processor has instructions for them, which spconv does not
use; the rows in float32 tell how much of the ratio that is.

Voxels are those of rooms seen by a depth camera, side by side. The allocator keeps freed memory, as in the training
jobs (else much of the time goes into the kernel's clearing of pages).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._processes import in_child
from benchmarks._rooms import load_room
from benchmarks.common import Row, cost_row, interleaved_seconds, main, plain_row
from liftgs.model.sparse import InverseConv, Pyramid, StridedConv, SubmanifoldConv, build_pyramid
from liftgs.model.unet import SpUNet, UNetConfig

THREADS = 2
REPEATS = 3
SIZES = (10_000, 50_000)
VOXEL_SIZE_M = 0.05
CONFIGS = {
    "tiny": UNetConfig(
        stem_channels=16,
        stem_kernel=3,
        channels=(32, 64, 96, 96, 96, 64, 64, 48),
        layers=(1, 1, 1, 1, 1, 1, 1, 0),
        norm="layer",
    ),
    "base": UNetConfig(),
}
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def measure() -> Iterator[Row]:
    """Each size in a process of its own."""
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": str(THREADS)}):
        for size in SIZES:
            yield from in_child(rows_of_size, size)


def rows_of_size(size: int) -> list[Row]:
    """Maps, then each network."""
    torch.set_num_threads(THREADS)
    coords = room_voxels(size)
    (maps_s,) = interleaved_seconds(REPEATS, partial(pyramid_with_maps, coords))
    thousands = f"{size // 1000}k voxels"
    rows = [plain_row(f"{thousands}: pyramid of 5 levels, 3x3x3 maps", maps_s * 1e3, "ms")]
    for name, config in CONFIGS.items():
        rows += network_rows(f"{thousands}: {name}", config, coords)
    return rows


def network_rows(case: str, config: UNetConfig, coords: Tensor) -> list[Row]:
    """Forward in both precisions, and forward with backward."""
    torch.manual_seed(0)
    net = SpUNet(config).eval()
    exact = SpUNet(replace(config, precision="fp32")).eval()
    exact.load_state_dict(net.state_dict())
    features = torch.randn(len(coords), config.in_channels)
    calls = [partial(one_thread, forward, run, coords, features) for run in (net, exact)]
    if find_spec("spconv"):
        spconv = import_module("spconv.pytorch")
        check_same(exact, coords, features, spconv)
        calls.append(partial(one_thread, peer_forward, net, coords, features, spconv))
    ours_s, exact_s, *peer_s = interleaved_seconds(REPEATS, *calls)
    forward_s, both_s = interleaved_seconds(
        REPEATS, partial(forward, net, coords, features), partial(forward_and_backward, net, coords, features)
    )
    named = [(f"{case}, forward, 1 thread", ours_s), (f"{case}, forward in float32, 1 thread", exact_s)]
    rows = [
        cost_row(label, seconds * 1e3, peer_s[0] * 1e3, "spconv, CPU", "ms")
        if peer_s
        else plain_row(label, seconds * 1e3, "ms")
        for label, seconds in named
    ]
    return [
        *rows,
        plain_row(f"{case}, forward, {THREADS} threads", forward_s * 1e3, "ms"),
        plain_row(f"{case}, forward + backward, {THREADS} threads", both_s * 1e3, "ms"),
    ]


def one_thread(call: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call it so."""
    torch.set_num_threads(1)
    try:
        return call(*arguments)
    finally:
        torch.set_num_threads(THREADS)


def room_voxels(count: int) -> Tensor:
    """Sorted; rooms are added at one side until there are enough."""
    rooms: list[np.ndarray] = []
    while sum(map(len, rooms)) < count:
        xyz = load_room(len(rooms)).cloud.xyz
        voxels = np.unique(np.floor(xyz / VOXEL_SIZE_M).astype(np.int32), axis=0)
        voxels[:, 0] += (rooms[-1][:, 0].max() + 20 if rooms else 0) - voxels[:, 0].min()
        rooms.append(voxels)
    voxels = np.concatenate(rooms)[:count]
    return torch.from_numpy(np.concatenate((np.zeros((count, 1), np.int32), voxels), axis=1))


def pyramid_with_maps(coords: Tensor) -> Pyramid:
    """As the network asks for them."""
    pyramid = build_pyramid(coords, 5)
    for level in pyramid.levels:
        level.neighbours(3)
    return pyramid


@torch.no_grad()
def forward(net: SpUNet, coords: Tensor, features: Tensor) -> Tensor:
    """From coordinates to the finest output."""
    return net(features, build_pyramid(coords, net.config.num_levels))[0]


def forward_and_backward(net: SpUNet, coords: Tensor, features: Tensor) -> None:
    """Of a loss on the finest output."""
    net.zero_grad()
    output = net(features, build_pyramid(coords, net.config.num_levels))[0]
    output.backward(torch.ones_like(output))


def check_same(net: SpUNet, coords: Tensor, features: Tensor, spconv: Any) -> None:
    """Raises AssertionError where the peer computes something else."""
    theirs = one_thread(peer_forward, net, coords, features, spconv)
    torch.testing.assert_close(theirs, forward(net, coords, features), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def peer_forward(net: SpUNet, coords: Tensor, features: Tensor, spconv: Any) -> Tensor:
    """Our network's stages over spconv's tensors and layers, up to the finest output."""
    run = _Peer(spconv)
    spatial = coords[:, 1:] - coords[:, 1:].amin(0) // 16 * 16  # so that halving meets the same pairs
    indices = torch.cat((coords[:, :1], spatial), 1).contiguous()
    shape = (spatial.amax(0) + 96).tolist()  # as Pointcept, which leaves room for the halvings
    state = spconv.SparseConvTensor(features, indices, shape, 1)
    state = run.relu(net.stem.norm, run.submanifold(net.stem.conv, state, "stem"))
    skips = [state]
    for depth, stage in enumerate(net.encoder):
        state = run.relu(stage.norm, run.strided(stage.down, state, f"down{depth}"))
        for block in stage.blocks:
            state = run.block(block, state, f"level{depth + 1}")
        skips.append(state)
    skips.pop()
    for depth, stage in zip(reversed(range(len(skips))), net.decoder, strict=True):
        state = run.relu(stage.norm, run.inverse(stage.up, state, f"down{depth}"))
        state = state.replace_feature(torch.cat((state.features, skips.pop().features), dim=1))
        for block in stage.blocks:
            state = run.block(block, state, f"level{depth}")
        if stage.projection is not None:
            state = state.replace_feature(torch.relu(run.projection(stage.projection, state.features)))
    return state.features


class _Peer:
    """Our modules' weights in spconv's layers."""

    def __init__(self, spconv: Any) -> None:
        self._spconv = spconv

    def submanifold(self, conv: SubmanifoldConv, state: Any, key: str) -> Any:
        layer = self._spconv.SubMConv3d(
            *self._widths(conv), conv.kernel, padding=conv.kernel // 2, bias=False, indice_key=f"{key}-{conv.kernel}"
        )
        return self._with_weight(layer, conv)(state)

    def strided(self, conv: StridedConv, state: Any, key: str) -> Any:
        return self._with_weight(
            self._spconv.SparseConv3d(*self._widths(conv), 2, stride=2, bias=False, indice_key=key), conv
        )(state)

    def inverse(self, conv: InverseConv, state: Any, key: str) -> Any:
        layer = self._spconv.SparseInverseConv3d(*self._widths(conv), 2, bias=False, indice_key=key)
        return self._with_weight(layer, conv)(state)

    def block(self, block: Any, state: Any, key: str) -> Any:
        shortcut = state.features if block.shortcut is None else self.projection(block.shortcut, state.features)
        state = self.relu(block.norm1, self.submanifold(block.conv1, state, key))
        state = self.submanifold(block.conv2, state, key)
        return state.replace_feature(torch.relu(block.norm2(state.features) + shortcut))

    def relu(self, norm: nn.Module, state: Any) -> Any:
        return state.replace_feature(torch.relu(norm(state.features)))

    @staticmethod
    def projection(projection: Any, features: Tensor) -> Tensor:
        return projection.norm(features @ projection.conv.weight.flatten(1).t())

    @staticmethod
    def _widths(conv: nn.Module) -> tuple[int, int]:
        out_channels, *_, in_channels = conv.weight.shape
        return in_channels, out_channels

    @staticmethod
    def _with_weight(layer: Any, conv: nn.Module) -> Any:
        layer.weight = conv.weight
        return layer


if __name__ == "__main__":
    main(measure, "the sparse U-Net on the CPU")
