"""Where the camera walks: a hand-held tour through the free space of a room that looks at its furniture."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.ndimage import distance_transform_edt, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from liftgs.procedural.raycast import PartTable, cast
from liftgs.procedural.room import Room
from liftgs.scene import Camera

#: Free distance that the camera keeps from furniture and walls, metres.
CLEARANCE_M = 0.35
_CELL_M = 0.08
_CANDIDATES = 10  # directions to try at a stop before settling for the least bad
_PROBE_PX = 20  # size of the renderings that tell whether a view is blocked
_STOPS = 6  # the tour has a planned view at each stop; with six views, these are the views


@dataclass(frozen=True, eq=False)
class Ground:
    """A connected region of floor: the centres of its cells, metres."""

    cells: Float64[np.ndarray, "n 2"]
    cell_m: float

    def walk(self, stops: Float64[np.ndarray, "s 2"]) -> list[Float64[np.ndarray, "m 2"]]:
        """Shortest ways from each stop to the next inside the region, smoothed; they begin and end at the stops."""
        near = cKDTree(self.cells).query_pairs(1.5 * self.cell_m, output_type="ndarray")
        length = np.sqrt(((self.cells[near[:, 0]] - self.cells[near[:, 1]]) ** 2).sum(1))
        n = len(self.cells)
        graph = coo_matrix((length, (near[:, 0], near[:, 1])), shape=(n, n))
        at = ((self.cells[None] - stops[:, None]) ** 2).sum(2).argmin(1)
        _, previous = dijkstra(graph.tocsr(), directed=False, indices=at[:-1], return_predecessors=True)
        return [_smooth(self.cells[_trace(previous[i], at[i], at[i + 1])]) for i in range(len(stops) - 1)]


def _trace(previous: np.ndarray, start: int, end: int) -> list[int]:
    way = [int(end)]
    while way[-1] != start:
        way.append(int(previous[way[-1]]))
    return way[::-1]


def _smooth(way: Float64[np.ndarray, "m 2"]) -> Float64[np.ndarray, "m 2"]:
    """Round the corners of a way by a few centimetres; its ends stay."""
    way = way.copy()
    for _ in range(6):
        way[1:-1] = 0.25 * way[:-2] + 0.5 * way[1:-1] + 0.25 * way[2:]
    return way


@dataclass(frozen=True, eq=False)
class FreeSpace:
    """Where a person with a camera can be: a grid of cells of `cell_m`, and each cell's distance to an obstacle."""

    cell_m: float
    distance_m: Float64[np.ndarray, "x y"]

    def ground(self, clearance_m: float) -> Ground:
        """The largest connected region that keeps this distance."""
        regions, count = label(self.distance_m >= clearance_m)
        if count == 0:
            return Ground(np.empty((0, 2)), self.cell_m)
        largest = 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
        return Ground((np.argwhere(regions == largest) + 0.5) * self.cell_m, self.cell_m)


def free_space(room: Room, low_m: float, high_m: float) -> FreeSpace:
    """Free floor: nothing between the heights `low_m` and `high_m` stands there."""
    shape = [int(np.ceil(extent / _CELL_M)) for extent in room.size[:2]]
    free = np.ones(shape, bool)
    for thing in room.objects:
        if thing.is_structure:
            continue
        for part in thing.parts:
            low, high = part.bounds()
            if high[2] < low_m or low[2] > high_m:
                continue
            x0, y0 = np.maximum(np.floor(low[:2] / _CELL_M).astype(int), 0)
            x1, y1 = np.ceil(high[:2] / _CELL_M).astype(int)
            free[x0:x1, y0:y1] = False
    padded = np.pad(free, 1)  # walls
    return FreeSpace(_CELL_M, distance_transform_edt(padded)[1:-1, 1:-1] * _CELL_M)


@dataclass(frozen=True, eq=False)
class _Tour:
    """A way on the floor per leg between stops, and the eye's height, yaw and pitch (radians) at each stop."""

    legs: list[Float64[np.ndarray, "m 2"]]
    heights: Float64[np.ndarray, " s"]
    yaws: Float64[np.ndarray, " s"]
    pitches: Float64[np.ndarray, " s"]

    def pose(self, s: float, wobble: Float64[np.ndarray, " 6"]) -> Float64[np.ndarray, "4 4"]:
        """The camera's pose at the fraction `s` of the tour."""
        knots = np.linspace(0, 1, len(self.heights))
        yaw, pitch = CubicSpline(knots, self.yaws)(s), PchipInterpolator(knots, self.pitches)(s)
        # A hand: slow swaying of a few degrees and centimetres, in incommensurate rhythms.
        sway = np.sin(2 * np.pi * np.array([3.1, 4.3, 5.7, 2.3, 3.7, 4.9]) * s + wobble)
        roll = np.radians(1.8) * sway[0] + np.radians(0.8) * sway[1]
        pitch = pitch + np.radians(1.0) * sway[2]
        yaw = yaw + np.radians(1.2) * sway[3]
        height = PchipInterpolator(knots, self.heights)(s) + 0.03 * sway[4]
        return _look(np.append(self._floor_point(s), height), float(yaw), float(pitch), float(roll))

    def _floor_point(self, s: float) -> Float64[np.ndarray, " 2"]:
        """Where one stands: every leg takes equally long, at an even pace."""
        leg = min(int(s * len(self.legs) + 1e-9), len(self.legs) - 1)
        way = self.legs[leg]
        travelled = np.append(0.0, np.cumsum(np.sqrt((np.diff(way, axis=0) ** 2).sum(1))))
        here = np.clip(s * len(self.legs) - leg, 0, 1) * travelled[-1]
        return np.array([np.interp(here, travelled, way[:, 0]), np.interp(here, travelled, way[:, 1])])


def cameras(room: Room, views: int, width: int, height: int) -> list[Camera]:
    """Cameras along the tour: a pure function of the room's name and these arguments.

    Args:
        room: what to look at.
        views: how many, evenly spaced along the tour; more views make it denser, not longer.
        width: of the image, pixels.
        height: of the image, pixels.
    """
    rng = np.random.default_rng([room.seed, zlib.crc32(room.kind.encode()), room.index, 1])
    fov = np.radians(rng.uniform(70, 75))
    focal = width / 2 / np.tan(fov / 2)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    tour = _plan(room, float(fov), rng)
    wobble = rng.uniform(0, 2 * np.pi, 6)
    poses = []
    for s in np.linspace(0, 1, views) if views > 1 else [0.5]:
        poses.append(tour.pose(float(s), wobble))
    return [Camera(K, pose, width, height) for pose in poses]


def _look(eye: np.ndarray, yaw: float, pitch: float, roll: float) -> Float64[np.ndarray, "4 4"]:
    """Pose of a camera at `eye`; yaw from the x axis, pitch upwards, roll about the view, radians."""
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = -np.sin(roll) * right + np.cos(roll) * down
    pose[:3, 2] = forward
    pose[:3, 3] = eye
    return pose


def _plan(room: Room, fov: float, rng: np.random.Generator) -> _Tour:
    eye_height = float(rng.uniform(1.42, 1.6))
    ground = _ground(room, eye_height)
    stops = _stops(ground.cells, rng)
    targets = _targets(room)
    table = PartTable.of([p for o in room.objects for p in o.parts])
    # Walls and floor may fill a view: they count as nobody's.
    owner = np.array([0 if o.is_structure else o.id for o in room.objects for _ in o.parts] + [0])
    yaws, pitches = [], []
    seen = np.zeros(len(targets[0]))
    for stop in stops:
        eye = np.append(stop, eye_height)
        best = np.inf
        for candidate in _views(eye, targets, seen, fov, rng)[:_CANDIDATES]:
            blocked = _blocked(table, owner, eye, *candidate[:2], fov)
            if blocked < best:
                best, (yaw, pitch, gain) = blocked, candidate
            if blocked < 1:
                break
        yaws.append(yaw)
        pitches.append(pitch)
        seen = seen + gain
    heights = eye_height + rng.uniform(-0.04, 0.04, len(stops))
    return _Tour(ground.walk(stops), heights, np.unwrap(yaws), np.asarray(pitches))


def _ground(room: Room, eye_height: float) -> Ground:
    """Free floor if there is enough of it; else also what is above lower and lower furniture: one leans over it."""
    best = Ground(np.empty((0, 2)), _CELL_M)
    for low in (0.1, 0.6, 1.0, eye_height - 0.25):
        space = free_space(room, low, eye_height + 0.3)
        for clearance in (CLEARANCE_M + 0.15, CLEARANCE_M):
            found = space.ground(clearance)
            if len(found.cells) > len(best.cells):
                best = found
            if len(best.cells) * _CELL_M**2 > 0.16 * room.size[0] * room.size[1]:
                return best
    return best if len(best.cells) else space.ground(float(space.distance_m.max()))


def _stops(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stops spread over the free cells (farthest points), in order round their middle."""
    chosen = [cells[int(rng.integers(len(cells)))]]
    for _ in range(_STOPS - 1):
        distance = np.min([((cells - c) ** 2).sum(1) for c in chosen], 0)
        chosen.append(cells[int(np.argmax(distance))])
    stops = np.array(chosen)
    middle = stops.mean(0)
    angle = np.arctan2(*(stops - middle).T[::-1])
    order = np.argsort(angle)
    return np.roll(stops[order], int(rng.integers(_STOPS)), axis=0)


def _targets(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Centre and radius of everything worth looking at."""
    things = [o for o in room.objects if not o.is_structure and o.kind != "ceiling lamp"]
    centre = np.array([o.centre for o in things])
    size = np.array([np.subtract(o.box_max, o.box_min) for o in things])
    return centre, np.sqrt((size**2).sum(1)) / 2


def _views(
    eye: np.ndarray, targets: tuple[np.ndarray, np.ndarray], seen: np.ndarray, fov: float, rng: np.random.Generator
) -> list[tuple[float, float, np.ndarray]]:
    """Directions (yaw, pitch, how well each target is shown), those first that show most of what was not seen well."""
    centre, radius = targets
    offset = centre - eye
    distance = np.linalg.norm(offset, axis=1)
    # How large a thing looks, saturating at a quarter of the image.
    looks = np.clip(2 * radius / np.maximum(distance, 0.3) / fov, 0, 0.8)
    worth = np.minimum(looks / 0.25, 1.0) * np.where((looks > 0.6) & (distance - radius < 0.6), -2.0, 1.0)
    ranked = []
    for yaw in np.arange(0, 2 * np.pi, np.pi / 12) + rng.uniform(0, np.pi / 12):
        for pitch in np.radians((-32.0, -20.0, -9.0)) + rng.uniform(-0.05, 0.05):
            forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
            cosine = np.clip((offset * forward).sum(1) / np.maximum(distance, 1e-6), -1, 1)
            inside = np.clip((fov / 2 - np.arccos(cosine)) / 0.2 + 0.5, 0, 1)
            gain = inside * worth
            ranked.append((float((gain / (1 + 2.5 * seen)).sum()), float(yaw), float(pitch), gain))
    ranked.sort(key=lambda view: -view[0])
    return [view[1:] for view in ranked]


def _blocked(table: PartTable, owner: np.ndarray, eye: np.ndarray, yaw: float, pitch: float, fov: float) -> float:
    """How bad a view is: over 1 when a tenth of it is nearer than 0.7 m, or one object fills half of it."""
    focal = _PROBE_PX / 2 / np.tan(fov / 2)
    K = np.array([[focal, 0, _PROBE_PX / 2], [0, focal, _PROBE_PX / 2], [0, 0, 1]])
    hits = cast(table, Camera(K, _look(eye, yaw, pitch, 0.0), _PROBE_PX, _PROBE_PX))
    near = (hits.depth < 0.7).mean()
    ids = owner[hits.part]
    fills = np.bincount(ids[ids > 0], minlength=1).max() / ids.size
    return float(max(near / 0.1, fills / 0.5))
