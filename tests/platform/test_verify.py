"""`liftgs verify` names every way in which a corpus can be damaged, and the mending that it names works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tiny_corpora
import typer
from typer.testing import CliRunner

from liftgs.scene import Chunk
from liftgs_platform import manifest, shards, shards_cli, storage
from liftgs_platform.shards import load_index
from liftgs_platform.tars import build_tar
from liftgs_platform.verify import orphans, verify


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "corpus"
    plan = tiny_corpora.plan()
    tiny_corpora.write(str(folder), plan, [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0001")])
    return folder


@pytest.fixture
def corpus(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "corpus"))


def faults(corpus: Path, deep: bool = False) -> list[str]:
    return [str(fault).replace(f"{corpus}/", "") for fault in verify(str(corpus), deep)]


def resubmit(corpus: Path) -> None:
    """What the job does with a corpus that it finds: commit what is missing, finish."""
    plan = tiny_corpora.plan()
    lost = [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0001")]
    done = shards.committed_indices(str(corpus))
    for shard in plan.shards:
        if shard.index not in done:
            tiny_corpora.commit(str(corpus), plan, shard, lost if shard.index == 0 else [])
    manifest.write(str(corpus))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def in_photo(corpus: Path) -> int:
    return load_index(str(corpus), 1).samples["room0-002"]["00.rgb.jpg"].offset + 20


def swap_tar(corpus: Path) -> None:
    shutil.copy(corpus / "shards/000002.tar", corpus / "shards/000001.tar")


def recommit_other_members(corpus: Path) -> None:
    """Tar and JSON agree, but a planned sample is not in them."""
    path = corpus / "shards/000001.json"
    fields = json.loads(path.read_bytes())
    del fields["samples"]["room0-002"]
    path.write_text(json.dumps(fields))


def grow(corpus: Path) -> None:
    with tarfile.open(corpus / "shards/000001.tar", "a") as tar:
        tar.add(corpus / "README.md", "room9-000.notes.txt")


def index_field(path: Path, field: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {field: value}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated tar": (
        lambda c: edit(c / "shards/000001.tar", lambda data: data[:5000]),
        r"000001.tar: 5000 bytes instead of \d+, so truncated; delete .*000001.json and submit the job again",
    ),
    "empty tar": (lambda c: edit(c / "shards/000001.tar", lambda _: b""), r"000001.tar: 0 bytes instead of"),
    "flipped byte of a photo": (
        lambda c: edit(c / "shards/000001.tar", lambda data: flip(data, in_photo(c))),
        r"000001.tar: room0-002.00.rgb.jpg is damaged or displaced; delete .*000001.json and submit",
    ),
    "flipped byte of a header": (
        lambda c: edit(c / "shards/000001.tar", lambda data: flip(data, 3)),
        r"000001.tar: \d+ of \d+ members are missing or unreadable",
    ),
    "flipped byte of the padding": (
        lambda c: edit(c / "shards/000001.tar", lambda data: flip(data, len(data) - 1)),
        r"000001.tar: sha256 is [0-9a-f]{16}..., not",
    ),
    "another shard's tar": (swap_tar, r"000001.tar: holds room1-001.00.camera.json, which the index does not"),
    "a member more": (grow, r"000001.tar: holds room9-000.notes.txt, which the index does not"),
    "missing tar": (
        lambda c: (c / "shards/000001.tar").unlink(),
        r"000001.tar: committed, but the tar is gone; submit",
    ),
    "missing json": (
        lambda c: (c / "shards/000001.json").unlink(),
        r"000001.tar: a tar without its .json, left by a killed writer; submit the job again",
    ),
    "missing shard": (
        lambda c: [(c / f"shards/000001.{kind}").unlink() for kind in ("tar", "json")],
        r"000001.tar: planned, but not committed; submit the job again",
    ),
    "unreadable json": (
        lambda c: edit(c / "shards/000001.json", lambda data: data[:-40]),
        r"000001.json: not a shard index \(.*\); delete .*000001.json and submit",
    ),
    "another shard's json": (
        lambda c: shutil.copy(c / "shards/000002.json", c / "shards/000001.json"),
        r"000001.json: is the index of shard 2; delete",
    ),
    "json of another plan": (
        lambda c: index_field(c / "shards/000001.json", "plan", "0" * 64),
        r"000001.json: committed under another plan than plan.jsonl",
    ),
    "a planned sample not in the json": (
        recommit_other_members,
        r"000001.json: holds other samples than were planned \(room0-002: 0 instead of 2\)",
    ),
    "missing manifest": (
        lambda c: (c / "manifest.json").unlink(),
        r"^manifest.json: missing; submit the job again: it",
    ),
    "old manifest": (
        lambda c: edit(c / "manifest.json", lambda data: data.replace(b'"rows": 1', b'"rows": 0')),
        r"^manifest.json: does not agree with the shards; delete it and submit the job again",
    ),
    "missing quarantine": (lambda c: (c / "quarantine.jsonl").unlink(), r"^quarantine.jsonl: missing"),
    "shortened quarantine": (
        lambda c: edit(c / "quarantine.jsonl", lambda _: b""),
        r"^quarantine.jsonl: does not agree",
    ),
    "missing card": (lambda c: (c / "README.md").unlink(), r"^README.md: missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_its_mending_mends(corpus: Path, sound: Path, name: str):
    damage, expected = DAMAGES[name]
    assert faults(corpus) == []
    damage(corpus)
    found = faults(corpus)
    assert any(re.search(expected, line) for line in found), found
    assert all("\n" not in line for line in found)
    for path in re.findall(r"delete \S*?((?:shards/)?[\w.]+) and", "\n".join(found)):
        (corpus / path).unlink(missing_ok=True)
    for line in found:
        if "delete it" in line:
            (corpus / line.partition(":")[0]).unlink()
    resubmit(corpus)
    assert faults(corpus, deep=True) == []
    assert content(corpus) == content(sound)


LITTER = {
    "shards/000009.tar": r"000009.tar: belongs to a shard that no plan holds; remove it",
    "shards/000009.json": r"000009.json: belongs to a shard that no plan holds; remove it",
    "shards/.000001.tar.0123abcd.tmp": r"tmp: half-written file of a killed writer; remove it with `liftgs gc ",
    "notes.txt": r"^notes.txt: is no part of a corpus; move it elsewhere",
    "plan-retry7.jsonl": r"^plan-retry7.jsonl: is no part of a corpus",
}


@pytest.mark.parametrize("name", LITTER)
def test_every_file_must_be_accounted_for(corpus: Path, name: str):
    (corpus / name).write_bytes(b"x")
    (found,) = faults(corpus)
    assert re.search(LITTER[name], found)


def test_run_logs_are_not_litter(corpus: Path):
    (corpus / "runs/a").mkdir(parents=True)
    (corpus / "runs/a/result.json").write_bytes(b"{}")
    (corpus / "report.html").write_bytes(b"<html>")
    assert faults(corpus) == []


def test_a_changed_plan_is_a_fault(corpus: Path):
    edit(corpus / "plan.jsonl", lambda data: data[:-100])
    (found,) = faults(corpus)
    assert "plan.jsonl" in found
    assert "restore" in found


def test_only_decoding_finds_a_picture_that_was_bad_when_committed(tmp_path: Path):
    plan = tiny_corpora.plan()
    tiny_corpora.write(str(tmp_path), plan)
    for kind in ("tar", "json"):
        (tmp_path / f"shards/000000.{kind}").unlink()
    samples = {chunk.key: tiny_corpora.sample(chunk) for chunk in plan.shards[0].chunks}
    samples["room0-001"]["01.segments.png"] = samples["room0-001"]["01.segments.png"][:-30]
    shards.commit(str(tmp_path), plan.sha256, plan.shards[0], samples, [])
    manifest.write(str(tmp_path))
    assert faults(tmp_path) == []
    (found,) = faults(tmp_path, deep=True)
    assert re.search(r"000000.tar: cannot be decoded: room0-001\.01\.segments\.png: not a readable PNG", found)


def test_a_view_stored_twice_is_a_fault(tmp_path: Path):
    corpus = str(tmp_path)
    plan = tiny_corpora.plan()
    tiny_corpora.write(corpus, plan)
    chunk = plan.shards[0].chunks[0]
    again = tiny_corpora.plan(
        [Chunk(chunk.scene_uri, chunk.scene, 0, chunk.frame_ids, chunk.view_ids, 1)], retry=1, first=3
    )
    storage.write_bytes(storage.join(corpus, again.filename), again.encode())
    tiny_corpora.commit(corpus, again, again.shards[0])
    manifest.write(corpus)
    assert [line.partition(";")[0] for line in faults(tmp_path)] == [
        f"{corpus}: frame frame-000{i} of room0, chunk 0 is stored 2 times" for i in range(2)
    ]


def test_no_corpus_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no corpus here"):
        list(verify(str(tmp_path)))


def test_memory_stays_bounded(tmp_path: Path):
    """A shard far larger than the block that is read at a time, with a peak far smaller than the shard."""
    code = (
        "import resource, sys; from liftgs_platform.verify import verify\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"assert list(verify({str(tmp_path)!r})) == []\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    plan = tiny_corpora.plan([Chunk("s", "s", i, ("a",), ("a",)) for i in range(40)], chunks_per_shard=40)
    photo = os.urandom(4_000_000)
    samples = {chunk.key: tiny_corpora.sample(chunk) | {"00.rgb.jpg": photo} for chunk in plan.shards[0].chunks}
    storage.write_bytes(storage.join(str(tmp_path), plan.filename), plan.encode())
    shards.commit(str(tmp_path), plan.sha256, plan.shards[0], samples, [])
    manifest.write(str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 80, "MiB, for a tar of 160 MB"


# --- gc ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def littered(corpus: Path) -> list[str]:
    (corpus / "shards/000001.json").unlink()
    (corpus / "shards/000077.tar").write_bytes(build_tar({})[0])
    (corpus / "shards/.000001.json.0123.tmp").write_bytes(b"{")
    (corpus / ".manifest.json.4567.tmp").write_bytes(b"{")
    return [
        str(corpus / name)
        for name in (
            ".manifest.json.4567.tmp",
            "shards/.000001.json.0123.tmp",
            "shards/000001.tar",
            "shards/000077.tar",
        )
    ]


def test_orphans_are_what_no_reader_sees(corpus: Path, littered: list[str]):
    assert orphans(str(corpus), older_than_s=0) == littered


def test_what_a_running_writer_may_be_about_to_commit_is_spared(corpus: Path, littered: list[str]):
    os.utime(littered[-1], (0, 0))
    assert orphans(str(corpus)) == littered[-1:]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command() -> Callable[..., tuple[int, str]]:
    app = typer.Typer()
    for name in ("verify", "gc"):
        app.command(name)(entry_points(group="liftgs.commands")[name].load())

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.output

    return run


def test_the_verify_command(corpus: Path, command: Callable[..., tuple[int, str]]):
    assert shards_cli.verify.__module__ == "liftgs_platform.shards_cli"
    code, text = command("verify", "--deep", str(corpus))
    assert (code, text) == (0, f"{corpus}: sound. 3 shards, 6 samples, 11 views, 1 row in quarantine\n")
    (corpus / "shards/000001.json").unlink()
    code, text = command("verify", str(corpus))
    assert code == 1
    assert "000001.tar: a tar without its .json" in text
    assert f"{corpus}: 1 fault\n" in text


def test_gc_touches_nothing_where_no_corpus_is(tmp_path: Path, command: Callable[..., tuple[int, str]]):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000001.tar").write_bytes(b"somebody's")
    assert command("gc", str(tmp_path), "--older-than-s", "0", "--delete")[0] != 0
    with pytest.raises(FileNotFoundError, match="no corpus here"):
        orphans(str(tmp_path), older_than_s=0)
    assert (tmp_path / "shards" / "000001.tar").exists()


def test_the_gc_command_lists_and_deletes_only_when_told(
    corpus: Path, littered: list[str], command: Callable[..., tuple[int, str]]
):
    code, text = command("gc", str(corpus), "--older-than-s", "0")
    assert code == 0
    assert text.splitlines() == [f"orphan {uri}" for uri in littered] + [f"{corpus}: 4 orphans; --delete removes them"]
    assert all(map(os.path.exists, littered))
    code, text = command("gc", str(corpus), "--older-than-s", "0", "--delete")
    assert text.splitlines()[-1] == f"{corpus}: 4 orphans removed"
    assert not any(map(os.path.exists, littered))
    assert command("gc", str(corpus), "--older-than-s", "0")[1] == f"{corpus}: 0 orphans\n"
    assert len(shards.committed_indices(str(corpus))) == 2, "what is committed stays"
