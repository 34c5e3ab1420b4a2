"""What must not go unnoticed: a value each, when it is too much, and what to tell whom. `docs/runbook.md` goes on from
there. `python -m liftgs_platform.dashboards` writes Prometheus' rules from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alert:
    """A rule.

    Attributes:
        name: also a heading of the runbook.
        value: in PromQL, whatever it is at the moment; the dashboard shows it too.
        fires: comparison that makes it an alert.
        lasting: for how long it must hold.
        urgent: whether somebody should look at once; else in working hours.
        summary: with the labels of `value`.
        only_if: in PromQL, what else must be there, with the same labels; "" = nothing.
        unit: of the value, as Grafana calls it.
    """

    name: str
    value: str
    fires: str
    lasting: str
    urgent: bool
    summary: str
    only_if: str = ""
    unit: str = "short"

    @property
    def rule(self) -> dict[str, Any]:
        """As Prometheus wants it."""
        condition = f"({self.value}) {self.fires}" + (f" and {self.only_if}" if self.only_if else "")
        return {
            "alert": self.name,
            "expr": condition,
            "for": self.lasting,
            "labels": {"severity": "page" if self.urgent else "ticket"},
            "annotations": {"summary": self.summary, "runbook": f"docs/runbook.md#{self.name.lower()}"},
        }


def _risen(metric: str, window: str) -> str:
    """By how much a gauge that counts since a run began has risen; each restart makes a new series of it."""
    return f"max by (run) (max_over_time({metric}[{window}])) - min by (run) (min_over_time({metric}[{window}]))"


QUARANTINE_RATE = Alert(
    "QuarantineRateHigh",
    "sum(increase(ray_liftgs_quarantined_total[1h])) / "
    '(sum(increase(ray_liftgs_quarantined_total[1h])) + sum(increase(ray_liftgs_frames_total{stage="commit"}[1h])))',
    "> 0.05",
    "10m",
    False,
    "{{ $value | humanizePercentage }} of the frames of the last hour could not be labelled",
    unit="percentunit",
)

STAGE_STALLED = Alert(
    "StageStalled",
    "max by (corpus, stage) (changes(ray_liftgs_labelling_frames_left[10m]))",
    "== 0",
    "20m",
    True,
    "{{ $labels.corpus }}: no frame has passed stage {{ $labels.stage }} for half an hour, and some should",
    only_if="max by (corpus, stage) (ray_liftgs_labelling_frames_left) > 0",
)

TRAINING_STALLED = Alert(
    "TrainingStalled",
    "max by (run) (changes(ray_liftgs_training_step[10m]))",
    "== 0",
    "20m",
    True,
    "{{ $labels.run }}: its workers are there, and have made no step for half an hour",
)

CHECKPOINT_AGE = Alert(
    "CheckpointTooOld",
    "max by (run) (ray_liftgs_training_checkpoint_age_seconds)",
    "> 3600",
    "5m",
    True,
    "{{ $labels.run }}: the newest checkpoint is {{ $value | humanizeDuration }} old; that much a failure would cost",
    unit="s",
)

GOODPUT = Alert(
    "GoodputLow",
    "max by (run) (ray_liftgs_training_goodput)",
    "< 0.5",
    "30m",
    False,
    "{{ $labels.run }}: only {{ $value | humanizePercentage }} of its time went into steps that count",
    unit="percentunit",
)

RESTARTS = Alert(
    "RestartStorm",
    _risen("ray_liftgs_training_restarts", "1h"),
    "> 5",
    "0m",
    True,
    "{{ $labels.run }}: workers began anew {{ $value }} times within an hour",
)

LOSS_NOT_FINITE = Alert(
    "LossNotFinite",
    _risen("ray_liftgs_training_skipped_steps", "15m"),
    "> 0",
    "0m",
    False,
    "{{ $labels.run }}: {{ $value }} steps within a quarter of an hour had a loss or gradient that is not finite",
)

SWEEP_FAILED = Alert(
    "SweepStageFailed",
    'max by (sweep) (ray_liftgs_sweep_stages{state="failed"})',
    "> 0",
    "0m",
    False,
    "{{ $labels.sweep }}: {{ $value }} of its stages failed, and what needs them waits",
)

ALERTS = (
    QUARANTINE_RATE,
    STAGE_STALLED,
    TRAINING_STALLED,
    CHECKPOINT_AGE,
    GOODPUT,
    RESTARTS,
    LOSS_NOT_FINITE,
    SWEEP_FAILED,
)


def rules() -> dict[str, Any]:
    """Content of a rule file of Prometheus."""
    return {"groups": [{"name": "liftgs", "rules": [alert.rule for alert in ALERTS]}]}
