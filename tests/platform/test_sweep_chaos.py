"""A sweep whose driver, stages and nodes are killed ends with the results of one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import small_sweep
from clusters import RayCluster, start_cluster

KILLS = 10
KINDS = ("driver", "stage", "node")


class Chaos:
    """Submits a sweep until it is done, and kills what it can meanwhile."""

    def __init__(self, cluster: RayCluster, file: Path, seed: int):
        self.cluster, self.file = cluster, file
        self.rng = np.random.default_rng(seed)
        self.node = cluster.cluster.add_node(num_cpus=1)
        self.victims: list[str] = []
        self.submissions = 0

    def run(self) -> None:
        while True:
            if self.submissions > 2 * KILLS:
                log = (self.file.parent / f"driver{self.submissions}.log").read_text()
                raise AssertionError(f"{self.submissions} submissions, and {self.victims}: {log[-3000:]}")
            driver = self._submit()
            while len(self.victims) < KILLS and driver.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(float(self.rng.uniform(4, 16)))
                if driver.poll() is None:
                    self._kill(KINDS[len(self.victims) % len(KINDS)], driver)
            if driver.wait(600) == 0:
                return

    def _submit(self) -> subprocess.Popen[bytes]:
        self.submissions += 1
        environment = os.environ | {"RAY_ADDRESS": self.cluster.address}
        log = (self.file.parent / f"driver{self.submissions}.log").open("wb")
        return subprocess.Popen(
            [sys.executable, "-m", "liftgs_platform.job", str(self.file)], env=environment, stdout=log, stderr=log
        )

    def _kill(self, kind: str, driver: subprocess.Popen[bytes]) -> None:
        if kind == "driver":
            driver.kill()
            driver.wait()
        elif kind == "node":
            self.cluster.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self.cluster.cluster.add_node(num_cpus=1)
        else:
            stages = self._stages()
            if not stages:
                return
            with suppress(ProcessLookupError):
                os.kill(stages[int(self.rng.integers(len(stages)))], signal.SIGKILL)
        self.victims.append(kind)

    def _stages(self) -> list[int]:
        psutil = pytest.importorskip("psutil")
        raylets = [node.all_processes["raylet"][0].process.pid for node in (self.cluster.cluster.head_node, self.node)]
        found = []
        for raylet in raylets:
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(raylet).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if " ".join(process.cmdline()).startswith("ray::_StageActor"):
                            found.append(process.pid)
        return sorted(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_change_no_figure_and_no_finished_stage_runs_again(ray_settings: None, tmp_path: Path) -> None:
    small_sweep.make_inputs(tmp_path / "inputs")
    (tmp_path / "alone").mkdir()
    (tmp_path / "killed").mkdir()
    with start_cluster(num_cpus=1) as cluster:
        undisturbed = small_sweep.write_job(tmp_path / "alone", tmp_path / "inputs")
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        subprocess.run([sys.executable, "-m", "liftgs_platform.job", str(undisturbed)], env=environment, check=True)
        chaos = Chaos(cluster, small_sweep.write_job(tmp_path / "killed", tmp_path / "inputs"), seed=0)
        started = time.monotonic()
        chaos.run()
    print(f"{chaos.submissions} submissions in {time.monotonic() - started:.0f} s; killed {Counter(chaos.victims)}")
    assert len(chaos.victims) == KILLS
    for table in ("multiplier.csv",):
        expected = (tmp_path / "alone" / "sweep" / table).read_text()
        assert (tmp_path / "killed" / "sweep" / table).read_text() == expected
    finished: set[str] = set()
    for file in sorted((tmp_path / "killed" / "sweep" / "runs").glob("*/events.jsonl")):
        for event in map(json.loads, file.read_text().splitlines()):
            assert not (event["state"] == "running" and event["stage"] in finished), "it was done already"
            if event["state"] in ("done", "reused"):
                finished.add(event["stage"])
    assert len(finished) == 10 + 11
