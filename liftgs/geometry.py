"""From posed depth frames to a cloud: unproject, fuse, voxelise. Knows nothing of files or teachers.

Everything is deterministic: sums run in input order, voxels are sorted by their key, ties are broken by a stated rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Shaped

from liftgs.scene import Camera, Frame, PointCloud

_KEY_BITS = 21  # per axis, three axes in one int64
_KEY_OFFSET = 1 << (_KEY_BITS - 1)


@dataclass(frozen=True)
class CloudConfig:
    """How depth becomes a cloud.

    Attributes:
        voxel_size_m: edge of a voxel. 5 cm in the paper and in Locate 3D's preprocessing.
        depth_min_m: nearer depth is dropped. Locate 3D's preprocessing keeps (0.1, 4.0) m.
        depth_max_m: farther depth is dropped. More than Locate 3D's 4 m, so that a room seen from its corner is whole;
            lower it to 4 for sensors whose noise grows with distance.
        edge_ratio: relative depth step that counts as a jump between neighbouring pixels. A floor 5 m away, seen from
            1.5 m above by a 585 px lens, steps by 0.006 per pixel; object borders step by 0.1 and more.
        min_support: a pixel with fewer of its 8 neighbours on the same surface (without a jump) is speckle and dropped.
        min_points: voxels hit by fewer depth pixels, over all frames, are dropped. 1 keeps all: at low resolution or
            far away one pixel per voxel is honest.
    """

    voxel_size_m: float = 0.05
    depth_min_m: float = 0.1
    depth_max_m: float = 10.0
    edge_ratio: float = 0.05
    min_support: int = 2
    min_points: int = 1

    def __post_init__(self) -> None:
        if not self.voxel_size_m > 0:
            raise ValueError(f"voxel_size_m must be positive, not {self.voxel_size_m}")
        if not 0 <= self.depth_min_m < self.depth_max_m:
            raise ValueError(f"need 0 <= depth_min_m < depth_max_m, not {self.depth_min_m} and {self.depth_max_m}")
        if not self.edge_ratio > 0:
            raise ValueError(f"edge_ratio must be positive, not {self.edge_ratio}")


def unproject(
    depth: Float32[np.ndarray, "h w"], camera: Camera, mask: Bool[np.ndarray, "h w"] | None = None
) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " n"]]:
    """Lift the valid pixels of a depth map into the world.

    Args:
        depth: z-depth in metres; 0, negative and non-finite pixels are left out. May be of another size than the
            photo (same field of view): `camera` is resized to it.
        camera: of the photo.
        mask: pixels to lift; all valid ones by default.

    Returns:
        World points, metres, and for each the flat index of its pixel in `depth`, in increasing order.
    """
    height, width = depth.shape
    camera = camera.resized(width, height)
    valid = np.isfinite(depth) & (depth > 0)
    if mask is not None:
        valid &= mask
    pixel = np.flatnonzero(valid)
    z = np.where(valid, depth, 0).astype(np.float64)
    # z * R K^-1 (u, v, 1) + t, one axis at a time: a ray is a sum of what its column and its row contribute.
    to_world = camera.cam_to_world[:3, :3] @ np.linalg.inv(camera.K)
    of_column = to_world[:, 0, None] * (np.arange(width) + 0.5)
    of_row = to_world[:, 1, None] * (np.arange(height) + 0.5) + to_world[:, 2, None]
    xyz = np.empty((len(pixel), 3), np.float32)
    for axis in range(3):
        ray = of_column[axis] + of_row[axis][:, None]
        xyz[:, axis] = (ray * z + camera.cam_to_world[axis, 3])[valid]
    return xyz, pixel


def project(xyz: Float[np.ndarray, "n 3"], camera: Camera) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """World points -> pixel coordinates (x, y; centre of the first pixel at 0.5) and z-depth in metres.

    Points at or behind the camera plane get z <= 0 and meaningless (but finite or infinite, never raising) pixels.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        in_camera = xyz @ camera.world_to_cam[:3, :3].T + camera.world_to_cam[:3, 3]
        z = in_camera[:, 2]
        pixels = (in_camera @ camera.K[:2].T) / z[:, None]
    return pixels, z


def reliable_depth(depth: Float32[np.ndarray, "h w"], config: CloudConfig) -> Bool[np.ndarray, "h w"]:
    """Pixels of a depth map that may enter a cloud.

    Left out are: invalid pixels; depth outside [depth_min_m, depth_max_m]; flying pixels, which hang between a
    foreground and a background (along the row or the column one neighbour is nearer and the opposite one farther, each
    by a jump); and speckle, which hardly any neighbour supports. The border of a clean silhouette and a rod one pixel
    thick stay: their neighbours on both sides jump the same way, and those along them support them.
    """
    valid = np.isfinite(depth) & (depth >= max(config.depth_min_m, 1e-6)) & (depth <= config.depth_max_m)
    # In log depth a relative step is a difference; unusable pixels become NaN, which compares false with everything.
    height, width = depth.shape
    log_depth = np.full((height + 2, width + 2), np.nan, np.float32)
    np.log(depth, out=log_depth[1:-1, 1:-1], where=valid)
    jump = np.float32(np.log1p(config.edge_ratio))
    centre = log_depth[1:-1, 1:-1]

    def step(dy: int, dx: int) -> np.ndarray:
        return log_depth[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] - centre

    support = np.zeros(depth.shape, np.uint8)
    flying = np.zeros(depth.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        ahead, behind = step(dy, dx), step(-dy, -dx)
        support += np.abs(ahead) <= jump
        support += np.abs(behind) <= jump
        if dy == 0 or dx == 0:
            flying |= (ahead > jump) & (behind < -jump)
            flying |= (ahead < -jump) & (behind > jump)
    return valid & ~flying & (support >= config.min_support)


def fuse(frames: Iterable[Frame], config: CloudConfig = CloudConfig()) -> PointCloud:
    """Fuse the depth of posed frames into one voxelised cloud.

    Frames are consumed one at a time and reduced to voxel sums at once, so memory grows with the cloud, not with the
    number of frames. Frames without depth add nothing. See `voxelise` for what a voxel holds; instance ids come from
    `Frame.instances` and are None unless every frame with depth has them.
    """
    fusion = Fusion(config)
    for frame in frames:
        fusion.add(frame)
    return fusion.cloud()


def voxelise(cloud: PointCloud, voxel_size_m: float) -> PointCloud:
    """One point per occupied voxel, sorted by voxel (x first, then y, then z).

    Position and colour are the mean of the voxel's points, the instance its most frequent id; in a tie the smallest
    id wins, and any object wins over 0 (none).

    Raises:
        ValueError: points farther than 2^20 voxels (52 km at 5 cm) from the origin, or not finite.
    """
    return _voxel_sums(cloud, voxel_size_m).cloud(min_points=1)


def voxel_reach_m(voxel_size_m: float) -> float:
    """How far from the origin, along any axis, a voxel may lie."""
    return (_KEY_OFFSET - 1) * voxel_size_m


def sees(camera: Camera, xyz: Float[np.ndarray, "n 3"], config: CloudConfig) -> Bool[np.ndarray, " n"]:
    """Which points lie in the camera's view frustum, between depth_min_m and depth_max_m."""
    pixels, z = project(xyz, camera)
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
    return inside & (z >= max(config.depth_min_m, 1e-6)) & (z <= config.depth_max_m)


@dataclass(frozen=True, eq=False)
class _VoxelSums:
    """Sums over the points of each voxel; voxels in key order. Labels are rows (voxel key, instance id, points)."""

    keys: Int64[np.ndarray, " m"]
    points: Int64[np.ndarray, " m"]
    sums: Float[np.ndarray, "6 m"]
    labels: Int64[np.ndarray, "3 l"] | None

    def merged(self, other: _VoxelSums) -> _VoxelSums:
        keys, index = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        values = np.concatenate([self.sums, other.sums], axis=1)
        points = np.bincount(index, np.concatenate([self.points, other.points]), len(keys)).astype(np.int64)
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = _count_labels(*np.concatenate([self.labels, other.labels], axis=1))
        return _VoxelSums(keys, points, _sum_by(index, values, len(keys)), labels)

    def cloud(self, min_points: int) -> PointCloud:
        mean = (self.sums / np.maximum(self.points, 1)).T
        cloud = PointCloud(
            np.ascontiguousarray(mean[:, :3], np.float32),
            np.rint(mean[:, 3:]).astype(np.uint8),
            None if self.labels is None else _majority(self.keys, self.labels),
        )
        return cloud if min_points <= 1 else cloud[self.points >= min_points]


class Fusion:
    """A cloud in the making: add frames, then ask for the cloud."""

    def __init__(self, config: CloudConfig):
        self.config = config
        self.sums: _VoxelSums | None = None

    def add(self, frame: Frame) -> None:
        """Take in the reliable depth of a frame; one without depth adds nothing."""
        if frame.depth is None:
            return
        xyz, pixel = unproject(frame.depth, frame.camera, reliable_depth(frame.depth, self.config))
        photo_pixel = _photo_pixels(pixel, frame.depth.shape, frame.rgb.shape)
        rgb = frame.rgb.reshape(-1, 3)[photo_pixel]
        instances = None if frame.instances is None else frame.instances.reshape(-1)[photo_pixel].astype(np.int32)
        sums = _voxel_sums(PointCloud(xyz, rgb, instances), self.config.voxel_size_m)
        self.sums = sums if self.sums is None else self.sums.merged(sums)

    def cloud(self) -> PointCloud:
        """The voxels hit so far; empty if there are none."""
        if self.sums is None:
            return PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
        return self.sums.cloud(self.config.min_points)


def _photo_pixels(
    pixel: Int64[np.ndarray, " n"], depth_shape: tuple[int, ...], photo_shape: tuple[int, ...]
) -> Int64[np.ndarray, " n"]:
    """Flat index of the photo's pixel that holds the centre of each depth pixel."""
    if depth_shape[:2] == photo_shape[:2]:
        return pixel
    rows, columns = np.divmod(pixel, depth_shape[1])
    rows = (2 * rows + 1) * photo_shape[0] // (2 * depth_shape[0])
    columns = (2 * columns + 1) * photo_shape[1] // (2 * depth_shape[1])
    return rows * photo_shape[1] + columns


def _voxel_sums(cloud: PointCloud, voxel_size_m: float) -> _VoxelSums:
    point_keys = _voxel_keys(cloud.xyz, voxel_size_m)
    # Neighbouring pixels mostly share a voxel: sorting runs of equal keys is several times faster than sorting points.
    runs = np.flatnonzero(_starts(point_keys))
    keys, index_of_run = np.unique(point_keys[runs], return_inverse=True)
    index = np.repeat(index_of_run, _lengths(runs, len(cloud)))
    values = np.concatenate([cloud.xyz.T, cloud.rgb.T], dtype=np.float64)
    labels = None
    if cloud.instances is not None:
        runs = np.flatnonzero(_starts(point_keys) | _starts(cloud.instances))
        labels = _count_labels(point_keys[runs], cloud.instances[runs].astype(np.int64), _lengths(runs, len(cloud)))
    return _VoxelSums(keys, np.bincount(index, minlength=len(keys)), _sum_by(index, values, len(keys)), labels)


def _voxel_keys(xyz: Float32[np.ndarray, "n 3"], voxel_size_m: float) -> Int64[np.ndarray, " n"]:
    """Packs floor(xyz / voxel) into one integer whose order is x, then y, then z."""
    voxel = np.floor(xyz.astype(np.float64) / voxel_size_m)
    if not (np.abs(voxel) < _KEY_OFFSET).all():  # NaN fails as well
        raise ValueError(f"points are not finite or farther than {_KEY_OFFSET * voxel_size_m:g} m from the origin")
    x, y, z = voxel.astype(np.int64).T + _KEY_OFFSET
    return (x << 2 * _KEY_BITS) | (y << _KEY_BITS) | z


def _sum_by(
    index: Int[np.ndarray, " n"], values: Float[np.ndarray, "c n"], groups: int
) -> Float[np.ndarray, "c groups"]:
    """Sums each row of `values` per group. In float64 and in input order."""
    return np.stack([np.bincount(index, row, groups) for row in values])


def _count_labels(
    keys: Int64[np.ndarray, " n"], ids: Int64[np.ndarray, " n"], points: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "3 l"]:
    """Total points of each (voxel key, instance id), in that order."""
    order = np.lexsort((ids, keys))
    keys, ids, points = keys[order], ids[order], points[order]
    first = np.flatnonzero(_starts(keys) | _starts(ids))
    total = np.add.reduceat(points, first) if len(first) else points
    return np.stack([keys[first], ids[first], total])


def _majority(keys: Int64[np.ndarray, " m"], labels: Int64[np.ndarray, "3 l"]) -> Int32[np.ndarray, " m"]:
    """Winning id of each voxel: most points, then objects before 0, then the smallest id."""
    label_keys, ids, points = labels
    order = np.lexsort((ids, ids == 0, -points, label_keys))
    winners = ids[order][_starts(label_keys[order])]
    assert len(winners) == len(keys)
    return winners.astype(np.int32)


def _lengths(starts: Int64[np.ndarray, " r"], total: int) -> Int64[np.ndarray, " r"]:
    """Length of each run, given where they begin."""
    return np.diff(np.append(starts, total))


def _starts(values: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Where a run of equal values begins."""
    starts = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts
