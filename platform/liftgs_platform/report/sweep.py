"""`liftgs sweep-report RESULTS`: one self-contained HTML page about a sweep; the answer first, all its numbers last."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from liftgs_platform import storage
from liftgs_platform.report import sweep_tables as tables
from liftgs_platform.report import sweep_words as words
from liftgs_platform.report.inline import swatch
from liftgs_platform.report.page import fill
from liftgs_platform.report.svg import MARKERS
from liftgs_platform.report.sweep_breakdown import breakdowns, cases, pairs
from liftgs_platform.report.sweep_figures import LARGE, SMALL, Arrow, Curve, Size, scaling
from liftgs_platform.report.sweep_paper import side_by_side
from liftgs_platform.sweep_answers import Answers, answer
from liftgs_platform.sweep_arms import levels
from liftgs_platform.sweep_results import COMPUTE, MAIN, SCRATCH, MultiplierRow, SweepResults, cells_csv, multiplier_csv

Arm = tuple[str, str]


def sweep_report(
    results: Annotated[str, typer.Argument(help="A sweep's results.json.gz: a path or URL (s3://...).")],
    output: Annotated[str, typer.Option(help="Where the page goes, a path or URL.")] = "report.html",
) -> None:
    """Write one HTML page about a sweep: the data multiplier, its intervals, fairness, costs and provenance."""
    page = write(output, SweepResults.read(results))
    typer.echo(f"wrote {output} ({len(page) / 1e6:.1f} MB): open it in a browser")


def write(uri: str, results: SweepResults) -> str:
    """Write the page; returns it."""
    page = render(results, answer(results))
    storage.write_bytes(uri, page.encode())
    return page


def render(results: SweepResults, answers: Answers) -> str:
    """The page.

    Args:
        results: of the sweep.
        answers: what follows from them.
    """
    rows = sorted(answers.multipliers, key=lambda row: -answers.mean(row.mix))  # of equal ones the higher mean leads
    overall = [row for row in rows if row.ratio is None]
    best = words.best_of(overall)
    others = sorted((row for row in overall if row is not best), key=lambda row: -row.multiplier)
    mix = best.mix if best else answers.highest
    looks = styles(results.arms())
    scenes = {cell.ratio: cell.labelled_scenes for cell in results.cells}
    paired = pairs(results, mix)
    warnings = [*answers.distrust, *words.gaps(results)]
    return fill(
        "sweep",
        name=results.name,
        lead=words.lead(rows, answers.undertrained, bool(warnings), tables.verdicts(answers)),
        others=[words.opened(words.worth(row, rows)) for row in others],
        undertrained=any(row.undertrained for row in answers.multipliers),
        facts=_facts(results),
        warnings=warnings,
        metric=results.task_metric.removesuffix(" all"),
        best=mix,
        **_figures(results, answers, mix, looks, scenes),
        **tables.multipliers(answers, {name: look for (name, control), look in looks.items() if not control}),
        transfers=words.transfers(answers.transfers),
        **tables.fairness(results, answers, scenes),
        additions=tables.additions(answers),
        **tables.comparisons(answers),
        pairs=side_by_side(results, answers, mix),
        breakdowns=breakdowns(paired, *looks.get((mix, ""), ("k0", "square"))),
        **cases(paired, (words.arm_name(SCRATCH), mix)),
        **tables.costs(results),
        downloads=[
            _download("multiplier.csv", multiplier_csv(answers.multipliers)),
            _download("networks.csv", cells_csv(results)),
        ],
        provenance=tables.provenance(results),
    )


def styles(arms: Sequence[Arm]) -> dict[Arm, tuple[str, str]]:
    """Colour and marker of each arm; scratch is ink, its control grey."""
    looks: dict[Arm, tuple[str, str]] = {}
    mixes = [arm for arm in arms if arm[0] != SCRATCH]
    for arm in arms:
        if arm[0] == SCRATCH:
            looks[arm] = ("k-compute", "cross") if arm[1] == COMPUTE else ("k-scratch", "circle")
        else:
            place = mixes.index(arm)
            looks[arm] = (f"k{place % 6}", MARKERS[1 + place % 5])
    return looks


def curves(results: SweepResults, metric: str, arms: Sequence[Arm], looks: dict[Arm, tuple[str, str]]) -> list[Curve]:
    """A curve per arm that has the metric."""
    drawn = []
    for mix, control in arms:
        means = [(ratio, at.value, at.low, at.high) for ratio, at in levels(results, metric, mix, control)]
        ratios, seeds, values = results.scores(mix, metric, control)
        points = [
            (float(ratio), column - (len(seeds) - 1) / 2, seed, float(values[row, column, 0]))
            for row, ratio in enumerate(ratios)
            for column, seed in enumerate(seeds)
            if math.isfinite(values[row, column, 0])
        ]
        if means:
            drawn.append(Curve(words.arm_name(mix, control), *looks[mix, control], means, points, control != ""))
    return drawn


def arrows(rows: Sequence[MultiplierRow], heights: Mapping[float, float], colour: str) -> list[Arrow]:
    """The multipliers of one mix as arrows, from its mean score at each ratio."""
    return [
        Arrow(
            ratio=row.ratio,
            score=heights[row.ratio],
            reaches=None if row.censored else row.ratio * row.multiplier,
            label=words.bounded(row),
            colour=colour,
            rising=row.censored != "below",
        )
        for row in rows
        if row.ratio is not None and row.ratio in heights and math.isfinite(row.multiplier)
    ]


def _figures(
    results: SweepResults, answers: Answers, best: str, looks: dict[Arm, tuple[str, str]], scenes: dict[float, int]
) -> dict[str, Any]:
    """The large figure; a small one per mix, if there are several; a small one per other metric."""
    arms, metric = results.arms(), results.task_metric
    mixes = [arm for arm in arms if arm[0] != SCRATCH and not arm[1]]

    def draw(metric: str, mix: str, shown: Sequence[Arm], size: Size, title: str = "") -> str:
        drawn = curves(results, metric, shown, looks)
        rows = answers.multipliers_of(metric, mix)
        label = f"{metric.removesuffix(' all')} (%)"
        heights = {ratio: level.value for ratio, level in levels(results, metric, mix)} if mix else {}
        found = arrows(rows, heights, looks[mix, ""][0]) if mix else []
        return scaling(drawn, found, label, size, title, scenes if size is LARGE else None)

    panels = [
        draw(metric, mix, [arm for arm in arms if arm[0] in (SCRATCH, mix) and not arm[1]], SMALL, mix)
        for mix, _ in mixes
    ]
    others = [name for name in results.metrics() if name != metric]
    main = [name for name in others if name in MAIN]
    plain = [arm for arm in arms if not arm[1]]
    return {
        "figure": draw(metric, best, arms, LARGE),
        "legend": [{"name": words.arm_name(*arm), "swatch": swatch(*looks[arm], dashed=arm[1] != "")} for arm in arms],
        "bounded": any(row.censored for row in answers.multipliers if row.ratio is not None),
        "panels": panels if len(panels) > 1 else [],
        "metrics": [draw(name, best, plain, SMALL, name.removesuffix(" all")) for name in main],
        "unshown": len(others) - len(main),
    }


def _facts(results: SweepResults) -> str:
    seeds = {cell.seed for cell in results.cells}
    ratios = {cell.ratio for cell in results.cells if cell.ratio > 0}
    draws = max((len(values) - 1 for cell in results.cells for values in cell.figures.values()), default=0)
    of_all = f" of {len(results.planned)}" if len(results.planned) > len(results.cells) else ""
    known = f"intervals from seeds and {words.count(draws, 'resample')} of the scenes"
    return (
        f"{words.count(len(results.cells), 'network')}{of_all}, {words.count(len(ratios), 'ratio')} of labels, "
        f"{words.count(len(seeds), 'seed')}, measured by {results.task_metric.removesuffix(' all')}; "
        f"{known if len(seeds) > 1 else 'no intervals, which take a second seed'}."
    )


def _download(name: str, text: str) -> dict[str, str]:
    return {"name": name, "uri": "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()}
