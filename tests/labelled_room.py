"""A small labelled sample: a box on a floor before a wall, seen by two cameras, with exact segments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from liftgs.chunks import ChunkingConfig, load_chunk, plan_chunks
from liftgs.labels import SegmentMap, renumber
from liftgs.procedural import ProceduralScene
from liftgs.sample import Sample, decode_sample, encode_chunk


def room_sample(
    views: int = 2,
    size: int = 128,
    embed_dim: int = 16,
    labelled: bool = True,
    seed: int = 5,
    caption: Callable[[int], str] | None = None,
) -> Sample:
    """A procedural room, its segments those of the ground truth, an embedding of each instance's own.

    Captions, if any, are made of the instance's id.
    """
    scene = ProceduralScene("apartments", 0, seed=seed, views=views, width=size, height=size)
    loaded = load_chunk(scene, plan_chunks(scene, ChunkingConfig(frames_per_chunk=views))[0])
    segments = []
    for frame in loaded.frames:
        assert frame.instances is not None
        semantics, rows = renumber(frame.instances)
        ids = np.unique(frame.instances[frame.instances > 0])
        assert len(ids) == len(rows)
        embeds = np.stack([_unit(int(i), embed_dim) for i in ids]).astype(np.float16)
        captions = tuple(caption(int(i)) for i in ids) if caption else None
        segments.append(SegmentMap(semantics, embeds, captions))
    members = encode_chunk(loaded, {}, segments if labelled else None)
    return decode_sample(members, "memory://room")


def _unit(seed: int, dim: int) -> np.ndarray:
    row = np.random.default_rng(seed).standard_normal(dim)
    return row / np.linalg.norm(row)
