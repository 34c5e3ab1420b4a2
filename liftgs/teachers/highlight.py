"""Points at one segment of a photo for a vision-language model: a red box around it, the segment lightened (figure 9).

Knows nothing of models and prompts.
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

RED = (255, 0, 0)

#: Share of white blended over the segment. The paper says "slightly highlighted" and gives neither colour nor strength;
#: white keeps the hue, which the caption is to name, where a red tint would not.
ALPHA = 0.25


def highlight(
    rgb: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], max_side_px: int = 1024
) -> UInt8[np.ndarray, "oh ow 3"]:
    """The whole photo with one segment marked.

    The box lies just outside the segment, so that it hides nothing of a segment that does not touch the border.

    Args:
        rgb: the photo.
        mask: the segment; at least one pixel.
        max_side_px: a photo whose longer side is over this is made smaller first, so that the box stays visible.

    Returns:
        The marked photo; `rgb` itself is left as it is.

    Raises:
        ValueError: the mask is empty or of another size than the photo.

    Source: LIFT-GS, appendix A.4 and figure 9.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"the mask is {mask.shape} but the photo {rgb.shape[:2]}")
    rgb, mask = _shrink(rgb, mask, max_side_px)
    if not mask.any():
        raise ValueError("the mask is empty")
    marked = rgb.copy()
    marked[mask] = np.rint(rgb[mask] * (1 - ALPHA) + 255 * ALPHA).astype(np.uint8)
    _draw_box(marked, mask)
    return marked


def encode_jpeg(rgb: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """JPEG at quality 90 without colour subsampling, which would smear the thin red line."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _shrink(rgb: np.ndarray, mask: np.ndarray, max_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = mask.shape
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return rgb, mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)
    # A small pixel is in the mask when any part of it is: a thin segment must not vanish.
    coverage = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(photo), np.asarray(coverage) > 0


def _draw_box(image: np.ndarray, mask: np.ndarray) -> None:
    """Paint the frame of the mask's bounding box, its inner edge one line outside the mask, clipped to the image."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    line = max(2, round(max(height, width) / 200))
    # Clipped so that a box around a segment at the border still shows all four sides.
    top, bottom = max(rows[0] - line, 0), min(rows[-1] + 1 + line, height)
    left, right = max(columns[0] - line, 0), min(columns[-1] + 1 + line, width)
    image[top : top + line, left:right] = RED
    image[bottom - line : bottom, left:right] = RED
    image[top:bottom, left : left + line] = RED
    image[top:bottom, right - line : right] = RED
