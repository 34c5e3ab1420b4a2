"""2D pseudo-labels of one photo: SegmentMap = Semantics + Index2Semantics. Knows no teacher and no corpus.

A dense [H, W, F] map of SAM-CLIP features is kept as an index image and a table with one feature per segment, which
loses nothing, since all pixels of a segment share one feature (LIFT-GS, appendix A.1). Index 0 is "no segment";
index i is row i - 1 of the table, and every row owns at least one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, UInt16
from scipy import ndimage

from liftgs import codecs
from liftgs.scene import BadInput

MAX_SEGMENTS = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """The labels of one photo.

    Attributes:
        semantics: segment index per pixel; 0 = none, i = row i - 1 of `embeds` and `captions`. Indices are 1..S without
            gaps, so every row owns pixels.
        embeds: one unit-length CLIP feature per segment (the paper's Index2Semantics), or None before embedding.
        captions: one phrase per segment, or None when the corpus is not captioned.

    Raises:
        ValueError: wrong dtype or shape, a gap in the indices, or a table with another number of rows than segments.
    """

    semantics: UInt16[np.ndarray, "h w"]
    embeds: Float16[np.ndarray, "s f"] | None = None
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_semantics(self.semantics)
        if self.embeds is not None:
            _check_embeds(self.embeds)
            if len(self.embeds) != len(self):
                raise ValueError(f"{len(self)} segments but {len(self.embeds)} embedding rows")
        if self.captions is not None and len(self.captions) != len(self):
            raise ValueError(f"{len(self)} segments but {len(self.captions)} captions")

    def __len__(self) -> int:
        """The number of segments S."""
        return int(self.semantics.max(initial=0))

    def masks(self) -> Bool[np.ndarray, "s h w"]:
        """One mask per row. S times as large as the map: for a few segments or small images."""
        return self.semantics == np.arange(1, len(self) + 1, dtype=np.uint16)[:, None, None]

    def dense(self) -> Float16[np.ndarray, "h w f"]:
        """The feature map that the two tables stand for; zero where there is no segment.

        Raises:
            ValueError: there are no embeddings.
        """
        if self.embeds is None:
            raise ValueError("this SegmentMap has no embeddings to spread over the pixels")
        table = np.concatenate([np.zeros_like(self.embeds, shape=(1, self.embeds.shape[1])), self.embeds])
        return table[self.semantics]

    def where(self, keep: Bool[np.ndarray, "h w"]) -> SegmentMap:
        """The map restricted to some pixels: elsewhere becomes "none", and rows that lose all pixels go."""
        semantics, rows = renumber(np.where(keep, self.semantics, np.uint16(0)))
        return SegmentMap(
            semantics,
            None if self.embeds is None else self.embeds[rows],
            None if self.captions is None else tuple(self.captions[row] for row in rows),
        )


def _check_semantics(semantics: np.ndarray) -> None:
    if semantics.ndim != 2 or semantics.dtype != np.uint16:
        raise ValueError(f"semantics is {semantics.dtype} {semantics.shape}, not uint16 [H, W]")
    areas = np.bincount(semantics.ravel())[1:]
    if not areas.all():
        raise ValueError(f"no pixel has index {int(np.argmin(areas > 0)) + 1} of {len(areas)}; see labels.renumber")


def _check_embeds(embeds: np.ndarray) -> None:
    if embeds.ndim != 2 or embeds.dtype != np.float16:
        raise ValueError(f"embeds is {embeds.dtype} {embeds.shape}, not float16 [S, F]")
    norms = np.sqrt(np.square(embeds, dtype=np.float32).sum(axis=1))
    bad = ~(np.abs(norms - 1) < 1e-2)  # written so that NaN is bad; float16 rounds a unit row by about 1e-3
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"row {row} of embeds has norm {norms[row]:g}, not 1")


def paint(
    masks: Bool[np.ndarray, "n h w"] | Sequence[Bool[np.ndarray, "h w"]],
    min_area_px: int,
    quality: Float32[np.ndarray, " n"] | Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
) -> UInt16[np.ndarray, "h w"]:
    """Merge overlapping masks into one index image: smaller masks lie over larger ones.

    The order from the top is: smaller area first; among equal areas the higher `quality`; then the earlier position. A
    mask is kept if at least `min_area_px` of its pixels are not covered by kept masks above it. What is visible of a
    mask depends on those above it alone, so one pass from the top down settles everything: what is kept stays visible
    enough, and what was dropped hides nothing. Kept masks are numbered from the bottom, the largest first.

    Args:
        masks: any number of masks of one size.
        min_area_px: visible pixels that a segment needs (at least 1); 1024 at 512x512 in the paper, appendix A.1.
        quality: e.g. SAM's predicted IoU; only breaks ties.
        size: (height, width), needed only when `masks` is an empty list.

    Returns:
        Index per pixel as in `SegmentMap.semantics`: 0 = none, then 1..S, each with at least `min_area_px` pixels.

    Raises:
        ValueError: masks of different sizes, no size at all, or more than 65535 segments.
    """
    height, width = _image_size(masks, size)
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    tie = np.zeros(len(masks)) if quality is None else -np.asarray(quality, np.float64)
    top_first = np.lexsort((np.arange(len(masks)), tie, areas))
    free = np.ones((height, width), bool)
    kept: list[np.ndarray] = []  # visible pixels, top first
    for index in top_first:
        visible = masks[index] & free
        if np.count_nonzero(visible) >= max(min_area_px, 1):
            kept.append(np.flatnonzero(visible))
            free ^= visible
    if len(kept) > MAX_SEGMENTS:
        raise ValueError(f"{len(kept)} segments do not fit uint16; raise min_area_px")
    semantics = np.zeros(height * width, np.uint16)
    for row, pixels in enumerate(reversed(kept)):
        semantics[pixels] = row + 1
    return semantics.reshape(height, width)


def _image_size(masks: Sequence[np.ndarray] | np.ndarray, size: tuple[int, int] | None) -> tuple[int, int]:
    sizes = {masks.shape[1:]} if isinstance(masks, np.ndarray) else {mask.shape for mask in masks}
    if size is not None:
        sizes.add(size)
    if len(sizes) != 1:
        raise ValueError(f"masks have {len(sizes)} sizes {sorted(sizes)}; one is needed (an empty list needs `size`)")
    height, width = sizes.pop()
    return height, width


def renumber(
    semantics: UInt16[np.ndarray, "h w"],
) -> tuple[UInt16[np.ndarray, "h w"], Int64[np.ndarray, " s"]]:
    """Close the gaps in an index image, keeping the order.

    Returns:
        The image with indices 1..S, and for each new row the old row (old index - 1).
    """
    present = np.bincount(semantics.ravel(), minlength=1) > 0
    present[0] = False
    new_index = np.where(present, np.cumsum(present), 0).astype(np.uint16)
    return new_index[semantics], np.flatnonzero(present) - 1


def segment_boxes(semantics: UInt16[np.ndarray, "h w"]) -> Int64[np.ndarray, "s 4"]:
    """Tight boxes (x0, y0, x1, y1) in pixels, half open, one per row.

    Raises:
        ValueError: an index without pixels.
    """
    slices = ndimage.find_objects(semantics)
    if any(found is None for found in slices):
        raise ValueError(f"no pixel has index {slices.index(None) + 1} of {len(slices)}; see labels.renumber")
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return np.array(boxes, np.int64).reshape(-1, 4)


def encode_segments(semantics: UInt16[np.ndarray, "h w"]) -> bytes:
    """A 16-bit grey PNG, as PIL or cv2 (IMREAD_UNCHANGED) read it."""
    _check_semantics(semantics)
    return codecs.encode_png16(semantics)


def decode_segments(data: bytes, uri: str) -> UInt16[np.ndarray, "h w"]:
    """The inverse of `encode_segments`.

    Raises:
        BadInput: not a 16-bit grey PNG, truncated, or with gaps in its indices.
    """
    semantics = codecs.decode_png16(data, uri)
    with codecs.bad_values(uri):
        _check_semantics(semantics)
    return semantics


def encode_embeds(embeds: Float16[np.ndarray, "s f"]) -> bytes:
    """A .npy file, float16 [S, F].

    Raises:
        ValueError: another dtype or shape, or rows that are not of unit length.
    """
    _check_embeds(embeds)
    return codecs.encode_npy(embeds)


def decode_embeds(data: bytes, uri: str) -> Float16[np.ndarray, "s f"]:
    """The inverse of `encode_embeds`.

    Raises:
        BadInput: not such a file.
    """
    embeds = codecs.decode_npy(data, uri)
    with codecs.bad_values(uri):
        _check_embeds(embeds)
    return embeds


def encode_captions(captions: Sequence[str]) -> bytes:
    """A JSON list of strings. ASCII only, so that any string a captioner returns survives."""
    return codecs.encode_json(list(captions))


def decode_captions(data: bytes, uri: str) -> tuple[str, ...]:
    """The inverse of `encode_captions`.

    Raises:
        BadInput: not a JSON list of strings.
    """
    captions = codecs.decode_json(data, uri)
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise BadInput(uri, "captions are not a JSON list of strings")
    return tuple(captions)


def decode_segment_map(segments: bytes, embeds: bytes | None, captions: bytes | None, uri: str) -> SegmentMap:
    """All of a photo's labels from their files.

    Args:
        segments: PNG.
        embeds: .npy, or None.
        captions: JSON, or None.
        uri: what to call them in messages.

    Raises:
        BadInput: a file that cannot be decoded, or tables that do not fit the segments.
    """
    semantics = decode_segments(segments, uri)
    table = None if embeds is None else decode_embeds(embeds, uri)
    phrases = None if captions is None else decode_captions(captions, uri)
    with codecs.bad_values(uri):
        return SegmentMap(semantics, table, phrases)
