"""The Grafana dashboard, and the files of `cluster/monitoring/` that follow from it and from the alerts.

    python -m liftgs_platform.dashboards cluster/monitoring

A panel says what it shows in PromQL; where it lies on the page follows from its place in the list. `$gpu_price` and
`$cpu_price` are fields on the page.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from liftgs_platform import alerts
from liftgs_platform.alerts import Alert

#: What Ray itself exports and our panels use; reserved resources, and what nodes have.
OF_RAY = (
    "ray_resources",
    "ray_node_cpu_count",
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_node_disk_utilization_percentage",
)

#: Defaults of the two fields, US dollars per hour: a rented H100, and a core of an instance that comes without one.
PRICES = {"gpu_price": "2.5", "cpu_price": "0.04"}

_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8


@dataclass(frozen=True)
class Panel:
    """A diagram over time.

    Attributes:
        title: of it.
        queries: PromQL -> the legend of its lines.
        unit: of the values, as Grafana calls it.
        about: what a person should know who looks at it.
        alert: whose threshold is drawn.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    about: str = ""
    alert: Alert | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def _of_alert(title: str, alert: Alert, legend: str, about: str = "") -> Panel:
    return Panel(title, {alert.value: legend}, alert.unit, about or alert.name, alert)


def _values(title: str, which: str, legend: str = "{{run}} {{name}}", unit: str = "short") -> Panel:
    return Panel(title, {f"max by (run, name) (ray_liftgs_training_value{{{which}}})": legend}, unit)


def _of_run(title: str, metric: str, unit: str = "short", about: str = "") -> Panel:
    return Panel(title, {f"max by (run) (ray_liftgs_training_{metric})": "{{run}}"}, unit, about)


def _reserved(kind: str, state: str) -> str:
    """Ray names no GPUs where there are none."""
    return f'(sum(ray_resources{{Name="{kind}",State="{state}"}}) or vector(0))'


def _all_of(kind: str) -> str:
    return f'(sum(ray_resources{{Name="{kind}"}}) or vector(0))'


#: Dollars per hour.
_COST = f"{_all_of('GPU')} * $gpu_price + {_all_of('CPU')} * $cpu_price"

LABELLING = Row(
    "Labelling",
    (
        Panel(
            "Frames left, by stage",
            {"max by (corpus, stage) (ray_liftgs_labelling_frames_left)": "{{corpus}} {{stage}}"},
            about="Commit at 0 is the end. Frames wait for the stage that is far above the one before it.",
        ),
        Panel("Frames per second", {_rate("ray_liftgs_frames_total", "stage"): "{{stage}}"}),
        Panel("Masks per second", {_rate("ray_liftgs_masks_total", "stage"): "{{stage}}"}),
        Panel(
            "Processes at work",
            {_rate("ray_liftgs_stage_busy_seconds_total", "stage"): "{{stage}}"},
            about="Give more processes to the stage whose number is as large as its pool.",
        ),
        Panel(
            "Seconds per shard",
            {
                f"histogram_quantile({share}, {_rate('ray_liftgs_shard_seconds_bucket', 'stage, le')})": legend
                for share, legend in ((0.5, "{{stage}} median"), (0.95, "{{stage}} 95 %"))
            },
            "s",
        ),
        Panel("Bytes made per second", {_rate("ray_liftgs_bytes_total", "stage"): "{{stage}}"}, "Bps"),
        Panel("Frames lost per second", {_rate("ray_liftgs_quarantined_total", "stage"): "{{stage}}"}),
        _of_alert("Share of frames lost, last hour", alerts.QUARANTINE_RATE, "lost", "Nothing here: nothing was lost."),
        _of_alert("Movement of the stages", alerts.STAGE_STALLED, "{{corpus}} {{stage}}"),
    ),
)

#: Of what steps return: seconds, and what are no losses.
_PHASES = ".+_s"
_NO_LOSSES = f"{_PHASES}|grad_norm|lr|samples|epoch|at|score|best_score|items_per_s_per_worker"

TRAINING = Row(
    "Training",
    (
        _of_run("Step", "step"),
        _values("Loss", 'name="loss"', "{{run}}"),
        _values("Terms of the loss", f'name!~"loss|{_NO_LOSSES}"'),
        _values("Gradient's norm", 'name="grad_norm"', "{{run}}"),
        _of_run("Items per second", "items_per_second"),
        _values("Seconds of a step, by phase", f'name=~"{_PHASES}", name!="commit_s"', unit="s"),
        _of_run("Share of a step that waits for data", "wait_share", "percentunit", "Above 0.1: give it more loaders."),
        _of_run("Workers", "workers"),
        _of_alert("Restarts within an hour", alerts.RESTARTS, "{{run}}"),
        _of_run("Restarts since the run began", "restarts"),
        _of_alert("Goodput", alerts.GOODPUT, "{{run}}", "Time that went into steps which count, of all."),
        _of_alert("Age of the newest checkpoint", alerts.CHECKPOINT_AGE, "{{run}}"),
        _of_alert("Movement of the step", alerts.TRAINING_STALLED, "{{run}}"),
        _of_run("Steps skipped", "skipped_steps"),
        _of_alert("Not finite, last 15 minutes", alerts.LOSS_NOT_FINITE, "{{run}}"),
        _of_run("Bad samples", "bad_samples"),
    ),
)

SWEEPS = Row(
    "Sweeps",
    (
        Panel("Stages by state", {"max by (sweep, state) (ray_liftgs_sweep_stages)": "{{sweep}} {{state}}"}),
        _of_alert("Failed stages", alerts.SWEEP_FAILED, "{{sweep}}"),
    ),
)

COST = Row(
    "Cost",
    (
        Panel("Dollars per hour", {_COST: "cluster"}, "currencyUSD", "All CPUs and GPUs that the cluster has."),
        Panel(
            "Dollars per 1000 frames",
            {f'({_COST}) / 3.6 / sum(rate(ray_liftgs_frames_total{{stage="commit"}}[$__rate_interval]))': "labelling"},
            "currencyUSD",
            "If labelling were all that the cluster does.",
        ),
        Panel(
            "Dollars per 1000 items of training",
            {f"({_COST}) / 3.6 / sum(max by (run) (ray_liftgs_training_items_per_second))": "training"},
            "currencyUSD",
            "If training were all that the cluster does.",
        ),
        Panel("CPUs", {_reserved("CPU", "USED"): "reserved", _all_of("CPU"): "there"}),
        Panel("GPUs", {_reserved("GPU", "USED"): "reserved", _all_of("GPU"): "there"}),
        Panel(
            "How busy they are",
            {
                "sum(ray_node_cpu_utilization * ray_node_cpu_count) / sum(ray_node_cpu_count) / 100": "CPUs",
                "avg(ray_node_gpus_utilization) / 100": "GPUs",
            },
            "percentunit",
        ),
        Panel("Memory in use, fullest node", {"max(ray_node_mem_used / ray_node_mem_total)": "memory"}, "percentunit"),
        Panel(
            "Disk in use, fullest node",
            {"max(ray_node_disk_utilization_percentage) / 100": "disk"},
            "percentunit",
            "From 95 % on Ray starts nothing there.",
        ),
    ),
)

ROWS = (LABELLING, TRAINING, SWEEPS, COST)


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append({"type": "row", "title": row.title, "collapsed": False, "gridPos": _place(0, y, _COLUMNS, 1)})
        y += 1
        for number, panel in enumerate(row.panels):
            column, line = number % (_COLUMNS // _WIDTH), number // (_COLUMNS // _WIDTH)
            panels.append(_panel(panel) | {"gridPos": _place(column * _WIDTH, y + line * _HEIGHT, _WIDTH, _HEIGHT)})
        y += -(-len(row.panels) // (_COLUMNS // _WIDTH)) * _HEIGHT
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    fields = [
        {"name": name, "type": "textbox", "query": price, "label": f"$ per {name[:3].upper()} and hour"}
        for name, price in PRICES.items()
    ]
    return {
        "uid": "liftgs",
        "title": "LIFT-GS",
        "tags": ["liftgs", "ray"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source, *fields]},
        "panels": [panel | {"id": number} for number, panel in enumerate(panels, 1)],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.alert is not None:
        limit = float(panel.alert.fires.split()[1])
        low = panel.alert.fires.startswith(("<", "=="))  # bad is below the line
        colours = ("red", "green") if low else ("green", "red")
        steps = [{"color": colours[0], "value": None}, {"color": colours[1], "value": limit}]
        defaults |= {
            "thresholds": {"mode": "absolute", "steps": steps},
            "custom": {"thresholdsStyle": {"mode": "dashed"}},
        }
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": query, "legendFormat": legend}
            for number, (query, legend) in enumerate(panel.queries.items())
        ],
    }


def files() -> dict[str, str]:
    """Name -> content of what is generated."""
    note = "# Made by `python -m liftgs_platform.dashboards cluster/monitoring` from liftgs_platform/alerts.py.\n"
    return {
        "alerts.yml": note + yaml.safe_dump(alerts.rules(), sort_keys=False, width=120),
        "grafana.json": json.dumps(dashboard(), indent=1) + "\n",
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Writes what is generated for Prometheus and Grafana.")
    parser.add_argument("folder", help="where alerts.yml and grafana.json go", type=Path)
    folder = parser.parse_args().folder
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")
        print(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
