"""Two arms at the same ratios, and two pretrainings by what the better one saves in labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liftgs.scaling.arms import Arm
from liftgs.scaling.estimate import DRAWS, LEVEL, Estimate, from_draws
from liftgs.scaling.multiplier import multipliers
from liftgs.scaling.resample import resample


@dataclass(frozen=True)
class Difference:
    """How much higher the second arm scores.

    Attributes:
        difference: of the means over seeds, in the scores' unit.
        chance: share of the draws in which it is higher, ties as halves: .975 and more is an interval clear of 0.
            NaN where no ratio has a second seed.
    """

    difference: Estimate
    chance: float


def compare(
    first: Arm, second: Arm, ratios: Sequence[float], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Difference:
    """The second arm less the first, on average over some ratios; paired by scenes and, where runs tell, by seeds.

    The spread of seeds is that of these ratios alone if they are all that an arm has; arms with more lend theirs.

    Raises:
        ValueError: no ratio, one of which an arm has no run, or arms that were not evaluated on the same resamples.
    """
    if not ratios:
        raise ValueError("no ratio to compare at")
    place, other = ([arm.place(ratio) for ratio in ratios] for arm in (first, second))
    ours, theirs = resample(first, second, draws, seed)
    drawn = (theirs[:, other] - ours[:, place]).mean(axis=1)
    difference = from_draws(float((second.means[other] - first.means[place]).mean()), drawn, level)
    return Difference(difference, float(((drawn > 0) + 0.5 * (drawn == 0) + 0 * drawn).mean()))


def finetuning_gains(
    base: Arm, more: Arm, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[Estimate, ...]:
    """What adding to a pretraining mix is worth in labels, at each ratio of `more`.

    0.15 says that the larger mix scores as the smaller one would with 15 % more labels. It is the multiplier of `more`
    over the curve of `base`, less 1, and censored where that is.

    Args:
        base: finetuned from the smaller mix, at two ratios or more.
        more: finetuned from the larger mix.
        draws: of the bootstrap.
        seed: of the bootstrap.
        level: of the intervals.

    Raises:
        ValueError: one ratio in `base`, or arms that were not evaluated on the same resamples.
    """
    return tuple(one.rescaled(1.0, -1.0) for one in multipliers(base, more, draws, seed, level).each)
