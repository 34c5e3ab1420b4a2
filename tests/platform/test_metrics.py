"""The list of metrics, and that code emits these and no others."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import ROOT

from liftgs_platform import metrics
from liftgs_platform.label_stages import STAGES, Tally
from liftgs_platform.metrics import METRICS
from liftgs_platform.monitoring import LabellingMetrics, StageMetrics, SweepMetrics
from liftgs_platform.training_log import RayMetrics

SOURCES = sorted((ROOT / "platform" / "liftgs_platform").rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "platform").with_suffix("").parts)


def made_by_code() -> Iterator[tuple[str, str]]:
    """(module, metric) of every call of `instrument`, whose argument must be a plain name."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "instrument":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{file}:{node.lineno}: name the metric here"
                yield module_of(file), argument.value


#: Read before any test runs: Python 3.11's `ast.parse` fails beside a thread (left by an earlier test) that parses too.
MADE_BY_CODE = sorted(made_by_code())


def test_code_makes_exactly_the_metrics_of_the_list() -> None:
    listed = sorted((metric.emitted_by, metric.name) for metric in METRICS)
    assert listed == MADE_BY_CODE


def test_no_metric_goes_past_the_list() -> None:
    past = [file for file in SOURCES if re.search(r"ray\.util(\.| import )metrics|prometheus_client", file.read_text())]
    assert [module_of(file) for file in past] == ["liftgs_platform.metrics"]


def test_names_units_and_kinds_agree() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("liftgs_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), "Ray's exporter would add it"
        assert ("_seconds" in metric.name) == (metric.unit == "seconds")
        assert bool(metric.buckets) == (metric.kind == "histogram")


def test_the_documentation_has_the_list() -> None:
    assert metrics.table() in (ROOT / "docs" / "watching.md").read_text(), "put metrics.table() there"


class Recorded:
    """Instruments that note what they are told, as strictly as Ray's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray.util.metrics

        self.values: dict[tuple[str, ...], float] = {}
        for kind, method in (("Counter", "inc"), ("Gauge", "set"), ("Histogram", "observe")):
            monkeypatch.setattr(ray.util.metrics, kind, self._kind(method))

    def _kind(self, method: str) -> Any:
        values = self.values

        class Instrument:
            def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], boundaries: Any = None):
                self.name, self.keys = name, tag_keys

            def record(self, value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(self.keys)
                assert method != "inc" or value > 0
                key = (self.name, *(tags[name] for name in self.keys))
                values[key] = value if method == "set" else values.get(key, 0.0) + value

        setattr(Instrument, method, Instrument.record)
        return Instrument


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def test_every_metric_is_really_set(recorded: Recorded) -> None:
    """Each from the code that the list names."""
    StageMetrics().add({"commit": Tally(2, 1.5, 3, 4, 5)})
    LabellingMetrics("s3://bucket/corpora/kitchens/", STAGES, 9)
    SweepMetrics("sweeps/mixes").show({"done": 1})
    row = ("step", "items_per_s", "skipped", "bad_samples", "workers", "restarts", "goodput", "checkpoint_age_s")
    RayMetrics("base").write(dict.fromkeys((*row, "wait_share", "loss"), 1.0))
    assert {name for name, *_ in recorded.values} == {metric.name for metric in METRICS}
    assert recorded.values["liftgs_stage_busy_seconds_total", "commit"] == 1.5
    assert recorded.values["liftgs_labelling_frames_left", "kitchens", "load"] == 9


def test_a_gauge_says_its_value_again_until_it_is_closed(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets a gauge that is silent for two reports: a hanging process would look like one that has ended."""
    monkeypatch.setattr(metrics, "REPEAT_EVERY_S", 0.01)
    key = ("liftgs_sweep_stages", "mixes", "done")
    sweep = SweepMetrics("mixes")
    sweep.show({"done": 2})
    del recorded.values[key]
    deadline = time.monotonic() + 30
    while key not in recorded.values:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sweep.close()
    time.sleep(0.1)  # a repetition that is under way
    recorded.values.clear()
    time.sleep(0.3)
    assert key not in recorded.values


@pytest.mark.parametrize("kind", [RayMetrics, SweepMetrics, lambda uri: LabellingMetrics(uri, STAGES, 1)])
def test_whatever_has_ended_leaves_no_gauge_behind(recorded: Recorded, kind: Any) -> None:
    before = set(metrics._KEPT)
    told = kind("name")
    assert len(metrics._KEPT) > len(before)
    told.close()
    assert before == metrics._KEPT


def left(recorded: Recorded) -> list[float]:
    return [recorded.values["liftgs_labelling_frames_left", "c", stage] for stage in STAGES]


def test_what_is_left_counts_down_to_nothing_also_where_frames_are_lost(recorded: Recorded) -> None:
    progress = LabellingMetrics("c", STAGES, 10)
    assert left(recorded) == [10] * 5
    progress.show({"load": Tally(frames=6, quarantined=2), "segment": Tally(frames=4, quarantined=1)})
    assert left(recorded) == [2, 3, 7, 7, 7]
    lost = {"load": Tally(frames=8, quarantined=2), "segment": Tally(frames=7, quarantined=1)}
    progress.show(lost | {stage: Tally(frames=7) for stage in ("embed", "caption", "commit")})
    assert left(recorded) == [0] * 5


def test_a_stage_with_nothing_to_do_is_not_behind(recorded: Recorded) -> None:
    """Captions are off: no tally ever comes of that stage, and no alert must."""
    LabellingMetrics("c", STAGES, 3).show(dict.fromkeys(("load", "segment", "embed", "commit"), Tally(frames=3)))
    assert left(recorded) == [0] * 5


def test_frames_that_are_done_twice_do_not_go_below_nothing(recorded: Recorded) -> None:
    LabellingMetrics("c", STAGES, 3).show({"load": Tally(frames=5)})
    assert left(recorded) == [0, 3, 3, 3, 3]


def test_a_state_that_no_stage_is_in_any_more_has_none(recorded: Recorded) -> None:
    sweep = SweepMetrics("mixes")
    sweep.show({"waiting": 2, "running": 1})
    sweep.show({"done": 3})
    states = {state: value for (_, _, state), value in recorded.values.items()}
    assert states == {"waiting": 0, "running": 0, "done": 3}
