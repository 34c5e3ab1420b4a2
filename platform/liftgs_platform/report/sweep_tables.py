"""Tables of a sweep's page, as the template wants them: words and numbers ready to be printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from liftgs.scaling.estimate import Estimate
from liftgs_platform.report.inline import interval as drawn_interval
from liftgs_platform.report.sweep_breakdown import percent, points
from liftgs_platform.report.sweep_words import arm_name, bounded, count, duration, interval, times
from liftgs_platform.sweep_answers import Answers, is_clear
from liftgs_platform.sweep_results import StageKind, SweepResults


def multipliers(answers: Answers, styles: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A line per mix and ratio, all ratios together last; drawn on one logarithmic line."""
    rows = [row for row in answers.multipliers if math.isfinite(row.multiplier)]
    ends = [end for row in rows for end in (row.multiplier, row.low, row.high) if 0 < end < math.inf]
    if not ends:
        return {"multipliers": []}
    limits = max(min(0.5, *ends), 0.1), min(max(2.0, *ends), 50.0)  # of what is drawn; arrows say that there is more
    shown, last = [], None
    for row in rows:
        drawing = drawn_interval(row.multiplier, row.low, row.high, limits, *styles[row.mix], row.censored)
        shown.append(
            {
                "mix": row.mix,
                "first": row.mix != last,
                "ratio": "all" if row.ratio is None else f"{row.ratio:g}",
                "value": bounded(row),
                "interval": interval(row.low, row.high),
                "drawing": drawing,
                "seeds": row.seeds,
            }
        )
        last = row.mix
    return {"multipliers": shown, "limits": [times(limit) for limit in limits]}


def fairness(results: SweepResults, answers: Answers, scenes: dict[float, int]) -> dict[str, Any]:
    """Every ratio with its rows of the comparison: scratch, scratch with all the compute, each mix."""
    arms = results.arms()
    ratios = sorted({ratio for of in answers.levels.values() for ratio in of})
    rows = [
        {
            "ratio": f"{ratio:g}",
            "scenes": (count(scenes[ratio], "scene") if scenes.get(ratio) else "") if ratio else "zero-shot",
            "cells": [_cell(answers.levels[arm].get(ratio)) for arm in arms],
        }
        for ratio in ratios
    ]
    return {"heads": [arm_name(*arm) for arm in arms], "rows": rows, "steps": _steps(results)}


def _cell(level: Estimate | None) -> dict[str, str]:
    if level is None or math.isnan(level.value):
        return {"value": "–", "interval": ""}
    known = math.isfinite(level.low)
    return {
        "value": percent(level.value),
        "interval": f"{percent(level.low)} to {percent(level.high)}" if known else "",
    }


def _steps(results: SweepResults) -> str:
    said = []
    for mix, control in results.arms():
        cells = [c for c in results.cells if (c.mix, c.control) == (mix, control) and c.ratio > 0]
        if cells:
            low, high = min(c.steps for c in cells), max(c.steps for c in cells)
            span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            done = sum(c.plateau for c in cells)
            replay = 0.0 if control else results.replay.get(mix, 0.0)
            of_them = f", {replay:.0%} of them on what it was pretrained on," if replay else ","
            stopped = f"{done} of {len(cells)} runs stopped at their plateau"
            said.append(f"{arm_name(mix, control)}: {span} steps{of_them} {stopped}")
    if results.replay:
        said.append("the paper finetunes on labels alone: to go on with pretraining meanwhile is ours")
    return "; ".join(said) + "."


def additions(answers: Answers) -> list[dict[str, Any]]:
    """A line per pair of mixes and ratio."""
    shown: list[dict[str, Any]] = []
    last = None
    for gain in answers.additions:
        names = (gain.mix, gain.base)
        shown.append(
            {
                "mix": f"{gain.base} → {gain.mix}",
                "first": names != last,
                "adds": gain.adds,
                "growth": f"+{gain.growth:.0%}" if math.isfinite(gain.growth) else "–",
                "ratio": f"{gain.ratio:g}",
                **_more_labels(gain.labels),
            }
        )
        last = names
    return shown


def _more_labels(labels: Estimate) -> dict[str, str]:
    """How many more, in words for the table: bounds where the smaller mix never gets there."""
    bound = {"above": "≥ ", "below": "≤ "}.get(labels.censored, "")
    no_low, no_high = labels.low <= -1, math.isinf(labels.high)
    if math.isnan(labels.low):
        span = "unknown"
    elif no_low or no_high:
        span = (
            "anything"
            if no_low and no_high
            else f"up to {_share(labels.high)}"
            if no_low
            else f"{_share(labels.low)} and up"
        )
    else:
        span = f"{_share(labels.low)} to {_share(labels.high)}"
    return {"value": bound + _share(labels.value), "interval": span}


def _share(value: float) -> str:
    shown = f"{value:+.0%}".replace("-", "−")
    return "0%" if shown in ("+0%", "−0%") else shown


def verdicts(answers: Answers) -> list[tuple[str, str, str]]:
    """Of each claim: better, worse, and how it stands with what is sure."""
    return [
        (arm_name(d.better), arm_name(d.worse), d.verdict + (f" ({_by(d.by)})" if math.isfinite(d.by.value) else ""))
        for d in answers.claims
    ]


def _by(by: Estimate) -> str:
    span = f", 95 % CI {_points_span(by)}" if math.isfinite(by.low) else ""
    return f"{points(by.value)} points{span}"


def comparisons(answers: Answers) -> dict[str, Any]:
    """Claims with verdicts, and the triangle of all arms, best first."""
    claims = [
        {
            "better": arm_name(d.better),
            "worse": arm_name(d.worse),
            "verdict": d.verdict,
            "value": points(d.by.value),
            "interval": _points_span(d.by),
            "chance": f"{d.chance:.0%}" if math.isfinite(d.chance) else "–",
        }
        for d in answers.claims
    ]
    between = {(d.better, d.worse): d.by for d in answers.differences}
    names = list(dict.fromkeys(name for pair in between for name in pair))
    rows = [
        {"name": arm_name(name), "cells": [_difference(between.get((name, other))) for other in names[1:]]}
        for name in names[:-1]
    ]
    table = {"names": [arm_name(name) for name in names[1:]], "rows": rows} if len(names) > 2 else None
    return {"orderings": claims, "differences": table}


def _difference(by: Estimate | None) -> dict[str, Any] | None:
    return {"value": points(by.value), "interval": _points_span(by), "sure": is_clear(by)} if by else None


def _points_span(by: Estimate) -> str:
    return f"{points(by.low)} to {points(by.high)}" if math.isfinite(by.low) else "unknown"


def costs(results: SweepResults) -> dict[str, Any]:
    """Per kind of stage and in all, against a grid in which each network runs all its stages itself."""
    by_kind = {kind: [stage for stage in results.stages if stage.kind == kind] for kind in get_args(StageKind)}
    rows = [_cost(kind, stages) for kind, stages in by_kind.items() if stages]
    if not rows:
        return {"costs": [], "saving": ""}
    total = _cost("all", results.stages)
    ran = sum(stage.seconds for stage in results.stages if not stage.reused)
    once = sum(stage.seconds for stage in results.stages)
    grid = sum(stage.seconds * stage.users for stage in results.stages)
    share = f" ({1 - once / grid:.0%})" if grid > 0 else ""
    saving = (
        f"A plain grid would have taken {grid:,.0f} stage-seconds ({duration(grid)}). Running each distinct stage once "
        f"takes {once:,.0f} ({duration(once)}), which saves {grid - once:,.0f} stage-seconds{share}."
    )
    if once > ran:
        saving += f" The last submission ran {duration(ran)} of it; the rest was there already."
    return {"costs": [*rows, total | {"total": True}], "saving": saving}


def _cost(kind: str, stages: Sequence[Any]) -> dict[str, Any]:
    once = sum(stage.seconds for stage in stages)
    grid = sum(stage.seconds * stage.users for stage in stages)
    reused = sum(stage.reused for stage in stages)
    return {
        "kind": kind,
        "ran": len(stages) - reused,
        "reused": reused,
        "seconds": f"{once:,.0f}",
        "grid": f"{grid:,.0f}",
        "saved": f"{grid - once:,.0f}",
    }


def provenance(results: SweepResults) -> list[dict[str, Any]]:
    """Axes and all that is known of where the sweep comes from, nested keys joined by dots, without what is empty."""
    return [
        {"key": key, "value": value, "long": "\n" in value}
        for key, value in (*_flat("axis", results.axes), *_flat("", results.provenance))
        if value
    ]


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for name, inner in value.items() for row in _flat(f"{key}.{name}".lstrip("."), inner)]
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return _flat(key, {str(index): item for index, item in enumerate(value)})
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    return [(key, str(value))]
