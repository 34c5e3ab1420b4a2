"""What a sweep's results say: the statistics of `liftgs.scaling` over its arms. Knows neither files nor pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise, permutations

from liftgs.scaling.arms import Arm
from liftgs.scaling.compare import compare, finetuning_gains
from liftgs.scaling.estimate import Estimate
from liftgs.scaling.fairness import sound_up_to, warnings
from liftgs.scaling.multiplier import multipliers
from liftgs.scaling.transfer import Transfer, transfer
from liftgs_platform.sweep_arms import all_labels, arm_of, levels, plateaus
from liftgs_platform.sweep_results import COMPUTE, MAIN, SCRATCH, MultiplierRow, SweepResults


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
class Answers:
    """What a sweep says.

    Attributes:
        metric: the headline.
        multipliers_by_metric: of the main metrics, for each mix its ratios in order and then all together.
        levels: of the headline, by (mix, control) and ratio.
        additions: see there.
        claims: the sweep's orderings, neighbour by neighbour.
        differences: all pairs of arms that are not controls, from scratch too, the best arm first.
        transfers: effective data transferred, by mix.
        distrust: what speaks against the multipliers, in sentences; empty if the comparison is fair.
        undertrained: whether scratch could be better than it is at any ratio, by its steps or by its control.
    """

    metric: str
    multipliers_by_metric: dict[str, tuple[MultiplierRow, ...]]
    levels: dict[tuple[str, str], dict[float, Estimate]]
    additions: tuple[Addition, ...] = ()
    claims: tuple[Difference, ...] = ()
    differences: tuple[Difference, ...] = ()
    transfers: dict[str, Transfer] = field(default_factory=dict)
    distrust: tuple[str, ...] = ()
    undertrained: bool = False

    @property
    def multipliers(self) -> tuple[MultiplierRow, ...]:
        """Those of the headline."""
        return self.multipliers_by_metric.get(self.metric, ())

    def mean(self, mix: str) -> float:
        """Of a mix' levels over the ratios that all arms have: which is best, where multipliers do not tell."""
        return _mean_levels(self.levels).get(mix, -math.inf)

    @property
    def highest(self) -> str:
        """The pretrained mix of the highest mean; "" without one."""
        return max((mix for mix, _ in self.levels if mix != SCRATCH), key=self.mean, default="")

    def multipliers_of(self, metric: str, mix: str) -> list[MultiplierRow]:
        """Those of one metric and mix; none where they were not asked for."""
        return [row for row in self.multipliers_by_metric.get(metric, ()) if row.mix == mix]


def answer(results: SweepResults) -> Answers:
    """All that the sweep's results say."""
    metric = results.task_metric
    shown = [name for name in results.metrics() if name in (metric, *MAIN)]
    arms = results.arms()
    scores = {arm: dict(levels(results, metric, *arm)) for arm in arms}
    means = _mean_levels(scores)
    mixes = sorted(means, key=lambda mix: -means[mix])
    return Answers(
        metric=metric,
        multipliers_by_metric={name: tuple(_multipliers(results, name)) for name in shown},
        levels=scores,
        additions=tuple(_additions(results)),
        claims=tuple(_difference(results, *pair) for claim in results.orderings for pair in pairwise(claim)),
        differences=tuple(_difference(results, *pair) for pair in combinations(mixes, 2)),
        transfers=_transfers(results),
        distrust=tuple(dict.fromkeys(_distrust(results))),
        undertrained=_undertrained(results),
    )


def is_clear(by: Estimate) -> bool:
    """Whether the interval of a difference excludes 0."""
    return by.low > 0 or by.high < 0


def _mean_levels(scores: dict[tuple[str, str], dict[float, Estimate]]) -> dict[str, float]:
    """Mix -> mean over the ratios up to 1 that all mixes and scratch have, or over its own if there is none such."""
    levels = {
        mix: {ratio: level.value for ratio, level in of.items() if 0 < ratio <= 1}
        for (mix, control), of in scores.items()
        if not control
    }
    tuned = [set(of) for of in levels.values() if of]
    common = set.intersection(*tuned) if tuned else set()
    kept = {mix: [value for ratio, value in of.items() if ratio in common or not common] for mix, of in levels.items()}
    return {mix: sum(values) / len(values) if values else -math.inf for mix, values in kept.items()}


def _pairs(results: SweepResults, metric: str) -> Iterator[tuple[str, Arm, Arm]]:
    """Each mix with the scratch arm, where there are both."""
    scratch = arm_of(results, metric, SCRATCH)
    for mix, control in results.arms():
        pretrained = arm_of(results, metric, mix)
        if mix != SCRATCH and not control and pretrained and scratch:
            yield mix, scratch, pretrained


def _curves(results: SweepResults, metric: str) -> Iterator[tuple[str, Arm, Arm]]:
    """Those of which scratch makes a curve."""
    return (pair for pair in _pairs(results, metric) if len(pair[1].ratios) > 1)


def _multipliers(results: SweepResults, metric: str) -> Iterator[MultiplierRow]:
    """Of every mix: each ratio, then all together."""
    slow = _gains_by_compute(results, metric)
    for mix, scratch, pretrained in _curves(results, metric):
        worth = multipliers(scratch, pretrained)
        sound = 0.0 if slow else sound_up_to(scratch, plateaus(results, metric, SCRATCH, scratch)) * (1 + 1e-9)
        for ratio, seeds, each in zip(worth.ratios, worth.seeds, worth.each, strict=True):
            yield _row(mix, ratio, each, seeds, metric, ratio * each.value > sound)
        furthest = max(worth.ratios) * worth.overall.value
        yield _row(mix, None, worth.overall, max(worth.seeds), metric, furthest > sound)


def _row(mix: str, ratio: float | None, worth: Estimate, seeds: int, metric: str, undertrained: bool) -> MultiplierRow:
    return MultiplierRow(mix, ratio, worth.value, worth.low, worth.high, worth.censored, seeds, metric, undertrained)


def _additions(results: SweepResults) -> Iterator[Addition]:
    """Of every pair of mixes of which one holds one corpus more, and the same of the others."""
    for base, mix in permutations(results.mixes, 2):
        small, large = results.mixes[base], results.mixes[mix]
        added = [corpus for corpus in large if corpus not in small]
        first, second = (arm_of(results, results.task_metric, name) for name in (base, mix))
        if len(added) != 1 or not small.items() <= large.items() or not first or not second or len(first.ratios) < 2:
            continue
        there = sum(small.values())
        growth = large[added[0]] / there if there else math.nan
        for ratio, labels in zip(second.ratios.tolist(), finetuning_gains(first, second), strict=True):
            yield Addition(mix, base, added[0], growth, ratio, labels)


def _difference(results: SweepResults, better: str, worse: str) -> Difference:
    ours, theirs = (arm_of(results, results.task_metric, mix) for mix in (better, worse))
    return Difference(better, worse, *_above(ours, theirs))


def _above(ours: Arm | None, theirs: Arm | None) -> tuple[Estimate, float]:
    """How much higher the first arm scores over the ratios that both have, and its chance to; NaN without any."""
    common = [ratio for ratio in ours.ratios.tolist() if theirs.has(ratio)] if ours and theirs else []
    if not ours or not theirs or not common:
        return Estimate(math.nan, math.nan, math.nan), math.nan
    found = compare(theirs, ours, common)
    return found.difference, found.chance


def _transfers(results: SweepResults) -> dict[str, Transfer]:
    scenes = all_labels(results)
    if not scenes:
        return {}
    pairs = _curves(results, results.task_metric)
    return {mix: transfer(scratch, pretrained, scenes) for mix, scratch, pretrained in pairs}


def _distrust(results: SweepResults) -> Iterator[str]:
    metric = results.task_metric
    same_compute = arm_of(results, metric, SCRATCH, COMPUTE)
    for mix, scratch, pretrained in _pairs(results, metric):
        reached = plateaus(results, metric, SCRATCH, scratch), plateaus(results, metric, mix, pretrained)
        yield from warnings(scratch, pretrained, *reached, same_compute, mix)


def _undertrained(results: SweepResults) -> bool:
    """Whether a run from scratch still improved when it was stopped, or more compute clearly helps scratch."""
    short = any(not c.plateau for c in results.cells if c.mix == SCRATCH and not c.control and c.ratio > 0)
    return short or _gains_by_compute(results, results.task_metric)


def _gains_by_compute(results: SweepResults, metric: str) -> bool:
    return _above(arm_of(results, metric, SCRATCH, COMPUTE), arm_of(results, metric, SCRATCH))[0].low > 0
