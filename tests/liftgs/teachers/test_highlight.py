import io

import numpy as np
import pytest
from PIL import Image

from liftgs.teachers.highlight import RED, encode_jpeg, highlight


def photo(height=120, width=160):
    return np.random.default_rng([0, height]).integers(0, 200, (height, width, 3), dtype=np.uint8)


def disc(height=120, width=160, centre=(60, 80), radius=20):
    y, x = np.ogrid[:height, :width]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def is_red(image):
    return (image == RED).all(-1)


def test_box_frames_the_segment_and_hides_none_of_it():
    rgb, mask = photo(), disc()
    red = is_red(highlight(rgb, mask))
    assert not (red & mask).any()
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (38, 82, 58, 102)  # the disc's box plus a line of 2 px
    assert red[rows[0], columns[0] : columns[-1] + 1].all()
    assert red[rows[0] : rows[-1] + 1, columns[-1]].all()
    assert not red[40:81, 60:101].any()


def test_segment_is_lightened_and_the_rest_is_untouched():
    rgb, mask = photo(), disc()
    marked = highlight(rgb, mask)
    red = is_red(marked)
    assert (marked[mask] > rgb[mask]).all()
    assert (marked[~mask & ~red] == rgb[~mask & ~red]).all()


def test_input_photo_is_left_alone():
    rgb = photo()
    before = rgb.copy()
    highlight(rgb, disc())
    assert (rgb == before).all()


@pytest.mark.parametrize("mask_slice", [np.s_[:30, :30], np.s_[90:, 120:], np.s_[:, :], np.s_[0, 0]])
def test_segment_at_the_border_still_shows_four_sides(mask_slice):
    mask = np.zeros((120, 160), bool)
    mask[mask_slice] = True
    red = is_red(highlight(photo(), mask))
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    for side in (red[rows[0], columns[0] :], red[rows[-1], columns[0] :], red[rows[0] :, columns[0]]):
        assert side.sum() >= min(len(columns), len(rows))
    assert red[rows[0] : rows[-1] + 1, columns[-1]].all()


def test_large_photo_is_shown_smaller_and_a_thin_segment_survives():
    mask = np.zeros((1500, 2000), bool)
    mask[700, 400:1600] = True
    marked = highlight(photo(1500, 2000), mask, max_side_px=500)
    assert marked.shape == (375, 500, 3)
    columns = np.flatnonzero(is_red(marked).any(0))
    assert abs(columns[0] - 100) <= 3
    assert abs(columns[-1] - 400) <= 3


def test_jpeg_keeps_the_line_red():
    marked = highlight(photo(), disc())
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(marked)))).astype(int)
    line = decoded[is_red(marked)]
    assert np.median(line[:, 0]) > 230
    assert np.median(line[:, 1:]) < 40


def test_empty_or_misplaced_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        highlight(photo(), np.zeros((120, 160), bool))
    with pytest.raises(ValueError, match="120, 160"):
        highlight(photo(), np.ones((4, 4), bool))
