"""What every benchmark shares: a row, the table, `--json`, and how to time fairly."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: what was measured.
        ours: our figure.
        peer: the peer's figure, or None where there is only a bound.
        peer_name: what the peer is.
        ratio: over 1 is in our favour.
        bound: a required or physical limit in the same unit, or None.
        unit: of `ours`, `peer` and `bound`.
    """

    case: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    bound: float | None
    unit: str


def rate_row(case: str, ours: float, peer: float, peer_name: str, unit: str, bound: float | None = None) -> Row:
    """A figure of which more is better."""
    return Row(case, ours, peer, peer_name, ours / peer, bound, unit)


def cost_row(case: str, ours: float, peer: float, peer_name: str, unit: str, bound: float | None = None) -> Row:
    """A figure of which less is better."""
    return Row(case, ours, peer, peer_name, peer / ours, bound, unit)


def least_row(case: str, ours: float, least: float, unit: str) -> Row:
    """A figure that must be at least so much, and has no peer."""
    return Row(case, ours, None, "", ours / least, least, unit)


def most_row(case: str, ours: float, most: float, unit: str) -> Row:
    """A figure that must be at most so much, and has no peer."""
    return Row(case, ours, None, "", most / ours, most, unit)


def plain_row(case: str, ours: float, unit: str) -> Row:
    """A figure to read the others by."""
    return Row(case, ours, None, "", None, None, unit)


def interleaved_seconds(repeats: int, *calls: Callable[[], object], warm: bool = False) -> list[float]:
    """Median seconds of each call; they take turns, so that a drifting machine hurts all alike. One warm-up each.

    `warm` times the second of two calls in a row, as a loop sees it: with threads awake and caches its own.
    """
    samples: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, seconds in zip(calls, samples, strict=True):
            if warm and turn:
                call()
            start = time.perf_counter()
            call()
            if turn:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in samples]


def main(measure: Callable[[], Iterable[Row]], description: str) -> None:
    """Run a benchmark from the command line: a table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one object {'rows': [...]} instead of a table")
    arguments = parser.parse_args()
    report(measure(), description, arguments.json)


def report(rows: Iterable[Row], title: str, as_json: bool) -> None:
    """Tell each row on standard error when it is measured, and print all in the end."""
    measured = []
    for row in rows:
        against = "" if row.peer is None else f"; {row.peer_name}: {_short(row.peer)} {row.unit}"
        print(f"{row.case}: {_short(row.ours)} {row.unit}{against}", file=sys.stderr, flush=True)
        measured.append(row)
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in measured]}, indent=1))
    else:
        show(measured, title)


def show(rows: Iterable[Row], title: str) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left")
    for column in ("case", "ours", "peer", "ratio", "bound"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        peer = "" if row.peer is None else f"{_short(row.peer)} {row.unit} ({row.peer_name})"
        table.add_row(
            row.case,
            f"{_short(row.ours)} {row.unit}",
            peer,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.bound is None else f"{_short(row.bound)} {row.unit}",
        )
    Console(width=140).print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
