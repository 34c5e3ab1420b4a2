"""Metrics, through `ray.util.metrics`: each node exports them to Prometheus, with the prefix `ray_`.

Counters count since the process started; a dashboard takes their rate. The tag `stage` is one of
`label_stages.STAGES`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Histogram

from liftgs_platform.label_stages import Tally

#: name -> what it counts; as Prometheus has them, with `ray_` in front (and `_bucket`, `_sum`, `_count` for the last).
METRICS = {
    "liftgs_frames_total": "Frames that a stage has labelled",
    "liftgs_masks_total": "Segments that a stage has made, embedded, captioned or stored",
    "liftgs_bytes_total": "Bytes that a stage has made; for commit, the size of the tars",
    "liftgs_quarantined_total": "Frames that a stage has put into quarantine",
    "liftgs_stage_busy_seconds_total": "Seconds that a stage has worked",
    "liftgs_shard_seconds": "Seconds that a stage has worked on one shard",
}

_BUCKETS_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class StageMetrics:
    """The metrics of one actor."""

    def __init__(self) -> None:
        tags = ("stage",)
        self._counters = {
            field: Counter(name, description=METRICS[name], tag_keys=tags)
            for field, name in (
                ("frames", "liftgs_frames_total"),
                ("masks", "liftgs_masks_total"),
                ("bytes", "liftgs_bytes_total"),
                ("quarantined", "liftgs_quarantined_total"),
                ("seconds", "liftgs_stage_busy_seconds_total"),
            )
        }
        name = "liftgs_shard_seconds"
        self._shard = Histogram(name, description=METRICS[name], boundaries=_BUCKETS_S, tag_keys=tags)

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Count what each stage did with one shard."""
        for stage, tally in tallies.items():
            for field, counter in self._counters.items():
                value = getattr(tally, field)
                if value > 0:
                    counter.inc(value, tags={"stage": stage})
            self._shard.observe(tally.seconds, tags={"stage": stage})
