"""The nouns: Camera, Frame, PointCloud, Chunk, Scene. Knows nothing of file formats, teachers or models.

Conventions, for the whole project: metres, right-handed world, z up where the source knows gravity; cameras have
OpenCV axes (x right, y down, z forward); the centre of a pixel is at +0.5; depth is z-depth in metres, 0 = invalid.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8, UInt16

Gravity = Literal["z-up", "estimated", "unknown"]


class BadInput(ValueError):
    """Data that cannot be used. Carries what a person needs to mend it: where it is and what is wrong with it.

    Everything that reads foreign data raises this, and nothing else, for data that is at fault; the pipeline turns it
    into a quarantine row. Any other exception is a bug or a failing machine.
    """

    def __init__(self, uri: str, reason: str):
        super().__init__(uri, reason)  # both, so that it survives pickling between processes
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class NothingToLearn(BadInput):
    """A sample that is sound, and holds nothing of what a training asks for."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A posed pinhole camera.

    Attributes:
        K: intrinsics in pixels, float64; `K[:2, 2]` is the principal point in the +0.5 convention.
        cam_to_world: rigid pose, float64, OpenCV axes, metres.
        width: image width in pixels.
        height: image height in pixels.

    Raises:
        ValueError: non-finite or non-rigid pose, or intrinsics that no real pinhole camera has.
    """

    K: Float[np.ndarray, "3 3"]
    cam_to_world: Float[np.ndarray, "4 4"]
    width: int
    height: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", np.asarray(self.K, np.float64))
        object.__setattr__(self, "cam_to_world", np.asarray(self.cam_to_world, np.float64))
        _check_intrinsics(self.K, self.width, self.height)
        _check_pose(self.cam_to_world)

    @cached_property
    def world_to_cam(self) -> Float[np.ndarray, "4 4"]:
        """The inverse pose (gsplat's `viewmat`)."""
        R, t = self.cam_to_world[:3, :3], self.cam_to_world[:3, 3]
        inverse = np.eye(4)
        inverse[:3, :3] = R.T
        inverse[:3, 3] = -R.T @ t
        return inverse

    def resized(self, width: int, height: int) -> Camera:
        """The same camera with its image resampled to `width` x `height`."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(scale @ self.K, self.cam_to_world, width, height)


def _check_intrinsics(K: np.ndarray, width: int, height: int) -> None:
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise ValueError(f"intrinsics are not a finite 3x3 matrix: {K.tolist()}")
    if width <= 0 or height <= 0:
        raise ValueError(f"image size {width}x{height} is not positive")
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    # Fields of view from about 0.6 to 169 degrees; a real lens outside that is not a pinhole.
    low, high = 0.05, 100.0
    if not (low * width <= fx <= high * width and low * height <= fy <= high * height):
        raise ValueError(f"absurd intrinsics: focal lengths ({fx:g}, {fy:g}) px for a {width}x{height} image")
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise ValueError(f"absurd intrinsics: principal point ({cx:g}, {cy:g}) for a {width}x{height} image")


def _check_pose(cam_to_world: np.ndarray) -> None:
    if cam_to_world.shape != (4, 4):
        raise ValueError(f"pose has shape {cam_to_world.shape}, not 4x4")
    if not np.isfinite(cam_to_world).all():
        bad = cam_to_world[~np.isfinite(cam_to_world)][0]
        raise ValueError(f"pose holds {bad} (lost tracking)")
    R = cam_to_world[:3, :3]
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-2) or np.linalg.det(R) < 0:
        raise ValueError("pose is not rigid: its rotation part is not orthonormal and right-handed")
    if not np.allclose(cam_to_world[3], (0, 0, 0, 1), atol=1e-6):
        raise ValueError(f"pose has last row {cam_to_world[3].tolist()}, not [0, 0, 0, 1]")


@dataclass(frozen=True, eq=False)
class Frame:
    """One posed photo, decoded, with depth where the source has it.

    Attributes:
        id: the frame's name within its scene, e.g. "frame-000010".
        uri: where the photo came from.
        camera: of `rgb`.
        rgb: the photo.
        depth: z-depth in metres, 0 = invalid; may be of another size than `rgb` (same field of view), or None.
        jpeg: the photo as the source's own JPEG bytes, when `rgb` is exactly their decoding; spares a generation loss.
        instances: ground-truth instance id per pixel (0 = none), only from labelled sources.
    """

    id: str
    uri: str
    camera: Camera
    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "dh dw"] | None = None
    jpeg: bytes | None = None
    instances: UInt16[np.ndarray, "h w"] | None = None


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points in the world frame.

    Attributes:
        xyz: metres.
        rgb: colour.
        instances: ground-truth instance id per point (0 = none), only from labelled sources.
    """

    xyz: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    instances: Int32[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, index: Any) -> PointCloud:
        """The points that a slice, mask or index array picks."""
        return PointCloud(self.xyz[index], self.rgb[index], None if self.instances is None else self.instances[index])


@dataclass(frozen=True)
class Chunk:
    """A window of a scene's keyframes: the unit that becomes one corpus sample. Only names, no data.

    Attributes:
        scene_uri: what `liftgs.readers.open_scene` opens.
        scene: the scene's name, without dots, slashes or spaces.
        index: position of the window in the scene.
        frame_ids: all keyframes of the window; they make the cloud.
        view_ids: the keyframes to label and store. All of them, save in a retry, which adds only what was missing.
        retry: 0, or which retry this is.
    """

    scene_uri: str
    scene: str
    index: int
    frame_ids: tuple[str, ...]
    view_ids: tuple[str, ...]
    retry: int = 0

    @property
    def key(self) -> str:
        """The WebDataset key."""
        return f"{self.scene}-{self.index:03d}" + (f"-retry{self.retry}" if self.retry else "")


def scene_of_key(key: str) -> str:
    """The scene of a chunk, from its key; a key of another form is a scene of its own."""
    return re.sub(r"-\d{3,}(-retry\d+)?$", "", key)


@dataclass(frozen=True)
class Instance:
    """A labelled object.

    Attributes:
        id: as in `Frame.instances` and `PointCloud.instances`.
        kind: class name, e.g. "office chair".
        colour: colour name, or "" when unknown.
        material: material name, or "" when unknown.
        box_min: lower corner of the axis-aligned box, metres, world frame.
        box_max: upper corner.
    """

    id: int
    kind: str
    colour: str
    material: str
    box_min: tuple[float, float, float]
    box_max: tuple[float, float, float]


@dataclass(frozen=True)
class Mention:
    """A phrase of an expression and the instances it names.

    Attributes:
        instances: ids; usually one.
        chars: half-open character span in the text, of the whole noun phrase ("the red chair").
        words: half-open span over `Expression.words`.
    """

    instances: tuple[int, ...]
    chars: tuple[int, int]
    words: tuple[int, int]


@dataclass(frozen=True)
class Expression:
    """A referring expression, true and unambiguous in its scene.

    Attributes:
        text: e.g. "the red chair nearest to the desk".
        target: the mention that the whole expression picks out.
        anchors: the other mentions.
        relation: e.g. "nearest"; "" when class, colour or size alone suffice.
        tags: "name=value", what else its source says of it, e.g. "dataset=nr3d", "difficulty=hard".
    """

    text: str
    target: Mention
    anchors: tuple[Mention, ...] = ()
    relation: str = ""
    tags: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The text split at white space."""
        return self.text.split()

    def tag(self, name: str) -> str | None:
        """The value of a tag, or None if there is no such tag."""
        return next((tag[len(name) + 1 :] for tag in self.tags if tag.startswith(f"{name}=")), None)


@dataclass(frozen=True)
class SceneLabels:
    """3D ground truth of a labelled scene."""

    instances: tuple[Instance, ...]
    expressions: tuple[Expression, ...]


class Scene(ABC):
    """One scan: frames that are listed cheaply and loaded one at a time, so that a scene of any length streams."""

    #: what `open_scene` was given
    uri: str
    #: unique within its source; no dots, slashes or spaces (it becomes part of a WebDataset key)
    name: str
    #: whether the world's z axis is up
    gravity: Gravity = "unknown"

    @abstractmethod
    def frame_ids(self) -> Sequence[str]:
        """Names of all frames in capture order. Reads listings and index files only, never an image."""

    @abstractmethod
    def load(self, frame_id: str) -> Frame:
        """Read and check one frame.

        Raises:
            BadInput: missing, truncated or implausible photo, depth, pose or intrinsics, naming the file.
        """

    def frame_uri(self, frame_id: str) -> str:
        """Where the frame's photo is; for messages."""
        return f"{self.uri}#{frame_id}"

    def cloud(self) -> PointCloud | None:
        """The source's own point cloud (COLMAP points, a mesh's vertices), or None: then depth is fused."""
        return None

    def labels(self) -> SceneLabels | None:
        """3D ground truth, or None."""
        return None


@dataclass(frozen=True, eq=False)
class LoadedChunk:
    """A chunk with its data.

    Attributes:
        chunk: what was asked for.
        cloud: voxelised.
        frames: the views that could be loaded, in `chunk.view_ids` order.
        gravity: of the world frame.
        labels: instances that own at least one point of `cloud`, and expressions all of whose mentions are among them.
        failures: (frame id, what is wrong with it), for every frame of the window that could not be loaded.
    """

    chunk: Chunk
    cloud: PointCloud
    frames: list[Frame]
    gravity: Gravity
    labels: SceneLabels | None = None
    failures: list[tuple[str, BadInput]] = field(default_factory=list)
