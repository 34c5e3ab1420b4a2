"""A training that ends at its plateau ends where the rule says, whoever trains and whatever interrupts it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_training
from run_log import learned
from test_training_log import scalars
from torch import multiprocessing
from toy_training import Measured, Scripted, Toy

from liftgs.training.world import ALONE
from liftgs_platform import checkpoints, learning
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.training import LoopConfig, train
from liftgs_platform.training_task import Validation, check, end_of

LOOP = LoopConfig(checkpoint_every=6, panel_every=0, log_every=2)
BUDGET, EVERY, PATIENCE = 40, 4, 2
#: Best at the third check, so two later, at step 20, it is given up.
RISES_THEN_FALLS = Scripted((0.1, 0.2, 0.5, 0.4, 0.3), EVERY)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusSpec, ...]:
    return toy_training.write_corpora(tmp_path_factory.mktemp("corpora"))


def toy(corpora: tuple[CorpusSpec, ...], score: Any, **fields: Any) -> Toy:
    return Toy(corpora, steps=BUDGET, validation=Validation(EVERY, score, PATIENCE), **fields)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def simulated(scores: Sequence[float], budget: int, every: int, patience: int, warm: int) -> tuple[int, int | None]:
    """Steps in all, and where the plateau was: by counting, a step at a time."""
    best, stale = 0.0, 0
    for step in range(1, budget + 1):
        if (step % every == 0 or step == budget) and step >= warm:
            score = scores[-(-step // every) - 1]
            stale = 0 if score > best or best == 0 else stale + 1
            best = max(best, score)
            if stale >= patience:
                return step, step
    return budget, None


@pytest.mark.parametrize("seed", range(60))
def test_it_stops_where_a_slow_simulation_of_the_rule_says(seed: int) -> None:
    """The checks alone, without a training between them."""
    draw = random.Random(seed)
    budget, every, patience = draw.randint(30, 300), draw.randint(1, 15), draw.randint(1, 6)
    warm = draw.randint(0, 15)
    scores = [max(0.0, round(draw.gauss(0.3, 0.3) + draw.random() * step / 60, 1)) for step in range(budget + 1)]
    script = Scripted(tuple(scores), every)
    task = Toy((), steps=budget, validation=Validation(every, script, patience, warm))
    learner, cursor = task.learner("cpu", None, ALONE), Cursor()
    while cursor.step < end_of(task, cursor):
        learner.steps_done += 1
        cursor = check(task, learner, ALONE, replace(cursor, step=cursor.step + 1))
    assert (cursor.step, cursor.plateau) == simulated(scores, budget, every, patience, warm)


@pytest.fixture(scope="module")
def undisturbed(corpora: tuple[CorpusSpec, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(toy(corpora, RISES_THEN_FALLS), str(run), LOOP)
    return run


def test_a_plateau_ends_the_training(undisturbed: Path) -> None:
    end = checkpoints.cursor_of(str(checkpoints.newest(str(undisturbed))))
    assert (end.step, end.samples_consumed, end.plateau) == (20, 40, 20)
    assert [step for step, _ in end.checks] == [4, 8, 12, 16, 20]


def test_what_became_of_it_is_told(undisturbed: Path) -> None:
    end = checkpoints.cursor_of(str(checkpoints.newest(str(undisturbed))))
    told = learning.result(str(undisturbed), end)
    assert told["plateau"] is True
    assert told["steps"] == 20
    assert told["validation"][:3] == [[4, 0.1], [8, 0.2], [12, 0.5]]
    rows = {row["step"]: row for row in learned(undisturbed) if "score" in row}
    assert {step: (row["score"], row["best_score"]) for step, row in rows.items()} == {
        4: (0.1, 0.1),
        8: (0.2, 0.2),
        12: (0.5, 0.5),
        16: (0.4, 0.5),
        20: (0.3, 0.5),
    }
    assert [(row["step"], row["event"]) for row in learned(undisturbed) if "event" in row] == [(20, "plateau")]
    shown = scalars(undisturbed / "tensorboard")
    assert shown["validation/score", 16] == pytest.approx(0.4)
    assert shown["validation/best_score", 16] == pytest.approx(0.5)
    page = (undisturbed / "report.html").read_text()
    assert 'aria-label="score over steps"' in page
    assert "of 20 steps" in page


def test_a_row_ends_with_a_check_whatever_its_length(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    task = toy(corpora, RISES_THEN_FALLS)
    train(task, str(tmp_path / "run"), replace(LOOP, log_every=50, checkpoint_every=100))
    rows = [row for row in learned(tmp_path / "run") if "event" not in row]
    assert [(row["step"], row["score"]) for row in rows[:5]] == [(4, 0.1), (8, 0.2), (12, 0.5), (16, 0.4), (20, 0.3)]


def test_a_budget_that_is_used_up_is_no_plateau(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    rising = Scripted(tuple(0.01 * number for number in range(1, 30)), EVERY)
    end = train(toy(corpora, rising), str(tmp_path / "run"), LOOP)
    told = learning.result(str(tmp_path / "run"), end)
    assert (told["plateau"], told["steps"]) == (False, BUDGET)
    assert [step for step, _ in end.checks][-2:] == [36, 40]


def test_validation_without_patience_changes_nothing(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    """Nor does it matter what the scores are, or that they draw random numbers."""
    plain, checked = Toy(corpora), Toy(corpora, validation=Validation(3, Measured()))
    train(plain, str(tmp_path / "plain"), LOOP)
    end = train(checked, str(tmp_path / "checked"), replace(LOOP, log_every=1))
    assert weights(tmp_path / "plain") == weights(tmp_path / "checked")
    assert [step for step, _ in end.checks] == [3, 6, 9, 12, 15, 18, 20]
    assert end.plateau is None


def test_until_the_plateau_samples_and_losses_are_those_of_a_run_that_is_never_checked(
    corpora: tuple[CorpusSpec, ...], tmp_path: Path
) -> None:
    every_step = replace(LOOP, log_every=1)
    traces = {name: tmp_path / f"trace-{name}" for name in ("plain", "checked")}
    for trace in traces.values():
        trace.mkdir()
    train(Toy(corpora, steps=BUDGET, trace=str(traces["plain"])), str(tmp_path / "plain"), every_step)
    task = toy(corpora, Measured(), trace=str(traces["checked"]))
    end = train(task, str(tmp_path / "checked"), every_step).plateau
    assert end is not None
    assert end < BUDGET, "else this test shows little"
    losses = {
        name: [row["loss"] for row in learned(tmp_path / name) if "loss" in row and row["step"] <= end]
        for name in traces
    }
    assert losses["plain"] == losses["checked"]
    seen = {name: {file.name: file.read_text() for file in trace.iterdir()} for name, trace in traces.items()}
    assert seen["checked"].items() <= seen["plain"].items()


# ---- interrupted, and shared


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", range(1, 21))
def test_a_run_that_was_interrupted_anywhere_ends_as_if_it_were_not(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the step, or in its check where it has one."""
    run, step = tmp_path / "run", toy_training.Learner.step

    def interrupted(self: toy_training.Learner, items: Any) -> dict[str, float]:
        if self.steps_done + 1 == at and at % EVERY:
            raise Interrupted
        return step(self, items)

    def asked(self: Scripted, learner: toy_training.Learner, world: Any) -> float:
        raise Interrupted

    task = toy(corpora, RISES_THEN_FALLS)
    with monkeypatch.context() as patch:
        patch.setattr(toy_training.Learner, "step", interrupted)
        if at % EVERY == 0:
            score = Scripted.__call__
            patch.setattr(Scripted, "__call__", lambda *a: asked(*a) if a[1].steps_done == at else score(*a))
        with pytest.raises(Interrupted):
            train(task, str(run), LOOP)
    end = train(task, str(run), LOOP)
    assert (end.step, end.plateau) == (20, 20)
    assert weights(run) == weights(undisturbed)
    assert learned(run) == learned(undisturbed)


def test_a_run_that_has_ended_at_its_plateau_is_left_as_it_is(
    corpora: tuple[CorpusSpec, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = tmp_path / "run", toy(corpora, RISES_THEN_FALLS)
    first = train(task, str(run), LOOP)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    monkeypatch.delattr(toy_training.Learner, "step")
    assert train(task, str(run), LOOP) == first
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_two_workers_that_share_a_validation_end_with_the_same_weights(
    corpora: tuple[CorpusSpec, ...], tmp_path: Path
) -> None:
    task = toy(corpora, Measured(), batch_size=5)
    alone, together = tmp_path / "alone", tmp_path / "together"
    end = train(task, str(alone), LOOP)
    assert end.plateau is not None
    multiprocessing.spawn(toy_training.work, (2, task, str(together), LOOP), nprocs=2)
    assert weights(together) == weights(alone)
    assert learned(together) == learned(alone)


def test_a_checkpoint_keeps_the_checks_and_an_old_one_has_none(tmp_path: Path) -> None:
    cursor = Cursor(7, 14, 1, 0, 1.5, ((4, 0.1 + 0.2), (7, 1 / 3)), 4)
    uri = checkpoints.save(str(tmp_path), cursor, lambda folder: None, {})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert checkpoints.load(uri, scratch).cursor == checkpoints.cursor_of(uri) == cursor
    commit = tmp_path / "checkpoints" / "step-000007" / "checkpoint.json"
    facts = json.loads(commit.read_text())
    del facts["cursor"]["checks"], facts["cursor"]["plateau"]
    commit.write_text(json.dumps(facts))
    assert checkpoints.load(uri, scratch).cursor == Cursor(7, 14, 1, 0, 1.5)
