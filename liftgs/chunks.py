"""A scene cut into windows of keyframes, and a window loaded: frames, cloud and labels. One window is held at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from liftgs.codecs import bad_values
from liftgs.geometry import CloudConfig, Fusion, project, sees, voxel_reach_m, voxelise
from liftgs.scene import BadInput, Chunk, Expression, Frame, Instance, LoadedChunk, PointCloud, Scene, SceneLabels

_DEFAULT_CLOUD = CloudConfig()


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


def load_chunk(
    scene: Scene, chunk: Chunk, config: CloudConfig = _DEFAULT_CLOUD, expressions: Sequence[Expression] = ()
) -> LoadedChunk:
    """Load the frames of a window, each once, and make its cloud.

    The cloud is the source's own (`Scene.cloud`), cut to what some frame of the window sees, or else fused depth.
    A frame that cannot be used costs only itself: it is in `failures`, not in `frames`, and adds nothing to the cloud.

    The world frame is left as the source has it, and `gravity` with it: levelling must turn every chunk of a scene, its
    cameras and its labels alike, which one window cannot decide.

    Args:
        scene: where the chunk is from.
        chunk: what to load.
        config: how depth becomes a cloud.
        expressions: about the scene's instances, from elsewhere; added to those of its labels. One that was made for
            some frames (Locate 3D's `frames_used`) is left out where others could show a second object of its kind.

    Raises:
        NoView: no view of the chunk could be loaded.
        BadInput: the cloud is empty, or `expressions` speak of instances that the scene has not.
    """
    own_cloud = scene.cloud()
    fusion = Fusion(config)
    seen = np.zeros(0 if own_cloud is None else len(own_cloud), bool)
    frames: list[Frame] = []
    failures: list[tuple[str, BadInput]] = []
    views = set(chunk.view_ids)
    for frame_id in chunk.frame_ids:
        try:
            with bad_values(scene.frame_uri(frame_id)):
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
    labels = _labels(scene, expressions)
    kept = None if labels is None else _labels_within(labels, cloud, chunk)
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
    if np.abs(position).max() > voxel_reach_m(config.voxel_size_m) - config.depth_max_m:
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


def _labels(scene: Scene, expressions: Sequence[Expression]) -> SceneLabels | None:
    """The scene's labels with more expressions."""
    labels = scene.labels()
    if not expressions:
        return labels
    if labels is None:
        raise BadInput(scene.uri, f"has no instance labels for its {len(expressions)} expressions to speak of")
    known = {instance.id for instance in labels.instances}
    if not any(known.issuperset(expression.target.instances) for expression in expressions):
        raise BadInput(scene.uri, f"its labels have none of the targets of its {len(expressions)} expressions")
    return SceneLabels(labels.instances, (*labels.expressions, *expressions))


def _labels_within(labels: SceneLabels, cloud: PointCloud, chunk: Chunk) -> SceneLabels:
    """Instances that own a point of the cloud, and expressions that speak of these only and are true of the window."""
    present = set() if cloud.instances is None else set(np.unique(cloud.instances).tolist())
    instances = tuple(instance for instance in labels.instances if instance.id in present)
    known = {instance.id for instance in instances}
    expressions = tuple(
        expression
        for expression in labels.expressions
        if all(known.issuperset(mention.instances) for mention in (expression.target, *expression.anchors))
        and (_made_for(expression, chunk) or _alone_of_its_kind(expression, instances))
    )
    return SceneLabels(instances, expressions)


def _made_for(expression: Expression, chunk: Chunk) -> bool:
    """Whether the annotator saw all of the window; readers number the frames of a video at the end of their ids."""
    used = expression.tag("frames_used")
    if used is None:
        return True
    numbers = [int(number) for number in used.split(",") if number]
    shown = [re.fullmatch(r"frame_(\d{1,9})", frame_id) for frame_id in chunk.frame_ids]
    return bool(numbers) and all(match and min(numbers) <= int(match[1]) <= max(numbers) for match in shown)


def _alone_of_its_kind(expression: Expression, instances: Sequence[Instance]) -> bool:
    kinds = {instance.id: instance.kind for instance in instances}
    named = {kinds[id_] for id_ in expression.target.instances}
    return sum(kind in named for kind in kinds.values()) == len(expression.target.instances)
