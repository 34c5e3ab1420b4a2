"""From photos to points without learning: what the pseudo-labels of photos say of each point of a cloud.

This is what rendered supervision is compared with: features of segments averaged per voxel, as in ConceptFusion
(paper, Table 8), and segments of several photos joined into 3D instances. Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage, sparse

from liftgs.geometry import CloudConfig, project, sees
from liftgs.sample import Sample, View
from liftgs.scene import BadInput, Camera

#: In place of a segment: a point that the photo shows without a label, and one that it does not show.
UNLABELLED, HIDDEN = -1, -2
#: Longer side of the depth map that a cloud makes of itself, and the most of its pixels that a point covers each way.
_OWN_DEPTH_PX, _MAX_REACH_PX = 192, 8


@dataclass(frozen=True)
class LiftingConfig:
    """How labels of photos come onto points, and how those of several photos become one.

    Attributes:
        slack_m: a photo shows a point if its depth there is that of the point, up to so much: two voxels. What is
            behind is hidden; what is in front is thinner than the depth map sees, and its pixel shows something else.
        point_size_m: where a photo has no depth map, points of this size hide each other.
        overlap: segments of two photos are one thing if their IoU exceeds this, over the points that both photos show.
        cosine: and if their embeddings are at least so close.
        min_points: fewest points of a segment, and of an instance.
    """

    slack_m: float = 0.1
    point_size_m: float = 0.05
    overlap: float = 0.3
    cosine: float = 0.5
    min_points: int = 20

    def __post_init__(self) -> None:
        if self.slack_m <= 0 or self.point_size_m <= 0 or self.min_points < 1:
            raise ValueError("slack_m and point_size_m must be positive, min_points at least 1")
        if not 0 <= self.overlap < 1 or not -1 <= self.cosine <= 1:
            raise ValueError("overlap must be from 0 to less than 1, cosine from -1 to 1")


@dataclass(frozen=True, eq=False)
class Sightings:
    """The segments of all photos of a sample, on its points.

    Attributes:
        segment: of each point in each photo a row of `embeds`, `UNLABELLED` or `HIDDEN`.
        embeds: unit rows, one per segment, of all photos in turn.
        photo: of each segment.
    """

    segment: Int[np.ndarray, "v n"]
    embeds: Float32[np.ndarray, "s f"]
    photo: Int[np.ndarray, " s"]

    @property
    def members(self) -> Any:
        """Which points each segment has, 0 or 1; sparse, segments by points."""
        photo, point = np.nonzero(self.segment >= 0)
        ones = np.ones(len(point), np.float32)
        shape = (len(self.embeds), self.segment.shape[1])
        return sparse.csr_array((ones, (self.segment[photo, point], point)), shape=shape)


@dataclass(frozen=True, eq=False)
class LiftedInstances:
    """3D instances without names.

    Attributes:
        ids: of each point its instance, from 1 on; 0 = none.
        embeds: unit rows; of instance i row i - 1.
    """

    ids: Int[np.ndarray, " n"]
    embeds: Float32[np.ndarray, "k f"]


def sight(sample: Sample, config: LiftingConfig = LiftingConfig()) -> Sightings:
    """Project the points into every photo.

    Raises:
        BadInput: a member is broken, or a photo has no segments with embeddings.
    """
    xyz = sample.cloud.xyz
    segment = np.full((len(sample.views), len(xyz)), HIDDEN)
    tables: list[Float32[np.ndarray, "s f"]] = []
    rows = 0
    for number, view in enumerate(sample.views):
        labels = view.segments
        if labels is None or labels.embeds is None:
            reason = "has no segments with embeddings to lift; label the corpus with jobs/pseudolabel.yaml"
            raise BadInput(sample.uri, f"view {view.id} {reason}")
        shown = np.flatnonzero(visible(view, xyz, config))
        index = _at(labels.semantics.astype(np.int64), xyz[shown], view.camera)
        segment[number, shown] = np.where(index > 0, rows + index - 1, UNLABELLED)
        tables.append(labels.embeds.astype(np.float32))
        rows += len(labels)
    if len({table.shape[1] for table in tables}) > 1:
        raise BadInput(sample.uri, "its photos are labelled with embeddings of different lengths")
    photo = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return Sightings(segment, _unit(np.concatenate(tables)), photo)


def visible(view: View, xyz: Float[np.ndarray, "n 3"], config: LiftingConfig) -> Bool[np.ndarray, " n"]:
    """Which points a photo shows: in its frustum, and at the depth that it has there.

    The depth is that of the depth map, or of the cloud itself if there is none; where it is invalid nothing is shown.
    """
    camera = view.camera
    depth = own_depth(xyz, camera, config.point_size_m) if view.depth is None else view.depth
    shown = sees(camera, xyz, CloudConfig())
    _, z = project(xyz[shown], camera)
    surface = _at(depth, xyz[shown], camera)
    behind = z - surface
    nearest = -np.inf if view.depth is None else -config.slack_m  # nothing of a cloud is before itself
    shown[shown] = (surface > 0) & (behind >= nearest) & (behind <= config.slack_m)
    return shown


def own_depth(xyz: Float[np.ndarray, "n 3"], camera: Camera, point_size_m: float) -> Float32[np.ndarray, "h w"]:
    """Z-depth of a cloud whose points are squares that face the camera; metres, 0 = none.

    A small image, so that points, which have gaps between them, make a surface without holes. Squares reach over what
    lies around them, and a floor seen from low moves on within a pixel: in the end each pixel gets the farthest depth
    within two pixels, else the near end of a floor would hide what is just behind it.
    """
    scale = _OWN_DEPTH_PX / max(camera.width, camera.height)
    small = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    pixels, z = project(xyz, small)
    kept = z > CloudConfig.depth_min_m
    (x, y), z = np.floor(pixels[kept]).T.clip(-1e6, 1e6).astype(np.int64), z[kept]
    reach = np.minimum(np.ceil(point_size_m / 2 * small.K[0, 0] / z), _MAX_REACH_PX).astype(np.int64)
    depth = np.full((small.height, small.width), np.inf, np.float32)
    far = int(reach.max(initial=0))
    for dy in range(-far, far + 1):
        for dx in range(-far, far + 1):
            column, row = x + dx, y + dy
            here = (reach >= max(abs(dx), abs(dy))) & (column >= 0) & (column < small.width)
            here &= (row >= 0) & (row < small.height)
            np.minimum.at(depth, (row[here], column[here]), z[here])
    return ndimage.grey_dilation(np.where(np.isfinite(depth), depth, np.float32(0)), size=5)


def pool(sightings: Sightings) -> Float32[np.ndarray, "n f"]:
    """Of each point the mean embedding of the segments that show it, as a unit row; zeros where none does.

    Source: ConceptFusion (Jatavallabhula et al. 2023), with one point per voxel and all photos alike.
    """
    return _unit(np.asarray(sightings.members.T @ sightings.embeds))


def merge(sightings: Sightings, config: LiftingConfig = LiftingConfig()) -> LiftedInstances:
    """Join segments of different photos that show the same thing; each point goes to the thing with most photos' votes.

    Two segments are joined by `LiftingConfig.overlap` and `.cosine`, and with them all that either is joined with. What
    one photo alone shows stays a thing of its own. The order of photos decides nothing but ties: of equal votes those
    for the first segment's thing win.
    """
    members = sightings.members
    members = members.multiply((members.sum(axis=1) >= config.min_points)[:, None]).tocsr()
    members.eliminate_zeros()
    count, thing = _things(sightings, members, config)
    ones = np.ones(len(thing), np.float32)
    of_thing = sparse.csr_array((ones, (thing, np.arange(len(thing)))), shape=(count, len(thing)))
    winner = _most_votes((of_thing @ members).tocoo())
    kept = np.bincount(winner[winner >= 0], minlength=count) >= config.min_points
    ids = np.append(np.where(kept, np.cumsum(kept), 0), 0)[winner]  # the last is that of no thing
    weighted = members.sum(axis=1)[:, None] * sightings.embeds
    return LiftedInstances(ids, _unit(np.asarray(of_thing @ weighted))[kept])


def _things(sightings: Sightings, members: Any, config: LiftingConfig) -> tuple[int, Int[np.ndarray, " s"]]:
    """How many things there are, and of each segment the number of the one that it shows."""
    if not len(sightings.embeds):
        return 0, np.zeros(0, np.int64)
    shown = sparse.csr_array((sightings.segment != HIDDEN).astype(np.float32))
    in_photo = (members @ shown.T).toarray()  # points of a segment that a photo shows
    shared = (members @ members.T).tocoo()
    a, b = shared.coords
    union = in_photo[a, sightings.photo[b]] + in_photo[b, sightings.photo[a]] - shared.data
    close = (sightings.embeds[a] * sightings.embeds[b]).sum(1) >= config.cosine
    same = close & (shared.data > config.overlap * union)
    graph = sparse.csr_array((np.ones(same.sum()), (a[same], b[same])), shape=shared.shape)
    return sparse.csgraph.connected_components(graph, directed=False)


def _most_votes(votes: Any) -> Int[np.ndarray, " n"]:
    """Of each point, a column, the row with the most votes, of equals the lowest; -1 = none."""
    row, point = votes.coords
    order = np.lexsort((row, -votes.data, point))
    winner = np.full(votes.shape[1], -1)
    winner[point[order[::-1]]] = row[order[::-1]]  # the last that is written is the first in order
    return winner


def _at(image: np.ndarray, xyz: Float[np.ndarray, "n 3"], camera: Camera) -> np.ndarray:
    """Of each point, which must be in view, the value of the pixel that it falls on."""
    height, width = image.shape
    pixels, _ = project(xyz, camera)
    column, row = (pixels * (width / camera.width, height / camera.height)).astype(np.int64).T
    return image[np.minimum(row, height - 1), np.minimum(column, width - 1)]


def _unit(rows: Float[np.ndarray, "n f"]) -> Float32[np.ndarray, "n f"]:
    """Rows of length 1; those of length 0 stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
