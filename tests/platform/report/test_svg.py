"""Axes: round numbers around whatever there is to draw."""

from __future__ import annotations

import numpy as np
import pytest

from liftgs_platform.report.svg import nice_range


@pytest.mark.parametrize("most_ticks", [3, 5, 6, 7])
def test_any_range_has_an_axis_of_few_round_ticks(most_ticks: int) -> None:
    rng = np.random.default_rng(0)
    spans = [*(10 ** rng.uniform(-4, 5, 2000)), 4.5, 45.0, 6.6, 0.09, most_ticks - 0.5, 10 * most_ticks - 5]
    for span in spans:
        start = float(rng.uniform(-span, span))
        low, high, ticks = nice_range([start, start + span], most_ticks)
        assert low <= start + 1e-9 * span
        assert high >= start + span - 1e-6 * span
        assert 2 <= len(ticks) <= most_ticks + 1
        steps = np.diff(ticks)
        assert steps == pytest.approx(np.full(len(steps), steps[0]))
