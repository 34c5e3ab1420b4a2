"""A checkpoint is whole or it does not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from liftgs.scene import BadInput
from liftgs_platform import checkpoints, storage
from liftgs_platform.checkpoints import Cursor


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)


def trained() -> torch.optim.Optimizer:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


def save(run: str, step: int, trainer: Any = None) -> str:
    return checkpoints.save(run, Cursor(step, 2 * step, 1, 0, 1.5), write_model, trainer or {"steps_done": step})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    trainer = {"optimizer": trained().state_dict(), "skipped": [3, 5], "none": None, "pair": (1, "x"), "lr": 0.1}
    uri = save(str(tmp_path / "run"), 7, trainer)
    assert Path(uri).name == "step-000007"
    (tmp_path / "local").mkdir()
    found = checkpoints.load(uri, tmp_path / "local")
    assert found.cursor == Cursor(7, 14, 1, 0, 1.5)
    assert (tmp_path / "local" / "model.safetensors").read_bytes() == bytes(range(256)) * 8
    expected = trainer["optimizer"]["state"]  # type: ignore[index]
    assert {**found.trainer, "optimizer": None} == {**trainer, "optimizer": None}
    assert found.trainer["optimizer"]["param_groups"] == trainer["optimizer"]["param_groups"]  # type: ignore[index]
    assert list(found.trainer["optimizer"]["state"]) == [0, 1], "integer keys stay integers"
    for parameter, state in expected.items():
        for name, value in state.items():
            assert torch.equal(found.trainer["optimizer"]["state"][parameter][name], value)


def test_an_optimiser_goes_on_from_its_saved_state(tmp_path: Path) -> None:
    optimizer = trained()
    (tmp_path / "local").mkdir()
    found = checkpoints.load(save(str(tmp_path / "run"), 1, optimizer.state_dict()), tmp_path / "local")
    other = trained()
    other.load_state_dict(found.trainer)
    for one in (optimizer, other):
        one.step()
    for a, b in zip(optimizer.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        assert torch.equal(a, b)


def test_what_would_need_pickle_is_refused() -> None:
    with pytest.raises(TypeError, match=r"optimizer\.0\.hook is a function"):
        checkpoints.flatten({"optimizer": [{"hook": save}]})


def test_nothing_is_written_that_pickle_could_read(tmp_path: Path) -> None:
    uri = save(str(tmp_path / "run"), 1, trained().state_dict())
    assert sorted(file.suffix for file in Path(uri).iterdir()) == [".json"] * 3 + [".safetensors"] * 2


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "trainer.json", "config.json"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    uri = save(str(tmp_path / "run"), 3, {"x": torch.ones(9)})
    file = Path(uri) / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match=f"{name}: has .* bytes; delete .*step-000003 to go on from"):
        checkpoints.load(uri, tmp_path)


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    uri = save(str(tmp_path / "run"), 3)
    weights = Path(uri) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BadInput, match=r"model\.safetensors: is not what was committed"):
        checkpoints.load(uri, tmp_path)
    weights.unlink()
    with pytest.raises(BadInput, match=r"model\.safetensors: is missing"):
        checkpoints.load(uri, tmp_path)


def test_a_damaged_commit_is_named(tmp_path: Path) -> None:
    uri = save(str(tmp_path / "run"), 3)
    commit = Path(uri) / "checkpoint.json"
    whole = commit.read_bytes()
    for data in (whole[:40], b"[]", b"{}", whole.replace(b"trainer.json", b"../trainer.json")):
        commit.write_bytes(data)
        with pytest.raises(BadInput, match=r"checkpoint\.json"):
            checkpoints.load(uri, tmp_path)


def test_the_newest_committed_one_counts(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert checkpoints.newest(run) is None
    for step in (20, 1_000_000, 100):
        save(run, step)
    assert list(checkpoints.committed(run)) == [20, 100, 1_000_000]
    assert checkpoints.newest(run) == checkpoints.uri_of(run, 1_000_000)


def test_a_writer_that_dies_anywhere_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")
    save(run, 1)
    write, count = storage.write_bytes, 0

    def die(uri: str, data: bytes) -> None:
        nonlocal count
        if count == 0:
            raise KeyboardInterrupt
        count -= 1
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", die)
    for writes in range(5):
        count = writes
        with pytest.raises(KeyboardInterrupt):
            save(run, 2)
        assert checkpoints.newest(run) == checkpoints.uri_of(run, 1)
    count = 5
    save(run, 2)
    assert checkpoints.newest(run) == checkpoints.uri_of(run, 2)
    count = 2
    with pytest.raises(KeyboardInterrupt):
        save(run, 2)
    assert checkpoints.newest(run) == checkpoints.uri_of(run, 1), "a half overwritten one does not count"


KILLED = """
import os, signal, sys
from pathlib import Path
from liftgs_platform import checkpoints

def write_model(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))

checkpoints.save(sys.argv[1], checkpoints.Cursor(1), write_model, {})
replace = os.replace
def replace_until(source, target):
    if target.endswith("model.safetensors"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_until
checkpoints.save(sys.argv[1], checkpoints.Cursor(2), write_model, {})
"""


def test_a_killed_writer_leaves_no_readable_checkpoint_and_its_litter_is_pruned(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", KILLED, run], capture_output=True, check=False, env=dict(os.environ))
    assert done.returncode == -9, done.stderr
    litter = tmp_path / "run" / "checkpoints" / "step-000002"
    assert any(file.name.endswith(".tmp") for file in litter.iterdir())
    assert list(checkpoints.committed(run)) == [1]
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        checkpoints.load(str(litter), tmp_path)
    checkpoints.prune(run, keep_last=1)
    assert litter.exists(), "its writer may be alive yet"
    save(run, 3)
    checkpoints.prune(run, keep_last=2)
    assert not litter.exists()
    assert list(checkpoints.committed(run)) == [1, 3]


def test_the_last_few_and_every_nth_are_kept(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    for step in range(10, 90, 10):
        save(run, step)
    checkpoints.prune(run, keep_last=2, keep_every=30)
    assert list(checkpoints.committed(run)) == [30, 60, 70, 80]
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()) == [
        f"step-{step:06d}" for step in (30, 60, 70, 80)
    ]


def test_a_pruned_checkpoint_is_first_uncommitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(tmp_path / "run")
    for step in (1, 2):
        save(run, step)
    deleted: list[str] = []
    monkeypatch.setattr(storage, "delete", deleted.append)
    checkpoints.prune(run, keep_last=1)
    assert deleted[0].endswith("step-000001/checkpoint.json")
    assert len(deleted) == 5


def test_checkpoints_live_on_object_stores(tmp_path: Path) -> None:
    run = "memory://runs/one"
    save(run, 1)
    save(run, 2)
    assert list(checkpoints.committed(run)) == [1, 2]
    checkpoints.prune(run, 1)
    assert json.loads(storage.read_bytes(f"{checkpoints.newest(run)}/checkpoint.json"))["cursor"]["step"] == 2
    assert len(storage.list_files(run)) == 5
    assert checkpoints.load(str(checkpoints.newest(run)), tmp_path).trainer == {"steps_done": 2}


# ---- written beside the training


class Model(nn.Linear):
    """One number."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.constant_(self.weight, value)

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(str(self.weight.item()))


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, free, write = str(tmp_path / "run"), threading.Event(), storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda *place: (free.wait(20), write(*place)))
    model, state = Model(1.0), {"moment": torch.ones(2)}
    with checkpoints.Writer(run, keep_last=1) as writer:
        writer.save(Cursor(1), model, state)
        with torch.no_grad():
            model.weight.fill_(2.0)
            state["moment"].fill_(2.0)
        assert checkpoints.newest(run) is None
        free.set()
        writer.wait()
        assert writer.age_s < 20
        (tmp_path / "local").mkdir()
        found = checkpoints.load(checkpoints.newest(run) or "", tmp_path / "local")
        assert (found.folder / "model.safetensors").read_text() == "1.0"
        assert torch.equal(found.trainer["moment"], torch.ones(2))
        for step in (2, 3):
            writer.save(Cursor(step), model, state)
    assert list(checkpoints.committed(run)) == [3]


def test_a_checkpoint_that_could_not_be_written_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")

    def full(*_: object) -> None:
        raise storage.StorageError("disk full")

    with checkpoints.Writer(run, keep_last=1) as writer:
        writer.save(Cursor(1), Model(), {})
        writer.wait()
        monkeypatch.setattr(storage, "write_bytes", full)
        writer.save(Cursor(2), Model(), {})
        with pytest.raises(storage.StorageError, match="disk full"):
            writer.save(Cursor(3), Model(), {})
        monkeypatch.undo()
        writer.save(Cursor(4), Model(), {})
    assert list(checkpoints.committed(run)) == [4]
