"""The `liftgs` command: what it prints and writes, and that mistakes end in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from liftgs import cli
from liftgs.model.liftgs import LiftGS, LiftGSConfig

ROOM = "procedural:apartments/000000?views=2&seed=1000000&width=48&height=48"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with fresh weights whose masks are not all empty."""
    folder = tmp_path_factory.mktemp("untrained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LiftGS(LiftGSConfig.named("tiny"))
    model.save(folder)
    return str(folder)


def run(*arguments: str) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def test_ground_prints_answers_and_writes_files(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out, image = tmp_path / "out", tmp_path / "pictures" / "room.png"
    assert (
        run("ground", checkpoint, ROOM, "the bed", "a lamp", "--top", "2", "--out", str(out), "--image", str(image))
        == 0
    )
    printed = capsys.readouterr()
    assert "the bed" in printed.out
    assert "a lamp" in printed.out
    said = json.loads((out / "grounding.json").read_text())
    assert said["checkpoint"] == checkpoint
    for entry in said["phrases"]:
        assert [match["rank"] for match in entry["matches"]] == [1, 2]
        assert all(f"{match['score']:.3f}" in printed.out for match in entry["matches"])
    # what was written can be grounded in
    assert run("ground", checkpoint, str(out / "grounding.ply"), "the bed", "--threshold", "1") == 0
    assert "nothing found" in capsys.readouterr().out
    assert Image.open(image).size[0] == 1280
    assert str(image) in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere/at/all", ROOM, "a bed"), "no checkpoint 'nowhere/at/all'"),
        (("CHECKPOINT", "nowhere/scan", "a bed"), "nowhere/scan: there is no such folder"),
        (("CHECKPOINT", "nowhere/scan.ply", "a bed"), "nowhere/scan.ply: the file is missing"),
        (("CHECKPOINT", "procedural:appartments/000000", "a bed"), "did you mean 'apartments'"),
    ],
)
def test_a_mistake_is_one_line(
    checkpoint: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run("ground", *(checkpoint if word == "CHECKPOINT" else word for word in arguments)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("liftgs: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1


def test_an_empty_phrase_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ground", "no/checkpoint", "no/scene", "a bed", " ") == 2
    assert "a phrase is empty" in capsys.readouterr().err


def test_a_unit_that_is_no_unit_is_refused(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ground", checkpoint, ROOM, "a bed", "--metres-per-unit", "0") == 2
    assert "must be positive" in capsys.readouterr().err


def test_zero_shot_prints_scores_beside_those_of_the_untrained_network(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("zero-shot", checkpoint, "--rooms", "1", "--views", "1", "--at-once", "58") == 0
    printed = capsys.readouterr()
    for name in ("AP25", "Acc@.25", "untrained", "ratio", "1 rooms"):
        assert name in printed.out
    assert printed.err.count("apartments-000000-000") == 2, "progress is on stderr, for both networks"


def test_commands_of_the_platform_are_found() -> None:
    names = {command.name for command in cli.build().registered_commands}
    assert {"inspect", "verify", "gc", "zero-shot"} <= names
