"""Whatever is killed whenever, submitting the job again ends with the bytes of a job that was left alone."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from chaos_driver import spec_of
from clusters import RayCluster

from liftgs_platform import pseudolabel
from liftgs_platform.verify import verify

KINDS = ("actor", "driver", "node", "worker")
SECONDS_PER_FRAME = 0.15


@dataclass
class Chaos:
    """Labels a source while killing, at random moments, an actor, any worker process, the driver and a whole node.

    Attributes:
        cluster: its head stays; a second node comes and goes.
        source: what to label.
        folder: for the corpora.
        expected: files of a corpus that was left alone.
        rng: chooses moments and victims.
        victims: (submission, kind, what it was) of the kills so far.
        submissions: how often the job was submitted.
    """

    cluster: RayCluster
    source: Path
    folder: Path
    expected: dict[str, bytes]
    rng: np.random.Generator
    victims: list[tuple[int, str, str]] = field(default_factory=list)
    submissions: int = 0
    node: Any = None

    def run(self, kills: int) -> None:
        """Label, and start afresh whenever a corpus is complete, until there were so many kills."""
        self.node = self.cluster.cluster.add_node(num_cpus=1)
        try:
            for number in itertools.count():
                self._label(self.folder / f"corpus{number}", kills)
                if len(self.victims) == kills:
                    return
        finally:
            self.cluster.cluster.remove_node(self.node, allow_graceful=False)

    def _label(self, corpus: Path, kills: int) -> None:
        done = False
        most = self.submissions + 3 * kills + 3  # each kill costs one or two; a driver that cannot start costs all
        while not done:
            if self.submissions >= most:
                log = (self.folder / f"driver{self.submissions}.log").read_text()
                raise AssertionError(f"{self.submissions} submissions, and {self.victims}: {log[-3000:]}")
            driver = self._submit(corpus)
            try:
                done = self._disturb(driver, corpus, kills)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
        assert tiny.corpus_files(corpus) == self.expected
        assert not list(verify(str(corpus), deep=True))

    def _submit(self, corpus: Path) -> subprocess.Popen[bytes]:
        self.submissions += 1
        command = [sys.executable, str(Path(__file__).with_name("chaos_driver.py"))]
        return subprocess.Popen(
            [*command, str(self.source), str(corpus), str(SECONDS_PER_FRAME)],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=(self.folder / f"driver{self.submissions}.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _disturb(self, driver: subprocess.Popen[bytes], corpus: Path, kills: int) -> bool:
        """Kill things until the driver has ended. Returns whether it had finished its work."""
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            if self.rng.random() < 0.5:  # else most kills would fall into the start
                self._wait_for_a_commit(driver, corpus)
            with suppress(subprocess.TimeoutExpired):
                return driver.wait(timeout=self.rng.uniform(0.1, 4.0)) == 0
            if len(self.victims) < kills:
                kind = KINDS[len(self.victims) % len(KINDS)]
                victim = self._kill(kind, driver)
                if victim:
                    self.victims.append((self.submissions, kind, victim))
        log = (self.folder / f"driver{self.submissions}.log").read_text()
        raise TimeoutError(f"no end after 150 s, and {self.victims}: {log[-3000:]}")

    def _wait_for_a_commit(self, driver: subprocess.Popen[bytes], corpus: Path) -> None:
        before = len(list(corpus.glob("shards/*.json")))
        for _ in range(600):
            if driver.poll() is not None or len(list(corpus.glob("shards/*.json"))) > before:
                return
            time.sleep(0.1)

    def _kill(self, kind: str, driver: subprocess.Popen[bytes]) -> str:
        """Returns what was killed, or "" if the driver ended before there was anything to kill."""
        if kind == "driver":
            os.killpg(driver.pid, signal.SIGKILL)
            return "driver"
        if kind == "node":
            self.cluster.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self.cluster.cluster.add_node(num_cpus=1)
            return "node"
        while driver.poll() is None:  # no actor lives while the job starts
            victims = self._processes(kind)
            if victims:
                pid, title = victims[int(self.rng.integers(len(victims)))]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return title
            time.sleep(0.1)
        return ""

    def _processes(self, kind: str) -> list[tuple[int, str]]:
        """Process ids and titles of all workers of the cluster, or of those that hold a stage.

        A node's agents are left out: Ray ends the node with them, and that of the head is the end of the cluster.
        """
        psutil = importlib.import_module("psutil")  # Ray's own; there once Ray is imported
        workers = [
            process
            for node in (self.cluster.cluster.head_node, self.node)
            for raylet in node.all_processes["raylet"]
            for process in psutil.Process(raylet.process.pid).children(recursive=True)
        ]
        found: list[tuple[int, str]] = []
        for process in workers:
            with suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline()).strip()
                if title.startswith("ray::MapWorker" if kind == "actor" else "ray::") and "Agent" not in title:
                    found.append((process.pid, title))
        return sorted(found)


def kill_and_compare(
    cluster: RayCluster, folder: Path, kills: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> Chaos:
    """Twelve shards, disturbed."""
    monkeypatch.setattr(pseudolabel, "code_revision", lambda: "chaos")  # as the driver calls it
    source = tiny.write_scenes(folder / "scans", 6)
    (source / "scene03" / f"{tiny.name(1)}.color.jpg").write_bytes(b"not a photo")  # losses must survive as well
    spec = spec_of(str(source), str(folder / "undisturbed"))
    plans = pseudolabel.open_plans(spec)
    pseudolabel.run_here(spec, tiny.with_quick_teachers(pseudolabel.factories(spec, plans)))
    expected = tiny.corpus_files(folder / "undisturbed")
    chaos = Chaos(cluster, source, folder, expected, np.random.default_rng(seed))
    chaos.run(kills)
    print(f"{chaos.submissions} submissions; killed: {chaos.victims}")
    return chaos


@pytest.mark.timeout(900)
def test_killed_jobs_end_with_the_bytes_of_an_undisturbed_one(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kill of each kind."""
    chaos = kill_and_compare(ray_cluster, tmp_path, kills=4, seed=0, monkeypatch=monkeypatch)
    assert sorted(kind for _, kind, _ in chaos.victims) == sorted(KINDS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_change_no_byte(ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos = kill_and_compare(ray_cluster, tmp_path, kills=20, seed=1, monkeypatch=monkeypatch)
    assert Counter(kind for _, kind, _ in chaos.victims) == dict.fromkeys(KINDS, 5)
