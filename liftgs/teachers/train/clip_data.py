"""Training data of the small CLIP: crops of objects in procedural rooms, and the rooms' referring expressions.

Rooms are rendered in blocks, each a file of its own, so that a killed run goes on where it was. Knows no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from liftgs import labels
from liftgs.procedural import ProceduralScene
from liftgs.procedural.kinds import KINDS, STRUCTURE_KINDS
from liftgs.scene import Expression, Frame
from liftgs.teachers import crops

#: what a crop can be of; structure last
ALL_KINDS: tuple[str, ...] = (*KINDS, *STRUCTURE_KINDS)
CORPORA = ("apartments", "offices", "warehouses")
#: how much of its surroundings a stored crop has on every side, as a fraction of the box, for augmentation
MARGIN = 0.15


@dataclass(frozen=True)
class RoomsConfig:
    """Which rooms to render, and how.

    Attributes:
        rooms: how many, over all three corpora in turn.
        views: photos of each.
        seed: of the rooms; below 1,000,000, from where on seeds are held out.
        image_px: width and height of the photos.
        min_area_px: visible pixels that an object needs at 512x512; a little fewer than a segment will have.
        crop_px: side of the stored crops.
        rooms_per_block: rooms per file.
    """

    rooms: int = 2400
    views: int = 2
    seed: int = 500_000
    image_px: int = 512
    min_area_px: int = 800
    crop_px: int = 84
    rooms_per_block: int = 50

    @property
    def blocks(self) -> int:
        """How many files that makes."""
        return -(-self.rooms // self.rooms_per_block)


@dataclass(frozen=True)
class Named:
    """A mention of an expression, by what is known of its object.

    Attributes:
        instance: id in its room.
        kind: class name.
        colour: colour name.
        chars: half-open span of the noun phrase in the text.
    """

    instance: int
    kind: str
    colour: str
    chars: tuple[int, int]


@dataclass(frozen=True)
class RoomExpression:
    """A referring expression and what it speaks of.

    Attributes:
        room: number of the room.
        text: the expression.
        relation: "" when class, colour or size alone suffice.
        mentions: the target first, then the anchors; groups of instances are left out.
    """

    room: int
    text: str
    relation: str
    mentions: tuple[Named, ...]


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops with a margin, resampled to squares, and what they show.

    Attributes:
        images: RGB.
        inner: box of the object within the crop, (x0, y0, x1, y1) in 0..1.
        aspect: width / height of the crop before it was made square.
        kinds: name.
        colours: name.
        materials: name.
        rooms: number of the room.
        instances: id in the room.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    inner: Float32[np.ndarray, "n 4"]
    aspect: Float32[np.ndarray, " n"]
    kinds: np.ndarray
    colours: np.ndarray
    materials: np.ndarray
    rooms: Int64[np.ndarray, " n"]
    instances: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.kinds)


def room_scene(config: RoomsConfig, room: int) -> ProceduralScene:
    """The scene of a room by its number; the corpora take turns."""
    kind = CORPORA[room % len(CORPORA)]
    return ProceduralScene(
        kind, room // len(CORPORA), config.seed, config.views, width=config.image_px, height=config.image_px
    )


def rooms_of(config: RoomsConfig, block: int) -> range:
    """The rooms of a block."""
    first = block * config.rooms_per_block
    return range(first, min(first + config.rooms_per_block, config.rooms))


def render_block(config: RoomsConfig, block: int) -> Crops:
    """Render the rooms of one block and cut their objects out. Depends on nothing but its arguments."""
    rows: dict[str, list[Any]] = {name: [] for name in Crops.__dataclass_fields__}
    for room in rooms_of(config, block):
        scene = room_scene(config, room)
        objects = {item.id: item for item in scene.room.objects}
        for frame_id in scene.frame_ids():
            for instance, image, inner, aspect in _cut(scene.load(frame_id), config):
                item = objects[instance]
                values = (
                    image,
                    inner,
                    aspect,
                    item.kind,
                    item.colour,
                    item.material,
                    room,
                    instance,
                )
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
    return Crops(**{name: np.array(values) for name, values in rows.items()})


def refer_block(config: RoomsConfig, block: int) -> list[RoomExpression]:
    """The referring expressions of a block's rooms."""
    expressions = []
    for room in rooms_of(config, block):
        scene = room_scene(config, room)
        objects = {item.id: item for item in scene.room.objects}
        expressions += [_named(room, expression, objects) for expression in scene.labels().expressions]
    return expressions


def _cut(frame: Frame, config: RoomsConfig) -> list[tuple[int, np.ndarray, np.ndarray, float]]:
    """(instance, crop, box within it, aspect) of every object that is visible enough."""
    assert frame.instances is not None
    areas = np.bincount(frame.instances.ravel())
    least = config.min_area_px * (config.image_px / 512) ** 2
    keep = np.flatnonzero(areas >= least)
    keep = keep[keep > 0]
    semantics, _ = labels.renumber(np.where(np.isin(frame.instances, keep), frame.instances, np.uint16(0)))
    boxes = labels.segment_boxes(semantics)
    grown = crops.grow_boxes(boxes, semantics.shape, expand=MARGIN)
    side = (config.crop_px, config.crop_px)
    found = []
    for instance, box, (x0, y0, x1, y1) in zip(keep, boxes, grown, strict=True):
        image = crops.resize_crop(frame.rgb[y0:y1, x0:x1], side).permute(1, 2, 0).numpy()
        inner = (box - (x0, y0, x0, y0)) / (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
        found.append((int(instance), image, inner.astype(np.float32), (x1 - x0) / (y1 - y0)))
    return found


def _named(room: int, expression: Expression, objects: dict[int, Any]) -> RoomExpression:
    mentions = [m for m in (expression.target, *expression.anchors) if len(m.instances) == 1]
    named = tuple(
        Named(m.instances[0], objects[m.instances[0]].kind, objects[m.instances[0]].colour, m.chars) for m in mentions
    )
    return RoomExpression(room, expression.text, expression.relation, named)


def write_block(config: RoomsConfig, block: int, folder: Path) -> None:
    """Render a block to `folder`, unless it is there."""
    crops_path, texts_path = _paths(folder, block)
    if not crops_path.exists():
        found = render_block(config, block)
        with _whole_file(crops_path) as partial, partial.open("wb") as file:
            np.savez(file, **{name: getattr(found, name) for name in Crops.__dataclass_fields__})
    if not texts_path.exists():
        rows = [asdict(expression) for expression in refer_block(config, block)]
        with _whole_file(texts_path) as partial:
            partial.write_text(json.dumps(rows))


def _paths(folder: Path, block: int) -> tuple[Path, Path]:
    return folder / f"crops_{block:04d}.npz", folder / f"expressions_{block:04d}.json"


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is written appears at `path` as a whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    yield partial
    os.replace(partial, path)


def prepare(config: RoomsConfig, folder: Path, progress: Callable[[str], None]) -> None:
    """Render all blocks that `folder` does not hold. Several processes may share the work by calling `write_block`.

    Raises:
        ValueError: `folder` holds blocks of another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described, wanted = folder / "rooms.json", json.dumps(asdict(config))
    if described.exists() and described.read_text() != wanted:
        raise ValueError(
            f"{folder} holds rooms of another config, {described.read_text()}; remove it or choose another"
        )
    described.write_text(wanted)
    for block in range(config.blocks):
        write_block(config, block, folder)
        progress(f"rooms {rooms_of(config, block).stop}/{config.rooms} rendered")


def load_blocks(folder: Path, blocks: Sequence[int]) -> tuple[Crops, list[RoomExpression]]:
    """Read blocks that `write_block` wrote."""
    parts: list[dict[str, np.ndarray]] = []
    expressions: list[RoomExpression] = []
    for block in blocks:
        crops_path, texts_path = _paths(folder, block)
        with np.load(crops_path, allow_pickle=False) as data:
            parts.append({name: data[name] for name in Crops.__dataclass_fields__})
        for row in json.loads(texts_path.read_text()):
            mentions = tuple(Named(**{**m, "chars": tuple(m["chars"])}) for m in row.pop("mentions"))
            expressions.append(RoomExpression(**row, mentions=mentions))
    return Crops(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}), expressions
