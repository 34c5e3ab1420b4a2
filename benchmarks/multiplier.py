"""How often the multiplier's 95 % intervals hold the truth, over 1,000 simulated sweeps for each setting.

A pretraining worth twice the labels, with saturating scratch curves; see `liftgs.scaling.simulate`. "open" has labels
up to ratio 2 from scratch and pretrained runs to .5, so that every multiplier can be read; "censored" has both to ratio
1: at .5 the truth is at the very top of the curve, at 1 far beyond it, where an interval is one-sided and holds more
often. Coverage should be 93 to 97 %. Width is the median of high / low, bias the median of the estimate over the
truth, or of the bound where the score is off the curve.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.common import Row, main, plain_row
from liftgs.scaling.multiplier import Multipliers, multipliers
from liftgs.scaling.simulate import World, simulate

SWEEPS = 1000
DRAWS = 1000
RESAMPLES = 500
SEEDS = (3, 5, 10)
RATIOS = {
    "open": ((0.1, 0.2, 0.5, 1.0, 2.0), (0.1, 0.2, 0.5)),
    "censored": ((0.1, 0.2, 0.5, 1.0), (0.1, 0.2, 0.5, 1.0)),
}
#: As the simulator has it, and with seeds that spread twice as far at ratio .1 as at 1.
WORLDS = {"": World(), ", uneven spread": World(seed_slope=0.3, run_scene_sd=0.1)}


def measure() -> Iterator[Row]:
    """Coverage, width and bias by setting; then what an interval costs."""
    seconds = 0.0
    for manner, world in WORLDS.items():
        for seeds in SEEDS:
            for kind, (ratios, pretrained_ratios) in RATIOS.items():
                rng = np.random.default_rng(seeds)
                found = []
                for sweep in range(SWEEPS):
                    arms = simulate(world, ratios, pretrained_ratios, seeds, RESAMPLES, rng)
                    start = time.process_time()
                    found.append(multipliers(*arms, draws=DRAWS, seed=sweep))
                    seconds += time.process_time() - start
                yield from rows(f"{seeds} seeds, {kind}{manner}", found, world.multiplier)
    yield plain_row(f"an analysis of {DRAWS} draws", 1e3 * seconds / (SWEEPS * 12), "ms")


def rows(setting: str, found: list[Multipliers], truth: float) -> Iterator[Row]:
    """The figures of one setting."""
    for place, name in enumerate([*(f"m({ratio:g})" for ratio in found[0].ratios), "m overall"]):
        ends = np.array([[(e := (*one.each, one.overall)[place]).low, e.value, e.high] for one in found])
        held = (ends[:, 0] <= truth) & (truth <= ends[:, 2])
        yield plain_row(f"{setting}: {name}, coverage", 100 * float(held.mean()), "%")
        yield plain_row(f"{setting}: {name}, width", float(np.median(ends[:, 2] / ends[:, 0])), "times")
        yield plain_row(f"{setting}: {name}, bias", float(np.median(ends[:, 1]) / truth), "times")


if __name__ == "__main__":
    main(measure, "the data multiplier's intervals on sweeps whose truth is known")
