"""A sweep's tables beside those of the paper, which are of another data set and say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liftgs.scaling.estimate import Estimate
from liftgs_platform.report.paper import FINETUNE_SCALING, PaperTable, tables_for
from liftgs_platform.report.sweep_breakdown import percent
from liftgs_platform.report.sweep_words import arm_name, bounded
from liftgs_platform.sweep_answers import Answers
from liftgs_platform.sweep_arms import levels
from liftgs_platform.sweep_results import MAIN, SCRATCH, SweepResults

#: As the paper shows them, and what stands for them in a sweep without expressions.
_ACCURACIES, _PRECISIONS = MAIN[3:], MAIN[:3]


def side_by_side(results: SweepResults, answers: Answers, best: str) -> list[list[dict[str, Any]]]:
    """Pairs of tables, ours first: scratch and pretrained by ratio, then arms by metric at all the labels."""
    metrics = results.metrics()
    shown = [m for m in (_ACCURACIES if _ACCURACIES[1] in metrics else _PRECISIONS) if m in metrics] or metrics[:3]
    made = (
        [[_by_ratio(results, answers, best, shown[min(1, len(shown) - 1)]), _printed(FINETUNE_SCALING)]] if best else []
    )
    top = max((c.ratio for c in results.cells if 0 < c.ratio <= 1 and c.mix != SCRATCH), default=None)
    if top is not None:
        ours = _by_arm(results, shown, top)
        made += [
            [ours if i == 0 else {**ours, "ours": False}, _printed(t)] for i, t in enumerate(tables_for(results.name))
        ]
    return made


def _by_ratio(results: SweepResults, answers: Answers, best: str, metric: str) -> dict[str, Any]:
    scratch, pretrained = (dict(levels(results, metric, mix)) for mix in (SCRATCH, best))
    worth = {row.ratio: bounded(row) for row in answers.multipliers_of(metric, best)}
    rows = [
        {"name": f"{r:g}", "values": [_plain(scratch.get(r)), _plain(pretrained.get(r)), worth.get(r, "–")]}
        for r in sorted(scratch.keys() | pretrained.keys())
        if r > 0
    ]
    return {
        "ours": True,
        "caption": f"This sweep: {metric.removesuffix(' all')} (%) by the share of the labels, pretrained on {best}.",
        "corner": "ratio",
        "columns": ["scratch", "pretrained", "multiplier"],
        "rows": rows,
        "note": "",
    }


def _by_arm(results: SweepResults, metrics: Sequence[str], ratio: float) -> dict[str, Any]:
    rows = []
    for mix, control in results.arms():
        values = [dict(levels(results, metric, mix, control)).get(ratio) for metric in metrics]
        if any(values):
            rows.append({"name": arm_name(mix, control), "values": [_plain(value) for value in values]})
    return {
        "ours": True,
        "caption": f"This sweep (%), at ratio {ratio:g}.",
        "corner": "arm",
        "columns": [metric.removesuffix(" all") for metric in metrics],
        "rows": rows,
        "note": "",
    }


def _plain(level: Estimate | None) -> str:
    return percent(level.value) if level else "–"


def _printed(table: PaperTable) -> dict[str, Any]:
    def show(head: str, value: float | None) -> str:
        if value is None:
            return "–"
        return f"about {value:g}×" if head == "multiplier" else f"{value:.2f}".removesuffix("0")

    return {
        "ours": False,
        "caption": f"The paper's {table.number}, another data set: {table.title}.",
        "corner": "",
        "columns": table.columns,
        "rows": [
            {"name": name, "values": [show(*pair) for pair in zip(table.columns, values, strict=True)]}
            for name, values in table.rows
        ],
        "note": table.note,
    }
