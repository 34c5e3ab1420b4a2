"""Voxels against the NumPy version in `liftgs.geometry`, and the way back to points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liftgs import geometry
from liftgs.model.voxels import batch_grid, voxelise, voxelise_cloud
from liftgs.scene import PointCloud


def cloud(points: int = 3000, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-1, 1, (points, 3)).astype(np.float32)
    return PointCloud(xyz, rng.integers(0, 256, (points, 3), np.uint8))


def test_they_are_those_of_the_labelling_job() -> None:
    ours, theirs = voxelise_cloud(cloud(), 0.1), geometry.voxelise(cloud(), 0.1)
    np.testing.assert_allclose(ours.xyz.numpy(), theirs.xyz, atol=1e-5)
    np.testing.assert_allclose(ours.rgb.numpy() * 255, theirs.rgb, atol=0.51)


def test_every_point_knows_its_voxel() -> None:
    points = torch.from_numpy(cloud().xyz)
    voxels = voxelise(points, torch.rand(len(points), 3), 0.1)
    torch.testing.assert_close(torch.floor(points.double() / 0.1).long(), voxels.grid[voxels.of_point])
    assert len(torch.unique(voxels.grid, dim=0)) == len(voxels)


def test_far_from_the_origin_nothing_is_lost() -> None:
    points = torch.round(torch.from_numpy(cloud().xyz) * 1024) / 1024 + 1 / 4096  # exact, and on no voxel's border
    near, far = (voxelise(points + shift, torch.zeros_like(points), 0.125) for shift in (0.0, 1024.0))
    assert len(near) == len(far)
    torch.testing.assert_close(far.xyz - 1024, near.xyz, atol=3e-4, rtol=0)


def test_inputs_do_not_depend_on_where_the_room_stands() -> None:
    points = torch.from_numpy(cloud().xyz)
    a, b = (voxelise(points + shift, torch.zeros_like(points), 0.125).inputs() for shift in (0.0, 2.0))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert a[:, 2].min() == 0


@pytest.mark.parametrize(
    ("xyz", "reason"),
    [
        (torch.zeros(0, 3), "no points"),
        (torch.tensor([[0.0, torch.nan, 0]]), "not finite"),
        (torch.tensor([[0.0, 0, 0], [1e6, 0, 0]]), "km wide"),
    ],
)
def test_what_cannot_be_binned_is_refused(xyz: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        voxelise(xyz, torch.zeros_like(xyz), 0.05)


def test_a_batch_tells_its_clouds_apart() -> None:
    a, b = voxelise_cloud(cloud(100), 0.1), voxelise_cloud(cloud(200, 1), 0.1)
    grid = batch_grid([a, b])
    assert grid.dtype == torch.int32
    assert grid[:, 0].bincount().tolist() == [len(a), len(b)]
    torch.testing.assert_close(grid[len(a) :, 1:], b.grid.int())
