"""Turns stored crops into training images: what SAM's boxes, other cameras and other lights would do to them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from liftgs.teachers.crops import ResizeMode, resize_crop
from liftgs.teachers.train.clip_data import Crops

#: grey level of what keeping the aspect ratio leaves empty: zero, once normalised
FILL = 127


def augmented(
    crops: Crops, rows: Int64[np.ndarray, " b"], size: int, mode: ResizeMode, rng: np.random.Generator
) -> Float32[Tensor, "b 3 h w"]:
    """Training images of some crops, in 0..1.

    The box is off by a few per cent, or holds only a part of the object; something else may stand before it; it is
    flipped, and under slightly other light: far less than would turn one colour's name into another.
    """
    images = torch.stack([_window(crops, row, size, mode, rng) for row in rows])
    _occlude(images, rng)
    flip = torch.from_numpy(rng.random(len(rows)) < 0.5)
    images[flip] = images[flip].flip(-1)
    return _relight(images.float() / 255, rng)


def _window(crops: Crops, row: int, size: int, mode: ResizeMode, rng: np.random.Generator) -> Tensor:
    low, high = crops.inner[row, :2], crops.inner[row, 2:]
    extent = high - low
    if rng.random() < 0.1:  # a mask that holds only a part of the object
        part = extent * rng.uniform(0.65, 1.0, 2)
        low = low + (extent - part) * rng.random(2)
        high = low + part
    else:
        low, high = low + extent * rng.normal(0, 0.04, 2), high + extent * rng.normal(0, 0.04, 2)
    side = crops.images.shape[1]
    x0, y0 = np.clip(np.rint(low * side).astype(int), 0, side - 4)
    x1, y1 = np.clip(np.rint(high * side).astype(int), (x0 + 4, y0 + 4), side)
    window = crops.images[row, y0:y1, x0:x1]
    if mode != "squash":
        window = _unsquash(window, float(crops.aspect[row]))
    return resize_crop(window, (size, size), mode, fill=FILL)


def _unsquash(window: np.ndarray, aspect: float) -> np.ndarray:
    """Undo the squashing of a stored crop by shrinking its longer side's direction of too many pixels."""
    height, width = window.shape[:2]
    if aspect < 1:
        width = max(2, round(width * aspect))
    else:
        height = max(2, round(height / aspect))
    return resize_crop(window, (height, width)).permute(1, 2, 0).numpy()


def _occlude(images: Tensor, rng: np.random.Generator) -> None:
    """Cover up to a third of the width and height of some images, from one side, with a piece of another one."""
    size = images.shape[-1]
    sources = images.clone()
    for i in np.flatnonzero(rng.random(len(images)) < 0.25):
        height, width = rng.integers(size // 8, size, 2)
        if rng.random() < 0.5:
            height = min(height, size // 3)
        else:
            width = min(width, size // 3)
        y = int(rng.choice([0, size - height]))
        x = int(rng.choice([0, size - width]))
        other = sources[rng.integers(len(images)), :, y : y + height, x : x + width]
        images[i, :, y : y + height, x : x + width] = other


def _relight(images: Tensor, rng: np.random.Generator) -> Tensor:
    count = len(images)

    def factor(spread: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, (count, *shape))).float()

    gain = factor(0.12, 1, 1, 1) * factor(0.03, 3, 1, 1)
    middle = images.mean(dim=(2, 3), keepdim=True)
    images = (middle + (images - middle) * factor(0.1, 1, 1, 1)) * gain
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    return (images + 0.01 * noise).clamp_(0, 1)
