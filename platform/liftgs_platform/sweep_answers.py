"""What a sweep's results say: the statistics of `liftgs.scaling` over its arms. Knows neither files nor pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from liftgs.scaling.arms import Arm
from liftgs.scaling.multiplier import DRAWS, Estimate, multipliers
from liftgs.scaling.resample import resample
from liftgs_platform.sweep_results import MAIN, SCRATCH, MultiplierRow, SweepResults


@dataclass(frozen=True)
class Addition:
    """What one more corpus in the mix did.

    Attributes:
        mix: the larger mix.
        base: the smaller one.
        adds: the corpus that it lacks.
        growth: samples of that corpus as a share of those of `base`.
        ratio: of finetuning.
        labels: further labels that would have done as much for `base`, as a share.
    """

    mix: str
    base: str
    adds: str
    growth: float
    ratio: float
    labels: Estimate


@dataclass(frozen=True)
class Difference:
    """Two arms compared at the ratios and seeds that both have.

    Attributes:
        better: mix that is said, or was found, to be the better one.
        worse: the other.
        by: how much higher its score is, on average over ratios.
        chance: share of the bootstrap in which it is.
    """

    better: str
    worse: str
    by: Estimate
    chance: float

    @property
    def verdict(self) -> str:
        """Whether the claim that `better` is better holds."""
        if math.isnan(self.by.value):
            return "not run"
        if not is_clear(self.by):
            return "not shown"
        return "holds" if self.by.low > 0 else "reversed"


@dataclass(frozen=True)
class Transfer:
    """Effective data transferred by a pretraining, as a power law of the labels (Hernandez et al. 2021).

    Attributes:
        mix: pretrained on.
        scale: labelled scenes' worth of transfer at one labelled scene.
        exponent: of the labelled scenes.
        spread: interval of the exponent.
    """

    mix: str
    scale: float
    exponent: float
    spread: Estimate


@dataclass(frozen=True)
class Answers:
    """What a sweep says.

    Attributes:
        metric: the headline.
        multipliers_by_metric: of the main metrics, for each mix its ratios in order and then all together.
        levels: of the headline, by (mix, control) and ratio.
        additions: see there.
        claims: the sweep's orderings, neighbour by neighbour.
        differences: all pairs of arms that are not controls, from scratch too, the best arm first.
        transfers: of the mixes that have enough ratios for one.
        distrust: why the multipliers are not to be trusted, in sentences; empty if the comparison is fair.
    """

    metric: str
    multipliers_by_metric: dict[str, tuple[MultiplierRow, ...]]
    levels: dict[tuple[str, str], dict[float, Estimate]]
    additions: tuple[Addition, ...] = ()
    claims: tuple[Difference, ...] = ()
    differences: tuple[Difference, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    distrust: tuple[str, ...] = ()

    @property
    def multipliers(self) -> tuple[MultiplierRow, ...]:
        """Those of the headline."""
        return self.multipliers_by_metric.get(self.metric, ())

    def multipliers_of(self, metric: str, mix: str) -> list[MultiplierRow]:
        """Those of one metric and mix; none where they were not asked for."""
        return [row for row in self.multipliers_by_metric.get(metric, ()) if row.mix == mix]


def answer(results: SweepResults) -> Answers:
    """All that the sweep's results say."""
    metric = results.task_metric
    shown = [name for name in results.metrics() if name in (metric, *MAIN)]
    return Answers(
        metric=metric,
        multipliers_by_metric={name: tuple(_multipliers(results, name)) for name in shown},
        levels={arm: dict(levels(results, metric, *arm)) for arm in results.arms()},
        additions=tuple(_additions(results)),
    )


def levels(results: SweepResults, metric: str, mix: str, control: str = "") -> list[tuple[float, Estimate]]:
    """The mean over seeds at each ratio of an arm, zero-shot too; NaN ends where there is but one seed."""
    ratios, _, values = results.scores(mix, metric, control)
    made = []
    for place in (ratios == 0, ratios > 0):  # zero-shot networks spread in their own way
        if place.any():
            arm = Arm(np.where(ratios == 0, 1.0, ratios)[place], values[place])
            means, _ = resample(arm, arm, DRAWS, 0)
            ends = np.quantile(means, (0.025, 0.975), axis=0)
            made += [
                (float(ratio), Estimate(float(value), float(low), float(high)))
                for ratio, value, low, high in zip(ratios[place], arm.means, *ends, strict=True)
            ]
    return made


def is_clear(by: Estimate) -> bool:
    """Whether the interval of a difference excludes 0."""
    return by.low > 0 or by.high < 0


def _arm(results: SweepResults, metric: str, mix: str, control: str = "") -> Arm | None:
    """Finetuned networks of an arm, if it has any."""
    ratios, _, values = results.scores(mix, metric, control)
    return Arm(ratios[ratios > 0], values[ratios > 0]) if (ratios > 0).any() else None


def _multipliers(results: SweepResults, metric: str) -> Iterator[MultiplierRow]:
    """Of every mix: each ratio, then all together."""
    scratch = _arm(results, metric, SCRATCH)
    for mix, control in results.arms():
        pretrained = _arm(results, metric, mix)
        if mix == SCRATCH or control or pretrained is None or scratch is None or len(scratch.ratios) < 2:
            continue
        worth = multipliers(scratch, pretrained)
        for ratio, seeds, each in zip(worth.ratios, worth.seeds, worth.each, strict=True):
            yield _row(mix, ratio, each, seeds, metric)
        yield _row(mix, None, worth.overall, max(worth.seeds), metric)


def _row(mix: str, ratio: float | None, worth: Estimate, seeds: int, metric: str) -> MultiplierRow:
    return MultiplierRow(mix, ratio, worth.value, worth.low, worth.high, worth.censored, seeds, metric)


def _additions(results: SweepResults) -> Iterator[Addition]:
    """Of every pair of mixes of which one holds one corpus more and no fewer samples of the others."""
    metric = results.task_metric
    for base, mix in permutations(results.mixes, 2):
        small, large = results.mixes[base], results.mixes[mix]
        added = sorted(large.keys() - small.keys())
        first, second = _arm(results, metric, base), _arm(results, metric, mix)
        same = all(large.get(corpus) == samples for corpus, samples in small.items())
        if len(added) != 1 or not same or first is None or second is None or len(first.ratios) < 2:
            continue
        worth = multipliers(first, second)
        growth = large[added[0]] / sum(small.values()) if sum(small.values()) else math.nan
        for ratio, each in zip(worth.ratios, worth.each, strict=True):
            yield Addition(mix, base, added[0], growth, ratio, each.moved(1, -1))
