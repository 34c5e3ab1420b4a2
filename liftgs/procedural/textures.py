"""How surfaces look: a cheap brightness pattern per material, evaluated at points of a part's surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter

_SIZE = 512  # texels per side of the noise tiles; a power of two, so that wrapping is a bit mask

Pattern = Callable[[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"], float], Float32[np.ndarray, " n"]]


@dataclass(frozen=True)
class Texture:
    """A look.

    Attributes:
        pattern: (u, v in metres, phase) -> brightness change in about -1..1.
        strength: what that change is multiplied with before it scales the albedo.
        gloss: strength of the highlight, 0..1.
        fade_m: distance at which detail finer than a pixel has faded to a half.
    """

    pattern: Pattern
    strength: float
    gloss: float = 0.0
    fade_m: float = 6.0


@cache
def _noise(seed: int, sigmas: tuple[tuple[float, float], ...]) -> Float32[np.ndarray, "512 512"]:
    """A wrapping noise tile: white noise blurred by each (along u, along v) in texels, summed, of unit deviation."""
    rng = np.random.default_rng([7151, seed])
    total = np.zeros((_SIZE, _SIZE))
    for sigma in sigmas:
        layer = gaussian_filter(rng.standard_normal((_SIZE, _SIZE)), sigma, mode="wrap")
        total += layer / layer.std()
    return np.asarray(np.clip(total / total.std(), -2.5, 2.5), np.float32)


def _lookup(tile: np.ndarray, u: np.ndarray, v: np.ndarray, texel_m: float, phase: float) -> np.ndarray:
    shift = np.float32(phase * _SIZE)
    column = (u * np.float32(1 / texel_m) + shift).astype(np.int32) & (_SIZE - 1)
    row = (v * np.float32(1 / texel_m) + shift * np.float32(0.37)).astype(np.int32) & (_SIZE - 1)
    return tile.ravel()[row * _SIZE + column]


def _tile(seed: int, sigmas: tuple[tuple[float, float], ...], texel_m: float) -> Pattern:
    return lambda u, v, phase: _lookup(_noise(seed, sigmas), u, v, texel_m, phase)


def _wood(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    tile = _noise(1, ((1.2, 40.0), (5.0, 90.0)))
    return _lookup(tile, u, v, 0.004, phase)


def _lines(x: np.ndarray, period_m: float, width_m: float) -> np.ndarray:
    """1 on thin lines `period_m` apart, else 0."""
    scaled = x * np.float32(1 / period_m)
    return ((scaled - np.floor(scaled)) < width_m / period_m).astype(np.float32)


def _cell(u: np.ndarray, v: np.ndarray, du: float, dv: float) -> np.ndarray:
    """A random value in -1..1 for every cell of a grid."""
    i = np.floor(u * np.float32(1 / du)).astype(np.int32)
    j = np.floor(v * np.float32(1 / dv)).astype(np.int32)
    return _noise(9, ((0.0, 0.0),)).ravel()[
        ((j * 157 + i * 61) & 511) * _SIZE + ((i * 97 + j * 13) & 511)
    ] * np.float32(0.5)


def _planks(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    board = np.floor(u * np.float32(1 / 0.14))
    shifted = v + board * np.float32(0.53)
    grain = _lookup(_noise(1, ((1.2, 40.0), (5.0, 90.0))), u, v, 0.004, phase)
    gaps = np.maximum(_lines(u, 0.14, 0.006), _lines(shifted, 1.3, 0.006))
    return np.float32(0.45) * grain + np.float32(0.7) * _cell(u, shifted, 0.14, 1.3) - np.float32(2.0) * gaps


def _tiles(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    gaps = np.maximum(_lines(u, 0.3, 0.012), _lines(v, 0.3, 0.012))
    return np.float32(0.35) * _cell(u, v, 0.3, 0.3) - np.float32(2.2) * gaps


def _bricks(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    row = np.floor(v * np.float32(1 / 0.2))
    shifted = u + row * np.float32(0.2)
    gaps = np.maximum(_lines(shifted, 0.4, 0.015), _lines(v, 0.2, 0.015))
    return np.float32(0.5) * _cell(shifted, v, 0.4, 0.2) - np.float32(1.3) * gaps


def _corrugated(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    return np.sin(u * np.float32(2 * np.pi / 0.22)) * np.float32(0.7)


def _stripes(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    return np.sign(np.sin(u * np.float32(2 * np.pi / 0.26))) * np.float32(0.6) + _lookup(
        _noise(3, ((0.6, 0.6),)), u, v, 0.006, phase
    ) * np.float32(0.25)


def _screen(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    """Lines of something like text, of random lengths, and a bright bar."""
    length = _cell(u * 0, v, 1.0, 0.03)
    text = _lines(v, 0.03, 0.014) * (u * 3 + phase < length + 0.3)
    return -text


def _art(u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    blobs = _lookup(_noise(5, ((24.0, 24.0),)), u, v, 0.004, phase)
    return np.sign(blobs) * np.float32(0.5) + np.float32(0.3) * _lookup(_noise(6, ((8.0, 8.0),)), u, v, 0.004, phase)


_FINE = ((0.7, 0.7),)
_BLOTCHY = ((3.0, 3.0), (14.0, 14.0))

TEXTURES: dict[str, Texture] = {
    "wood": Texture(_wood, 0.22, 0.08),
    "painted": Texture(_wood, 0.045, 0.15),
    "metal": Texture(_tile(2, ((0.5, 20.0),), 0.004), 0.05, 0.45),
    "fabric": Texture(_tile(3, _FINE, 0.007), 0.16, 0.0, 3.0),
    "plastic": Texture(_tile(4, _BLOTCHY, 0.006), 0.03, 0.25),
    "leather": Texture(_tile(5, ((1.5, 1.5), (6.0, 6.0)), 0.006), 0.12, 0.3),
    "ceramic": Texture(_tile(4, _BLOTCHY, 0.01), 0.02, 0.5),
    "paper": Texture(_tile(6, _FINE, 0.005), 0.05, 0.0, 3.0),
    "cardboard": Texture(_tile(7, ((0.6, 12.0), (9.0, 9.0)), 0.006), 0.09),
    "leaf": Texture(_tile(8, ((2.0, 8.0),), 0.005), 0.22, 0.12),
    "plaster": Texture(_tile(9, _BLOTCHY, 0.012), 0.025),
    "concrete": Texture(_tile(10, ((1.0, 1.0), (12.0, 12.0), (30.0, 30.0)), 0.012), 0.12),
    "carpet": Texture(_tile(11, ((0.6, 0.6), (18.0, 18.0)), 0.009), 0.16, 0.0, 3.0),
    "planks": Texture(_planks, 0.20, 0.12),
    "tiles": Texture(_tiles, 0.16, 0.25),
    "bricks": Texture(_bricks, 0.16),
    "corrugated": Texture(_corrugated, 0.20, 0.1, 12.0),
    "stripes": Texture(_stripes, 0.35, 0.0, 9.0),
    "screen": Texture(_screen, 0.35, 0.1),
    "art": Texture(_art, 0.35),
    "plain": Texture(lambda u, v, phase: np.zeros_like(u), 0.0),
}
