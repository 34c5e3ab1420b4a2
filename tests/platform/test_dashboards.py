"""What watches: the committed files are the generated ones, they are sound, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from clusters import ROOT

from liftgs_platform import dashboards
from liftgs_platform.alerts import ALERTS, Alert
from liftgs_platform.metrics import METRICS

FOLDER = ROOT / "cluster" / "monitoring"
OURS = {name for metric in METRICS for name in metric.series}
QUERIES = [query for row in dashboards.ROWS for panel in row.panels for query in panel.queries]


def names_in(query: str) -> set[str]:
    """Metrics that a query asks for."""
    return set(re.findall(r"\bray_[a-z_]+", query))


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool; Debian has it in the package prometheus")
    return found


def run(*command: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_committed_files_are_the_generated_ones() -> None:
    for name, content in dashboards.files().items():
        assert (FOLDER / name).read_text() == content, "run python -m liftgs_platform.dashboards cluster/monitoring"


def test_every_query_asks_for_metrics_that_are_exported() -> None:
    asked = {name for query in (*QUERIES, *(alert.rule["expr"] for alert in ALERTS)) for name in names_in(query)}
    assert asked - OURS == set(dashboards.OF_RAY)


def test_what_is_asked_of_ray_is_what_this_ray_exports() -> None:
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    of_nodes = {f"ray_{name}" for name in METRICS_GAUGES}
    of_raylets = names_in(Path(default_dashboard_panels.__file__).read_text())  # `ray_resources`, by C++
    assert set(dashboards.OF_RAY) <= of_nodes | of_raylets


def test_every_metric_of_ours_is_shown() -> None:
    shown = {name for query in QUERIES for name in names_in(query)}
    assert not {metric.name for metric in METRICS if not shown & set(metric.series)}


def test_every_alert_is_in_a_panel_and_in_the_runbook() -> None:
    drawn = {panel.alert.name for row in dashboards.ROWS for panel in row.panels if panel.alert}
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert drawn == {alert.name for alert in ALERTS}
    assert headings == [alert.name for alert in ALERTS]
    for alert in ALERTS:
        file, anchor = alert.rule["annotations"]["runbook"].split("#")
        assert (ROOT / file).exists()
        assert anchor == alert.name.lower()


def test_panels_lie_side_by_side_and_have_names_of_their_own() -> None:
    page = dashboards.dashboard()
    covered: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & covered
        assert at["x"] + at["w"] <= 24
        covered |= cells
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])
    assert len({panel["title"] for panel in page["panels"]}) == len(page["panels"])
    assert json.loads(json.dumps(page)) == page
    variables = {variable["name"] for variable in page["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+_?[a-z]*)", json.dumps(page)))
    assert used == variables


def test_prometheus_takes_the_config_and_the_rules(promtool: str) -> None:
    done = run(promtool, "check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_not_otherwise(promtool: str) -> None:
    done = run(promtool, "test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("condition", ["> -1e9", "> 1e18"], ids=["always", "never"])
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_that_fires_always_or_never_fails_its_cases(
    promtool: str, tmp_path: Path, alert: Alert, condition: str
) -> None:
    """So each has a case in which it fires, and one in which it does not."""
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    (rule,) = (rule for rule in rules["groups"][0]["rules"] if rule["alert"] == alert.name)
    rule |= {"expr": f"({alert.value}) {condition}", "for": "0m"}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    assert run(promtool, "test", "rules", "alerts_test.yml", cwd=tmp_path).returncode == 1
