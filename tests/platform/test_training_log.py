"""What a training says of itself can be read back, and is that of one run, however often it was resumed."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from liftgs_platform import storage, training_log
from liftgs_platform.metrics import METRICS
from liftgs_platform.report.training import curve
from liftgs_platform.training_log import TrainingLog, means


def facts(step: int, **more: float) -> dict[str, float]:
    return {
        "step": step,
        "samples": 2 * step,
        "epoch": step / 10,
        "skipped": 0,
        "bad_samples": 0,
        "seconds": step,
    } | more


def steps(log: TrainingLog, first: int, last: int) -> None:
    for step in range(first, last + 1):
        log.step(facts(step), {"loss": 1.0 / step, "grad_norm": 2.0, "lr": 1e-3, "forward_s": 0.1}, items=2)


def measured(run: str) -> list[dict[str, Any]]:
    return [row for row in training_log.read(run) if "event" not in row]


def read_events(folder: Path) -> Iterator[Any]:
    """Events as TensorBoard finds them: length, its checksum, a protocol buffer, its checksum."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length, crc), data = struct.unpack("<QI", data[:12]), data[12:]
            assert crc == masked(struct.pack("<Q", length))
            message, data = data[:length], data[length:]
            (crc,), data = struct.unpack("<I", data[:4]), data[4:]
            assert crc == masked(message)
            yield Event.FromString(message)


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in read_events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def test_rows_are_means_of_the_steps_between(tmp_path: Path) -> None:
    with TrainingLog(str(tmp_path), 10, log_every=4) as log:
        steps(log, 1, 10)
    first, *rows = [json.loads(line) for line in (tmp_path / "log" / "000000.jsonl").read_text().splitlines()]
    assert (first["event"], first["workers"], first["step"]) == ("start", 1, 0)
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert [row["loss"] for row in rows] == pytest.approx([(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, 0.15863, 0.10556], rel=1e-3)
    assert [row["samples"] for row in rows] == [8, 16, 20]
    assert all(row["items_per_s"] * row["step_s"] == pytest.approx(2) for row in rows)


def test_what_is_not_finite_stays_out_of_the_means() -> None:
    found = means([{"loss": math.nan, "norm": math.inf}, {"loss": 2.0}, {"loss": 4.0, "extra": 1.0}])
    assert found == {"loss": 3.0, "extra": 1.0}


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    with TrainingLog(str(tmp_path), 6, log_every=2) as log:
        steps(log, 1, 6)
        log.picture(np.full((4, 6, 3), 77, np.uint8), 6)
    found = scalars(tmp_path / "tensorboard")
    for row in measured(str(tmp_path)):
        assert found["loss/loss", row["step"]] == pytest.approx(row["loss"])
        assert found["optim/lr", row["step"]] == pytest.approx(1e-3)
        assert found["speed/forward_s", row["step"]] == pytest.approx(0.1)
        assert found["progress/samples", row["step"]] == row["samples"]
    images = [v for event in read_events(tmp_path / "tensorboard") for v in event.summary.value if v.HasField("image")]
    assert [(value.tag, value.image.height, value.image.width) for value in images] == [("panel", 4, 6)]
    assert Image.open(tmp_path / "panels" / "step-000006.png").getpixel((0, 0)) == (77, 77, 77)


def test_an_object_store_gets_curves_without_pictures(tmp_path: Path) -> None:
    """Each flush copies the whole file there."""
    run = "memory://logs/pictures"
    with TrainingLog(run, 2, log_every=1) as log:
        steps(log, 1, 2)
        log.picture(np.full((4, 6, 3), 77, np.uint8), 2)
    for uri in storage.list_files(f"{run}/tensorboard"):
        (tmp_path / Path(uri).name).write_bytes(storage.read_bytes(uri))
    values = [value for event in read_events(tmp_path) for value in event.summary.value]
    assert values
    assert not any(value.HasField("image") for value in values)
    assert storage.exists(f"{run}/panels/step-000002.png")


def test_a_resumed_log_is_that_of_one_run(tmp_path: Path) -> None:
    with TrainingLog(str(tmp_path), 10, log_every=1) as log:
        steps(log, 1, 7)
        log.event(3, "bad sample", "c#a: torn")
        log.event(7, "bad sample", "c#b: torn")
    with TrainingLog(str(tmp_path), 10, first_step=4, log_every=1) as log:
        steps(log, 5, 10)
    rows = training_log.read(str(tmp_path))
    assert [row["step"] for row in rows if "event" not in row] == list(range(1, 11))
    assert [row["what"] for row in rows if "event" in row] == ["1 worker", "c#a: torn", "1 worker"]
    from tensorboardX.proto.event_pb2 import SessionLog

    starts = [e.step for e in read_events(tmp_path / "tensorboard") if e.session_log.status == SessionLog.START]
    assert starts == [5], "TensorBoard hides what was logged from there on before"


def test_a_row_may_be_closed_early(tmp_path: Path) -> None:
    with TrainingLog(str(tmp_path), 10, log_every=4) as log:
        steps(log, 1, 6)
        log.end_row()
        log.end_row()
        steps(log, 7, 10)
    assert [row["step"] for row in measured(str(tmp_path))] == [4, 6, 8, 10]


def test_a_long_log_is_in_files_of_which_only_the_last_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "FILE_STEPS", 4)
    run, written = str(tmp_path), []
    with TrainingLog(run, 20) as log:
        steps(log, 1, 9)
        log.flush()
        write = storage.write_bytes
        monkeypatch.setattr(
            storage, "write_bytes", lambda uri, data: (written.append(Path(uri).name), write(uri, data))
        )
        steps(log, 10, 13)
        log.flush()
    assert [name for name in written if name.endswith("jsonl")] == ["000002.jsonl", "000003.jsonl", "000003.jsonl"]
    assert [row["step"] for row in measured(run)] == list(range(1, 14))
    with TrainingLog(run, 20, first_step=6) as log:
        assert sorted(file.name for file in (tmp_path / "log").iterdir()) == ["000000.jsonl", "000001.jsonl"]
        steps(log, 7, 9)
    assert [row["step"] for row in measured(run)] == list(range(1, 10))


def test_rows_tell_of_workers_restarts_and_what_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(training_log, "time", lambda: now[0])
    with TrainingLog(str(tmp_path), 9) as log:
        now[0] += 4
        log.step(facts(1, seconds=3.0), {"wait_s": 0.0}, items=8)
    now[0] += 12  # lost
    with TrainingLog(str(tmp_path), 9, first_step=1, workers=2) as log:
        now[0] += 4
        log.step(facts(2, seconds=7.0), {"wait_s": 0.0}, items=8)
    first, second = measured(str(tmp_path))
    assert (first["workers"], first["restarts"], first["goodput"]) == (1, 0, pytest.approx(3 / 4))
    assert (second["workers"], second["restarts"], second["goodput"]) == (2, 1, pytest.approx(7 / 20))
    assert second["items_per_s"] == pytest.approx(2 * second["items_per_s_per_worker"])
    page = (tmp_path / "report.html").read_text()
    assert 'class="band"' in page
    assert "1 to step 1, 2 to step 2" in page


def test_logs_live_on_object_stores() -> None:
    run = "memory://logs/one"
    with TrainingLog(run, 4, log_every=2) as log:
        steps(log, 1, 4)
        log.picture(np.zeros((2, 2, 3), np.uint8), 4)
    names = {uri.removeprefix(run + "/").partition(".out.")[0] for uri in storage.list_files(run)}
    assert names == {"log/000000.jsonl", "report.html", "panels/step-000004.png", "tensorboard/events"}
    assert [row["step"] for row in measured(run)] == [2, 4]


def test_the_line_tells_what_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(str(tmp_path), 2) as log:
        log.step(facts(1, skipped=1), {"loss": 3.25, "lr": 0.001}, 2)
        log.step(facts(2, skipped=1, bad_samples=3), {"loss": 3.0, "lr": 0.001}, 2)
    start, first, last = capsys.readouterr().out.splitlines()
    assert start == "step 0: start: 1 worker"
    assert first.startswith("step 1/2 | epoch 0.10 | loss 3.25 | lr 0.001 | ")
    assert "left | 1 steps skipped" in first
    assert last.endswith("about 0:00 left | 1 steps skipped | 3 bad samples")


def test_the_rate_is_that_of_the_last_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept between two steps does not take hours longer for all that is left."""
    now = 0.0
    monkeypatch.setattr(training_log, "monotonic", lambda: now)
    with TrainingLog(str(tmp_path), 100) as log:
        for step in range(1, 51):
            now += 8 * 3600 if step == 20 else 15
            log.step(facts(step), {}, 2)
    lines = capsys.readouterr().out.splitlines()
    assert " s/step" in lines[20]
    assert "15.00 s/step" not in lines[20]
    assert lines[-1].endswith("15.00 s/step | about 12:30 left")


def test_every_metric_is_set_from_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.util.metrics

    values: dict[tuple[str, str], float] = {}

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]):
            self.name, self.tags = name, set(tag_keys)

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == self.tags
            values[self.name, tags.get("name", "")] = value

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    of_row = ("items_per_s", "workers", "restarts", "goodput", "checkpoint_age_s", "wait_share")
    row = facts(9) | {"loss": 0.5} | dict.fromkeys(of_row, 3.0)
    training_log.RayMetrics("one").write(row)
    assert {name for name, _ in values} == {metric.name for metric in METRICS if metric.labels[0] == "run"}
    assert values["liftgs_training_value", "loss"] == 0.5
    assert values["liftgs_training_step", ""] == 9


def test_the_report_shows_curves_panels_and_events(tmp_path: Path) -> None:
    with TrainingLog(str(tmp_path), 10, log_every=2) as log:
        log.event(1, "bad sample", "c#<a>: torn")
        steps(log, 1, 6)
        log.picture(np.zeros((4, 4, 3), np.uint8), 6)
    page = (tmp_path / "report.html").read_text()
    assert 'src="panels/step-000006.png"' in page
    assert "c#&lt;a&gt;: torn" in page
    assert all(f'aria-label="{name} over steps"' in page for name in ("loss", "lr", "grad_norm", "forward_s"))


def test_a_curve_reaches_from_its_first_to_its_last_step() -> None:
    rows = [{"step": step, "loss": 100.0 - step} for step in range(1, 1001)]
    svg = curve("loss", rows, 2000)
    assert svg is not None
    points = [tuple(map(float, point.split(","))) for point in svg.partition('points="')[2].partition('"')[0].split()]
    assert len(points) == 200
    assert points == sorted(points), "it falls, and y grows downwards"
    assert points[-1][0] == pytest.approx(46 + (400 - 46 - 4) / 2, abs=1)
    assert curve("absent", rows, 2000) is None
