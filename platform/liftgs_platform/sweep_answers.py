"""What a sweep's results say: the statistics of `liftgs.scaling` over its arms. Knows neither files nor pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise, permutations

import numpy as np

from liftgs.scaling.arms import Arm
from liftgs.scaling.compare import finetuning_gains
from liftgs.scaling.estimate import DRAWS, LEVEL, Estimate, from_draws
from liftgs.scaling.fairness import warnings
from liftgs.scaling.multiplier import multipliers
from liftgs.scaling.resample import resample
from liftgs.scaling.transfer import PowerLaw, transfer
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
        transfers: effective data transferred by a mix, of those that have enough ratios for a power law.
        distrust: what speaks against the multipliers, in sentences; empty if the comparison is fair.
        undertrained: whether scratch could be better than its curve, by its steps or by its control.
    """

    metric: str
    multipliers_by_metric: dict[str, tuple[MultiplierRow, ...]]
    levels: dict[tuple[str, str], dict[float, Estimate]]
    additions: tuple[Addition, ...] = ()
    claims: tuple[Difference, ...] = ()
    differences: tuple[Difference, ...] = ()
    transfers: dict[str, PowerLaw] = field(default_factory=dict)
    distrust: tuple[str, ...] = ()
    undertrained: bool = False

    @property
    def multipliers(self) -> tuple[MultiplierRow, ...]:
        """Those of the headline."""
        return self.multipliers_by_metric.get(self.metric, ())

    def mean(self, mix: str) -> float:
        """Of a mix' levels over the ratios: which is best among mixes of equal multipliers, such as bounds."""
        return _mean_level(self.levels[mix, ""])

    def multipliers_of(self, metric: str, mix: str) -> list[MultiplierRow]:
        """Those of one metric and mix; none where they were not asked for."""
        return [row for row in self.multipliers_by_metric.get(metric, ()) if row.mix == mix]


def answer(results: SweepResults) -> Answers:
    """All that the sweep's results say."""
    metric = results.task_metric
    shown = [name for name in results.metrics() if name in (metric, *MAIN)]
    arms = results.arms()
    scores = {arm: dict(levels(results, metric, *arm)) for arm in arms}
    mixes = sorted((mix for mix, control in arms if not control), key=lambda mix: -_mean_level(scores[mix, ""]))
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


def _mean_level(scores: dict[float, Estimate]) -> float:
    finetuned = [level.value for ratio, level in scores.items() if 0 < ratio <= 1]
    return sum(finetuned) / len(finetuned) if finetuned else -math.inf


def _pairs(results: SweepResults, metric: str) -> Iterator[tuple[str, Arm, Arm]]:
    """Each mix with the scratch arm, where there are both and scratch makes a curve."""
    scratch = arm_of(results, metric, SCRATCH)
    for mix, control in results.arms():
        pretrained = arm_of(results, metric, mix)
        if mix != SCRATCH and not control and pretrained and scratch and len(scratch.ratios) > 1:
            yield mix, scratch, pretrained


def _multipliers(results: SweepResults, metric: str) -> Iterator[MultiplierRow]:
    """Of every mix: each ratio, then all together."""
    for mix, scratch, pretrained in _pairs(results, metric):
        worth = multipliers(scratch, pretrained)
        for ratio, seeds, each in zip(worth.ratios, worth.seeds, worth.each, strict=True):
            yield _row(mix, ratio, each, seeds, metric)
        yield _row(mix, None, worth.overall, max(worth.seeds), metric)


def _row(mix: str, ratio: float | None, worth: Estimate, seeds: int, metric: str) -> MultiplierRow:
    return MultiplierRow(mix, ratio, worth.value, worth.low, worth.high, worth.censored, seeds, metric)


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
    return Difference(better, worse, *_above(*(arm_of(results, results.task_metric, mix) for mix in (better, worse))))


def _above(ours: Arm | None, theirs: Arm | None) -> tuple[Estimate, float]:
    """How much higher the first arm scores, on average over the ratios that both have, and its chance to be higher."""
    common = [ratio for ratio in ours.ratios.tolist() if theirs.has(ratio)] if ours and theirs else []
    if not ours or not theirs or not common:
        return Estimate(math.nan, math.nan, math.nan), math.nan
    place, other = ([arm.place(ratio) for ratio in common] for arm in (ours, theirs))
    first, second = resample(ours, theirs, DRAWS, 0)
    drawn = (first[:, place] - second[:, other]).mean(axis=1)
    by = from_draws(float((ours.means[place] - theirs.means[other]).mean()), drawn, LEVEL)
    return by, float(np.where(np.isnan(drawn), np.nan, drawn > 0).mean())


def _transfers(results: SweepResults) -> dict[str, PowerLaw]:
    scenes = all_labels(results)
    if not scenes:
        return {}
    pairs = _pairs(results, results.task_metric)
    found = {mix: transfer(scratch, pretrained, scenes).law for mix, scratch, pretrained in pairs}
    return {mix: law for mix, law in found.items() if law}


def _distrust(results: SweepResults) -> Iterator[str]:
    metric = results.task_metric
    same_compute = arm_of(results, metric, SCRATCH, COMPUTE)
    for mix, scratch, pretrained in _pairs(results, metric):
        reached = plateaus(results, metric, SCRATCH, scratch), plateaus(results, metric, mix, pretrained)
        yield from warnings(scratch, pretrained, *reached, same_compute)


def _undertrained(results: SweepResults) -> bool:
    """Whether a run from scratch still improved when it was stopped, or more compute clearly helps scratch."""
    short = any(not c.plateau for c in results.cells if c.mix == SCRATCH and not c.control and c.ratio > 0)
    metric = results.task_metric
    return short or _above(arm_of(results, metric, SCRATCH, COMPUTE), arm_of(results, metric, SCRATCH))[0].low > 0
