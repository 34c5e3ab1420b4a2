"""Videos for tests, written with PyAV, and how far recovered cameras are from the true ones."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from liftgs.procedural import open_scene
from liftgs.scene import Frame

FPS = 10


def write(path: Path, frames: Iterable[np.ndarray], rotation: int = 0, aspect: Fraction | None = None) -> Path:
    """A video of these RGB pictures; nearly lossless H.264, so that what is measured is not the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10", "preset": "ultrafast"})
        stream.pix_fmt = "yuv420p"
        for number, rgb in enumerate(frames):
            if number == 0:
                stream.height, stream.width = rgb.shape[:2]
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation:
                    stream.set_display_rotation(rotation)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    return path


def texture(size: tuple[int, int] = (400, 600), seed: int = 0) -> np.ndarray:
    """A picture (height, width, 3) with detail of all sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros((*size, 3))
    for cells in (6, 12, 25, 50, 100):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(noise.resize(size[::-1], Image.Resampling.BICUBIC), float) / 5
    return np.clip(128 + 2 * (total - 128), 0, 255).astype(np.uint8)


def pan(shifts: Iterable[int], width: int = 320, height: int = 240) -> list[np.ndarray]:
    """Windows of a texture, moved right by so many pixels."""
    ground = texture((height, 1200))
    return [ground[:, shift : shift + width].copy() for shift in shifts]


def room(views: int, count: int | None = None, width: int = 384, height: int = 288) -> list[Frame]:
    """The first `count` views of a tour of a furnished room, with exact depth and true poses."""
    scene = open_scene(f"procedural:apartments/000003?views={views}&width={width}&height={height}&depth_noise_mm=0")
    return [scene.load(frame_id) for frame_id in scene.frame_ids()[:count]]


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that bring points (n x 3) nearest to others.

    Source: Umeyama 1991, Least-squares estimation of transformation parameters between two point patterns.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    U, S, Vt = np.linalg.svd(b.T @ a / len(a))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ np.diag(signs) @ Vt
    scale = float((S * signs).sum() / (a**2).sum(1).mean())
    return scale, R, target.mean(0) - scale * R @ source.mean(0)


def pose_errors(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (m) and angles (degrees) between cam-to-world poses (n x 4 x 4) after the best similarity."""
    scale, R, t = similarity(found[:, :3, 3], true[:, :3, 3])
    distance = np.linalg.norm(scale * found[:, :3, 3] @ R.T + t - true[:, :3, 3], axis=1)
    relative = np.einsum("nji,njk->nik", R @ found[:, :3, :3], true[:, :3, :3])
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    return distance, np.degrees(np.arccos(np.clip(cosine, -1, 1)))
