"""Which names a job asks for: a benchmark's, the embedded corpora's, or a user's own; and ScanNet's words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from liftgs.procedural import KINDS
from liftgs.readers.scannet_labels import ScanNetLabel
from liftgs.tasks.scannet_classes import SCANNET20, SCANNET200, BenchmarkClasses

BENCHMARKS = {"scannet20": SCANNET20, "scannet200": SCANNET200}


def benchmark(classes: Sequence[str]) -> BenchmarkClasses | None:
    """ScanNet's, if it is one of those."""
    return BENCHMARKS.get(classes[0]) if len(classes) == 1 else None


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """What a spec's classes stand for: the name of a benchmark, "procedural", or the names themselves."""
    if tuple(classes) == ("procedural",):
        return tuple(KINDS)
    known = benchmark(classes)
    return tuple(classes) if known is None else known.names


def check_table(label_table: str, classes: Sequence[str], key: str) -> None:
    """Raises:
    ValueError: there is a label table, and no benchmark that it is for.
    """
    if label_table and benchmark(classes) is None:
        raise ValueError(f"label_table is for {key}=[scannet20] or {key}=[scannet200]")


def class_of_words(labels: Mapping[str, ScanNetLabel], known: BenchmarkClasses) -> dict[str, str]:
    """Each of ScanNet's words -> the benchmark's class; "" where it has none.

    Args:
        labels: from `read_label_table`.
        known: the benchmark.
    """
    names = dict(zip(known.ids, known.names, strict=True))
    numbers = {word: label.nyu40id if known is SCANNET20 else label.id for word, label in labels.items()}
    return {word: names.get(number, "") for word, number in numbers.items()}
