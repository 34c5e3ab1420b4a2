"""What a sweep found, in sentences that claim no more than it showed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from liftgs.scaling.estimate import Estimate
from liftgs.scaling.transfer import PowerLaw, Transfer
from liftgs_platform.sweep_arms import all_labels
from liftgs_platform.sweep_results import COMPUTE, SCRATCH, MultiplierRow, SweepResults


def lead(
    rows: Sequence[MultiplierRow], undertrained: bool, warned: bool, claims: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The answer: the mix whose multiplier over all ratios is the highest, or what became of the claims.

    Args:
        rows: of each mix, at each ratio and of all together.
        undertrained: whether scratch could be better than it is, at any ratio.
        warned: whether anything else speaks against the comparison.
        claims: better, worse, verdict.
    """
    overall = [row for row in rows if row.ratio is None]
    best = best_of(overall)
    if best is not None:
        said = worth(best, rows, f", the highest of {len(overall)} mixes," if len(overall) > 1 else "")
        undertrained = best.undertrained and not _sound(best, rows)
    elif claims:
        said = "; ".join(f"{better} > {worse}: {verdict}" for better, worse, verdict in claims) + "."
        said = _unquoted(said) if undertrained else said
    else:
        return "No answer: it takes scratch at two ratios of labels or more, and pretrained networks."
    return opened(said) + (" With reservations, which follow." if warned and not undertrained else "")


def worth(overall: MultiplierRow, rows: Sequence[MultiplierRow], aside: str = "") -> str:
    """What pretraining on one mix is worth: over all ratios, or where scratch is under-trained at some, at the others.

    Args:
        overall: of all ratios together.
        rows: of all mixes, at each ratio and of all together.
        aside: said of the mix.
    """
    if not overall.undertrained:
        return sentence(overall, aside)
    sound = _sound(overall, rows)
    if not sound:
        return _unquoted(sentence(overall, aside))
    of = [f"{bounded(row)}{' the labels' if row is sound[0] else ''} at ratio {row.ratio:g}" for row in sound]
    few, many = (pick(row.seeds for row in sound) for pick in (min, max))
    seeds = f"from {count(many, 'seed') if few == many else f'{few} to {many} seeds'}"
    known = all(math.isfinite(row.low) for row in sound)
    span = f"95 % CI {_listed([interval(row.low, row.high) for row in sound])}, {seeds}" if known else seeds
    return f"pretraining on {overall.mix}{aside} is worth {_listed(of)} ({span})."


def _sound(overall: MultiplierRow, rows: Sequence[MultiplierRow]) -> list[MultiplierRow]:
    """Its mix at those ratios where scratch is not under-trained."""
    return [row for row in rows if row.mix == overall.mix and row.ratio is not None and not row.undertrained]


def _unquoted(said: str) -> str:
    return f"not to be quoted: {said} But scratch is under-trained here, so that the truth may be less, even nothing."


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
    """What is missing from the sweep itself: networks, the control, whole scenes for a ratio."""
    there = {(cell.mix, cell.control, cell.ratio, cell.seed) for cell in results.cells}
    absent: dict[tuple[str, str], dict[float, list[int]]] = {}
    for one in results.planned:
        if (one.mix, one.control, one.ratio, one.seed) not in there:
            absent.setdefault((one.mix, one.control), {}).setdefault(one.ratio, []).append(one.seed)
    said = []
    for arm, ratios in absent.items():
        runs = ", ".join(
            f"{f'ratio {ratio:g}' if ratio else 'zero-shot'} (seed {', '.join(map(str, sorted(seeds)))})"
            for ratio, seeds in sorted(ratios.items())
        )
        said.append(f"Runs of {arm_name(*arm)} are missing, as yet or for good: {runs}.")
    arms = {*results.arms(), *((one.mix, one.control) for one in results.planned)}
    if (SCRATCH, "") in arms and (SCRATCH, COMPUTE) not in arms:
        said.append(
            "Scratch was not trained for as long as pretraining and finetuning together; part of the gain may be time."
        )
    return said + _rounded(results)


def _rounded(results: SweepResults) -> list[str]:
    """Ratios that are no whole number of scenes."""
    scenes = {c.ratio: c.labelled_scenes for c in results.cells if c.ratio and c.labelled_scenes}
    whole = all_labels(results)
    off = [
        f"{ratio:g} is {count(n, 'scene')}"
        for ratio, n in sorted(scenes.items())
        if abs(n / (ratio * whole) - 1) > 0.02
    ]
    if not off:
        return []
    return [
        f"Of {whole} labelled scenes, ratio {', '.join(off)}; multipliers are read at the ratios as they are named."
    ]


def arm_name(mix: str, control: str = "") -> str:
    """What tables call an arm."""
    name = "scratch" if mix == SCRATCH else mix
    return f"{name}, more compute" if control == COMPUTE else name


def transfers(found: Mapping[str, Transfer]) -> list[str]:
    """Effective data transferred, a sentence per mix: at each ratio, and the power law if there is one."""
    return [
        f"Effective data transferred by {mix}: {_listed([_scenes(one) for one in each.transferred])} labelled scenes "
        f"beside {_listed([f'{n:g}' for n in each.scenes])}" + (_law(each.law, len(each.scenes)) if each.law else ".")
        for mix, each in found.items()
    ]


def _scenes(transferred: Estimate) -> str:
    bound = {"above": "≥ ", "below": "≤ "}.get(transferred.censored, "")
    return bound + f"{transferred.value:.1f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _law(law: PowerLaw, of: int) -> str:
    used = count(of, "ratio") if len(law.ratios) == of else f"{len(law.ratios)} of {of} ratios, where it is above 0"
    ends = law.alpha.low, law.alpha.high
    span = (
        f"95 % CI {ends[0]:.2f} to {ends[1]:.2f}" if all(map(math.isfinite, ends)) else "95 % CI unknown or unbounded"
    )
    return f"; about {law.k.value:.3g} × (labelled scenes)^{law.alpha.value:.2f} ({used}; exponent {span}).".replace(
        "-", "−"
    )


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
    """ "2.3×", "≥ 4.1×" or "≤ 0.5×"; with † where scratch is under-trained."""
    bound = {"above": "≥ ", "below": "≤ "}.get(row.censored, "")
    return bound + times(row.multiplier) + ("†" if row.undertrained else "")


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
