"""Procedural rooms as scenes, and the `procedural:` URIs that name them."""

from __future__ import annotations

import difflib
import re
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from urllib.parse import parse_qsl, urlencode

import numpy as np

from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.lighting import LightVolume, bake
from liftgs.procedural.path import cameras
from liftgs.procedural.raycast import PartTable, cast
from liftgs.procedural.room import Object, Part, Room
from liftgs.procedural.shading import Sensor, shade
from liftgs.scene import BadInput, Camera, Frame, Instance, Scene, SceneLabels

SCHEME = "procedural:"

#: An object is visible, and may be talked about, when this many pixels of a 512 x 512 view see it.
_VISIBLE_PX = 256
_PROBE_SIZE = 128


@dataclass(frozen=True)
class SourceOptions:
    """What a `procedural:` URI may say after the question mark.

    Attributes:
        scenes: rooms in the corpus.
        views: frames per room.
        seed: of the corpus.
        width: of a frame, pixels.
        height: of a frame, pixels.
        depth_noise_mm: standard deviation of the depth up to 1 m; grows with the square of the distance beyond, to at
            most 30 mm. 0 gives exact depth.
    """

    scenes: int = 24
    views: int = 6
    seed: int = 0
    width: int = 512
    height: int = 512
    depth_noise_mm: float = 1.0

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.views < 1 or self.seed < 0 or min(self.width, self.height) < 16:
            raise ValueError("needs scenes >= 1, views >= 1, seed >= 0, width and height >= 16")
        if not 0 <= self.depth_noise_mm < float("inf"):
            raise ValueError(f"depth_noise_mm must be finite and not negative, not {self.depth_noise_mm}")


class ProceduralScene(Scene):
    """One room, rendered on demand: every frame is a pure function of the constructor's arguments and its id."""

    gravity = "z-up"

    def __init__(
        self,
        kind: str,
        index: int,
        seed: int = 0,
        views: int = 6,
        width: int = 512,
        height: int = 512,
        depth_noise_mm: float = 1.0,
    ):
        """Name a room; nothing is built before it is asked for.

        Raises:
            BadInput: there is no such corpus, or a number is out of range.
        """
        self.name = f"{kind}-{index:06d}"
        try:
            options = SourceOptions(index + 1, views, seed, width, height, depth_noise_mm)
        except ValueError as error:
            raise BadInput(f"{SCHEME}{kind}/{index:06d}", str(error)) from None
        self.uri = f"{SCHEME}{kind}/{index:06d}{_query(options, skip=('scenes',))}"
        _check_corpus(self.uri, kind)
        self.kind = kind
        self.index = index
        self.options = options

    @cached_property
    def room(self) -> Room:
        """The room itself, with all there is to know about it."""
        return build_room(self.kind, self.index, self.options.seed)

    @cached_property
    def cameras(self) -> list[Camera]:
        """The camera of every frame."""
        return cameras(self.room, self.options.views, self.options.width, self.options.height)

    def frame_ids(self) -> list[str]:
        """`000000` and on."""
        return [f"{i:06d}" for i in range(self.options.views)]

    def load(self, frame_id: str) -> Frame:
        """Render one frame.

        Raises:
            BadInput: there is no such frame.
        """
        if frame_id not in self.frame_ids():
            raise BadInput(self.frame_uri(frame_id), f"no such frame; the scene has {self.options.views}")
        number = int(frame_id)
        camera = self.cameras[number]
        parts, table, owner = self._parts
        hits = cast(table, camera)
        rng = np.random.default_rng([self.options.seed, zlib.crc32(self.kind.encode()), self.index, 2, number])
        sensor = Sensor(exposure=float(rng.uniform(0.92, 1.08)), noise=float(rng.uniform(1.2, 2.6)))
        rgb = shade(self.room, parts, table, self._light, camera, hits, sensor, rng)
        depth = np.where(np.isfinite(hits.depth), hits.depth, 0).astype(np.float32)
        if self.options.depth_noise_mm > 0:
            sigma = np.float32(self.options.depth_noise_mm / 1000) * np.maximum(1, depth) ** 2 * (depth > 0)
            depth += np.minimum(sigma, np.float32(0.03)) * rng.standard_normal(depth.shape, dtype=np.float32)
        return Frame(frame_id, self.frame_uri(frame_id), camera, rgb, depth, instances=owner[hits.part])

    def labels(self) -> SceneLabels:
        """All objects of the room, its walls, floor and ceiling included, and expressions about those that are seen."""
        return self._labels

    @cached_property
    def _labels(self) -> SceneLabels:
        from liftgs.procedural.expressions import refer  # noqa: PLC0415  (imports this package's room module)

        expressions = refer(self.room, self._visible(), self.options.seed)
        return SceneLabels(tuple(_instance(o) for o in self.room.objects), expressions)

    def _visible(self) -> frozenset[int]:
        """Ids of the objects that some view shows well, found on small renderings."""
        _, table, owner = self._parts
        threshold = _VISIBLE_PX * (_PROBE_SIZE / 512) ** 2
        best: dict[int, int] = {}
        for camera in self.cameras:
            small = camera.resized(_PROBE_SIZE, max(16, round(_PROBE_SIZE * camera.height / camera.width)))
            ids, counts = np.unique(owner[cast(table, small).part], return_counts=True)
            for i, count in zip(ids.tolist(), counts.tolist(), strict=True):
                best[i] = max(best.get(i, 0), count)
        return frozenset(i for i, count in best.items() if i > 0 and count >= threshold)

    @cached_property
    def _parts(self) -> tuple[list[Part], PartTable, np.ndarray]:
        """All parts, as a table too, and the id of the object that each belongs to (one more entry, 0, for no part)."""
        parts = [p for o in self.room.objects for p in o.parts]
        owner = [o.id for o in self.room.objects for _ in o.parts]
        return parts, PartTable.of(parts), np.array([*owner, 0], np.uint16)

    @cached_property
    def _light(self) -> LightVolume:
        return bake(self.room)


def _instance(thing: Object) -> Instance:
    return Instance(thing.id, thing.kind, thing.colour, thing.material, thing.box_min, thing.box_max)


def list_scenes(source_uri: str) -> list[str]:
    """URIs of the rooms of a `procedural:` source, in order; a room's own URI gives itself.

    Raises:
        BadInput: not such a URI.
    """
    kind, index, options = _parse(source_uri)
    if index is not None:
        return [source_uri]
    query = _query(options, skip=("scenes",))
    return [f"{SCHEME}{kind}/{i:06d}{query}" for i in range(options.scenes)]


def open_scene(uri: str) -> ProceduralScene:
    """The room that a URI like `procedural:apartments/000003?views=6&seed=0` names.

    Raises:
        BadInput: not such a URI, or it names a whole corpus.
    """
    kind, index, options = _parse(uri)
    if index is None:
        raise BadInput(uri, f"names a corpus; one of its scenes is '{SCHEME}{kind}/000000'")
    return ProceduralScene(
        kind, index, options.seed, options.views, options.width, options.height, options.depth_noise_mm
    )


def _query(options: SourceOptions, skip: tuple[str, ...] = ()) -> str:
    """What differs from the defaults, as a query string."""
    default = SourceOptions()
    said = {
        f.name: getattr(options, f.name)
        for f in fields(options)
        if f.name not in skip and getattr(options, f.name) != getattr(default, f.name)
    }
    return "?" + urlencode(said) if said else ""


def _parse(uri: str) -> tuple[str, int | None, SourceOptions]:
    match = re.fullmatch(re.escape(SCHEME) + r"(?P<kind>[a-z]+)(?:/(?P<index>\d+))?(?:\?(?P<query>.*))?", uri)
    if match is None:
        raise BadInput(uri, f"is not like '{SCHEME}apartments?scenes=24&views=6' or '{SCHEME}apartments/000003'")
    _check_corpus(uri, match["kind"])
    types: dict[str, type] = {f.name: float if f.name == "depth_noise_mm" else int for f in fields(SourceOptions)}
    values: dict[str, float] = {}
    for name, text in parse_qsl(match["query"] or "", keep_blank_values=True):
        if name not in types:
            raise BadInput(uri, f"unknown option '{name}'; there are {', '.join(types)}")
        try:
            values[name] = types[name](text)
        except ValueError:
            raise BadInput(uri, f"option {name}={text} is not a number") from None
    if match["index"] is not None and "scenes" in values:
        raise BadInput(uri, "names one room, so `scenes` means nothing; leave it out")
    try:
        options = SourceOptions(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise BadInput(uri, str(error)) from None
    return match["kind"], None if match["index"] is None else int(match["index"]), options


def _check_corpus(uri: str, kind: str) -> None:
    if kind not in CORPORA:
        near = difflib.get_close_matches(kind, CORPORA, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(CORPORA)}"
        raise BadInput(uri, f"there is no procedural corpus '{kind}'; {hint}")
