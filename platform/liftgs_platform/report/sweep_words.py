"""What a sweep found, in sentences that claim no more than it showed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from liftgs.scaling.estimate import Estimate
from liftgs.scaling.transfer import PowerLaw
from liftgs_platform.sweep_results import COMPUTE, SCRATCH, MultiplierRow, SweepResults


def lead(rows: Sequence[MultiplierRow], undertrained: bool, warned: bool) -> str:
    """The answer, about the mix whose multiplier over all ratios is the highest.

    Args:
        rows: that of all ratios together, of each mix.
        undertrained: whether scratch could be better than its curve.
        warned: whether anything else speaks against the comparison.
    """
    best = best_of(rows)
    if best is None:
        return "No answer: it takes scratch at two ratios of labels or more, and pretrained networks."
    said = sentence(best, f", the best of {len(rows)} mixes," if len(rows) > 1 else "")
    if undertrained:
        return (
            f"Not to be quoted: {said} But scratch is under-trained here, so that the true value may be lower, even 1."
        )
    return opened(said) + (" With reservations, which follow." if warned else "")


def best_of(rows: Sequence[MultiplierRow]) -> MultiplierRow | None:
    """The highest multiplier, if there is any."""
    known = [row for row in rows if not math.isnan(row.multiplier)]
    return max(known, key=lambda row: row.multiplier, default=None)


def opened(said: str) -> str:
    """With a capital."""
    return said[:1].upper() + said[1:]


def sentence(row: MultiplierRow, aside: str = "") -> str:
    """One mix over all ratios: what its pretraining is worth, how surely, and what that means.

    Args:
        row: of all ratios together.
        aside: said of the mix.
    """
    if math.isnan(row.multiplier):
        return f"nothing can be said of pretraining on {row.mix}: it shares too little with the scratch runs."
    bound, level, kind = {
        "above": ("at least ", "higher", "a lower"),
        "below": ("at most ", "lower", "an upper"),
    }.get(row.censored, ("", "", ""))
    said = f"pretraining on {row.mix}{aside} is worth {bound}{times(row.multiplier)} the labels, {_span(row)}"
    notes = [f"it scores {level} than anything from scratch, so this is {kind} bound"] if bound else []
    if math.isnan(row.low):
        notes.append("without a second seed there is no telling how sure that is")
    elif row.high < 1:
        notes.append("the interval lies below 1, so it does harm here")
    elif row.low <= 1:
        notes.append("the interval covers 1, so this sweep does not show that pretraining helps")
    return said + (f": {'; '.join(notes)}." if notes else ".")


def _span(row: MultiplierRow) -> str:
    seeds = f"from {count(row.seeds, 'seed')}"
    return seeds if math.isnan(row.low) else f"95 % CI {interval(row.low, row.high)}, {seeds}"


def gaps(results: SweepResults) -> list[str]:
    """What is missing from the sweep itself: runs, seeds, the control."""
    said = []
    for mix, control in results.arms():
        ratios, seeds, values = results.scores(mix, results.task_metric, control)
        absent = [
            f"{ratio:g} (seed {', '.join(str(seed) for seed, gone in zip(seeds, row, strict=True) if gone)})"
            for ratio, row in zip(ratios, np.isnan(values[:, :, 0]), strict=True)
            if ratio > 0 and row.any()
        ]
        if absent:
            said.append(
                f"Runs of {arm_name(mix, control)} are missing: ratio {', '.join(absent)}. The others are used."
            )
    if (SCRATCH, "") in results.arms() and (SCRATCH, COMPUTE) not in results.arms():
        said.append(
            "Scratch was not trained for as long as pretraining and finetuning together; part of the gain may be time."
        )
    return said


def arm_name(mix: str, control: str = "") -> str:
    """What tables call an arm."""
    name = "scratch" if mix == SCRATCH else mix
    return f"{name}, same total compute" if control == COMPUTE else name


def transfers(found: Mapping[str, PowerLaw]) -> list[str]:
    """Effective data transferred, a sentence per mix."""
    return [
        f"Effective data transferred by {mix}: {law.k.value:.3g} × (labelled scenes)^{law.alpha.value:.2f} labelled "
        f"scenes, fitted to {count(len(law.ratios), 'ratio')} after Hernandez et al. 2021{_exponent(law.alpha)}."
        for mix, law in found.items()
    ]


def _exponent(alpha: Estimate) -> str:
    if not (math.isfinite(alpha.low) and math.isfinite(alpha.high)):
        return ""
    return f" (95 % CI of the exponent {alpha.low:.2f} to {alpha.high:.2f})".replace("-", "−")


def times(multiplier: float) -> str:
    """ "2.3×"; two digits, or the whole number from 10 on."""
    if not math.isfinite(multiplier):
        return "–"
    return (
        f"{multiplier:.0f}×"
        if multiplier >= 9.95
        else f"{multiplier:.1f}×"
        if multiplier >= 0.95
        else f"{multiplier:.2f}×"
    )


def bounded(row: MultiplierRow) -> str:
    """ "2.3×", "≥ 4.1×" or "≤ 0.5×"."""
    return {"above": "≥ ", "below": "≤ "}.get(row.censored, "") + times(row.multiplier)


def interval(low: float, high: float) -> str:
    """ "1.9 to 2.8"; "1.9 and up" or "up to 2.8" where it lacks an end."""
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    ends = [times(end).rstrip("×") for end in (low, high)]
    no_low, no_high = not low > 0, not high < math.inf
    if no_low and no_high:
        return "anything"
    if no_high:
        return f"{ends[0]} and up"
    return f"up to {ends[1]}" if no_low else f"{ends[0]} to {ends[1]}"


def count(number: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """ "3.2 h", "5 min", "12 s"."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
