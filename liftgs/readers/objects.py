"""Objects as ScanNet and ScanNet++ annotate them: groups of the segments that a mesh's vertices are cut into.

One JSON file gives each vertex its segment ("segIndices"), another lists the objects ("segGroups"), each with an
`objectId`, a free-text `label` and the ids of its segments. An object's instance id is its objectId + 1, since 0 means
no object. Groups of one objectId are one object. Where objects overlap, a vertex belongs to the smaller, as in
ScanNet++'s own tools, and to the first of equals: scene0217_00 lists all of its objects twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from liftgs.readers.files import Folder
from liftgs.scene import BadInput, Instance, PointCloud

_MAX_ID = np.iinfo(np.int32).max - 1


@dataclass
class _Group:
    id: int
    label: str
    segments: list[int] = field(default_factory=list)


def with_objects(
    cloud: PointCloud, folder: Folder, segments_path: str, groups_path: str, no_objects: Collection[str] = ()
) -> tuple[PointCloud, tuple[Instance, ...]]:
    """The mesh's vertices with the instance that each belongs to, and the instances.

    Args:
        cloud: all vertices in the file's order, already in the world frame of the scene.
        folder: of the scene.
        segments_path: the file with "segIndices".
        groups_path: the file with "segGroups".
        no_objects: labels, in lower case, of groups that are left out, since they mark something else.

    Returns:
        The cloud with `instances`, and the objects in the order of the file; those without a vertex are left out. An
        object's box is that of all its vertices, also those that a smaller object owns.

    Raises:
        BadInput: files that are not like that, or that do not fit the mesh.
    """
    segment_of_vertex = _segments(folder, segments_path, len(cloud))
    groups = [group for group in _groups(folder, groups_path) if group.label.strip().lower() not in no_objects]
    if not groups:
        return replace(cloud, instances=np.zeros(len(cloud), np.int32)), ()
    # Objects are sets of whole segments, of which there are far fewer than vertices; so all is worked out on segments.
    segments, row_of_vertex = np.unique(segment_of_vertex, return_inverse=True)
    counts, low, high = _extents(cloud.xyz, row_of_vertex, len(segments))
    rows_of = [np.flatnonzero(np.isin(segments, group.segments)) for group in groups]
    sizes = np.array([counts[rows].sum() for rows in rows_of])
    owner = np.zeros(len(segments), np.int32)
    for index in sorted(range(len(groups)), key=lambda i: (-sizes[i], -i)):  # the later take from the earlier
        owner[rows_of[index]] = groups[index].id + 1
    instances = tuple(
        Instance(group.id + 1, group.label, "", "", _corner(low[rows].min(0)), _corner(high[rows].max(0)))
        for group, rows in zip(groups, rows_of, strict=True)
        if len(rows)
    )
    return replace(cloud, instances=owner[row_of_vertex]), instances


def _segments(folder: Folder, path: str, vertices: int) -> Int64[np.ndarray, " n"]:
    uri = folder.uri_of(path)
    content = folder.json(path)
    found = _integers(content.get("segIndices") if isinstance(content, dict) else None)
    if found is None:
        raise BadInput(uri, 'has no list "segIndices" of whole numbers')
    if len(found) != vertices:
        raise BadInput(uri, f"gives {len(found)} vertices a segment, but the mesh has {vertices}")
    return found


def _groups(folder: Folder, path: str) -> list[_Group]:
    uri = folder.uri_of(path)
    content = folder.json(path)
    entries = content.get("segGroups") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BadInput(uri, 'has no list "segGroups"')
    groups: dict[int, _Group] = {}
    for number, entry in enumerate(entries):
        match entry:
            case {"objectId": int(id_), "label": str(label), "segments": list(segments)} if 0 <= id_ <= _MAX_ID:
                numbers = _integers(segments)
            case _:
                numbers = None
        if numbers is None:
            raise BadInput(uri, f"segGroups[{number}] is not an objectId, a label and a list of segments")
        groups.setdefault(id_, _Group(id_, label)).segments.extend(numbers.tolist())
    return list(groups.values())


def _integers(values: Any) -> Int64[np.ndarray, " n"] | None:
    """A JSON list of whole numbers, or None if it is something else."""
    if not isinstance(values, list):
        return None
    try:
        numbers = np.array(values or np.zeros(0, np.int64))
    except ValueError:  # lists of different lengths
        return None
    return numbers.astype(np.int64) if numbers.ndim == 1 and numbers.dtype.kind == "i" else None


def _extents(
    xyz: Float32[np.ndarray, "n 3"], row_of_vertex: Int64[np.ndarray, " n"], rows: int
) -> tuple[Int64[np.ndarray, " s"], Float32[np.ndarray, "s 3"], Float32[np.ndarray, "s 3"]]:
    """Of each segment (none is empty): number of vertices, lower and upper corner."""
    counts = np.bincount(row_of_vertex, minlength=rows)
    by_segment = xyz[np.argsort(row_of_vertex, kind="stable")]
    starts = np.cumsum(counts) - counts
    if not rows:
        return counts, xyz, xyz
    return counts, np.minimum.reduceat(by_segment, starts), np.maximum.reduceat(by_segment, starts)


def _corner(xyz: Float32[np.ndarray, " 3"]) -> tuple[float, float, float]:
    return float(xyz[0]), float(xyz[1]), float(xyz[2])
