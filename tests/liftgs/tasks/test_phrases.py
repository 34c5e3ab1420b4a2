"""Captions become names of classes."""

from __future__ import annotations

import pytest

from liftgs.tasks.phrases import without_colours


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("a red chair", "a chair"),
        ("a red office chair", "an office chair"),
        ("an orange unicycle", "a unicycle"),
        ("A white oven by the white wall", "An oven by the wall"),
        ("the Blue one", "the one"),
        ("an orange", "an orange"),
        ("an orange, a red bowl and a pear", "an orange, a bowl and a pear"),
        ("a redwood table", "a redwood table"),
        ("two red chairs", "two red chairs"),
        ("", ""),
    ],
)
def test_colours_are_left_out(caption: str, plain: str) -> None:
    assert without_colours(caption) == plain
