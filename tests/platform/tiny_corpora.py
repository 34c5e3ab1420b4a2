"""Small corpora for tests: real samples of a few kB, made without teachers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from liftgs.labels import SegmentMap
from liftgs.sample import Members, encode_chunk
from liftgs.scene import Camera, Chunk, Frame, LoadedChunk, PointCloud
from liftgs_platform import manifest, shards
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow, group_chunks, write_plan

SPEC = {"source": "scans", "photo_long_side_px": 16}
HEIGHT, WIDTH, POINTS, SEGMENTS, DIM = 12, 16, 20, 3, 4


def chunks(scenes: int = 2, per_scene: int = 3, views: int = 2, retry: int = 0) -> list[Chunk]:
    """`per_scene` chunks of each of `scenes` scenes."""
    return [
        Chunk(f"scans/room{scene}", f"room{scene}", index, frames, frames, retry)
        for scene in range(scenes)
        for index in range(per_scene)
        for frames in [tuple(f"frame-{index * views + view:04d}" for view in range(views))]
    ]


def plan(wanted: Iterable[Chunk] | None = None, chunks_per_shard: int = 2, **fields: Any) -> Plan:
    """A plan for these chunks; by default 6 chunks in 3 shards."""
    grouped = group_chunks(list(chunks() if wanted is None else wanted), chunks_per_shard, fields.pop("first", 0))
    return Plan(**({"spec": SPEC, "spec_hash": "0123456789abcdef", "shards": grouped, "provenance": {}} | fields))


def sample(chunk: Chunk, views: Iterable[str] | None = None, noise: int = 0) -> Members:
    """Members of a chunk, whole and decodable. `noise` makes them differ in a bit or two, as a GPU may."""
    frames, segments = [], []
    for view in chunk.view_ids if views is None else views:
        rng = np.random.default_rng([chunk.index, len(chunk.scene), *view.encode(), noise])
        rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        camera = Camera(
            np.diag([WIDTH, WIDTH, 1.0]) + np.array([[0, 0, 8], [0, 0, 6], [0, 0, 0]]), np.eye(4), WIDTH, HEIGHT
        )
        depth = rng.uniform(1, 3, (HEIGHT, WIDTH)).astype(np.float32)
        frames.append(Frame(view, f"{chunk.scene_uri}/{view}.jpg", camera, rgb, depth))
        semantics = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % (SEGMENTS + 1)).astype(np.uint16)
        embeds = np.eye(SEGMENTS, DIM, dtype=np.float16)
        segments.append(SegmentMap(semantics, embeds, tuple(f"thing {i}" for i in range(SEGMENTS))))
    rng = np.random.default_rng([chunk.index, len(chunk.scene)])
    cloud = PointCloud(rng.normal(size=(POINTS, 3)).astype(np.float32), rng.integers(0, 256, (POINTS, 3), np.uint8))
    return encode_chunk(LoadedChunk(chunk, cloud, frames, "z-up"), {}, segments)


def row(chunk: Chunk, frame: str | None, stage: str = "load") -> QuarantineRow:
    """A quarantine row for a frame of a chunk, or for all of it."""
    return QuarantineRow(
        uri=chunk.scene_uri,
        scene=chunk.scene,
        chunk=chunk.index,
        frame=frame,
        stage=stage,
        error="truncated",
        traceback="",
        attempt=chunk.retry,
    )


def commit(corpus: str, of: Plan, shard: PlannedShard, lost: Iterable[QuarantineRow] = ()) -> shards.ShardIndex:
    """Commit a shard with all that is not lost."""
    rows = list(lost)
    stored = shards.stored_views(shard, rows)
    samples = {chunk.key: sample(chunk, stored[chunk.key]) for chunk in shard.chunks if chunk.key in stored}
    return shards.commit(corpus, of.sha256, shard, samples, rows)


def write(corpus: str, of: Plan, lost: Iterable[QuarantineRow] = ()) -> manifest.Companions:
    """Plan, commit everything, finish."""
    rows = list(lost)
    write_plan(corpus, of)
    for shard in of.shards:
        places = {(chunk.scene, chunk.index) for chunk in shard.chunks}
        commit(corpus, of, shard, [r for r in rows if (r["scene"], r["chunk"]) in places])
    return manifest.write(corpus)
