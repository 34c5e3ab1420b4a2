"""Labels survive storage exactly, and painting follows its stated order."""

from __future__ import annotations

import contextlib
import io
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from liftgs import codecs, labels
from liftgs.labels import SegmentMap, paint
from liftgs.scene import BadInput

MASKS = hnp.arrays(bool, st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 9)))


def unit_rows(rng: np.random.Generator, n: int, dim: int = 16) -> np.ndarray:
    rows = rng.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def box_mask(x0: int, y0: int, x1: int, y1: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def paint_slowly(masks: np.ndarray, min_area_px: int, quality: list[float]) -> np.ndarray:
    """Painter's algorithm, word for word: paint large to small; while one shows too little, drop the topmost such."""
    order = sorted(range(len(masks)), key=lambda i: (-masks[i].sum(), quality[i], -i))
    while True:
        canvas = np.zeros(masks.shape[1:], np.uint16)
        for row, index in enumerate(order):
            canvas[masks[index]] = row + 1
        short = [row for row in range(len(order)) if (canvas == row + 1).sum() < min_area_px]
        if not short:
            return canvas
        del order[short[-1]]


@given(MASKS, st.integers(1, 12), st.data())
@settings(max_examples=150, deadline=None)
def test_painting_is_the_painters_algorithm(masks: np.ndarray, min_area_px: int, data: st.DataObject) -> None:
    quality = data.draw(st.lists(st.sampled_from([0.5, 0.7, 0.9]), min_size=len(masks), max_size=len(masks)))
    semantics = paint(masks, min_area_px, quality)
    np.testing.assert_array_equal(semantics, paint_slowly(masks, min_area_px, quality))
    assert semantics.dtype == np.uint16
    assert (np.bincount(semantics.ravel())[1:] >= min_area_px).all()
    SegmentMap(semantics)  # rows without gaps
    np.testing.assert_array_equal(semantics, paint(list(masks), min_area_px, quality, size=masks.shape[1:]))


def test_smaller_masks_lie_over_larger_ones() -> None:
    large, small = box_mask(0, 0, 20, 20), box_mask(5, 5, 10, 10)
    for masks in ([large, small], [small, large]):
        semantics = paint(masks, 1)
        assert semantics[7, 7] == 2
        assert semantics[0, 0] == 1


def test_ties_are_broken_by_quality_then_position() -> None:
    left, right = box_mask(0, 0, 12, 20), box_mask(8, 0, 20, 20)
    assert paint([left, right], 1, [0.9, 0.8])[0, 10] == paint([left, right], 1, [0.9, 0.8])[0, 0]
    assert paint([left, right], 1, [0.8, 0.9])[0, 10] == paint([left, right], 1, [0.8, 0.9])[0, 19]
    assert paint([left, right], 1)[0, 10] == paint([left, right], 1)[0, 0]


def test_a_dropped_mask_hides_nothing() -> None:
    cover, middle = box_mask(0, 0, 3, 3), box_mask(0, 0, 4, 4)  # 9 and 16 px
    assert np.bincount(paint([cover, middle], 9).ravel())[1:].tolist() == [9]  # 7 px of `middle` show: it goes
    assert np.bincount(paint([cover, middle], 10).ravel())[1:].tolist() == [16]  # `cover` goes, so all of it shows


def test_painting_nothing_needs_a_size() -> None:
    assert paint([], 1, size=(3, 4)).shape == (3, 4)
    assert paint(np.zeros((0, 3, 4), bool), 1).shape == (3, 4)
    with pytest.raises(ValueError, match="size"):
        paint([], 1)
    with pytest.raises(ValueError, match="sizes"):
        paint([np.ones((2, 2), bool), np.ones((2, 3), bool)], 1)


def test_painting_a_hundred_masks_takes_milliseconds() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 384, (100, 2))
    masks = np.zeros((100, 512, 512), bool)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + rng.integers(32, 512), x : x + rng.integers(32, 512)] = True
    times = []
    for _ in range(5):
        start = time.perf_counter()
        paint(masks, 1024)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 40)))
@settings(max_examples=60, deadline=None)
def test_labels_survive_their_files_exactly(image: np.ndarray) -> None:
    semantics, rows = labels.renumber(image)
    np.testing.assert_array_equal(np.where(semantics > 0, np.append(rows, 0)[semantics.astype(int) - 1] + 1, 0), image)
    table = unit_rows(np.random.default_rng(0), len(rows))
    captions = tuple(f"thing {row} \u4e2d \ud800" for row in rows)
    files = labels.encode_segments(semantics), labels.encode_embeds(table), labels.encode_captions(captions)
    back = labels.decode_segment_map(*files, "x")
    np.testing.assert_array_equal(back.semantics, semantics)
    np.testing.assert_array_equal(back.embeds, table)
    assert back.captions == captions
    assert files == (labels.encode_segments(semantics), labels.encode_embeds(table), labels.encode_captions(captions))


def test_files_are_what_plain_readers_expect() -> None:
    cv2 = pytest.importorskip("cv2")
    semantics = np.arange(600, dtype=np.uint16).reshape(20, 30)
    png = labels.encode_segments(semantics)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), semantics)
    by_cv2 = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_cv2.dtype == np.uint16
    np.testing.assert_array_equal(by_cv2, semantics)
    table = unit_rows(np.random.default_rng(1), 3)
    np.testing.assert_array_equal(np.load(io.BytesIO(labels.encode_embeds(table))), table)
    assert json.loads(labels.encode_captions(["a red chair"])) == ["a red chair"]


def test_rows_must_fit_the_segments() -> None:
    semantics = np.array([[0, 1], [2, 2]], np.uint16)
    png, table = labels.encode_segments(semantics), unit_rows(np.random.default_rng(0), 3)
    with pytest.raises(BadInput, match="here: 2 segments but 3 embedding rows"):
        labels.decode_segment_map(png, labels.encode_embeds(table), None, "here")
    with pytest.raises(BadInput, match="here: 2 segments but 1 captions"):
        labels.decode_segment_map(png, None, b'["chair"]', "here")
    with pytest.raises(ValueError, match="no pixel has index 1 of 2"):
        SegmentMap(np.array([[0, 2]], np.uint16))
    with pytest.raises(ValueError, match="uint16"):
        SegmentMap(semantics.astype(np.int64))
    with pytest.raises(ValueError, match="norm"):
        labels.encode_embeds(np.full((1, 4), np.nan, np.float16))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a png",
        codecs.encode_png16(np.ones((64, 64), np.uint16))[:-30],
        codecs.encode_png16(np.full((4, 4), 3, np.uint16)),  # gaps
        _png(Image.new("L", (4, 4))),
        _png(Image.new("RGB", (4, 4))),
    ],
)
def test_foreign_segments_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(BadInput, match="there"):
        labels.decode_segments(data, "there")


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_broken_bytes_raise_bad_input_and_nothing_else(junk: bytes, position: int, byte: int) -> None:
    semantics = np.repeat(np.arange(60, dtype=np.uint16), 8).reshape(20, 24)
    whole = [
        (labels.decode_segments, labels.encode_segments(semantics)),
        (labels.decode_embeds, labels.encode_embeds(unit_rows(np.random.default_rng(0), 4))),
        (labels.decode_captions, labels.encode_captions(["chair", "table"])),
    ]
    for decode, data in whole:
        damaged = bytearray(data)
        damaged[position % len(data)] = byte
        for broken in (junk, data[: position % len(data)], bytes(damaged)):
            with contextlib.suppress(BadInput):
                decode(broken, "x")


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.integers(0, 5)))
@settings(max_examples=50, deadline=None)
def test_boxes_are_tight_and_restriction_keeps_features_in_place(image: np.ndarray) -> None:
    semantics, rows = labels.renumber(image)
    segments = SegmentMap(semantics, unit_rows(np.random.default_rng(0), len(rows)), tuple(str(row) for row in rows))
    for mask, (x0, y0, x1, y1) in zip(segments.masks(), labels.segment_boxes(semantics), strict=True):
        ys, xs = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    keep = np.random.default_rng(1).random(image.shape) < 0.5
    np.testing.assert_array_equal(segments.where(keep).dense(), segments.dense() * keep[..., None])
