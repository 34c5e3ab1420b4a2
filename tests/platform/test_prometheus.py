"""A real Prometheus watches real jobs on a real Ray: every panel and every alert has data, and nothing secret leaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import ROOT, RayCluster, free_port, start_cluster

from liftgs_platform import dashboards
from liftgs_platform.alerts import ALERTS
from liftgs_platform.metrics import METRICS

#: What only a machine with a GPU exports; test_dashboards.py sees that Ray would.
OF_GPUS = ("ray_node_gpus_utilization",)

#: What Grafana fills in.
FILLED_IN = {"$__rate_interval": "20s", **{f"${name}": price for name, price in dashboards.PRICES.items()}}


def get(url: str, token: str = "", **query: Any) -> Any:
    """The JSON of an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        return json.load(answer)


@dataclass(frozen=True)
class Watched:
    """Prometheus, after the jobs.

    Attributes:
        url: of Prometheus.
        since: UNIX time at which the jobs began.
        dashboard: URL of Ray's.
    """

    url: str
    since: float
    dashboard: str

    def ask(self, what: str, **query: Any) -> Any:
        """An answer of Prometheus' API."""
        return get(f"{self.url}/api/v1/{what}", **query)["data"]

    def series(self, query: str) -> list[dict[str, Any]]:
        """What a query found, at any time since the jobs began, without NaN."""
        for name, value in FILLED_IN.items():
            query = query.replace(name, value)
        span = {"start": self.since, "end": time.time(), "step": 1}
        found: list[dict[str, Any]] = self.ask("query_range", query=query, **span)["result"]
        for one in found:
            one["values"] = [float(value) for _, value in one["values"] if value != "NaN"]
        return [one for one in found if one["values"]]

    def wait_for(self, query: str, patience_s: float = 20) -> list[dict[str, Any]]:
        """As `series`, which may take a scrape or two."""
        deadline = time.monotonic() + patience_s
        while not (found := self.series(query)) and time.monotonic() < deadline:
            time.sleep(1)
        return found


@pytest.fixture(scope="module")
def dashboard_cluster(ray_settings: None) -> Iterator[RayCluster]:
    """A cluster with a dashboard, which keeps the list of nodes; its parts report every two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "2000")
        with start_cluster(dashboard_port=free_port()) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def watched(dashboard_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Prometheus with the committed configuration, asking every three seconds, and the jobs done."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus; Debian has it in the package of that name")
    folder = tmp_path_factory.mktemp("prometheus")
    listed = Path(dashboard_cluster.cluster.head_node.get_temp_dir_path(), "prom_metrics_service_discovery.json")
    config = yaml.safe_load((ROOT / "cluster" / "monitoring" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "3s")
    config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(listed)], "refresh_interval": "1s"}]
    shutil.copy(ROOT / "cluster" / "monitoring" / "alerts.yml", folder)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        since = time.time()
        script = str(Path(__file__).with_name("watched_driver.py"))
        path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "RAY_ADDRESS": dashboard_cluster.address, "PYTHONPATH": path}
        jobs = subprocess.run(
            [sys.executable, script, str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert jobs.returncode == 0, jobs.stdout + jobs.stderr
        assert server.poll() is None, (folder / "prometheus.log").read_text()
        yield Watched(f"http://{address}", since, dashboard_cluster.dashboard)
    finally:
        server.kill()
        server.wait()


def test_every_metric_of_the_list_is_exported_with_its_labels(watched: Watched) -> None:
    for metric in METRICS:
        for name in metric.series:
            found = watched.wait_for(name)
            assert found, f"{name} is not exported"
            assert set(metric.labels) <= found[0]["metric"].keys()


def test_every_panel_and_every_alert_has_data(watched: Watched) -> None:
    queries = {query: panel.title for row in dashboards.ROWS for panel in row.panels for query in panel.queries}
    queries |= {alert.value: alert.name for alert in ALERTS}
    queries |= {alert.only_if.partition(" > ")[0]: alert.name for alert in ALERTS if alert.only_if}
    dark = [title for query, title in queries.items() if not watched.wait_for(query)]
    assert dark == [title for query, title in queries.items() if any(name in query for name in OF_GPUS)]


def test_what_is_left_falls_to_nothing_and_lost_frames_are_counted(watched: Watched) -> None:
    """Numbers that can be known beforehand: 8 scenes of 4 frames, of which every other scene has lost one."""
    (left,) = watched.series('max by (corpus) (ray_liftgs_labelling_frames_left{stage="commit"})')
    assert left["metric"] == {"corpus": "kitchens"}
    assert left["values"][0] == 32
    assert left["values"] == sorted(left["values"], reverse=True)
    (lost,) = watched.series("sum(ray_liftgs_quarantined_total)")
    (done,) = watched.series('sum(ray_liftgs_frames_total{stage="commit"})')
    (shards,) = watched.series('sum(ray_liftgs_shard_seconds_count{stage="commit"})')
    assert (lost["values"][-1], done["values"][-1], shards["values"][-1]) == (4, 28, 16)
    (step,) = watched.series("max by (run) (ray_liftgs_training_step)")
    assert step["metric"] == {"run": "base"}
    assert max(step["values"]) <= 30


def test_a_gauge_lasts_as_long_as_its_process(watched: Watched) -> None:
    """Alerts rest on it: a job that waits still says where it stands, and one that has ended is no stalled one."""
    (running,) = watched.series('ray_liftgs_sweep_stages{state="running"}')
    assert running["values"].count(2) > 5, "it was set once"
    deadline = time.monotonic() + 30
    while watched.ask("query", query='{__name__=~"ray_liftgs_(training|labelling|sweep).*"}')["result"]:
        assert time.monotonic() < deadline, "gauges outlive their job"
        time.sleep(1)


def test_prometheus_evaluates_the_rules_without_a_fault(watched: Watched) -> None:
    (group,) = watched.ask("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    assert {(rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {("ok", "")}


def test_the_list_of_nodes_needs_the_token_and_metrics_hold_none(watched: Watched) -> None:
    listed = f"{watched.dashboard}/api/prometheus/sd"
    for token, status in (("", 401), ("wrong", 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(listed, token)
        assert refused.value.code == status
    token = os.environ["RAY_AUTH_TOKEN"]
    targets = {target for entry in get(listed, token) for target in entry["targets"]}
    answering = [one["scrapeUrl"] for one in watched.ask("targets")["activeTargets"] if one["health"] == "up"]
    assert answering
    for url in answering:
        assert urllib.parse.urlsplit(url).netloc in targets
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert token not in answer.read().decode()
