"""What labelling and sweeps tell Prometheus, through Ray; `metrics.METRICS` says what it means."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from liftgs_platform import storage
from liftgs_platform.label_stages import STAGES, Tally
from liftgs_platform.metrics import instrument


class StageMetrics:
    """The metrics of one actor."""

    def __init__(self) -> None:
        self._counters = {
            "frames": instrument("liftgs_frames_total"),
            "masks": instrument("liftgs_masks_total"),
            "bytes": instrument("liftgs_bytes_total"),
            "quarantined": instrument("liftgs_quarantined_total"),
            "seconds": instrument("liftgs_stage_busy_seconds_total"),
        }
        self._shard = instrument("liftgs_shard_seconds")

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Count what each stage did with one shard."""
        for stage, tally in tallies.items():
            for field, counter in self._counters.items():
                value = getattr(tally, field)
                if value > 0:
                    counter.inc(value, tags={"stage": stage})
            self._shard.observe(tally.seconds, tags={"stage": stage})


class LabellingMetrics:
    """How far a labelling job is; held by its driver, and closed when it ends."""

    def __init__(self, corpus: str, stages: Collection[str], frames: int):
        """Args:
        corpus: URI of the corpus.
        stages: of this job.
        frames: to do in it.
        """
        self._corpus, self._frames = storage.name_of(corpus), frames
        self._stages = [stage for stage in STAGES if stage in stages]
        self._left = instrument("liftgs_labelling_frames_left")
        self.show({})

    def show(self, tallies: Mapping[str, Tally]) -> None:
        """What the stages have done so far.

        A frame has passed a stage if it was labelled there, lost there or before, or has passed a later one: a stage
        that has nothing to do counts nothing.
        """
        lost, left = 0, []
        for stage in self._stages:
            tally = tallies.get(stage, Tally())
            lost += tally.quarantined
            left.append(max(0, self._frames - tally.frames - lost))
        for number, stage in enumerate(self._stages):
            self._left.set(min(left[number:]), tags={"corpus": self._corpus, "stage": stage})

    def close(self) -> None:
        """The job has ended, well or not."""
        self._left.close()


class SweepMetrics:
    """How far a sweep is; held by its driver, and closed when it ends."""

    def __init__(self, sweep: str):
        """`sweep`: URI of its folder."""
        self._sweep, self._seen = storage.name_of(sweep), set[str]()
        self._stages = instrument("liftgs_sweep_stages")

    def show(self, states: Mapping[str, int]) -> None:
        """State -> how many stages are in it. A state that was named before and is not now has none."""
        self._seen |= states.keys()
        for state in self._seen:
            self._stages.set(states.get(state, 0), tags={"sweep": self._sweep, "state": state})

    def close(self) -> None:
        """The sweep has ended, well or not."""
        self._stages.close()
