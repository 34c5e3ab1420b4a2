"""A shard is committed whole or does not exist, whatever is killed, and however often it is done."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_corpora

from liftgs.scene import BadInput, Chunk
from liftgs_platform import manifest, shards, storage
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow, write_plan
from liftgs_platform.verify import verify


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_commit_tells_what_the_shard_holds(tmp_path: Path):
    plan = tiny_corpora.plan()
    lost = tiny_corpora.row(plan.shards[0].chunks[1], "frame-0003")
    index = tiny_corpora.commit(str(tmp_path), plan, plan.shards[0], [lost])
    assert shards.load_index(str(tmp_path), 0) == index
    tar = (tmp_path / "shards/000000.tar").read_bytes()
    assert (index.tar_size, index.tar_sha256) == (len(tar), hashlib.sha256(tar).hexdigest())
    assert index.counts == {
        "samples": 2, "views": 3, "segments": 9, "captions": 9, "points": 2 * tiny_corpora.POINTS, "expressions": 0,
    }  # fmt: skip
    assert index.quarantine == (lost,)
    assert index.plan == plan.sha256
    assert b"frame-0003" not in index.samples["room0-001"]
    assert "01.rgb.jpg" not in index.samples["room0-001"]


def test_a_shard_of_which_nothing_could_be_had_is_committed_too(tmp_path: Path):
    plan = tiny_corpora.plan()
    index = tiny_corpora.commit(
        str(tmp_path), plan, plan.shards[0], [tiny_corpora.row(c, None) for c in plan.shards[0].chunks]
    )
    assert index.samples == {}
    assert index.counts["samples"] == 0
    assert shards.committed_indices(str(tmp_path)) == [0]


def test_committing_again_changes_nothing_even_with_other_bits(tmp_path: Path):
    plan = tiny_corpora.plan()
    first = tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    before = files(tmp_path)
    assert tiny_corpora.commit(str(tmp_path), plan, plan.shards[0]) == first
    noisy = {chunk.key: tiny_corpora.sample(chunk, noise=1) for chunk in plan.shards[0].chunks}
    assert shards.commit(str(tmp_path), plan.sha256, plan.shards[0], noisy, []) == first
    assert files(tmp_path) == before


def test_writers_of_one_shard_do_not_disturb_each_other(tmp_path: Path):
    plan = tiny_corpora.plan()
    with ThreadPoolExecutor(8) as pool:
        indices = set(pool.map(lambda _: tiny_corpora.commit(str(tmp_path), plan, plan.shards[0]).encode(), range(24)))
    assert len(indices) == 1
    assert sorted(files(tmp_path)) == ["shards/000000.json", "shards/000000.tar"]


def test_a_failed_commit_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = tiny_corpora.plan()
    write = storage.write_bytes

    def fail_on_commit(uri: str, data: bytes) -> None:
        if uri.endswith(".json"):
            raise storage.StorageError(f"cannot write {uri}")
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", fail_on_commit)
    with pytest.raises(storage.StorageError):
        tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    assert (tmp_path / "shards/000000.tar").exists()
    assert shards.committed_indices(str(tmp_path)) == []
    with pytest.raises(FileNotFoundError, match=r"000000\.json"):
        shards.load_index(str(tmp_path), 0)


def test_the_tar_is_there_before_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = tiny_corpora.plan()
    written: list[str] = []
    write = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda uri, data: (written.append(uri[-4:]), write(uri, data)))
    tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    assert written == [".tar", "json"]


def test_a_commit_whose_tar_has_gone_is_redone(tmp_path: Path):
    plan = tiny_corpora.plan()
    tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    before = files(tmp_path)
    (tmp_path / "shards/000000.tar").unlink()
    assert shards.committed_indices(str(tmp_path)) == []
    tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    assert files(tmp_path) == before


def test_only_shards_are_listed(tmp_path: Path):
    plan = tiny_corpora.plan()
    for shard in plan.shards[1:]:
        tiny_corpora.commit(str(tmp_path), plan, shard)
    for name in ("000007.tar", ".000008.json.abc.tmp", "notes.json", "12.json", "000009.json.bak"):
        (tmp_path / "shards" / name).write_bytes(b"{}")
    assert shards.committed_indices(str(tmp_path)) == [1, 2]
    assert shards.committed_indices(str(tmp_path / "elsewhere")) == []


def _without_a_view(shard: PlannedShard) -> tuple[dict, list[QuarantineRow]]:
    return {c.key: tiny_corpora.sample(c, c.view_ids[:1]) for c in shard.chunks}, []


def _without_a_chunk(shard: PlannedShard) -> tuple[dict, list[QuarantineRow]]:
    return {shard.chunks[0].key: tiny_corpora.sample(shard.chunks[0])}, []


def _view_in_both(shard: PlannedShard) -> tuple[dict, list[QuarantineRow]]:
    return {c.key: tiny_corpora.sample(c) for c in shard.chunks}, [tiny_corpora.row(shard.chunks[0], "frame-0000")]


def _another_frame(shard: PlannedShard) -> tuple[dict, list[QuarantineRow]]:
    return {c.key: tiny_corpora.sample(c, [c.view_ids[0], "frame-9999"]) for c in shard.chunks}, []


def _unplanned_chunk(shard: PlannedShard) -> tuple[dict, list[QuarantineRow]]:
    extra = Chunk("scans/other", "other", 0, ("a",), ("a",))
    return {c.key: tiny_corpora.sample(c) for c in (*shard.chunks, extra)}, []


@pytest.mark.parametrize("wrong", [_without_a_view, _without_a_chunk, _view_in_both, _another_frame, _unplanned_chunk])
def test_a_shard_that_does_not_account_for_every_planned_view_is_refused(tmp_path: Path, wrong):
    plan = tiny_corpora.plan()
    with pytest.raises(ValueError, match="exactly one of sample and quarantine"):
        shards.commit(str(tmp_path), plan.sha256, plan.shards[0], *wrong(plan.shards[0]))
    assert files(tmp_path) == {}


def test_frames_that_only_lend_points_are_not_owed(tmp_path: Path):
    chunk = Chunk("scans/room0", "room0", 0, ("a", "b"), ("b",), retry=1)
    plan = tiny_corpora.plan([chunk], retry=1)
    index = tiny_corpora.commit(str(tmp_path), plan, plan.shards[0], [tiny_corpora.row(chunk, "a")])
    assert index.quarantine == ()
    assert index.counts["views"] == 1


def test_a_corpus_of_another_plan_is_left_alone(tmp_path: Path):
    first, other = tiny_corpora.plan(), tiny_corpora.plan(provenance={"teachers": "others"})
    tiny_corpora.commit(str(tmp_path), first, first.shards[0])
    before = files(tmp_path)
    with pytest.raises(ValueError, match="committed under another plan; choose another output"):
        tiny_corpora.commit(str(tmp_path), other, other.shards[0])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"format":"liftgs-corpus/1"}', b"\xff", b'{"format":"liftgs-shard/1"}']
)
def test_a_damaged_commit_is_named_and_may_be_redone(tmp_path: Path, content: bytes):
    plan = tiny_corpora.plan()
    index = tiny_corpora.commit(str(tmp_path), plan, plan.shards[0])
    (tmp_path / "shards/000000.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"000000\.json: not a shard index .*delete it and submit the job again"):
        shards.load_index(str(tmp_path), 0)
    assert tiny_corpora.commit(str(tmp_path), plan, plan.shards[0]) == index
    assert shards.load_index(str(tmp_path), 0) == index


def test_bytes_are_the_same_in_every_process(tmp_path: Path):
    for name, seed in (("a", "1"), ("b", "2")):
        code = f"import tiny_corpora; tiny_corpora.write({str(tmp_path / name)!r}, tiny_corpora.plan())"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment, check=True)
    tiny_corpora.write(str(tmp_path / "c"), tiny_corpora.plan())
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


# --- killed writers ------------------------------------------------------------------------------------------------

BIG = 1_500_000  # bytes of a photo: writing takes long enough to be hit


def big_plan(shards_: int = 30) -> Plan:
    return tiny_corpora.plan([Chunk("scans/big", "big", i, ("a",), ("a",)) for i in range(shards_)], chunks_per_shard=1)


def commit_big(corpus: str) -> None:
    """Commit all that is missing; what the killed process runs."""
    plan = big_plan()
    photo = random.Random(0).randbytes(BIG)
    done = set(shards.committed_indices(corpus))
    for shard in plan.shards:
        if shard.index not in done:
            samples = {chunk.key: tiny_corpora.sample(chunk) | {"00.rgb.jpg": photo} for chunk in shard.chunks}
            shards.commit(corpus, plan.sha256, shard, samples, [])


def assert_every_commit_is_whole(corpus: str) -> list[int]:
    committed = shards.committed_indices(corpus)
    for index in shards.load_indices(corpus, committed):
        tar = storage.read_bytes(shards.tar_uri(corpus, index.index))
        assert hashlib.sha256(tar).hexdigest() == index.tar_sha256
    return committed


def kill_at_random(corpus: str, kills: int) -> None:
    """Start writers, SIGKILL each at a random moment among its first commits, and look at what is left."""
    moments = random.Random(7)
    for _ in range(kills):
        until = len(shards.committed_indices(corpus)) + moments.randint(0, 2)
        code = f"import test_shards as t; print('ready', flush=True); t.commit_big({corpus!r})"
        writer = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        while len(shards.committed_indices(corpus)) < until and writer.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert_every_commit_is_whole(corpus)


def test_killed_writer_leaves_no_readable_part_of_a_shard(tmp_path: Path):
    killed, undisturbed = str(tmp_path / "killed"), str(tmp_path / "undisturbed")
    for corpus in (killed, undisturbed):
        write_plan(corpus, big_plan())
    kill_at_random(killed, kills=6)
    assert 0 < len(shards.committed_indices(killed)) < 30, "the kills hit writers at work"
    for corpus in (killed, undisturbed):
        commit_big(corpus)
        manifest.write(corpus)
    leftovers = [name for name in files(Path(killed)) if name.endswith(".tmp")]
    for name in leftovers:
        (Path(killed) / name).unlink()
    assert files(Path(killed)) == files(Path(undisturbed))
    assert list(verify(killed)) == []
