"""A plan is written once, and read back as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_corpora

from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.shard_plan import Plan, PlannedShard, group_chunks, read_plans, write_plan


def test_a_plan_reads_back_as_it_was(tmp_path: Path):
    lost = tiny_corpora.row(tiny_corpora.chunks()[0], None) | {"chunk": None, "error": "é \u2028 \udcff \n"}
    first = tiny_corpora.plan(quarantine=(lost,), provenance={"teachers": {"segment": "tiny"}})
    retry = tiny_corpora.plan(tiny_corpora.chunks(1, 1, retry=1), retry=1, first=3)
    for plan in (first, retry, first):  # twice is as good as once
        write_plan(str(tmp_path), plan)
    assert read_plans(str(tmp_path)) == [first, retry]
    assert [plan.sha256 for plan in read_plans(str(tmp_path))] == [first.sha256, retry.sha256]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan-retry1.jsonl", "plan.jsonl"]
    assert len((tmp_path / "plan.jsonl").read_text().splitlines()) == 4, "a header, then a line per shard"


def test_no_plan_is_an_empty_list(tmp_path: Path):
    assert read_plans(str(tmp_path / "nothing")) == []


def test_another_plan_never_replaces_one(tmp_path: Path):
    write_plan(str(tmp_path), tiny_corpora.plan())
    before = (tmp_path / "plan.jsonl").read_bytes()
    with pytest.raises(ValueError, match="another plan; choose another output"):
        write_plan(str(tmp_path), tiny_corpora.plan(chunks_per_shard=1))
    assert (tmp_path / "plan.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"room1", b"room7", 1),
        lambda data: data.splitlines(keepends=True)[0],
        lambda data: b"",
        lambda data: b"\xff\xfe",
        lambda data: data.replace(b"liftgs-plan/1", b"liftgs-plan/0"),
        lambda data: data + b"[]\n",
    ],
)
def test_a_damaged_plan_is_named(tmp_path: Path, damage):
    plan = tiny_corpora.plan()
    uri = storage.join(str(tmp_path), "plan.jsonl")
    storage.write_bytes(uri, damage(plan.encode()))
    if damage(plan.encode()).count(b"room7"):  # readable, but no longer what the shards were committed under
        assert read_plans(str(tmp_path))[0].sha256 != plan.sha256
        return
    with pytest.raises(BadInput, match=r"plan.jsonl: not a plan .*restore the file"):
        read_plans(str(tmp_path))


def test_ambiguous_plans_are_refused():
    chunk = tiny_corpora.chunks()[0]
    with pytest.raises(ValueError, match="two chunks have the key room0-000"):
        tiny_corpora.plan([chunk, replace(chunk, scene_uri="elsewhere")])
    with pytest.raises(ValueError, match="do not follow each other"):
        Plan({}, "", (PlannedShard(0, ()), PlannedShard(2, ())), {})


def test_grouping_keeps_order_and_numbers_on():
    wanted = tiny_corpora.chunks()[:5]
    grouped = group_chunks(wanted, 2, first=7)
    assert [shard.index for shard in grouped] == [7, 8, 9]
    assert [chunk for shard in grouped for chunk in shard.chunks] == wanted
