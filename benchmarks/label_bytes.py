"""Bytes that the labels of one photo take, against the dense feature map that they stand for.

Ours: `segments.png`, `embeds.npy` and `captions.json` as a corpus stores them. Peer: the H x W x F float16 map of the
same features, which is what "a feature per pixel" costs without Semantics and Index2Semantics (LIFT-GS, appendix A.1),
raw and through `np.savez_compressed`. All hold the same features without loss; ours holds the captions besides.

Photos are 512x512 frames of rooms with their exact objects of at least 1024 px for segments: real shapes. Embeddings
are random unit rows, which no compressor can make smaller, of the width of the small CLIP (128) and of the paper's
CLIP-L (768). Sizes are exact and the same on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from statistics import fmean

import numpy as np

from benchmarks import _rooms
from benchmarks.common import Row, cost_row, main
from liftgs import sample
from liftgs.labels import SegmentMap

ROOMS = 4
WIDTHS = {"small CLIP": 128, "CLIP-L": 768}


def measure() -> Iterator[Row]:
    """Two rows per width."""
    rooms = [_rooms.load_room(index) for index in range(ROOMS)]
    for name, width in WIDTHS.items():
        maps = [_rooms.segment_map(room, frame, width) for room in rooms for frame in room.frames]
        ours = fmean(map(stored_bytes, maps))
        segments = fmean(map(len, maps))
        case = f"labels of a 512x512 photo, {segments:.0f} segments, F={width} ({name})"
        dense = fmean(segment_map.semantics.size * width * 2 for segment_map in maps)
        yield cost_row(case, ours, dense, "dense float16 map", "bytes/frame")
        one = maps[0]
        packed = compressed_bytes(one)
        yield cost_row(
            f"one photo of {len(one)} segments, F={width}",
            stored_bytes(one),
            packed,
            "dense, savez_compressed",
            "bytes/frame",
        )


def stored_bytes(segment_map: SegmentMap) -> int:
    """Of the three members."""
    return sum(map(len, sample.encode_segment_map(0, segment_map).values()))


def compressed_bytes(segment_map: SegmentMap) -> int:
    """Of the dense map as NumPy compresses it."""
    file = io.BytesIO()
    np.savez_compressed(file, segment_map.dense())
    return file.tell()


if __name__ == "__main__":
    main(measure, "bytes of stored labels")
