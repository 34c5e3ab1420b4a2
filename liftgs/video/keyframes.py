"""Which frames of a video are worth posing: sharp ones, each some way from the one before. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter, laplace

from liftgs.video.decode import Shot

_SHARPNESS_PX = 320  # long side of the pictures that are compared; motion is looked for at half of it
_BLOCK_PX, _STRIDE_PX = 64, 16
_QUANTILE = 0.75  # walking forward, the middle of the picture hardly moves; the median would leave gaps
_FLAT = 1.5  # grey levels; blocks that vary less are bare wall, whose motion is not seen
_FREQUENCY = 0.15  # cycles per pixel; up to about here blocks are compared
_RECOGNISED = 0.22  # agreement of a block with a shifted one; strangers reach 0.2, the same things 0.3 and more


@dataclass(frozen=True)
class KeyframeConfig:
    """How keyframes are chosen.

    Attributes:
        min_motion: a keyframe lies at least this far from the one before and, where a frame is there to be had, less
            than twice as far: the shift that a quarter of the picture exceeds, as a fraction of its longer side. At
            0.05 a point that wanders across the picture is seen by 10 to 20 keyframes.
        max_count: most keyframes; of more, evenly spaced ones are kept. The time of structure from motion grows faster
            than their number.
    """

    min_motion: float = 0.05
    max_count: int = 300

    def __post_init__(self) -> None:
        if not 0 < self.min_motion <= 0.1:
            raise ValueError(f"min_motion must be above 0 and at most 0.1, not {self.min_motion}")
        if self.max_count < 2:
            raise ValueError(f"max_count must be at least 2, not {self.max_count}")


@dataclass(frozen=True, eq=False)
class _Candidate:
    index: int
    sharpness: float
    grey: UInt8[np.ndarray, "h w"]


def choose(shots: Iterable[Shot], config: KeyframeConfig, progress: Callable[[str], None]) -> list[int]:
    """Indices of the keyframes, in order. One pass; two small pictures are held.

    Of the frames that lie between once and twice `min_motion` from the last keyframe, the sharpest is the next.
    """
    chosen: list[int] = []
    last: UInt8[np.ndarray, "h w"] | None = None
    best: _Candidate | None = None
    for shot in shots:
        if shot.index % 500 == 0 and shot.index:
            progress(f"looked at {shot.time_s:.0f} s of video: {len(chosen)} keyframes")
        grey = shot.grey(_SHARPNESS_PX)
        if last is None:
            chosen.append(shot.index)
            last = grey
            continue
        moved = motion(last, grey)
        if best is not None and moved > 2 * config.min_motion:
            chosen.append(best.index)
            last, best = best.grey, None
            moved = motion(last, grey)
        if moved >= config.min_motion:
            found = _Candidate(shot.index, sharpness(grey), grey)
            best = found if best is None or found.sharpness > best.sharpness else best
    if best is not None:
        chosen.append(best.index)
    return thin(chosen, config.max_count)


def thin(indices: list[int], count: int) -> list[int]:
    """At most `count` of them, evenly spaced, the first and the last among them."""
    if len(indices) <= count:
        return indices
    return [indices[i] for i in np.linspace(0, len(indices) - 1, count).round().astype(int)]


def sharpness(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Variance of the Laplacian: comparable among pictures of nearly the same thing only."""
    return float(laplace(grey.astype(np.float32)).var())


def motion(before: UInt8[np.ndarray, "h w"], after: UInt8[np.ndarray, "h w"]) -> float:
    """How far the picture moved, as a fraction of its longer side; infinite if too far to be recognised (about 0.12).

    The upper quartile of the shifts of overlapping blocks, each found by phase correlation: unlike a shift of the whole
    picture it also sees walking forward and rolling. Blocks without texture do not count; a picture of nothing else is
    at rest.

    Source: Kuglin and Hines 1975, The phase correlation image alignment method.
    """
    blocks = _blocks(before), _blocks(after)
    textured = (blocks[0].std((1, 2)) > _FLAT) & (blocks[1].std((1, 2)) > _FLAT)
    if not textured.any():
        return 0.0
    window = np.outer(np.hanning(_BLOCK_PX), np.hanning(_BLOCK_PX))
    one, two = (np.fft.fft2(window * part[textured]) for part in blocks)
    cross = one * two.conj()
    frequency = np.fft.fftfreq(_BLOCK_PX)
    weight = np.exp(-np.add.outer(frequency**2, frequency**2) / (2 * _FREQUENCY**2))  # the highest are noise
    agreement = np.fft.ifft2(weight / weight.mean() * cross / (np.abs(cross) + 1e-9)).real
    agreement = agreement.reshape(len(agreement), -1)  # per block and shift; 1 for an exact copy
    shift = np.stack(np.divmod(agreement.argmax(1), _BLOCK_PX))
    shift = (shift + _BLOCK_PX // 2) % _BLOCK_PX - _BLOCK_PX // 2
    length = np.where(agreement.max(1) < _RECOGNISED, np.inf, np.hypot(*shift))
    return float(np.quantile(length, _QUANTILE, method="higher")) / (max(before.shape) / 2)


def _blocks(grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "n b b"]:
    """Half the size, without shading, cut into overlapping blocks; smaller pictures are padded to one block."""
    height, width = (side // 2 * 2 for side in grey.shape)
    half = grey[:height, :width].astype(np.float32).reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    half -= gaussian_filter(half, 4.0)  # a smooth gradient would seem to stand still, since the blocks do
    half = np.pad(half, [(0, max(0, _BLOCK_PX - side)) for side in half.shape])
    views = np.lib.stride_tricks.sliding_window_view(half, (_BLOCK_PX, _BLOCK_PX))
    return views[::_STRIDE_PX, ::_STRIDE_PX].reshape(-1, _BLOCK_PX, _BLOCK_PX)
