"""What an image encoder gets to see of a segment: crop, background, resize. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8, UInt16
from PIL import Image, ImageFilter

from liftgs import labels

Background = Literal["keep", "blur", "zero", "mean"]
ResizeMode = Literal["shortest", "squash", "longest"]


def grow_boxes(
    boxes: Int64[np.ndarray, "s 4"], size: tuple[int, int], pad_px: int = 0, expand: float = 0.0, square: bool = False
) -> Int64[np.ndarray, "s 4"]:
    """Boxes with some of their surroundings, inside the image.

    Args:
        boxes: (x0, y0, x1, y1), half open.
        size: (height, width) of the image.
        pad_px: pixels to add on every side.
        expand: what to add on every side, as a fraction of the box's width or height.
        square: then grow the shorter side to the longer one, shifting the box where it would leave the image.
    """
    limits = np.array([size[1], size[0]])
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = pad_px + np.rint(expand * (high - low)).astype(np.int64)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, limits)
    if square:
        side = np.minimum((high - low).max(axis=1, keepdims=True), limits)
        low = np.clip((low + high - side) // 2, 0, limits - side)
        high = low + side
    return np.concatenate([low, high], axis=1)


def crop_segments(
    rgb: UInt8[np.ndarray, "h w 3"],
    semantics: UInt16[np.ndarray, "h w"],
    background: Background = "keep",
    pad_px: int = 0,
    expand: float = 0.0,
    square: bool = False,
    mean_rgb: tuple[float, float, float] = (127.5, 127.5, 127.5),
) -> Iterator[UInt8[np.ndarray, "ch cw 3"]]:
    """The crop of each segment, in row order.

    Args:
        rgb: the photo.
        semantics: as in `labels.SegmentMap`.
        background: what to show of the pixels outside the segment: themselves, a blurred copy (sigma = 2 % of the
            image's longer side), black, or `mean_rgb`.
        pad_px: see `grow_boxes`.
        expand: see `grow_boxes`.
        square: see `grow_boxes`.
        mean_rgb: in 0..255.
    """
    height, width = semantics.shape
    backdrop: np.ndarray | None = None
    if background == "blur":
        blurred = Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(0.02 * max(height, width)))
        backdrop = np.asarray(blurred)
    elif background != "keep":
        colour = (0.0, 0.0, 0.0) if background == "zero" else mean_rgb
        backdrop = np.broadcast_to(np.rint(colour).astype(np.uint8), rgb.shape)
    boxes = grow_boxes(labels.segment_boxes(semantics), (height, width), pad_px, expand, square)
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        window = np.s_[y0:y1, x0:x1]
        if backdrop is None:
            yield rgb[window]
        else:
            yield np.where((semantics[window] == row + 1)[..., None], rgb[window], backdrop[window])


def resize_crop(
    crop: UInt8[np.ndarray, "ch cw 3"],
    size: tuple[int, int],
    mode: ResizeMode = "squash",
    interpolation: str = "bicubic",
    fill: int = 0,
) -> UInt8[torch.Tensor, "3 h w"]:
    """Resample to an encoder's input size, on the CPU, with antialiasing.

    It is torch's uint8 kernel, which agrees with Pillow's filters to within a few grey levels and depends on nothing
    but the pixels.

    Args:
        crop: any size.
        size: (height, width) of the result.
        mode: as open_clip's `resize_mode`: "shortest" scales the shorter side and cuts the middle out, "squash"
            ignores the aspect ratio, "longest" scales the longer side and fills the rest.
        interpolation: "bicubic" or "bilinear".
        fill: grey level of the filling of "longest".
    """
    height, width = size
    inner = _inner_size(crop.shape[0], crop.shape[1], size, mode)
    pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None]
    pixels = torch.nn.functional.interpolate(pixels, inner, mode=interpolation, antialias=True, align_corners=False)[0]
    if inner == size:
        return pixels.contiguous()
    out = torch.full((3, height, width), fill, dtype=torch.uint8)
    (to_y, from_y), (to_x, from_x) = _middle(inner[0], height), _middle(inner[1], width)
    out[:, to_y, to_x] = pixels[:, from_y, from_x]
    return out


def _inner_size(height: int, width: int, size: tuple[int, int], mode: ResizeMode) -> tuple[int, int]:
    """What to resample to before cutting or filling, rounded as torchvision and open_clip round."""
    if mode == "squash":
        return size
    scales = (size[0] / height, size[1] / width)
    if mode == "longest":
        scale = min(scales)
        return (max(1, round(height * scale)), max(1, round(width * scale)))
    scale = max(scales)
    return (max(size[0], int(height * scale + 1e-6)), max(size[1], int(width * scale + 1e-6)))


def _middle(have: int, want: int) -> tuple[slice, slice]:
    """Where the middle of `have` pixels goes in `want` pixels: (target slice, source slice)."""
    count = min(have, want)
    to_start, from_start = (want - count) // 2, round((have - count) / 2)
    return slice(to_start, to_start + count), slice(from_start, from_start + count)
