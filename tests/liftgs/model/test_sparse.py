"""The convolutions against dense ones and against spconv; the pyramid against its definition."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv3d, conv_transpose3d

from liftgs.model import sparse_ops, sparse_spconv
from liftgs.model.sparse import InverseConv, StridedConv, SubmanifoldConv, build_pyramid
from liftgs.model.sparse_pyramid import Level, neighbour_table

SIDE = 6
SCENES = 2


def random_voxels(seed: int, filled: float = 0.4) -> Tensor:
    """Of a small grid, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    voxels = (torch.rand(SCENES, SIDE, SIDE, SIDE, generator=generator) < filled).nonzero().int()
    return voxels[torch.randperm(len(voxels), generator=generator)]


def random_features(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, width, dtype=dtype, generator=torch.Generator().manual_seed(rows))


def dense(features: Tensor, coords: Tensor, side: int) -> Tensor:
    grid = features.new_zeros(SCENES, side, side, side, features.shape[1])
    return grid.index_put(tuple(coords.long().t()), features).permute(0, 4, 1, 2, 3)


def at(grid: Tensor, coords: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 4, 1)[tuple(coords.long().t())]


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


# Pyramid


def test_a_parent_is_the_floored_half_and_knows_its_children() -> None:
    fine = random_voxels(0) - torch.tensor([0, 3, 4, 5], dtype=torch.int32)
    pyramid = build_pyramid(fine, 3)
    for level, coarse in zip(pyramid.levels[:-1], pyramid.levels[1:], strict=True):
        assert level.coarsening is not None
        parents, octants = level.coarsening.parents.long(), level.coarsening.octants.long()
        halved = torch.cat((level.coords[:, :1], torch.floor(level.coords[:, 1:] / 2).int()), 1)
        assert torch.equal(coarse.coords[parents], halved)
        assert torch.equal(coarse.coords, torch.unique(halved, dim=0))  # which is sorted
        corner = torch.stack((octants // 4, octants // 2 % 2, octants % 2), 1)
        assert torch.equal(level.coords[:, 1:], coarse.coords[parents][:, 1:] * 2 + corner)
        assert torch.equal(level.coarsening.children[parents, octants].long(), torch.arange(len(level)))
        assert (level.coarsening.children < len(level)).sum() == len(level)
    assert pyramid.levels[-1].coarsening is None


def test_level_zero_keeps_the_order_of_the_points() -> None:
    voxels = random_voxels(1)
    assert torch.equal(build_pyramid(voxels, 2).levels[0].coords, voxels)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("is_dense", [True, False])
def test_neighbours_are_the_voxels_at_the_offsets(kernel: int, is_dense: bool) -> None:
    voxels = random_voxels(2) - torch.tensor([0, 2, 2, 2], dtype=torch.int32)
    row_of = {tuple(voxel): row for row, voxel in enumerate(voxels.tolist())}
    reach = range(-(kernel // 2), kernel // 2 + 1)
    offsets = [(dx, dy, dz) for dx in reach for dy in reach for dz in reach]
    expected = [
        [row_of.get((b, x + dx, y + dy, z + dz), len(voxels)) for dx, dy, dz in offsets]
        for b, x, y, z in voxels.tolist()
    ]
    assert neighbour_table(voxels, kernel, dense=is_dense).tolist() == expected


def test_a_stray_voxel_kilometres_away_changes_nothing_for_the_others() -> None:
    """It makes the box too large for a dense table."""
    voxels = random_voxels(3)
    stray = torch.tensor([[1, 400_000, -400_000, 400_000]], dtype=torch.int32)
    alone, together = build_pyramid(voxels, 3), build_pyramid(torch.cat((voxels, stray)), 3)
    for level, larger in zip(alone.levels, together.levels, strict=True):
        count = len(level)
        assert torch.equal(larger.coords[:count], level.coords)  # the stray is last in every order
        table = larger.neighbours(3)[:count]
        assert torch.equal(torch.where(table == count + 1, count, table), level.neighbours(3))


def test_a_table_is_computed_once() -> None:
    level = Level(random_voxels(4))
    assert level.neighbours(3) is level.neighbours(3)


def test_bad_voxels_are_refused() -> None:
    voxels = random_voxels(5)
    with pytest.raises(ValueError, match=r"2 of \d+ voxels occur more than once"):
        build_pyramid(torch.cat((voxels, voxels[3:5])), 1)
    with pytest.raises(ValueError, match="at least one voxel"):
        build_pyramid(voxels[:0], 1)
    far = torch.tensor([[0, -(2**31), -(2**31), -(2**31)], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]], dtype=torch.int32)
    with pytest.raises(ValueError, match="too far apart"):
        build_pyramid(far, 2)


# Convolutions


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_submanifold_equals_dense_at_the_voxels(kernel: int, widths: tuple[int, int]) -> None:
    level = build_pyramid(random_voxels(6), 1).levels[0]
    features = random_features(len(level), widths[0], torch.float64).requires_grad_()
    conv = SubmanifoldConv(*widths, kernel, bias=True).double()
    ours = conv(features, level)
    grid = dense(features, level.coords, SIDE)
    theirs = at(conv3d(grid, conv.weight.permute(0, 4, 1, 2, 3), conv.bias, padding=kernel // 2), level.coords)
    torch.testing.assert_close(ours, theirs)
    inputs = (features, *conv.parameters())
    for mine, other in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
        torch.testing.assert_close(mine, other)


def test_strided_and_inverse_equal_dense() -> None:
    pyramid = build_pyramid(random_voxels(7), 2)
    fine, coarse = pyramid.levels
    assert fine.coarsening is not None
    features = random_features(len(fine), 3, torch.float64).requires_grad_()
    down, up = StridedConv(3, 5, bias=True).double(), InverseConv(5, 4, bias=True).double()
    halved = down(features, fine.coarsening)
    weight = down.weight.permute(0, 4, 1, 2, 3)
    their_halved = at(conv3d(dense(features, fine.coords, SIDE), weight, down.bias, stride=2), coarse.coords)
    torch.testing.assert_close(halved, their_halved)
    ours = up(halved, fine.coarsening)
    grid = dense(their_halved, coarse.coords, SIDE // 2)
    theirs = at(conv_transpose3d(grid, up.weight.permute(4, 0, 1, 2, 3), up.bias, stride=2), fine.coords)
    torch.testing.assert_close(ours, theirs)
    inputs = (features, *down.parameters(), *up.parameters())
    for mine, other in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
        torch.testing.assert_close(mine, other)


def test_gradients_are_those_of_finite_differences() -> None:
    pyramid = build_pyramid(random_voxels(8, filled=0.08), 2)
    fine, coarse = pyramid.levels
    assert fine.coarsening is not None
    many, few = (random_features(len(level), 2, torch.float64).requires_grad_() for level in (fine, coarse))
    wide = random_features(3 * 27, 2, torch.float64).view(3, 27, 2).requires_grad_()
    narrow = random_features(3 * 8, 2, torch.float64).view(3, 8, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: sparse_ops.submanifold(x, w, fine.neighbours(3)), (many, wide))
    assert torch.autograd.gradcheck(lambda x, w: sparse_ops.strided(x, w, fine.coarsening), (many, narrow))
    assert torch.autograd.gradcheck(lambda x, w: sparse_ops.inverse(x, w, fine.coarsening), (few, narrow))


def test_the_gradient_of_weights_alone_is_the_same_as_beside_that_of_features() -> None:
    """They are computed from gathers of different things."""
    level = build_pyramid(random_voxels(9), 1).levels[0]
    features = random_features(len(level), 4, torch.float64)
    conv = SubmanifoldConv(4, 3, 3).double()
    (alone,) = gradients(conv(features, level), conv.weight)
    beside, _ = gradients(conv(features.requires_grad_(), level), conv.weight, features)
    torch.testing.assert_close(alone, beside)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    level = build_pyramid(random_voxels(10, filled=0.9), 1).levels[0]
    features = random_features(len(level), 4, torch.float64).requires_grad_()
    conv = SubmanifoldConv(4, 3, 3).double()
    whole = conv(features, level)
    whole_gradients = gradients(whole, features, conv.weight)
    monkeypatch.setattr(sparse_ops, "BLOCK_BYTES", 1)
    monkeypatch.setattr(sparse_ops, "LEAST_ROWS", 7)
    blocks = conv(features, level)
    torch.testing.assert_close(blocks, whole)
    for mine, other in zip(gradients(blocks, features, conv.weight), whole_gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_bf16_is_near_fp32_and_gives_float32() -> None:
    level = build_pyramid(random_voxels(11), 1).levels[0]
    features = random_features(len(level), 16).requires_grad_()
    exact, fast = (SubmanifoldConv(16, 16, 3, precision=precision) for precision in ("fp32", "bf16"))
    fast.load_state_dict(exact.state_dict())
    results = [(conv(features, level), conv.weight) for conv in (exact, fast)]
    (right, *right_gradients), (near, *near_gradients) = (
        (output, *gradients(output, features, weight)) for output, weight in results
    )
    assert not torch.equal(near, right)
    for mine, other in zip((near, *near_gradients), (right, *right_gradients), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.01 * other.norm()


def test_only_float32_is_lowered() -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert sparse_ops.compute_dtype(single, "fp32") == torch.float32
    assert sparse_ops.compute_dtype(single, "bf16") == torch.bfloat16
    assert sparse_ops.compute_dtype(double, "bf16") == torch.float64
    fastest = torch.bfloat16 if sparse_ops.cpu_multiplies_bf16() else torch.float32
    assert sparse_ops.compute_dtype(single, "auto") == fastest


def test_the_order_of_voxels_is_the_order_of_results() -> None:
    voxels = random_voxels(12)
    features = random_features(len(voxels), 3)
    conv = SubmanifoldConv(3, 4, 3, precision="fp32")
    order = torch.randperm(len(voxels), generator=torch.Generator().manual_seed(0))
    shuffled = conv(features[order], build_pyramid(voxels[order], 1).levels[0])
    torch.testing.assert_close(shuffled, conv(features, build_pyramid(voxels, 1).levels[0])[order])


# spconv


def spconv_on_cpu() -> Any:
    """Its module, where it is the build for CPUs."""
    spconv = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    if not import_module("spconv.cppconstants").CPU_ONLY_BUILD:
        pytest.skip("spconv's CUDA build convolves on CUDA alone")
    return spconv


def test_forward_equals_spconv_on_cpu() -> None:
    spconv = spconv_on_cpu()
    pyramid = build_pyramid(random_voxels(13), 2)
    fine, coarse = pyramid.levels
    assert fine.coarsening is not None
    features = random_features(len(fine), 3)
    convs = [SubmanifoldConv(3, 4, 5, precision="fp32"), SubmanifoldConv(4, 5, 3, bias=True, precision="fp32")]
    down, up = StridedConv(5, 6, precision="fp32"), InverseConv(6, 7, precision="fp32")
    theirs = [
        spconv.SubMConv3d(3, 4, 5, padding=2, bias=False, indice_key="stem"),
        spconv.SubMConv3d(4, 5, 3, padding=1, indice_key="fine"),
        spconv.SparseConv3d(5, 6, 2, stride=2, bias=False, indice_key="down"),
        spconv.SparseInverseConv3d(6, 7, 2, bias=False, indice_key="down"),
    ]
    for mine, other in zip((*convs, down, up), theirs, strict=True):
        other.load_state_dict(mine.state_dict())  # the same names and the same layout
    with torch.no_grad():
        state = spconv.SparseConvTensor(features, fine.coords, [SIDE] * 3, SCENES)
        for conv, layer in zip(convs, theirs, strict=False):
            features, state = conv(features, fine), layer(state)
            torch.testing.assert_close(features, state.features)
        features, state = down(features, fine.coarsening), theirs[2](state)
        order = torch.tensor([coarse.coords.tolist().index(voxel) for voxel in state.indices.tolist()])
        torch.testing.assert_close(features[order], state.features)
        features, state = up(features, fine.coarsening), theirs[3](state)
        torch.testing.assert_close(features, state.features)


def test_our_use_of_spconv_gives_our_forward() -> None:
    """On the CPU its kernels have no gradient; the test below has."""
    spconv_on_cpu()
    level = build_pyramid(random_voxels(14) - 3 * torch.tensor([0, 1, 1, 1], dtype=torch.int32), 1).levels[0]
    with torch.no_grad():
        for kernel, widths in ((3, (3, 4)), (5, (3, 4)), (3, (4, 2))):
            conv = SubmanifoldConv(*widths, kernel, precision="fp32")
            features = random_features(len(level), widths[0])
            torch.testing.assert_close(sparse_spconv.submanifold(features, conv.weight, level), conv(features, level))


@pytest.mark.skipif(
    not (torch.cuda.is_available() and sparse_spconv.installed()), reason="needs CUDA and spconv's CUDA build"
)
@pytest.mark.parametrize("kernel", [3, 5])
def test_spconv_on_cuda_equals_torch_on_cpu(kernel: int) -> None:
    level = build_pyramid(random_voxels(15), 1).levels[0]
    conv = SubmanifoldConv(16, 32, kernel, bias=True, precision="fp32")
    features = random_features(len(level), 16).requires_grad_()
    ours = conv(features, level)
    expected = (ours, *gradients(ours, features, *conv.parameters()))
    conv.cuda()
    on_cuda = features.detach().cuda().requires_grad_()
    theirs = conv(on_cuda, Level(level.coords.cuda()))
    weights = torch.cos(torch.arange(theirs.numel(), dtype=theirs.dtype)).view_as(theirs).cuda()
    got = torch.autograd.grad((theirs * weights).sum(), (on_cuda, *conv.parameters()))
    for mine, other in zip((theirs, *got), expected, strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-2, atol=1e-2)  # TF32
