"""What older versions of the code wrote is read, verified and gone on with; what newer ones wrote is left alone."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stored_formats as stored
import torch

from liftgs.chunks import ChunkingConfig
from liftgs.formats import NewerFormat
from liftgs.model.liftgs import LiftGS
from liftgs.sample import decode_sample
from liftgs_platform import checkpoints, evaluate, manifest, pseudolabel, shards, training_log
from liftgs_platform import spec as specs
from liftgs_platform.job import JobFailed
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import read_plans, write_plan
from liftgs_platform.training import claim
from liftgs_platform.verify import verify

VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in stored.DATA.iterdir())


@pytest.fixture(params=VERSIONS)
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a version left, and the folder to be in."""
    shutil.unpack_archive(stored.DATA / f"{request.param}.tar.xz", tmp_path)  # ours; Python 3.11.2 has no `filter`
    monkeypatch.chdir(tmp_path / request.param)
    torch.set_num_threads(1)
    return tmp_path / request.param


def test_corpora_are_sound_and_every_sample_decodes(there: Path) -> None:
    for corpus in ("corpus", "labelled"):
        assert not [str(fault) for fault in verify(corpus, deep=True)]
        reader = CorpusReader(corpus)
        assert len(reader) >= 2
        for position, members in enumerate(reader):
            decode_sample(members, reader.key(position)).check()


def test_a_corpus_that_is_not_finished_is_finished(there: Path) -> None:
    kept = (there / "corpus/shards/000000.tar").read_bytes()
    before = json.loads((there / "corpus/manifest.json").read_bytes())
    for gone in ("manifest.json", "quarantine.jsonl", "README.md", "shards/000001.tar", "shards/000001.json"):
        (there / "corpus" / gone).unlink()
    stored.label(stored.CORPUS)
    assert not [str(fault) for fault in verify("corpus", deep=True)]
    assert (there / "corpus/shards/000000.tar").read_bytes() == kept
    assert manifest.read_manifest("corpus")["counts"] == before["counts"]


def test_a_run_goes_on_from_its_checkpoint(there: Path) -> None:
    stored.pretrain_here()
    rows = [row for row in training_log.read("run") if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["samples"] for row in rows] == [2, 4, 6, 8]
    start, end = (LiftGS.from_pretrained(place).state_dict() for place in ("start", "run"))
    assert any(not torch.equal(value, start[name]) for name, value in end.items())


def test_an_evaluation_goes_on(there: Path) -> None:
    [paper] = evaluate.marked("evaluation")
    before = (there / "evaluation" / paper).stat().st_mtime_ns
    stored.evaluate_here()
    sheets = list(evaluate.sheets_of(stored.EVALUATION, evaluate.look(stored.EVALUATION)[0]))
    assert evaluate.collect(stored.EVALUATION, sheets).scenes == 2
    assert (there / "evaluation" / paper).stat().st_mtime_ns == before


# ---- specs that grew


def older(missing: set[str], identity: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """The identity as code knew it that had no such fields."""

    def drop(value: Any, prefix: str = "") -> Any:
        if not isinstance(value, dict):
            return value
        return {k: drop(v, f"{prefix}{k}.") for k, v in value.items() if prefix + k not in missing}

    return lambda spec: drop(identity(spec))


def test_a_corpus_begun_before_the_spec_had_all_its_fields_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(stored.CORPUS, output=str(tmp_path / "corpus"), chunking=ChunkingConfig(frames_per_chunk=4))
    with monkeypatch.context() as patch:
        missing = {"annotations", "pseudo_labels", "reader.max_time_difference_s", "caption.concurrency"}
        patch.setattr(specs, "identity", older(missing, specs.identity))
        [plan] = pseudolabel.open_plans(spec)
        write_plan(spec.output, plan)
    assert "annotations" not in plan.spec
    assert plan.spec_hash != specs.digest(specs.identity(spec))
    stored.label(spec)
    assert not [str(fault) for fault in verify(spec.output)]
    assert [found.sha256 for found in read_plans(spec.output)] == [plan.sha256], "the plan stays as it was"
    with pytest.raises(JobFailed, match="pseudo_labels: true -> false"):
        pseudolabel.open_plans(replace(spec, pseudo_labels=False))


def test_a_run_begun_before_the_spec_had_all_its_fields_goes_on(there: Path) -> None:
    begun = json.loads((there / "run/run.json").read_bytes())
    del begun["optim"]["clip"], begun["objective"], begun["item"]["views"]
    (there / "run/run.json").write_text(json.dumps(begun))
    identity = {**specs.identity(stored.RUN), "corpora": begun["corpora"]}
    claim("run", identity, type(stored.RUN))
    with pytest.raises(JobFailed, match=r"item\.views: 1 -> 2"):
        claim("run", identity | {"item": identity["item"] | {"views": 2}}, type(stored.RUN))


# ---- formats that are yet to come


def newer(path: Path, kind: str) -> None:
    """As the version after the next may write it."""
    first, *rest = path.read_bytes().splitlines(keepends=True) if path.suffix == ".jsonl" else [path.read_bytes()]
    fields = json.loads(first) | {"format": f"liftgs-{kind}/9", "novelty": 1}
    path.write_bytes(json.dumps(fields).encode() + b"\n" + b"".join(rest))


def commit_again() -> None:
    """As a job does that another has overtaken."""
    [plan] = read_plans("corpus")
    with tarfile.open("corpus/shards/000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    key = next(iter(members)).partition(".")[0]
    sample = {name.partition(".")[2]: data for name, data in members.items()}
    shards.commit("corpus", plan.sha256, plan.shards[0], {key: sample}, [])


@pytest.mark.parametrize(
    ("path", "kind", "read"),
    [
        ("corpus/manifest.json", "corpus", lambda: CorpusReader("corpus")),
        ("corpus/manifest.json", "corpus", lambda: manifest.is_current("corpus", read_plans("corpus"))),
        ("corpus/plan.jsonl", "plan", lambda: read_plans("corpus")),
        ("corpus/shards/000000.json", "shard", lambda: shards.load_index("corpus", 0)),
        ("corpus/shards/000000.json", "shard", commit_again),
        ("run/checkpoints/step-000002/checkpoint.json", "checkpoint", lambda: checkpoints.load(newest(), Path())),
        ("network/config.json", "model", lambda: LiftGS.from_pretrained("network")),
    ],
)
def test_what_newer_code_wrote_is_told_and_left_as_it_is(
    there: Path, path: str, kind: str, read: Callable[[], object]
) -> None:
    newer(there / path, kind)
    content = (there / path).read_bytes()
    with pytest.raises(NewerFormat, match="newer liftgs") as caught:
        read()
    assert caught.value.uri.endswith(path)
    assert "delete" not in str(caught.value)
    assert (there / path).read_bytes() == content


def newest() -> str:
    uri = checkpoints.newest("run")
    assert uri is not None
    return uri


def test_a_sample_of_newer_code_is_told() -> None:
    members = {"cloud.npz": b"", "00.rgb.jpg": b"", "meta.json": b'{"format": "liftgs-sample/2", "views": ["a"]}'}
    with pytest.raises(NewerFormat, match="newer liftgs"):
        _ = decode_sample(members, "s").views


def test_a_run_of_newer_code_is_told(there: Path) -> None:
    newer(there / "run/run.json", "run")
    with pytest.raises(JobFailed, match="newer liftgs"):
        stored.pretrain_here()


def test_verify_does_not_advise_to_delete_what_is_newer(there: Path) -> None:
    newer(there / "corpus/shards/000001.json", "shard")
    [fault, *_] = verify("corpus")
    assert (fault.uri, fault.fix) == ("corpus/shards/000001.json", "upgrade liftgs")
