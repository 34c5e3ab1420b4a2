"""What a shard holds, in numbers, read from its samples' bytes without decoding pictures."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from typing import IO

import numpy as np

from liftgs_platform.tars import Members

Counts = dict[str, int]

NAMES = ("samples", "views", "segments", "captions", "points", "expressions")
_VIEW = re.compile(r"\d\d+\.(.+)")


def count(samples: Iterable[Members]) -> Counts:
    """Samples, views, segments, captions, points of the clouds and referring expressions."""
    counts: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
    for members in samples:
        counts["samples"] += 1
        for name, data in members.items():
            match = _VIEW.fullmatch(name)
            for what, number in _count_member(match[1] if match else name, data):
                counts[what] += number
    return dict(counts)


def _count_member(kind: str, data: bytes) -> list[tuple[str, int]]:
    match kind:
        case "rgb.jpg":
            return [("views", 1)]
        case "embeds.npy":
            return [("segments", _rows(BytesIO(data)))]
        case "captions.json":
            return [("captions", len(json.loads(data)))]
        case "expressions.json":
            return [("expressions", len(json.loads(data)))]
        case "cloud.npz":
            with zipfile.ZipFile(BytesIO(data)) as archive, archive.open("xyz.npy") as array:
                return [("points", _rows(array))]
    return []


def _rows(array: IO[bytes]) -> int:
    """Length of a .npy array, from its header."""
    version = np.lib.format.read_magic(array)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return int(read(array)[0][0])
