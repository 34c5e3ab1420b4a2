"""Named colours. A palette of linear albedos, far enough apart that shading does not turn one name into another."""

from __future__ import annotations

import numpy as np

Rgb = tuple[float, float, float]

#: Linear albedo of each named colour.
PALETTE: dict[str, Rgb] = {
    "red": (0.56, 0.020, 0.025),
    "orange": (0.85, 0.24, 0.015),
    "yellow": (0.85, 0.62, 0.030),
    "green": (0.045, 0.32, 0.060),
    "blue": (0.025, 0.11, 0.52),
    "purple": (0.23, 0.045, 0.42),
    "pink": (0.84, 0.30, 0.46),
    "brown": (0.17, 0.075, 0.028),
    "black": (0.018, 0.018, 0.020),
    "white": (0.82, 0.81, 0.79),
    "grey": (0.23, 0.235, 0.24),
}

COLOURS: tuple[str, ...] = tuple(PALETTE)

#: Colours that are not brown, black, white or grey.
BRIGHT: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink")

_JITTER = 0.10


def sample(name: str, rng: np.random.Generator) -> Rgb:
    """A linear albedo that anyone would call `name`: the palette's, off by at most 10 % per channel and in all."""
    factors = (1 + _JITTER * rng.uniform(-1, 1)) * (1 + _JITTER / 2 * rng.uniform(-1, 1, 3))
    r, g, b = np.clip(np.asarray(PALETTE[name]) * factors, 0.0, 0.9)
    return float(r), float(g), float(b)


def nearest(rgb: Rgb) -> str:
    """Name of the palette entry that looks nearest to a linear albedo.

    Compared in an opponent space of the square roots (lightness, red-green, yellow-blue) where lightness counts half: a
    pale wood is brown, not grey.
    """
    names = list(PALETTE)
    difference = _opponent(np.array([PALETTE[name] for name in names])) - _opponent(np.asarray(rgb))
    return names[int(np.argmin((difference**2).sum(-1)))]


def _opponent(rgb: np.ndarray) -> np.ndarray:
    r, g, b = np.moveaxis(np.sqrt(rgb), -1, 0)
    return np.stack([0.5 * (r + g + b) / 3, r - g, (r + g) / 2 - b], -1)
