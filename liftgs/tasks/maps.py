"""Rooms from above, as pictures: points painted by what they belong to."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

#: What is higher above the floor than this is not drawn: it would hide the room.
CUT_M = 2.0
_GROUND = 24
#: Okabe and Ito's, which the colour-blind tell apart.
COLOURS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]]
)


def from_above(xyz: Float[np.ndarray, "n 3"], width: int = 256) -> Int[np.ndarray, "w w"]:
    """For each pixel of a square map of the room the highest point below `CUT_M`, or -1; y points up."""
    low, high = xyz.min(0), xyz.max(0)
    side = max(float((high - low)[:2].max()), 1e-3)
    spread = int(np.ceil(width / max(1.0, np.sqrt(len(xyz)))))  # a point is drawn as a square, without gaps
    column = ((xyz[:, :2] - low[:2]) / side * (width - 1)).astype(int)
    order = np.argsort(xyz[:, 2], kind="stable")
    order = order[xyz[order, 2] <= low[2] + CUT_M]
    height, seen = np.full(width * width, -np.inf), np.full(width * width, -1)
    for dx in range(spread):
        for dy in range(spread):
            x, y = np.minimum(column[order, 0] + dx, width - 1), np.minimum(column[order, 1] + dy, width - 1)
            place = y * width + x
            higher = xyz[order, 2] >= height[place]
            # of several points at one place the last, which is the highest, stays
            height[place[higher]], seen[place[higher]] = xyz[order[higher], 2], order[higher]
    return seen.reshape(width, width)[::-1]


def tint(
    rgb: UInt8[np.ndarray, "n 3"], masks: Bool[np.ndarray, "k n"], colour: Int[np.ndarray, " k"]
) -> UInt8[np.ndarray, "n 3"]:
    """Grey points, with those of each mask in a colour, given by number."""
    result = np.repeat(rgb.mean(1, keepdims=True), 3, axis=1)
    for mask, number in zip(masks, colour, strict=True):
        result[mask] = 0.25 * result[mask] + 0.75 * COLOURS[number % len(COLOURS)]
    return result.astype(np.uint8)


def beside(seen: Int[np.ndarray, "w w"], *colours: UInt8[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "w x 3"]:
    """Maps of the same points in different colours, side by side."""
    gap = np.full((seen.shape[0], 4, 3), 255, np.uint8)
    tiles = [np.where(seen[..., None] >= 0, of_points[seen], np.uint8(_GROUND)) for of_points in colours]
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
