"""Answers as files: a coloured PLY to look at, JSON to work with."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np
from jaxtyping import Int, UInt8

from liftgs.ground.grounding import Grounding, Match
from liftgs.readers.ply import encode_ply

PLY_NAME, JSON_NAME = "grounding.ply", "grounding.json"

#: Far apart in hue and in lightness, also for the colour-blind (Okabe and Ito 2008); more are made as needed.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66))


def phrase_colours(count: int) -> UInt8[np.ndarray, "p 3"]:
    """A colour for each phrase."""
    golden = (5**0.5 - 1) / 2  # its multiples never bunch up
    more = [colorsys.hsv_to_rgb(i * golden % 1, 0.75, 0.9) for i in range(count - len(_COLOURS))]
    return np.array([*_COLOURS, *(np.rint(np.multiply(rgb, 255)) for rgb in more)], np.uint8)[:count]


def paint(
    rgb: UInt8[np.ndarray, "n 3"], masks: Sequence[tuple[Int[np.ndarray, " k"], UInt8[np.ndarray, " 3"]]]
) -> UInt8[np.ndarray, "n 3"]:
    """Colours with some masks (indices of rows) filled; smaller masks over larger ones, so that none is hidden."""
    painted = rgb.copy()
    for rows, colour in sorted(masks, key=lambda mask: -len(mask[0])):
        painted[rows] = colour
    return painted


def write(found: Grounding, folder: str, checkpoint: str, voxel_size_m: float) -> list[str]:
    """Write the cloud, each phrase's best mask in its colour, and all answers.

    Point indices in the JSON are vertices of the PLY. If a `.ply` was grounded in, they are its vertices, too, as long
    as all of these are finite.

    Args:
        found: from `ground`.
        folder: a path or any fsspec URL; made if need be.
        checkpoint: noted in the JSON.
        voxel_size_m: likewise.

    Returns:
        URIs of the two files.
    """
    filesystem, path = fsspec.core.url_to_fs(folder)
    filesystem.makedirs(path, exist_ok=True)
    said = describe(found) | {"checkpoint": checkpoint, "voxel_size_m": voxel_size_m}
    filesystem.pipe_file(f"{path}/{PLY_NAME}", encode_ply(found.scan.cloud.xyz, _painted(found)))
    filesystem.pipe_file(f"{path}/{JSON_NAME}", (json.dumps(said) + "\n").encode())
    return [f"{folder.rstrip('/')}/{name}" for name in (PLY_NAME, JSON_NAME)]


def describe(found: Grounding) -> dict[str, Any]:
    """The answers as plain values. Metres, world frame; points are indices into the scan's cloud."""
    colours = phrase_colours(len(found.phrases))
    return {
        "scene": found.scan.uri,
        "num_points": len(found.scan.cloud),
        "phrases": [
            {
                "phrase": phrase,
                "colour": colour.tolist(),
                "matches": [_plain(match) for match in found.matches if match.phrase == phrase],
            }
            for phrase, colour in zip(found.phrases, colours, strict=True)
        ],
    }


def _plain(match: Match) -> dict[str, Any]:
    return {
        "rank": match.rank,
        "score": round(match.score, 6),
        "box_min_m": [round(float(value), 4) for value in match.box_min],
        "box_max_m": [round(float(value), 4) for value in match.box_max],
        "points": match.points.tolist(),
    }


def _painted(found: Grounding) -> UInt8[np.ndarray, "n 3"]:
    """Colours of the cloud, each phrase's best mask in its own."""
    coloured = zip(found.phrases, phrase_colours(len(found.phrases)), strict=True)
    best = [(match.points, colour) for phrase, colour in coloured if (match := found.best(phrase)) is not None]
    return paint(found.scan.cloud.rgb, best)
