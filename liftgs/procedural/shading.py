"""What a hit looks like: texture, light, lens and sensor. Turns what `raycast` found into a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from liftgs.procedural.lighting import LightVolume
from liftgs.procedural.raycast import Hits, PartTable, pixel_rays
from liftgs.procedural.room import Part, Room
from liftgs.procedural.textures import TEXTURES
from liftgs.scene import Camera


@dataclass(frozen=True)
class Sensor:
    """How a frame was taken.

    Attributes:
        exposure: brightness factor.
        noise: standard deviation of the grain, in 0..255 steps.
        vignette: darkening in the corners, 0..1.
    """

    exposure: float = 1.0
    noise: float = 2.0
    vignette: float = 0.12


@dataclass(frozen=True, eq=False)
class _Surface:
    """Per pixel, flattened: unit normal, linear albedo, gloss and own light."""

    normal: Float32[np.ndarray, "n 3"]
    albedo: Float32[np.ndarray, "n 3"]
    gloss: Float32[np.ndarray, " n"]
    emission: Float32[np.ndarray, " n"]


def shade(
    room: Room,
    parts: Sequence[Part],
    table: PartTable,
    volume: LightVolume,
    camera: Camera,
    hits: Hits,
    sensor: Sensor,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Render the photo.

    Args:
        room: its lights.
        parts: what `hits.part` indexes.
        table: of `parts`.
        volume: from `lighting.bake`.
        camera: the one of `hits`.
        hits: from `raycast.cast`; pixels without a hit come out black.
        sensor: exposure and noise.
        rng: for the noise.
    """
    xs, ys = pixel_rays(camera)
    rays = np.empty((camera.height * camera.width, 3), np.float32)
    rays[:, 0] = np.tile(xs, camera.height)
    rays[:, 1] = np.repeat(ys, camera.width)
    rays[:, 2] = 1
    depth = np.where(np.isfinite(hits.depth), hits.depth, 0).ravel()
    surface = _surfaces(parts, table, camera, rays, depth, hits.part.ravel())
    R = camera.cam_to_world[:3, :3].astype(np.float32)
    outward = _rotate(R, rays)
    xyz = outward * depth[:, None] + camera.cam_to_world[:3, 3].astype(np.float32)
    radiance = _light(room, volume, xyz, outward, surface)
    radiance[hits.part.ravel() < 0] = 0
    return _develop(radiance.reshape(camera.height, camera.width, 3), hits.part, sensor, rng)


def _rotate(R: np.ndarray, v: np.ndarray) -> np.ndarray:
    """R @ v for rows v, without BLAS, whose threads may change the last bit."""
    return np.stack([R[k, 0] * v[:, 0] + R[k, 1] * v[:, 1] + R[k, 2] * v[:, 2] for k in range(3)], 1)


def _surfaces(
    parts: Sequence[Part],
    table: PartTable,
    camera: Camera,
    rays: np.ndarray,
    depth: np.ndarray,
    part_of: np.ndarray,
) -> _Surface:
    n = len(depth)
    normal, albedo = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
    gloss, emission = np.zeros(n, np.float32), np.zeros(n, np.float32)
    origins, directions = table.rays(camera)
    order = np.argsort(part_of.astype(np.int16), kind="stable")
    present, starts = np.unique(part_of[order], return_index=True)
    for i, pixels in zip(present, np.split(order, starts[1:]), strict=True):
        if i < 0:
            continue
        part = parts[i]
        z = depth[pixels]
        local = _rotate(directions[i].astype(np.float32), rays[pixels]) * z[:, None] + origins[i].astype(np.float32)
        n_local = _local_normal(part, local)
        normal[pixels] = _rotate(part.rotation.astype(np.float32), n_local)
        look = TEXTURES[part.texture]
        shade = 1 + look.strength * _pattern(part, local, n_local, z)
        albedo[pixels] = np.asarray(part.rgb, np.float32) * np.maximum(shade, 0.15)[:, None]
        gloss[pixels] = look.gloss
        emission[pixels] = part.emission
    return _Surface(normal, albedo, gloss, emission)


def _local_normal(part: Part, local: np.ndarray) -> np.ndarray:
    half = np.asarray(part.half_size, np.float32)
    if part.shape == "box":
        axis = np.abs(local).argmax(1)
        rows = np.arange(len(local))
        normal = np.zeros_like(local)
        normal[rows, axis] = np.sign(local[rows, axis])
        return normal
    if part.shape == "sphere":
        normal = local / half
    else:
        middle, slope = (1 + part.taper) / 2, (part.taper - 1) / 2
        radius = np.float32(middle) + np.float32(slope) * local[:, 2]
        inward = radius - np.sqrt(local[:, 0] ** 2 + local[:, 1] ** 2)
        cap = 1 - np.abs(local[:, 2]) < inward
        normal = np.stack([local[:, 0] / half[0], local[:, 1] / half[1], -np.float32(slope) * radius / half[2]], 1)
        normal[cap] = 0
        normal[cap, 2] = np.sign(local[cap, 2])
    return normal / np.maximum(np.sqrt((normal**2).sum(1, keepdims=True)), 1e-9)


def _pattern(part: Part, local: np.ndarray, normal: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The texture's value, on the two axes that span the face best; the grain runs along the longer one."""
    look = TEXTURES[part.texture]
    metres = local * np.asarray(part.half_size, np.float32)
    facing = np.abs(normal).argmax(1)
    longest = int(np.argmax(part.half_size))
    u, v = np.empty(len(local), np.float32), np.empty(len(local), np.float32)
    for axis in range(3):
        here = facing == axis
        first, second = [a for a in range(3) if a != axis]
        if longest == first and part.texture not in _UPRIGHT:
            first, second = second, first
        u[here], v[here] = metres[here, first], metres[here, second]
    fade = 1 if look.fade_m > 10 else 1 / (1 + (depth * np.float32(1 / look.fade_m)) ** 2)
    return np.asarray(look.pattern(u, v, part.phase) * fade)


_UPRIGHT = frozenset({"screen", "bricks", "corrugated", "tiles", "planks"})


def _light(room: Room, volume: LightVolume, xyz: np.ndarray, outward: np.ndarray, surface: _Surface) -> np.ndarray:
    normal = surface.normal
    reach = np.float32(1.1 * volume.voxel_size_m)
    seen = volume.at(xyz + normal * reach)
    # Light from above is a little stronger than from below.
    ambient = seen[:, 0] * (np.float32(0.86) + np.float32(0.14) * normal[:, 2])
    total = ambient[:, None] * np.asarray(room.ambient, np.float32)
    shine = np.zeros_like(total)
    view = -outward / np.sqrt((outward**2).sum(1, keepdims=True))
    for i, light in enumerate(room.lights):
        to_light = np.asarray(light.position, np.float32) - xyz
        squared = (to_light**2).sum(1)
        to_light *= (1 / np.sqrt(squared))[:, None]
        falloff = np.float32(2.0) / (1 + squared * np.float32(1 / light.reach_m**2))
        facing = np.maximum((normal * to_light).sum(1), 0)
        # Half wrapped around: rooms are full of light from the side.
        strength = seen[:, 1 + i] * falloff
        rgb = np.asarray(light.rgb, np.float32)
        total += (strength * (np.float32(0.85) * facing + np.float32(0.15)))[:, None] * rgb
        half = to_light + view
        cosine = (normal * half).sum(1) / np.maximum(np.sqrt((half**2).sum(1)), 1e-6)
        shine += (strength * surface.gloss * np.maximum(cosine, 0) ** 24)[:, None] * rgb
    return surface.albedo * (total + surface.emission[:, None]) + np.float32(0.35) * shine


def _develop(
    radiance: np.ndarray, part: np.ndarray, sensor: Sensor, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Smooth the edges, vignette, tone, sRGB and grain."""
    height, width = part.shape
    _smooth_edges(radiance, part)
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    gain = sensor.exposure * (1 - np.float32(sensor.vignette / 2) * (x[None, :] ** 2 + y[:, None] ** 2))
    value = radiance * gain[:, :, None].astype(np.float32)
    # A soft shoulder above 0.7 instead of clipping.
    value = np.where(value > 0.7, 0.7 + 0.3 * (1 - np.exp((0.7 - value) / 0.3)), value).astype(np.float32)
    index = np.clip(value * np.float32(len(_SRGB) - 1), 0, len(_SRGB) - 1).astype(np.int32)
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(sensor.noise)
    return np.asarray(np.clip(_SRGB[index] + noise + np.float32(0.5), 0, 255), np.uint8)


def _srgb_table(size: int) -> Float32[np.ndarray, " size"]:
    linear = np.arange(size) / (size - 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255, np.float32)


_SRGB = _srgb_table(8192)


def _smooth_edges(image: np.ndarray, part: np.ndarray) -> None:
    """Average each pixel on the border of a part with its neighbours, in place: cheap anti-aliasing."""
    edge = np.zeros(part.shape, bool)
    across, down = part[:, 1:] != part[:, :-1], part[1:] != part[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    edge[0], edge[-1], edge[:, 0], edge[:, -1] = False, False, False, False
    flat = image.reshape(-1, 3)
    at = np.flatnonzero(edge)
    width = part.shape[1]
    blurred = 4 * flat[at]
    for offset, weight in ((1, 2), (-1, 2), (width, 2), (-width, 2)):
        blurred += weight * flat[at + offset]
    for offset in (width + 1, width - 1, -width + 1, -width - 1):
        blurred += flat[at + offset]
    flat[at] = blurred / 16
