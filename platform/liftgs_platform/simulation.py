"""What a cluster's failures cost a training or a labelling job, and how often to checkpoint: a discrete-event model.

A training runs on `least` to `most` nodes. A node that fails takes the whole group of workers down: they are started
again, after `restart_s`, from the newest committed checkpoint, on the nodes that are there. A node that is taken away
with notice costs no steps if the notice is long enough for a step and a checkpoint. Lost nodes come back after a while;
every `resize_every_s` the training looks whether it could grow, checkpoints, and starts again with more. Checkpoints
stall it for `checkpoint_s`, and are committed `commit_s` later.

A labelling job gives each node a shard at a time; a lost node loses the shard that it is at, which another does again.

Times between failures of a node are exponential, and independent. Nothing here knows Ray; the numbers come from a run's
own log, or from `benchmarks/elastic.py`.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Nodes:
    """The cluster that a job is forecast for.

    Attributes:
        count: nodes, of which each runs one worker.
        mtbf_h: mean hours until a node dies without notice; 0 = never.
        preempted_h: mean hours until it is taken away with notice; 0 = never.
        notice_s: how long that is known before.
        back_s: until a lost node is replaced.
        usd_per_h: price of a node.
        storage_mb_per_s: what all nodes together read from, or write to, the object store.
    """

    count: int = 1
    mtbf_h: float = 1000.0
    preempted_h: float = 0.0
    notice_s: float = 60.0
    back_s: float = 300.0
    usd_per_h: float = 0.0
    storage_mb_per_s: float = 1000.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        numbers = (self.mtbf_h, self.preempted_h, self.notice_s, self.back_s, self.usd_per_h)
        if min(numbers) < 0 or not self.storage_mb_per_s > 0:
            raise ValueError("times and prices must not be negative, storage_mb_per_s must be above 0")


@dataclass(frozen=True)
class TrainingModel:
    """A training, as the simulation sees it.

    Attributes:
        steps: in all.
        item_s: a worker's seconds for an item.
        batch_size: items of a step, shared by the workers.
        overhead_s: of a step, however many workers there are.
        checkpoint_every: steps between checkpoints.
        checkpoint_s: that a checkpoint stalls the training.
        commit_s: from its beginning until it is committed.
        restart_s: from a failure or a resize to the next step.
        resize_every_s: between looks whether more workers could join.
        least: workers that it needs.
        most: workers that it can use.
    """

    steps: int
    item_s: float
    batch_size: int = 1
    overhead_s: float = 0.0
    checkpoint_every: int = 250
    checkpoint_s: float = 0.1
    commit_s: float = 1.0
    restart_s: float = 20.0
    resize_every_s: float = 60.0
    least: int = 1
    most: int = 1

    def step_s(self, workers: int) -> float:
        """A step takes as long as the worker with most items."""
        return self.overhead_s + math.ceil(self.batch_size / workers) * self.item_s


@dataclass(frozen=True)
class LabellingModel:
    """A labelling job, as the simulation sees it.

    Attributes:
        shards: to do.
        shard_s: that a node works on one.
        shard_mb: that are read and written for one.
        start_s: from a node's arrival until it works: loading models.
    """

    shards: int
    shard_s: float
    shard_mb: float = 0.0
    start_s: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        wall_s: from the first start to the end.
        useful_s: of these in steps that count; of labelling, of all nodes in shards that count.
        node_s: seconds of nodes that were there, working or not.
        restarts: after failures and for resizes; of labelling, of nodes.
        lost_steps: done in vain; of labelling, shards that were begun in vain.
    """

    wall_s: float
    useful_s: float
    node_s: float
    restarts: int
    lost_steps: int

    @property
    def goodput(self) -> float:
        """Share of the time that went into steps that count."""
        return self.useful_s / self.wall_s

    def usd(self, nodes: Nodes) -> float:
        """Price of the nodes."""
        return self.node_s / _HOUR_S * nodes.usd_per_h


def simulate(training: TrainingModel, nodes: Nodes, seed: int = 0) -> Outcome:
    """One life of a training.

    Raises:
        ValueError: there are fewer nodes than it needs.
    """
    if nodes.count < training.least:
        raise ValueError(f"{nodes.count} nodes, and the training needs {training.least}")
    fleet = _Fleet(nodes, np.random.default_rng(seed))
    committed = restarts = lost = 0
    useful_s = 0.0
    while True:
        while fleet.alive < training.least:
            fleet.next(math.inf)
        attempt = _Attempt(training, fleet, committed)
        attempt.run()
        useful_s += (attempt.committed - committed) * attempt.step_s
        lost += attempt.done - attempt.committed
        committed = attempt.committed
        if committed == training.steps:
            return Outcome(fleet.now, useful_s, fleet.node_s, restarts, lost)
        restarts += 1


def simulate_labelling(job: LabellingModel, nodes: Nodes, seed: int = 0) -> Outcome:
    """One life of a labelling job; whatever wants a node's time to work on is a shard."""
    fleet = _Fleet(nodes, np.random.default_rng(seed))
    waiting, lost, restarts = job.shards, 0, 0
    useful_s = 0.0
    ready = [job.start_s] * nodes.count  # when each idle node can begin
    busy: list[tuple[float, float]] = []  # end and length of each shard under way
    while waiting or busy:
        while waiting and ready and ready[0] <= fleet.now:
            heapq.heappop(ready)
            length = max(job.shard_s, job.shard_mb * (len(busy) + 1) / nodes.storage_mb_per_s)
            heapq.heappush(busy, (fleet.now + length, length))
            waiting -= 1
        soonest = [busy[0][0]] if busy else []
        soonest += [ready[0]] if waiting and ready else []
        event = fleet.next(min(soonest, default=math.inf))
        if event == "back":
            heapq.heappush(ready, fleet.now + job.start_s)
            restarts += 1
        elif event:
            victim = int(fleet.rng.integers(len(busy) + len(ready)))
            if victim < len(busy):
                busy.pop(victim)
                heapq.heapify(busy)
                waiting, lost = waiting + 1, lost + 1
            else:
                ready.pop(victim - len(busy))
                heapq.heapify(ready)
        elif busy and busy[0][0] <= fleet.now:
            useful_s += heapq.heappop(busy)[1]
            heapq.heappush(ready, fleet.now)
    return Outcome(fleet.now, useful_s, fleet.node_s, restarts, lost)


def mean_goodput(training: TrainingModel, nodes: Nodes, lives: int = 20) -> float:
    """Over several lives, the same ones for whatever is compared."""
    return fmean(simulate(training, nodes, seed).goodput for seed in range(lives))


def best_interval(training: TrainingModel, nodes: Nodes, lives: int = 20) -> int:
    """Steps between checkpoints with the highest goodput, among 1, 2, 5, 10, ...; see also `young_s`."""
    candidates = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
    wanted = [every for every in candidates if every < training.steps] or [training.steps]
    return max(wanted, key=lambda every: mean_goodput(replace(training, checkpoint_every=every), nodes, lives))


def young_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Young's (1974) seconds between checkpoints, sqrt(2 checkpoint_s mtbf_s), where both are short beside the MTBF."""
    return math.sqrt(2 * checkpoint_s * mtbf_s)


class _Fleet:
    """Which nodes are there, over time."""

    def __init__(self, nodes: Nodes, rng: np.random.Generator):
        self.nodes, self.rng = nodes, rng
        self.alive, self.now, self.node_s = nodes.count, 0.0, 0.0
        self._events: list[tuple[float, int, str]] = []  # the number keeps those of one time apart
        self._pushed = 0
        for _ in range(nodes.count):
            self._draw_end(0.0)

    def next(self, until: float) -> str:
        """Go on to the next event, "failed", "preempted" or "back"; or to `until`, if that is sooner: ""."""
        if not self._events or self._events[0][0] > until:
            self._go_to(until)
            return ""
        at, _, event = heapq.heappop(self._events)
        self._go_to(at)
        if event == "back":
            self.alive += 1
            self._draw_end(at)
        else:
            self.alive -= 1
            self._push(at + self.nodes.back_s, "back")
        return event

    def _go_to(self, time: float) -> None:
        self.node_s += self.alive * (time - self.now)
        self.now = time

    def _draw_end(self, now: float) -> None:
        fates = (("failed", self.nodes.mtbf_h), ("preempted", self.nodes.preempted_h))
        ends = [(now + self.rng.exponential(hours * _HOUR_S), event) for event, hours in fates if hours]
        if ends:
            self._push(*min(ends))

    def _push(self, at: float, event: str) -> None:
        heapq.heappush(self._events, (at, self._pushed, event))
        self._pushed += 1


class _Attempt:
    """From a start to the end, or to whatever comes between.

    Attributes:
        done: steps, since the training began.
        committed: of these, how many are in a committed checkpoint.
    """

    def __init__(self, training: TrainingModel, fleet: _Fleet, first: int):
        self.training, self.fleet = training, fleet
        self.workers = min(fleet.alive, training.most, training.batch_size)
        self.step_s = training.step_s(self.workers)
        self.done = self.committed = first
        self._writing: tuple[float, int] | None = None  # when it will be committed, and its step
        self._look_s = fleet.now + training.restart_s + training.resize_every_s

    def run(self) -> None:
        """Go on until it ends."""
        event = self._wait(self.training.restart_s)
        while not event and self.done < self.training.steps:
            event = self._steps() or self._checkpoint()
        if not event:
            event = self._wait(self.training.commit_s)
        self._note_commit()
        if event in ("grow", "preempted"):
            self.committed = self.done

    def _steps(self) -> str:
        """To the next checkpoint."""
        every = self.training.checkpoint_every
        count = min(every - self.done % every, self.training.steps - self.done)
        began = self.fleet.now
        event = self._wait(count * self.step_s)
        self.done += int((self.fleet.now - began) / self.step_s) if event else count
        return event

    def _checkpoint(self) -> str:
        if self._writing is not None and self._writing[0] > self.fleet.now:  # one is written at a time
            event = self._wait(self._writing[0] - self.fleet.now)
            if event:
                return event
        self._note_commit()
        self._writing = (self.fleet.now + self.training.commit_s, self.done)
        return self._wait(self.training.checkpoint_s)

    def _note_commit(self) -> None:
        if self._writing is not None and self._writing[0] <= self.fleet.now:
            self.committed = self._writing[1]

    def _wait(self, seconds: float) -> str:
        """What ends the attempt meanwhile: "failed", "preempted" with enough notice, "grow"; "" = nothing."""
        until = self.fleet.now + seconds
        while True:
            event = self.fleet.next(min(until, self._look_s))
            if event in ("failed", "preempted"):
                if self.fleet.rng.random() < self.workers / (self.fleet.alive + 1):  # it was one of ours
                    in_time = self.fleet.nodes.notice_s >= self.step_s + self.training.commit_s
                    return "preempted" if event == "preempted" and in_time else "failed"
            elif not event and self.fleet.now >= until:
                return ""
            elif not event:
                self._look_s += self.training.resize_every_s
                if self.workers < min(self.fleet.alive, self.training.most, self.training.batch_size):
                    return "grow"
