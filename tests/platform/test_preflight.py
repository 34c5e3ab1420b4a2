"""Before a job works it is told what will not work, in one line each, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import tiny_corpora
from clusters import ROOT, RayCluster

from liftgs.scene import BadInput
from liftgs_platform import job as launcher
from liftgs_platform import preflight, pretrain, storage
from liftgs_platform.job import JobFailed
from liftgs_platform.preflight import Finding, NodeFacts


@pytest.fixture(params=["disk", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    return f"memory://{tmp_path.name}/corpora/new" if request.param == "memory" else str(tmp_path / "corpora" / "new")


def test_a_probe_leaves_nothing_behind(output: str, tmp_path: Path) -> None:
    assert not preflight.writable(output).problem
    assert storage.list_files(output) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_probe_goes_through_put_get_and_delete_on_s3(s3_folder: str) -> None:
    assert preflight.writable(s3_folder).text == "ok, can be written, read and deleted"
    assert storage.list_files(s3_folder) == {}
    nowhere = "s3://no-such-bucket-here/corpus"
    assert f"{nowhere}/.preflight-" in preflight.writable(nowhere).problem
    assert "no such bucket" in preflight.writable(nowhere).problem


@pytest.mark.parametrize("verb", ["write_bytes", "read_bytes", "delete"])
def test_each_missing_permission_is_a_problem(verb: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str, *_: object) -> None:
        raise storage.StorageError(f"cannot {verb} {uri}: Access Denied")

    monkeypatch.setattr(storage, verb, refuse)
    found = preflight.writable(output)
    assert found.stops
    assert "Access Denied" in found.problem


def test_a_store_that_gives_other_bytes_is_a_problem(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "read_bytes", lambda uri: b"something else")
    assert "is not what was written" in preflight.writable(output).problem


def test_a_bad_frame_is_no_reason_to_stop_and_a_refusal_is() -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def read() -> None:
            raise error

        return read

    assert not preflight.readable("source", fail(BadInput("a.jpg", "truncated"))).problem
    assert preflight.readable("source", fail(PermissionError("s3://a/b: no permission"))).problem


def test_all_is_told_and_what_stops_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    note = Finding("nodes", problem="one is older", stops=False)
    preflight.require([Finding("output", "fine"), note])
    assert capsys.readouterr().out == "output   ok, fine\nnodes    note: one is older\n"
    problems = [Finding("output", problem="a is full"), note, Finding("source", problem="b is gone")]
    with pytest.raises(JobFailed, match=r"^nothing was begun, since output: a is full; source: b is gone$"):
        preflight.require(problems)


def test_room_is_summed_over_nodes() -> None:
    assert preflight.room("memory", 3e9, [2e9, 2e9], "use fewer").text == "ok, about 3 GB of 4 GB"
    lacking = preflight.room("memory", 5e9, [2e9, 2e9], "use fewer")
    assert (lacking.text, lacking.stops) == ("note: about 5 GB of 4 GB are needed; use fewer", False)


# ---- nodes


def found(monkeypatch: pytest.MonkeyPatch, facts: dict[str, NodeFacts], silent: list[str]) -> dict[str, Finding]:
    """What is made of the nodes' answers about /a and /b."""
    monkeypatch.setattr(preflight, "survey", lambda paths: (facts, silent))
    return {finding.what: finding for finding in preflight.nodes(["/a", "/b", "tiny", "s3://c"])}


def test_what_nodes_lack_and_how_they_differ_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    same = preflight.versions()
    older = {**same, "liftgs": "0.0.9+abc"}
    assert {f.text[:2] for f in found(monkeypatch, {"n1": NodeFacts(same, ())}, []).values()} == {"ok"}
    told = found(monkeypatch, {"n1": NodeFacts(same, ("/a",)), "n2": NodeFacts(older, ("/a", "/b"))}, ["n3"])
    assert f"n2 has liftgs 0.0.9+abc, and this job {same['liftgs']}; install the same there" in told["nodes"].problem
    assert "no answer within 60 s from n3" in told["answers"].problem
    assert told["files"].stops, "nobody has /a"
    assert "no node has /a; " in told["files"].problem
    some = found(monkeypatch, {"n1": NodeFacts(same, ()), "n2": NodeFacts(same, ("/b",))}, [])
    assert not some["files"].stops, "the nodes that do that work may be those that have it"
    assert "n2 lacks /b; " in some["files"].problem


def test_nodes_answer(ray_driver: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    facts, silent = preflight.survey([str(tmp_path / "there"), str(tmp_path / "gone")])
    assert silent == []
    assert [one.missing for one in facts.values()] == [(str(tmp_path / "gone"),)]
    assert all(one.versions.keys() == preflight.versions().keys() for one in facts.values())


# ---- jobs


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written is refused, as by a bucket that may only be read."""

    def refuse(uri: str, data: bytes) -> None:
        raise storage.StorageError(f"cannot write {uri}: Access Denied")

    monkeypatch.setattr(storage, "write_bytes", refuse)


def test_a_dry_run_tells_what_would_not_work(
    unwritable: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 1)
    arguments = [f"source={source}", f"output={tmp_path / 'corpus'}", "dry_run=true"]
    missing = f"segment.checkpoint={tmp_path / 'sam.pth'}"
    assert launcher.main([str(ROOT / "jobs" / "pseudolabel.yaml"), *arguments, missing]) == 0
    lines = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert lines["writing"].startswith("PROBLEM: cannot write ")
    assert lines["weights"].startswith(f"note: this machine lacks {tmp_path / 'sam.pth'}")
    assert lines["reading"] == "ok, can be read"


@pytest.mark.parametrize("kind", ["pseudolabel", "pretrain"])
def test_a_job_whose_output_cannot_be_written_begins_nothing(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.Job, "connect", lambda self: pytest.fail("no cluster is needed to know this"))
    inputs = [f"source={tiny.write_scenes(tmp_path / 'scans', 1)}"]
    if kind == "pretrain":
        tiny_corpora.write(str(tmp_path / "labelled"), tiny_corpora.plan())
        inputs = [f"corpora=[{{uri: {tmp_path / 'labelled'}}}]"]
        monkeypatch.setattr(pretrain, "check_pseudo_labels", lambda sample, config: None)
    monkeypatch.setattr(preflight, "writable", lambda uri: Finding("writing", problem=f"cannot write {uri}"))
    assert launcher.main([str(ROOT / "jobs" / f"{kind}.yaml"), *inputs, f"output={tmp_path / 'new'}"]) == 1
    assert f"error: nothing was begun, since writing: cannot write {tmp_path / 'new'}" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_cluster_of_another_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.9.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(JobFailed, match=r"Version mismatch: .* Ray: 2.1.0 Python: 3.9.1; use the cluster's versions"):
        launcher.connect()
