"""Images and prompts for the small SAM: procedural rooms, rendered once and kept, then cropped, coloured and prompted.

Everything is a function of (seed, step), so that a resumed training sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, UInt8, UInt16
from PIL import Image

from liftgs.procedural import ProceduralScene

KINDS = ("apartments", "offices", "warehouses")


class Frames(Protocol):
    """Photos with instance ids."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, frame: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
        """One of them."""


@dataclass(frozen=True)
class RoomSet:
    """Procedural rooms, the same number of each kind.

    Attributes:
        seed: of the rooms; distinct seeds share no room.
        rooms: per kind.
        views: frames per room.
        size: side of the square frames, pixels.
    """

    seed: int
    rooms: int
    views: int
    size: int = 512

    def scenes(self) -> list[ProceduralScene]:
        """All rooms, kinds interleaved."""
        return [
            ProceduralScene(kind, index, seed=self.seed, views=self.views, width=self.size, height=self.size)
            for index in range(self.rooms)
            for kind in KINDS
        ]


class RenderedRooms:
    """Frames of a `RoomSet` on disk, one file per room; rendered when first asked for."""

    def __init__(self, rooms: RoomSet, folder: Path):
        self._folder = folder
        self._scenes = rooms.scenes()
        self._views = rooms.views

    def __len__(self) -> int:
        return len(self._scenes) * self._views

    def render(self, progress: Callable[[str], None] = print, worker: int = 0, workers: int = 1) -> None:
        """Render what is missing. Several workers may share the rooms among them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in range(worker, len(self._scenes), workers) if not self._path(i).exists()]
        for done, index in enumerate(missing):
            self._render(index)
            if done % 20 == 0:
                progress(f"rendered {done + 1} of {len(missing)} rooms")

    def __getitem__(self, frame: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
        """Photo and instance ids."""
        room, view = divmod(frame, self._views)
        if not self._path(room).exists():
            self._render(room)
        with np.load(self._path(room), allow_pickle=False) as arrays:
            return arrays[f"rgb{view}"], arrays[f"ids{view}"]

    def _path(self, room: int) -> Path:
        return self._folder / f"{room:06d}.npz"

    def _render(self, room: int) -> None:
        scene = self._scenes[room]
        arrays: dict[str, Any] = {}
        for view, frame_id in enumerate(scene.frame_ids()):
            frame = scene.load(frame_id)
            assert frame.instances is not None
            arrays |= {f"rgb{view}": frame.rgb, f"ids{view}": frame.instances}
        partial = self._path(room).with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(self._path(room))


@dataclass(frozen=True, eq=False)
class Prompts:
    """One training image with its prompts.

    Attributes:
        rgb: the photo, 0..255, its longer side as long as the model's input.
        points: (x, y) in its pixels; each lies in its target.
        targets: per prompt, the fraction of each low-resolution mask pixel that its instance covers.
        places: instance id at the centre of each patch, 0 = none.
    """

    rgb: Float32[np.ndarray, "h w 3"]
    points: Float32[np.ndarray, "prompts 2"]
    targets: Float[torch.Tensor, "prompts mask mask"]
    places: Int32[np.ndarray, "grid grid"]


def sample_prompts(
    frames: Frames,
    rng: np.random.Generator,
    size: int,
    prompts: int,
    patch: int,
) -> Prompts:
    """Draw an image, crop and colour it, draw prompts.

    A quarter of the prompts falls on pixels, as a grid of points does; the rest on instances, so that small ones are
    learned too.

    Args:
        size: side of the square image, pixels.
        prompts: how many.
        patch: side of the image encoder's patches, pixels; a low-resolution mask pixel is a quarter of that.
    """
    while True:
        rgb, ids = _augmented(*frames[int(rng.integers(len(frames)))], rng, size)
        points = _points(ids, rng, prompts)
        if points is not None:
            break
    rows, columns = points.T
    padded = np.zeros((size, size), ids.dtype)
    padded[: ids.shape[0], : ids.shape[1]] = ids
    owned = torch.from_numpy(padded == ids[rows, columns][:, None, None]).float()
    targets = torch.nn.functional.avg_pool2d(owned[:, None], patch // 4)[:, 0]
    places = padded[patch // 2 :: patch, patch // 2 :: patch].astype(np.int32)
    jitter = rng.uniform(-0.5, 0.5, (prompts, 2))
    return Prompts(rgb, (points[:, ::-1] + jitter).astype(np.float32), targets, places)


def _points(ids: np.ndarray, rng: np.random.Generator, prompts: int) -> np.ndarray | None:
    """(row, column) of labelled pixels, or None if the image shows too little."""
    labelled = np.flatnonzero(ids)
    if len(labelled) < ids.size // 20:
        return None
    anywhere = rng.choice(labelled, prompts // 4)
    order = np.argsort(ids.ravel()[labelled], kind="stable")
    _, starts, counts = np.unique(ids.ravel()[labelled][order], return_index=True, return_counts=True)
    large = counts >= ids.size // 800  # smaller ones would never become segments: see `min_area_px`
    starts, counts = starts[large], counts[large]
    if len(starts) == 0:
        return None
    pick = rng.integers(len(starts), size=prompts - prompts // 4)
    on_things = labelled[order[starts[pick] + (rng.random(len(pick)) * counts[pick]).astype(int)]]
    return np.stack(np.unravel_index(np.concatenate([anywhere, on_things]), ids.shape), axis=1)


def _augmented(
    rgb: np.ndarray, ids: np.ndarray, rng: np.random.Generator, size: int
) -> tuple[Float32[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
    """A crop of any aspect between 3:5 and 5:3, its longer side resized to `size`, mirrored, recoloured."""
    full = min(ids.shape)
    longer = full * rng.uniform(0.55, 1) if rng.random() < 0.6 else full
    shorter = longer * (rng.uniform(0.6, 1) if rng.random() < 0.3 else 1)
    height, width = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    height, width = int(height), int(width)
    top, left = rng.integers(ids.shape[0] - height + 1), rng.integers(ids.shape[1] - width + 1)
    scale = size / max(height, width)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    window = np.s_[top : top + height, left : left + width]
    small = np.asarray(Image.fromarray(rgb[window]).resize((new_width, new_height), Image.Resampling.BILINEAR))
    rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
    columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(int)
    small_ids = ids[window][rows[:, None], columns]
    if rng.random() < 0.5:
        small, small_ids = small[:, ::-1], small_ids[:, ::-1]
    return _recoloured(small.astype(np.float32), rng), np.ascontiguousarray(small_ids)


def _recoloured(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.1:
        rgb = np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2)
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    rgb = (rgb - 128) * rng.uniform(0.8, 1.2) + 128
    if rng.random() < 0.5:
        rgb = rgb + rng.normal(0, rng.uniform(0, 6), rgb.shape)
    return np.clip(rgb * gain, 0, 255).astype(np.float32)
