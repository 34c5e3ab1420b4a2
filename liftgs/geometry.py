"""From posed depth frames to chunks: unproject, fuse, voxelise, cut into windows. Knows nothing of files or teachers.

Everything is deterministic: sums run in input order, voxels are sorted by their key, ties are broken by a stated rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Shaped

from liftgs.scene import BadInput, Camera, Chunk, Frame, LoadedChunk, PointCloud, Scene, SceneLabels

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


@dataclass(frozen=True)
class ChunkingConfig:
    """How a scene is cut into windows of keyframes.

    Attributes:
        frame_stride: every how many-th frame is a keyframe. 1 suits sources that are thinned already; Locate 3D takes
            30 for video at 30 Hz.
        frames_per_chunk: most keyframes of a window. The paper cuts scenes into chunks but does not say how large; 6
            keyframes give about 6 thousand voxels of a hand-held close-up and 30 to 60 thousand of a furnished room,
            and the paper has about 50 thousand.
        overlap_frames: keyframes that neighbouring windows share. 0: every keyframe is labelled exactly once.
    """

    frame_stride: int = 1
    frames_per_chunk: int = 6
    overlap_frames: int = 0

    def __post_init__(self) -> None:
        if self.frame_stride < 1 or self.frames_per_chunk < 1:
            raise ValueError("frame_stride and frames_per_chunk must be at least 1")
        if not 0 <= self.overlap_frames < self.frames_per_chunk:
            raise ValueError(
                f"overlap_frames must be in [0, frames_per_chunk), not {self.overlap_frames} of {self.frames_per_chunk}"
            )


class NoView(BadInput):
    """No view of a chunk could be loaded. `failures` are the frames' ids, each with what is wrong with it."""

    def __init__(self, uri: str, reason: str, failures: Sequence[tuple[str, BadInput]]):
        super().__init__(uri, reason)
        self.args = (uri, reason, failures)  # so that it survives pickling between processes
        self.failures = failures


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
    fusion = _Fusion(config)
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


def sees(camera: Camera, xyz: Float[np.ndarray, "n 3"], config: CloudConfig) -> Bool[np.ndarray, " n"]:
    """Which points lie in the camera's view frustum, between depth_min_m and depth_max_m."""
    pixels, z = project(xyz, camera)
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
    return inside & (z >= max(config.depth_min_m, 1e-6)) & (z <= config.depth_max_m)


def plan_chunks(scene: Scene, config: ChunkingConfig = ChunkingConfig()) -> list[Chunk]:
    """Cut a scene into windows of consecutive keyframes, from its frame ids alone.

    There are as few windows as cover all keyframes with at most `frames_per_chunk` each and `overlap_frames` shared;
    their sizes are as equal as can be (they differ by at most one, the longer ones first), so that the last is never a
    tiny rest: with more than one window each has at least half of `frames_per_chunk` (rounded down).

    Raises:
        BadInput: the scene has no frame.
    """
    keyframes = tuple(scene.frame_ids()[:: config.frame_stride])
    if not keyframes:
        raise BadInput(scene.uri, "the scene has no frame")
    return [
        Chunk(scene.uri, scene.name, index, keyframes[start:stop], keyframes[start:stop])
        for index, (start, stop) in enumerate(_windows(len(keyframes), config.frames_per_chunk, config.overlap_frames))
    ]


def load_chunk(scene: Scene, chunk: Chunk, config: CloudConfig = CloudConfig()) -> LoadedChunk:
    """Load the frames of a window, each once, and make its cloud.

    The cloud is the source's own (`Scene.cloud`), cut to what some frame of the window sees, or else fused depth.
    A frame that cannot be used costs only itself: it is in `failures`, not in `frames`, and adds nothing to the cloud.

    The world frame is left as the source has it, and `gravity` with it: levelling must turn every chunk of a scene, its
    cameras and its labels alike, which one window cannot decide.

    Raises:
        NoView: no view of the chunk could be loaded.
        BadInput: the cloud is empty.
    """
    own_cloud = scene.cloud()
    fusion = _Fusion(config)
    seen = np.zeros(0 if own_cloud is None else len(own_cloud), bool)
    frames: list[Frame] = []
    failures: list[tuple[str, BadInput]] = []
    views = set(chunk.view_ids)
    for frame_id in chunk.frame_ids:
        try:
            frame = scene.load(frame_id)
            _check_frame(frame, config)
        except BadInput as fault:
            failures.append((frame_id, fault))
            continue
        if own_cloud is None:
            fusion.add(frame)
        else:
            seen |= _visible(own_cloud, frame, config)
        if frame_id in views:
            frames.append(frame)
    if not frames:
        raise NoView(chunk.scene_uri, f"chunk {chunk.key}: no view could be loaded{_because(failures)}", failures)
    cloud = fusion.cloud() if own_cloud is None else voxelise(own_cloud[seen], config.voxel_size_m)
    if not len(cloud):
        raise BadInput(chunk.scene_uri, f"chunk {chunk.key}: {_why_empty(own_cloud, frames, config)}")
    labels = scene.labels()
    kept = None if labels is None else _labels_within(labels, cloud)
    return LoadedChunk(chunk, cloud, frames, scene.gravity, kept, failures)


def _windows(count: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open (start, stop) of balanced windows over `count` items."""
    windows = max(1, -(-(count - overlap) // (size - overlap)))
    shortest, longer = divmod(count + (windows - 1) * overlap, windows)
    spans = []
    start = 0
    for index in range(windows):
        stop = start + shortest + (index < longer)
        spans.append((start, stop))
        start = stop - overlap
    return spans


def _check_frame(frame: Frame, config: CloudConfig) -> None:
    """What a reader cannot judge alone."""
    if frame.depth is not None and not (frame.depth > 0).any():
        raise BadInput(frame.uri, "depth has no valid pixel")
    position = frame.camera.cam_to_world[:3, 3]
    reach_m = (_KEY_OFFSET - 1) * config.voxel_size_m - config.depth_max_m
    if np.abs(position).max() > reach_m:
        raise BadInput(
            frame.uri,
            f"camera is {np.abs(position).max() / 1000:g} km from the origin; shift the poses (and the cloud) near it",
        )


def _visible(cloud: PointCloud, frame: Frame, config: CloudConfig) -> Bool[np.ndarray, " n"]:
    """Points in the frame's frustum and, where it has depth, not hidden behind it by more than two voxels."""
    visible = sees(frame.camera, cloud.xyz, config)
    if frame.depth is None:
        return visible
    height, width = frame.depth.shape
    candidates = np.flatnonzero(visible)
    pixels, z = project(cloud.xyz[candidates], frame.camera.resized(width, height))
    columns, rows = np.minimum(pixels.astype(np.int64), (width - 1, height - 1)).T
    surface = frame.depth[rows, columns]
    hidden = (surface > 0) & (z > surface + 2 * config.voxel_size_m)
    visible[candidates[hidden]] = False
    return visible


def _because(failures: Sequence[tuple[str, BadInput]]) -> str:
    return f"; first of {len(failures)} failures: {failures[0][1]}" if failures else ""


def _why_empty(own_cloud: PointCloud | None, frames: Sequence[Frame], config: CloudConfig) -> str:
    depth_range = f"{config.depth_min_m:g} to {config.depth_max_m:g} m"
    if own_cloud is not None:
        return f"the cloud is empty: no frame sees any of the scene's {len(own_cloud)} points within {depth_range}"
    if all(frame.depth is None for frame in frames):
        return "the cloud is empty: the scene has neither depth nor a point cloud"
    return f"the cloud is empty: no reliable depth within {depth_range}"


def _labels_within(labels: SceneLabels, cloud: PointCloud) -> SceneLabels:
    """Instances that own a point of the cloud, and expressions that speak of these only."""
    present = set() if cloud.instances is None else set(np.unique(cloud.instances).tolist())
    instances = tuple(instance for instance in labels.instances if instance.id in present)
    known = {instance.id for instance in instances}
    expressions = tuple(
        expression
        for expression in labels.expressions
        if all(known.issuperset(mention.instances) for mention in (expression.target, *expression.anchors))
    )
    return SceneLabels(instances, expressions)


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


class _Fusion:
    """A cloud in the making: add frames, then ask for the cloud."""

    def __init__(self, config: CloudConfig):
        self.config = config
        self.sums: _VoxelSums | None = None

    def add(self, frame: Frame) -> None:
        if frame.depth is None:
            return
        xyz, pixel = unproject(frame.depth, frame.camera, reliable_depth(frame.depth, self.config))
        photo_pixel = _photo_pixels(pixel, frame.depth.shape, frame.rgb.shape)
        rgb = frame.rgb.reshape(-1, 3)[photo_pixel]
        instances = None if frame.instances is None else frame.instances.reshape(-1)[photo_pixel].astype(np.int32)
        sums = _voxel_sums(PointCloud(xyz, rgb, instances), self.config.voxel_size_m)
        self.sums = sums if self.sums is None else self.sums.merged(sums)

    def cloud(self) -> PointCloud:
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
