"""However many workers there are, and whatever is done to them, a training sees the same samples and ends the same."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_corpora
import tiny_network
import torch
import yaml
from clusters import RayCluster, start_cluster
from run_log import learned, starts

from liftgs.model.liftgs import LiftGS
from liftgs.pretraining.items import ItemConfig
from liftgs.training.trainer import OptimConfig
from liftgs_platform import checkpoints
from liftgs_platform import spec as specs
from liftgs_platform.learning import ModelSpec
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.training import LoopConfig, WorkerConfig, train

STEPS, BATCH, MOST = 60, 4, 4
LOOP = LoopConfig(checkpoint_every=5, panel_every=0)


@dataclass
class Run:
    """A training by subprocesses, in a folder.

    Attributes:
        cluster: where it runs.
        folder: for all of it.
        seconds: that a step takes at least.
        least: workers.
        most: workers.
        max_failures: as in `WorkerConfig`.
        drivers: started so far.
    """

    cluster: RayCluster
    folder: Path
    seconds: float = 0.0
    least: int = 1
    most: int = MOST
    max_failures: int = 20
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "run"

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    @property
    def log(self) -> str:
        return "".join(file.read_text()[-4000:] for file in sorted(self.folder.glob("driver*.log"))[-2:])

    @property
    def steps_seen(self) -> int:
        """Highest number of a step that was begun."""
        return max((int(name.partition("-")[0]) for name in os.listdir(self.trace)), default=-1)

    def submit(self, spec: Spec) -> subprocess.Popen[bytes]:
        """Start a driver."""
        self.trace.mkdir(parents=True, exist_ok=True)
        worker = WorkerConfig(1, 0, self.least, self.most, resize_every_s=4.0, max_failures=self.max_failures)
        file = self.folder / "job.yaml"
        file.write_text(yaml.safe_dump(specs.plain(dataclasses.replace(spec, output=str(self.output), worker=worker))))
        command = [sys.executable, str(Path(__file__).with_name("elastic_driver.py")), str(file), str(self.trace)]
        driver = subprocess.Popen(
            [*command, str(self.seconds)],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=(self.folder / f"driver{len(self.drivers):02d}.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.drivers.append(driver)
        return driver

    def finish(self, driver: subprocess.Popen[bytes], patience_s: float = 240) -> None:
        """Wait for its end, which must be a good one."""
        try:
            assert driver.wait(patience_s) == 0, self.log
        finally:
            kill(driver)

    def until(self, step: int, driver: subprocess.Popen[bytes], patience_s: float = 120) -> bool:
        """Wait until a step has begun; False if the driver ended before."""
        deadline = time.monotonic() + patience_s
        while self.steps_seen < step:
            if driver.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"step {step} was not reached: {self.log}"
            time.sleep(0.05)
        return True


def kill(driver: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Two corpora of 6 and 3 samples, and a network to start from."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_corpora.write(str(folder / "a"), tiny_corpora.plan(tiny_corpora.chunks(2)))
    tiny_corpora.write(str(folder / "b"), tiny_corpora.plan(tiny_corpora.chunks(1)))
    config = dataclasses.replace(tiny_network.CONFIG, embed_dim=tiny_corpora.DIM)
    torch.manual_seed(0)
    LiftGS(config).save(folder / "start")
    return Spec(
        output="",
        corpora=(CorpusSpec(str(folder / "a")), CorpusSpec(str(folder / "b"), 0.5)),
        model=ModelSpec(start=str(folder / "start")),
        item=ItemConfig(image_px=16),
        optim=OptimConfig(steps=STEPS, batch_size=BATCH, lr=1e-3, warmup_steps=5),
        loop=LOOP,
    )


@pytest.fixture(scope="module")
def undisturbed(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one worker, in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(Pretraining(dataclasses.replace(spec, output=str(run))), str(run), LOOP)
    torch.set_num_threads(threads)
    return run


@pytest.fixture(scope="module")
def workers_cluster(ray_settings: None) -> Iterator[RayCluster]:
    """A head that trains nothing; nodes are for the tests to add. A node that is silent for seconds counts as dead."""
    patient = {
        "health_check_initial_delay_ms": 2000,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 4,
    }
    with start_cluster(num_cpus=0, _system_config=patient) as cluster:
        yield cluster


def assert_same_run(run: Path, other: Path) -> None:
    """Losses within 1e-4 of each other at every step, and weights."""
    rows, expected = learned(run), learned(other)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row, theirs in zip(rows, expected, strict=True):
        assert row == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    weights, others = (LiftGS.from_pretrained(folder).state_dict() for folder in (run, other))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-6)


def assert_every_sample_once(trace: Path, spec: Spec) -> None:
    """At every position stood the sample that the order has there, and in an epoch each of a corpus stands once."""
    mixture = Mixture(spec.corpora, spec.seed)
    seen: Counter[tuple[int, int, str]] = Counter()
    for position in range(STEPS * BATCH):
        step, place = divmod(position, BATCH)
        draw = mixture.order[position]
        key = (trace / f"{step:04d}-{place}").read_text()
        assert key == mixture.key(draw)
        seen[draw.corpus, draw.epoch, key] += 1
    assert len(os.listdir(trace)) == STEPS * BATCH
    assert set(seen.values()) == {1}
    for corpus, reader in enumerate(mixture.readers):
        whole = max(epoch for of, epoch, _ in seen if of == corpus)  # the last epoch may have just begun
        assert whole > 1
        for epoch in range(whole):
            assert sum(1 for of, at, _ in seen if (of, at) == (corpus, epoch)) == len(reader)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("size", [2, 4])
def test_several_workers_train_as_one(
    workers_cluster: RayCluster, spec: Spec, undisturbed: Path, tmp_path: Path, size: int
) -> None:
    node = workers_cluster.cluster.add_node(num_cpus=size)
    try:
        run = Run(workers_cluster, tmp_path, least=size, most=size)
        run.finish(run.submit(spec))
    finally:
        workers_cluster.cluster.remove_node(node)
    assert starts(run.output) == [(0, size)]
    assert_same_run(run.output, undisturbed)
    assert_every_sample_once(run.trace, spec)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_training_grows_without_losing_what_it_did(
    workers_cluster: RayCluster, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    """There is no checkpoint but the one that it commits before it is stopped to go on with more workers."""
    spec = dataclasses.replace(spec, loop=LoopConfig(checkpoint_every=10 * STEPS, panel_every=0))
    nodes = [workers_cluster.cluster.add_node(num_cpus=1)]
    try:
        run = Run(workers_cluster, tmp_path, seconds=0.3)
        driver = run.submit(spec)
        assert run.until(3, driver)
        nodes.append(workers_cluster.cluster.add_node(num_cpus=1))
        run.finish(driver)
    finally:
        for node in nodes:
            workers_cluster.cluster.remove_node(node)
    (_, first), (step, then) = starts(run.output)
    assert (first, then) == (1, 2)
    assert 3 < step < STEPS
    assert_same_run(run.output, undisturbed)
    assert_every_sample_once(run.trace, spec)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_says_goodbye_costs_no_step(
    workers_cluster: RayCluster, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    """It is drained, as a spot instance is. There is no other checkpoint, and no failure is forgiven."""
    spec = dataclasses.replace(spec, loop=LoopConfig(checkpoint_every=10 * STEPS, panel_every=0))
    nodes = [workers_cluster.cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        run = Run(workers_cluster, tmp_path, seconds=0.3, max_failures=0)
        driver = run.submit(spec)
        assert run.until(5, driver)
        drain = ["drain-node", f"--address={workers_cluster.address}", f"--node-id={nodes[1].node_id}"]
        reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test", "--deadline-remaining-seconds=60"]
        subprocess.run([str(Path(sys.executable).parent / "ray"), *drain, *reason], check=True)
        run.finish(driver)
    finally:
        for node in nodes:
            workers_cluster.cluster.remove_node(node, allow_graceful=False)
    (_, first), (step, then) = starts(run.output)
    assert (first, then) == (2, 1)
    assert 5 < step < STEPS
    assert_same_run(run.output, undisturbed)
    assert_every_sample_once(run.trace, spec)


class Chaos:
    """Adds nodes, and kills nodes, workers and drivers, at random moments."""

    def __init__(self, run: Run, spec: Spec, seed: int):
        self.run, self.spec, self.rng = run, spec, np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.done: list[tuple[str, int]] = []
        self.grow()

    def grow(self) -> None:
        self.nodes.append(self.run.cluster.cluster.add_node(num_cpus=1))

    def kill_node(self) -> None:
        """With all that runs on it, by SIGKILL."""
        node = self.nodes.pop(int(self.rng.integers(len(self.nodes))))
        self.run.cluster.cluster.remove_node(node, allow_graceful=False)
        if not self.nodes:
            self.grow()

    def until_done(self, events: list[str]) -> None:
        driver = self.run.submit(self.spec)
        for event in events:
            # Some way into training, or, one time in three, while things start.
            if self.rng.random() < 0.67 and not self.run.until(self.run.steps_seen + 1, driver):
                break
            time.sleep(self.rng.uniform(0, 3))
            if driver.poll() is not None:
                break
            self.done.append((event, self.run.steps_seen))
            if event == "driver":
                kill(driver)
                driver = self.run.submit(self.spec)
            elif event == "grow":
                self.grow()
            else:
                self.kill_node()
        self.run.finish(driver)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_grown_killed_and_resubmitted_at_random_moments(
    workers_cluster: RayCluster, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    run = Run(workers_cluster, tmp_path, seconds=0.5)
    chaos = Chaos(run, spec, seed=1)
    events = ["grow", "node", "grow", "grow", "driver", "grow", "node", "driver", "node", "grow"]
    try:
        chaos.until_done(events)
    finally:
        for node in chaos.nodes:
            workers_cluster.cluster.remove_node(node, allow_graceful=False)
    print(chaos.done, starts(run.output))
    assert [event for event, _ in chaos.done] == events, "it ended before all was done to it"
    assert len({workers for _, workers in starts(run.output)}) > 1
    assert_same_run(run.output, undisturbed)
    assert_every_sample_once(run.trace, spec)
    assert max(checkpoints.committed(str(run.output))) == STEPS
