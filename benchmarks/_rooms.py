"""Labelled rooms to measure storage with, without any teacher: exact segments, captions from the room's own table."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float16

from liftgs import labels, sample
from liftgs.chunks import load_chunk, plan_chunks
from liftgs.labels import SegmentMap
from liftgs.procedural import open_scene
from liftgs.sample import Members
from liftgs.scene import Frame, Instance, LoadedChunk

#: The paper's least mask area at 512x512 (appendix A.1).
MIN_AREA_PX = 1024


def load_room(index: int) -> LoadedChunk:
    """An apartment, six frames of 512x512."""
    scene = open_scene(f"procedural:apartments/{index:06d}")
    return load_chunk(scene, plan_chunks(scene)[0])


def segment_map(room: LoadedChunk, frame: Frame, width: int) -> SegmentMap:
    """The frame's objects of at least `MIN_AREA_PX` pixels, each with a random unit row of `width` and its own name."""
    assert frame.instances is not None
    assert room.labels is not None
    areas = np.bincount(frame.instances.ravel())
    large = areas >= MIN_AREA_PX
    large[0] = False
    semantics, rows = labels.renumber(np.where(large[frame.instances], frame.instances, 0).astype(np.uint16))
    names = {thing.id: _caption(thing) for thing in room.labels.instances}
    captions = tuple(names.get(int(row) + 1, "an object") for row in rows)
    return SegmentMap(semantics, random_units(len(rows), width, seed=[int(frame.id), room.chunk.index]), captions)


def _caption(thing: Instance) -> str:
    return f"a {thing.colour} {thing.kind}"


def random_units(rows: int, width: int, seed: list[int]) -> Float16[np.ndarray, "rows width"]:
    """Unit rows: what a CLIP's embeddings are to storage."""
    values = np.random.default_rng(seed).standard_normal((rows, width))
    unit: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit.astype(np.float16)


def members(room: LoadedChunk, width: int) -> Members:
    """All members of the room's sample."""
    return sample.encode_chunk(room, {}, [segment_map(room, frame, width) for frame in room.frames])
