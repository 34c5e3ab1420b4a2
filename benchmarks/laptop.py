"""The labelling job's default, end to end on two cores: how many frames a second, and where the time goes.

Runs `jobs/pseudolabel.yaml` itself, in a process and on a Ray cluster of its own, with nothing changed but the number
of rooms and the output. The bound: 400 rooms of 6 views in 20 minutes, which is 2 frames a second.

Steady state is from when the first process has its models and begins to work to the last committed shard, as the job
itself reports it; start-up is what comes before.
The breakdown is what the job itself records in `runs/`: seconds of work per frame and stage. They add up to more than
the wall clock's, since stages run side by side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._labelling import JOB
from benchmarks.common import Row, least_row, main, most_row, plain_row
from liftgs_platform.label_stages import STAGES

ROOMS = 48
VIEWS = 6
LEAST_FRAMES_PER_S = 2.0
ALL_ROOMS = 400
ALL_ROOMS_S = 20 * 60


def measure() -> Iterator[Row]:
    """Rates, start-up, and seconds per frame of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        started = time.time()
        label(corpus)
        seconds = time.time() - started
        facts = json.loads((corpus / "runs" / "0000" / "result.json").read_text())
    if facts["quarantined"]:
        raise RuntimeError(f"{facts['quarantined']} frames could not be labelled")
    frames = facts["frames"]
    rate = facts["frames_per_s"]
    start_up = seconds - frames / rate
    rooms_s = start_up + ALL_ROOMS * VIEWS / rate
    yield least_row(f"{ROOMS} rooms, start-up included", frames / seconds, LEAST_FRAMES_PER_S, "frames/s")
    yield least_row("steady state", rate, LEAST_FRAMES_PER_S, "frames/s")
    yield plain_row("start-up", start_up, "s")
    yield most_row(f"{ALL_ROOMS} rooms, from start-up and steady state", rooms_s, ALL_ROOMS_S, "s")
    for stage in STAGES:
        tally = facts["stages"][stage]
        yield plain_row(f"work of stage {stage}", tally["seconds"] / tally["frames"], "s/frame")


def label(corpus: Path) -> None:
    """Run the job; what it prints goes to standard error.

    Raises:
        CalledProcessError: it failed.
    """
    source = f"source=procedural:apartments?scenes={ROOMS}&views={VIEWS}&seed=0"
    command = [sys.executable, "-m", "liftgs_platform.job", str(JOB), source, f"output={corpus}"]
    subprocess.run(command, check=True, stdout=2, env=os.environ | {"RAY_ADDRESS": "local"})


if __name__ == "__main__":
    main(measure, "the laptop default, end to end")
