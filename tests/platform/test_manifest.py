"""Manifest, quarantine and card follow from plans and shards alone; a retry takes over what it did again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_corpora

from liftgs.scene import BadInput
from liftgs_platform import manifest, shards
from liftgs_platform.shard_plan import Plan, QuarantineRow, read_plans, write_plan
from liftgs_platform.verify import verify

COMPANIONS = ("README.md", "manifest.json", "quarantine.jsonl")


def unplannable(uri: str, attempt: int = 0) -> QuarantineRow:
    return QuarantineRow(
        uri=uri, scene=uri, chunk=None, frame=None, stage="plan", error="empty", traceback="", attempt=attempt
    )


def test_companions_are_the_same_bytes_however_often_and_wherever(tmp_path: Path):
    plan = tiny_corpora.plan(provenance={"teachers": {"segment": "tiny"}})
    lost = [tiny_corpora.row(plan.shards[1].chunks[0], "frame-0004"), tiny_corpora.row(plan.shards[2].chunks[1], None)]
    for name in ("a", "b"):
        tiny_corpora.write(str(tmp_path / name), plan, lost)
    written = {name: (tmp_path / "a" / name).read_bytes() for name in COMPANIONS}
    assert written == {name: (tmp_path / "b" / name).read_bytes() for name in COMPANIONS}
    (tmp_path / "a/README.md").unlink()
    (tmp_path / "a/manifest.json").write_bytes(b"{}")
    manifest.write(str(tmp_path / "a"))
    assert written == {name: (tmp_path / "a" / name).read_bytes() for name in COMPANIONS}
    assert str(tmp_path).encode() not in b"".join(written.values()), "no output path in what must not depend on it"


def test_the_manifest_adds_up(tmp_path: Path):
    plan = tiny_corpora.plan()
    lost = [
        tiny_corpora.row(plan.shards[1].chunks[0], "frame-0004"),
        tiny_corpora.row(plan.shards[2].chunks[1], None, "segment"),
    ]
    found = tiny_corpora.write(str(tmp_path), plan, lost).manifest
    assert found == manifest.read_manifest(str(tmp_path))
    assert found["planned"] == {"shards": 3, "views": 12}
    assert found["counts"] == {
        "samples": 5, "views": 9, "segments": 27, "captions": 27, "points": 5 * tiny_corpora.POINTS, "expressions": 0,
    }  # fmt: skip
    assert found["quarantine"] == {"rows": 2, "by_stage": {"load": 1, "segment": 1}}
    assert [row["shard"] for row in found["shards"]] == [0, 1, 2]
    assert found["plans"] == [{"file": "plan.jsonl", "sha256": plan.sha256, "provenance": {}}]
    assert manifest.read_quarantine(str(tmp_path)) == lost


def test_no_manifest_before_the_last_shard(tmp_path: Path):
    corpus, plan = str(tmp_path), tiny_corpora.plan()
    with pytest.raises(ValueError, match=r"holds no plan\.jsonl"):
        manifest.write(corpus)
    write_plan(corpus, plan)
    for shard in (plan.shards[0], plan.shards[2]):
        tiny_corpora.commit(corpus, plan, shard)
    with pytest.raises(ValueError, match="1 of 3 planned shards are not committed, the first is 000001"):
        manifest.write(corpus)
    assert not manifest.is_current(corpus, [plan])
    with pytest.raises(FileNotFoundError, match="has its job finished"):
        manifest.read_manifest(corpus)
    tiny_corpora.commit(corpus, plan, plan.shards[1])
    manifest.write(corpus)
    assert manifest.is_current(corpus, [plan])
    assert not manifest.is_current(corpus, [plan, tiny_corpora.plan([], retry=1)])


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"format": "liftgs-shard/1"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"manifest\.json: not a manifest .* submit the job again"):
        manifest.read_manifest(str(tmp_path))


# --- retries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Lost: frame 1 of chunk 0 of room0; all of chunk 1 of room1; a scene that could not be planned."""
    plan = tiny_corpora.plan(quarantine=(unplannable("scans/hall"),))
    lost = [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0001"), tiny_corpora.row(plan.shards[2].chunks[0], None)]
    tiny_corpora.write(str(tmp_path), plan, lost)
    return str(tmp_path)


def places(corpus: str) -> list[tuple[str, int | None, str | None, int]]:
    return [(r["scene"], r["chunk"], r["frame"], r["attempt"]) for r in manifest.read_quarantine(corpus)]


def retry(corpus: str, views: dict[str, tuple[str, ...]], number: int = 1, **fields: object) -> Plan:
    """A plan that does again the given views of chunks (by their first key)."""
    plans = read_plans(corpus)
    planned = {chunk.key: chunk for shard in plans[0].shards for chunk in shard.chunks}
    again = [replace(planned[key], view_ids=wanted, retry=number) for key, wanted in views.items()]
    first = sum(len(plan.shards) for plan in plans)
    plan = tiny_corpora.plan(again, chunks_per_shard=1, retry=number, first=first, **fields)
    write_plan(corpus, plan)
    return plan


def test_what_is_lost_is_listed(corpus: str):
    assert places(corpus) == [
        ("room0", 0, "frame-0001", 0),
        ("room1", 1, None, 0),
        ("scans/hall", None, None, 0),
    ]


def test_a_retry_that_works_empties_the_quarantine(corpus: str):
    hall = [replace(chunk, scene="hall", scene_uri="scans/hall", retry=1) for chunk in tiny_corpora.chunks(1, 1)]
    plan = retry(corpus, {"room0-000": ("frame-0001",), "room1-001": ("frame-0002", "frame-0003")})
    first = plan.shards
    more = tiny_corpora.plan(hall, retry=1, first=5).shards
    Path(corpus, "plan-retry1.jsonl").unlink()
    plan = tiny_corpora.plan([chunk for shard in first + more for chunk in shard.chunks], 1, retry=1, first=3)
    write_plan(corpus, plan)
    for shard in plan.shards:
        tiny_corpora.commit(corpus, plan, shard)
    found = manifest.write(corpus).manifest
    assert places(corpus) == []
    assert found["planned"] == {"shards": 6, "views": 14}
    assert found["counts"]["views"] == 14
    assert list(verify(corpus, deep=True)) == []
    assert "All 14 planned views are in it." in Path(corpus, "README.md").read_text()


def test_a_retry_replaces_only_the_rows_that_it_did_again(corpus: str):
    plan = retry(corpus, {"room1-001": ("frame-0002", "frame-0003")}, quarantine=(unplannable("scans/hall", 1),))
    tiny_corpora.commit(
        corpus, plan, plan.shards[0], [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0003", "embed")]
    )
    manifest.write(corpus)
    assert places(corpus) == [
        ("room0", 0, "frame-0001", 0),
        ("room1", 1, "frame-0003", 1),
        ("scans/hall", None, None, 1),
    ]
    assert list(verify(corpus, deep=True)) == []


def test_a_retry_of_a_retry(corpus: str):
    first = retry(corpus, {"room0-000": ("frame-0001",)})
    tiny_corpora.commit(corpus, first, first.shards[0], [tiny_corpora.row(first.shards[0].chunks[0], "frame-0001")])
    manifest.write(corpus)
    assert ("room0", 0, "frame-0001", 1) in places(corpus)
    second = retry(corpus, {"room0-000": ("frame-0001",)}, number=2)
    tiny_corpora.commit(corpus, second, second.shards[0])
    manifest.write(corpus)
    assert "room0" not in {place[0] for place in places(corpus)}
    assert list(verify(corpus, deep=True)) == []


def test_a_retry_leaves_the_shards_that_are_there_alone(corpus: str):
    before = {path: path.read_bytes() for path in Path(corpus, "shards").iterdir()}
    plan = retry(corpus, {"room0-000": ("frame-0001",)})
    tiny_corpora.commit(corpus, plan, plan.shards[0])
    manifest.write(corpus)
    assert {path: path.read_bytes() for path in before} == before


def test_an_unfinished_retry_takes_nothing_over(corpus: str):
    before = [row for row in manifest.read_quarantine(corpus) if row["chunk"] is not None]
    retry(corpus, {"room0-000": ("frame-0001",)})
    committed = shards.load_indices(corpus, shards.committed_indices(corpus))
    rows = manifest.derive(read_plans(corpus), committed).quarantine
    assert [row for row in rows if row["chunk"] is not None] == before


# --- card ----------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_manifest_says(corpus: str):
    text = Path(corpus, "README.md").read_text()
    found = manifest.read_manifest(corpus)
    for name in ("samples", "views", "segments", "points"):
        assert f"| {name} | {found['counts'][name]:,} |" in text
    assert "3 of 12 planned views (25.00 %) are missing" in text
    assert "3 rows (2 in load, 1 in plan)" in text
    assert json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1]) == tiny_corpora.SPEC


def test_the_cards_example_runs(corpus: str, monkeypatch: pytest.MonkeyPatch):
    code = re.search(r"```python\n(.*?)```", Path(corpus, "README.md").read_text(), re.S)[1]
    monkeypatch.chdir(corpus)
    names: dict = {}
    exec(code, names)
    assert len(list(names["samples"])) == 5
    names["sample"].check()
