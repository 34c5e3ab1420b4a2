"""What a hit looks like: texture, light, lens and sensor. Turns what `raycast` found into a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8

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
    """Per pixel, flattened, one row per component: unit normal, linear albedo, gloss and own light."""

    normal: Float32[np.ndarray, "3 n"]
    albedo: Float32[np.ndarray, "3 n"]
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
    rays = np.ones((3, camera.height * camera.width), np.float32)
    rays[0] = np.tile(xs, camera.height)
    rays[1] = np.repeat(ys, camera.width)
    depth = np.where(np.isfinite(hits.depth), hits.depth, 0).ravel()
    surface = _surfaces(parts, table, camera, rays, depth, hits.part.ravel())
    samples, sample_of = _light_samples(hits.part)
    outward = _rotate(camera.cam_to_world[:3, :3].astype(np.float32), rays[:, samples])
    xyz = outward * depth[samples] + camera.cam_to_world[:3, 3].astype(np.float32)[:, None]
    diffuse, shine = _light(room, volume, xyz, outward, surface.normal[:, samples], surface.gloss[samples])
    radiance = surface.albedo * (diffuse[:, sample_of] + surface.emission) + shine[:, sample_of]
    radiance[:, hits.part.ravel() < 0] = 0
    return _develop(radiance.reshape(3, camera.height, camera.width), hits.part, sensor, rng)


def _rotate(R: np.ndarray, v: np.ndarray) -> np.ndarray:
    """R @ v for columns v, without BLAS, whose threads may change the last bit."""
    out = np.empty_like(v)
    for k in range(3):
        np.multiply(v[0], R[k, 0], out=out[k])
        out[k] += R[k, 1] * v[1]
        out[k] += R[k, 2] * v[2]
    return out


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _light_samples(part: Int32[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Where light is computed: once for a 2 x 2 block that sees one part only, else at each pixel.

    Light changes slowly over a surface; this makes it three times cheaper. Returns the flat pixel index of every sample
    and the sample of every pixel.
    """
    height, width = part.shape
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    source = index.copy()
    h, w = height // 2 * 2, width // 2 * 2
    corner = part[0:h:2, 0:w:2]
    uniform = (part[0:h:2, 1:w:2] == corner) & (part[1:h:2, 0:w:2] == corner) & (part[1:h:2, 1:w:2] == corner)
    first = index[0:h:2, 0:w:2]
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        np.copyto(source[dy:h:2, dx:w:2], first, where=uniform)
    own = source == index
    number = np.cumsum(own.ravel(), dtype=np.int32) - 1
    return np.flatnonzero(own), number[source.ravel()]


def _surfaces(
    parts: Sequence[Part],
    table: PartTable,
    camera: Camera,
    rays: np.ndarray,
    depth: np.ndarray,
    part_of: np.ndarray,
) -> _Surface:
    n = len(depth)
    origins, directions = table.rays(camera)
    origins, directions = origins.astype(np.float32), directions.astype(np.float32)
    # Everything is gathered part by part, so that each part works on its own contiguous run of pixels.
    order = np.argsort(part_of.astype(np.int16), kind="stable")
    present, starts = np.unique(part_of[order], return_index=True)
    rays, depth = rays[:, order], depth[order]
    packed = np.zeros((8, n), np.float32)
    for i, a, b in zip(present.tolist(), starts.tolist(), [*starts[1:].tolist(), n], strict=True):
        if i < 0:
            continue
        part, z = parts[i], depth[a:b]
        local = _rotate(directions[i], rays[:, a:b]) * z + origins[i][:, None]
        normal, facing = _local_normal(part, local)
        packed[:3, a:b] = _rotate(part.rotation.astype(np.float32), normal)
        look = TEXTURES[part.texture]
        tone = np.maximum(1 + np.float32(look.strength) * _pattern(part, local, facing, z), np.float32(0.15))
        packed[3:6, a:b] = np.asarray(part.rgb, np.float32)[:, None] * tone
        packed[6, a:b] = look.gloss
        packed[7, a:b] = part.emission
    spread = np.empty_like(packed)
    spread[:, order] = packed
    return _Surface(spread[:3], spread[3:6], spread[6], spread[7])


def _local_normal(part: Part, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals in the part's frame, and the axis that each is nearest to."""
    if part.shape == "box":
        size = np.abs(local)
        facing = np.where(size[0] >= size[1], np.where(size[0] >= size[2], 0, 2), np.where(size[1] >= size[2], 1, 2))
        normal = np.where(facing == np.arange(3)[:, None], np.sign(local), np.float32(0))
        return normal, facing
    half = np.asarray(part.half_size, np.float32)[:, None]
    if part.shape == "sphere":
        normal = local / half
    else:
        middle, slope = np.float32((1 + part.taper) / 2), np.float32((part.taper - 1) / 2)
        radius = middle + slope * local[2]
        inward = radius - np.sqrt(local[0] ** 2 + local[1] ** 2)
        normal = local / half
        normal[2] = -slope * radius / half[2]
        cap = 1 - np.abs(local[2]) < inward
        normal[:, cap] = 0
        normal[2, cap] = np.sign(local[2, cap])
    normal /= np.maximum(np.sqrt(_dot(normal, normal)), np.float32(1e-9))
    return normal, np.abs(normal).argmax(0)


def _pattern(part: Part, local: np.ndarray, facing: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The texture's value, on the two axes that span the face best; the grain runs along the longer one."""
    look = TEXTURES[part.texture]
    if look.strength == 0:
        return np.zeros_like(depth)
    metres = local * np.asarray(part.half_size, np.float32)[:, None]
    longest = int(np.argmax(part.half_size))
    u, v = np.empty_like(depth), np.empty_like(depth)
    for axis in range(3):
        here = facing == axis
        if not here.any():
            continue
        first, second = [a for a in range(3) if a != axis]
        if longest == first and part.texture not in _UPRIGHT:
            first, second = second, first
        np.copyto(u, metres[first], where=here)
        np.copyto(v, metres[second], where=here)
    value = look.pattern(u, v, part.phase)
    return value if look.fade_m > 10 else value / (1 + (depth * np.float32(1 / look.fade_m)) ** 2)


_UPRIGHT = frozenset({"screen", "bricks", "corrugated", "tiles", "planks"})


def _light(
    room: Room, volume: LightVolume, xyz: np.ndarray, outward: np.ndarray, normal: np.ndarray, gloss: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Light that arrives (to be multiplied by the albedo), and highlights; rows are channels."""
    seen = volume.at(xyz + normal * np.float32(1.1 * volume.voxel_size_m))
    # Light from above is a little stronger than from below.
    ambient = seen[0] * (np.float32(0.86) + np.float32(0.14) * normal[2])
    diffuse = ambient * np.asarray(room.ambient, np.float32)[:, None]
    shine = np.zeros_like(diffuse)
    view = outward * (-1 / np.sqrt(_dot(outward, outward)))
    for i, light in enumerate(room.lights):
        to_light = np.asarray(light.position, np.float32)[:, None] - xyz
        squared = _dot(to_light, to_light)
        to_light *= 1 / np.sqrt(squared)
        rgb = np.asarray(light.rgb, np.float32)[:, None]
        strength = seen[1 + i] * np.float32(2.0) / (1 + squared * np.float32(1 / light.reach_m**2))
        facing = np.maximum(_dot(normal, to_light), 0)
        # A little of it wraps around: a lamp is not a point.
        diffuse += strength * (np.float32(0.9) * facing + np.float32(0.1)) * rgb
        to_light += view  # now the half vector
        cosine = np.maximum(_dot(normal, to_light), 0) / np.maximum(np.sqrt(_dot(to_light, to_light)), 1e-6)
        eighth = (cosine * cosine) ** 2
        eighth *= eighth
        shine += np.float32(0.35) * strength * gloss * (eighth * eighth * eighth) * rgb
    return diffuse, shine


def _develop(
    radiance: Float32[np.ndarray, "3 h w"], part: np.ndarray, sensor: Sensor, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Smooth the edges, vignette, tone, sRGB and grain."""
    height, width = part.shape
    _smooth_edges(radiance, part)
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    gain = sensor.exposure * (1 - np.float32(sensor.vignette / 2) * (x[None, :] ** 2 + y[:, None] ** 2))
    gain = (gain * ((len(_TONE) - 1) / _TONE_TOP)).astype(np.float32)
    photo = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        index = np.minimum(radiance[channel] * gain, len(_TONE) - 1).astype(np.int32)
        photo[:, :, channel] = _TONE[index]
    photo += rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(sensor.noise)
    return np.clip(photo, 0, 255).astype(np.uint8)


#: Linear radiance at the end of the tone table.
_TONE_TOP = 4.0


def _tone_table(size: int) -> Float32[np.ndarray, " size"]:
    """Linear radiance in 0.._TONE_TOP to 8 bits plus one half: a soft shoulder instead of clipping, then sRGB."""
    value = np.arange(size) / (size - 1) * _TONE_TOP
    value = np.where(value > 0.6, 0.6 + 0.4 * (1 - np.exp((0.6 - value) / 0.4)), value)
    encoded = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255 + 0.5, np.float32)


_TONE = _tone_table(1 << 15)


def _smooth_edges(image: np.ndarray, part: np.ndarray) -> None:
    """Average each pixel on the border of a part with its neighbours, in place: cheap anti-aliasing."""
    edge = np.zeros(part.shape, bool)
    across, down = part[:, 1:] != part[:, :-1], part[1:] != part[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    edge[0], edge[-1], edge[:, 0], edge[:, -1] = False, False, False, False
    at = np.flatnonzero(edge)
    width = part.shape[1]
    for flat in image.reshape(3, -1):
        blurred = 4 * flat[at]
        for offset in (1, -1, width, -width):
            blurred += 2 * flat[at + offset]
        for offset in (width + 1, width - 1, -width + 1, -width - 1):
            blurred += flat[at + offset]
        flat[at] = blurred / 16
