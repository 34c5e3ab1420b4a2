"""The log of a training, parted into what was learned and under which circumstances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from liftgs_platform import training_log

#: In a row, what depends on where and when a run ran. So does whatever ends in "_s".
CIRCUMSTANCES = ("items_per_s_per_worker", "wait_share", "goodput", "workers", "restarts", "seconds", "at")


def learned(run: Path | str) -> list[dict[str, Any]]:
    """The log without its circumstances."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_s") and name not in CIRCUMSTANCES}
        for row in training_log.read(str(run))
        if row.get("event") != "start"
    ]


def starts(run: Path | str) -> list[tuple[int, int]]:
    """Step and number of workers of each start."""
    return [(row["step"], row["workers"]) for row in training_log.read(str(run)) if row.get("event") == "start"]
