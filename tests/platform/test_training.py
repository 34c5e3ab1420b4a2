"""Whatever interrupts a training, it ends with the weights of one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_training
from clusters import RayCluster
from PIL import Image
from run_log import learned, starts
from torch import multiprocessing
from toy_training import Toy

from liftgs.scene import BadInput
from liftgs_platform import checkpoints, storage, training
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.job import JobFailed
from liftgs_platform.loader import TooManyBadSamples
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.training import Context, LoopConfig, Preempted, Wishes, WorkerConfig, claim, train

LOOP = LoopConfig(checkpoint_every=4, panel_every=8, log_every=2, keep_last=2)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusSpec, ...]:
    return toy_training.write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def undisturbed(corpora: tuple[CorpusSpec, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(Toy(corpora), str(run), LOOP)
    return run


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_run_leaves_checkpoints_log_panels_and_the_model(undisturbed: Path) -> None:
    assert list(checkpoints.committed(str(undisturbed))) == [16, 20]
    assert [row["step"] for row in learned(undisturbed)] == list(range(2, 21, 2))
    assert [file.name for file in sorted((undisturbed / "panels").iterdir())] == [
        f"step-{step:06d}.png" for step in (8, 16, 20)
    ]
    assert Image.open(undisturbed / "panels" / "step-000016.png").getpixel((0, 0)) == (16, 16, 16)
    assert json.loads((undisturbed / "config.json").read_text()) == {"toy": True}
    assert weights(undisturbed) == (undisturbed / "checkpoints" / "step-000020" / "model.safetensors").read_bytes()
    assert (undisturbed / "report.html").read_text().count("<svg") >= 3


def test_the_toy_learns(undisturbed: Path) -> None:
    losses = [row["loss"] for row in learned(undisturbed)]
    assert losses[-1] < 0.5 * losses[0]


def test_readers_threads_and_checkpoints_change_nothing(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path
) -> None:
    other = LoopConfig(checkpoint_every=100, panel_every=0, log_every=2, loaders=3, prefetch=5, cache_mb=0)
    train(Toy(corpora), str(tmp_path / "run"), other)
    assert weights(tmp_path / "run") == weights(undisturbed)
    assert learned(tmp_path / "run") == learned(undisturbed)


@pytest.mark.parametrize("at", [1, 5, 12, 19])
def test_a_run_that_was_interrupted_goes_on_exactly(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    step, steps = toy_training.Learner.step, 0

    def interrupted(self: toy_training.Learner, items: Any) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Interrupted
        return step(self, items)

    run = tmp_path / "run"
    monkeypatch.setattr(toy_training.Learner, "step", interrupted)
    with pytest.raises(Interrupted):
        train(Toy(corpora), str(run), LOOP)
    end = train(Toy(corpora), str(run), LOOP)
    assert steps == at + 20 - 4 * ((at - 1) // 4), "no more is done again than since the last checkpoint"
    assert (end.step, end.samples_consumed) == (20, 40)
    assert weights(run) == weights(undisturbed)
    assert learned(run) == learned(undisturbed)


def test_a_finished_run_is_left_as_it_is(
    corpora: tuple[CorpusSpec, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(Toy(corpora, steps=4), str(run), LOOP)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    monkeypatch.delattr(toy_training.Learner, "step")
    assert train(Toy(corpora, steps=4), str(run), LOOP).step == 4
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_damaged_checkpoint_stops_the_run_and_is_named(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(Toy(corpora, steps=8), str(run), LOOP)
    state = run / "checkpoints" / "step-000008" / "trainer.safetensors"
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"step-000008/trainer\.safetensors: has"):
        train(Toy(corpora, steps=12), str(run), LOOP)


def test_steps_that_are_not_finite_are_skipped_and_counted(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    end = train(Toy(corpora, nan="room0-001"), str(tmp_path / "run"), LOOP)
    rows = learned(tmp_path / "run")
    assert end.skipped_steps == rows[-1]["skipped"] > 2
    assert all("loss" not in row or row["loss"] < 1 for row in rows), "means are over finite values"


def test_bad_samples_are_told_once_and_counted(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    end = train(Toy(corpora, bad="room1-001", steps=40), str(tmp_path / "run"), LOOP)
    rows = learned(tmp_path / "run")
    events = [row for row in rows if "event" in row]
    assert [row["what"] for row in events] == [f"{corpora[0].uri}#room1-001: torn"]
    assert end.bad_samples == rows[-1]["bad_samples"] > 3
    assert "torn" in (tmp_path / "run" / "report.html").read_text()


def test_too_many_bad_samples_stop_the_run(tmp_path: Path) -> None:
    (first, *_) = toy_training.write_corpora(tmp_path)
    with pytest.raises(TooManyBadSamples, match=r"max_bad_rate is 0\.01"):
        train(Toy((first,), bad="room1-001", steps=500), str(tmp_path / "run"), LOOP)
    assert list(checkpoints.committed(str(tmp_path / "run"))), "what was learned before stays"


def test_a_batch_of_bad_samples_alone_is_a_skipped_step(tmp_path: Path) -> None:
    (first, *_) = toy_training.write_corpora(tmp_path)
    end = train(Toy((first,), bad="room1-001", steps=12, batch_size=1), str(tmp_path / "run"), LOOP)
    assert (end.step, end.samples_consumed, end.skipped_steps, end.bad_samples) == (12, 12, 2, 2)


def test_a_folder_with_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    claim(run, {"seed": 0, "optim": {"steps": 5, "betas": (0.9, 0.95)}})
    claim(run, {"seed": 0, "optim": {"steps": 5, "betas": (0.9, 0.95)}})
    with pytest.raises(JobFailed, match=r"another spec \(optim.steps: 5 -> 6\)"):
        claim(run, {"seed": 0, "optim": {"steps": 6, "betas": (0.9, 0.95)}})


def test_a_run_may_live_on_s3(
    s3_folder: str, corpora: tuple[CorpusSpec, ...], undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Toy, "panel", lambda self, learner, items: learner.no_such_method())
        with pytest.raises(AttributeError):
            train(Toy(corpora), s3_folder, LOOP)
    assert list(checkpoints.committed(s3_folder)) == [4]
    train(Toy(corpora), s3_folder, LOOP)
    assert storage.read_bytes(storage.join(s3_folder, "model.safetensors")) == weights(undisturbed)
    kinds = {uri.removeprefix(s3_folder).split("/")[1] for uri in storage.list_files(s3_folder)}
    assert kinds == {file.name for file in undisturbed.iterdir()}


# ---- asked to hurry


def test_a_checkpoint_is_there_when_it_was_asked_for(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path
) -> None:
    """Asked in the middle of step 6, by another thread, as before workers are stopped."""
    run, wishes, found = tmp_path / "run", Wishes(), []

    def ask() -> None:
        assert wishes.checkpoint(patience_s=60)
        found.append(list(checkpoints.committed(str(run)))[-1])

    class Asking(Toy):
        def learner(self, *arguments: Any) -> Any:
            learner = super().learner(*arguments)
            step = learner.step

            def stepped(items: Any) -> dict[str, float]:
                if learner.steps_done == 5:
                    asking.start()
                    while not wishes.open:
                        time.sleep(0.001)
                return step(items)

            learner.step = stepped
            return learner

    asking = threading.Thread(target=ask)
    train(Asking(corpora), str(run), LOOP, Context(wishes=wishes))
    asking.join()
    assert found == [7], "the step after the one in which it was asked for"
    assert weights(run) == weights(undisturbed)
    assert not wishes.open


def test_a_wish_that_nobody_serves_is_given_up() -> None:
    assert not Wishes().checkpoint(patience_s=0.01)
    ended = Wishes()
    ended.close()
    assert not ended.checkpoint(patience_s=1000)


def test_a_node_that_will_be_taken_away_leaves_a_checkpoint(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY_S", 0.0)
    run, answers = tmp_path / "run", iter([False] * 6 + [True])
    with pytest.raises(Preempted, match="after step 7"):
        train(Toy(corpora), str(run), LOOP, Context(preempted=lambda: next(answers)))
    assert list(checkpoints.committed(str(run)))[-1] == 7
    train(Toy(corpora), str(run), LOOP)
    assert weights(run) == weights(undisturbed)
    assert starts(run) == [(0, 1), (7, 1)]


# ---- several workers


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_workers_learns_the_same(corpora: tuple[CorpusSpec, ...], tmp_path: Path, size: int) -> None:
    """Also with a sample that cannot be used and one that is not finite."""
    toy = Toy(corpora, batch_size=5, bad="room1-001", nan="room0-001")
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(toy, str(alone), LOOP)
    multiprocessing.spawn(toy_training.work, (size, toy, str(together), LOOP), nprocs=size)
    assert weights(together) == weights(alone)
    assert learned(together) == learned(alone)


def test_the_number_of_workers_may_change_at_a_checkpoint(corpora: tuple[CorpusSpec, ...], tmp_path: Path) -> None:
    """Weights, log and order are those of an undisturbed run."""
    toy = Toy(corpora, batch_size=5)
    alone, elastic = tmp_path / "alone", tmp_path / "elastic"
    train(toy, str(alone), LOOP)
    for size, steps in ((1, 4), (3, 12), (2, 20)):
        arguments = (size, replace(toy, steps=steps), str(elastic), LOOP)
        multiprocessing.spawn(toy_training.work, arguments, nprocs=size)
    assert weights(elastic) == weights(alone)
    assert learned(elastic) == learned(alone)


# ---- killed


SCRIPT = """
import sys
sys.path[:0] = [sys.argv[1]]
from toy_training import Toy
from test_training import LOOP
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.training import train
corpora = tuple(CorpusSpec(uri) for uri in sys.argv[3:5])
train(Toy(corpora, die_at="room0-002", die_epoch=3, spared=sys.argv[2] + ".spared"), sys.argv[2], LOOP)
"""


def test_a_killed_process_goes_on_with_the_same_weights(
    corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(run), *(c.uri for c in corpora)]
    codes = [subprocess.run(command, check=False, env=dict(os.environ), capture_output=True).returncode for _ in "ab"]
    assert codes == [-9, 0]
    assert weights(run) == weights(undisturbed)
    assert learned(run) == learned(undisturbed)


def on_ray(task: Toy, run: Path, **worker: Any) -> Cursor:
    import ray
    import tiny_corpora

    from liftgs_platform.training_ray import train_on_ray

    for module in (toy_training, tiny_corpora):
        ray.cloudpickle.register_pickle_by_value(module)
    return train_on_ray(task, str(run), LOOP, WorkerConfig(cpus=1, **worker))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_train_starts_a_killed_worker_again(
    ray_driver: RayCluster, corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    spared = str(tmp_path / "spared")
    end = on_ray(Toy(corpora, die_at="room0-002", die_epoch=3, spared=spared), run, max_failures=1)
    assert os.path.exists(spared), "it was killed once"
    assert (end.step, end.samples_consumed) == (20, 40)
    assert weights(run) == weights(undisturbed)
    assert learned(run) == learned(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_cannot_be_mended_by_trying_again_is_not_tried_again(ray_driver: RayCluster, tmp_path: Path) -> None:
    (first, *_) = toy_training.write_corpora(tmp_path)
    with pytest.raises(JobFailed, match=r"max_bad_rate is 0\.01"):
        on_ray(Toy((first,), bad="room1-001", steps=500), tmp_path / "run", max_failures=-1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_that_always_dies_ends_the_job_with_the_reason(
    ray_driver: RayCluster, corpora: tuple[CorpusSpec, ...], tmp_path: Path
) -> None:
    with pytest.raises(JobFailed, match=r"more than 0 times.*no_such_method"):
        on_ray(Toy(corpora, bug=True), tmp_path / "run", max_failures=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_of_ray_train_learn_the_same_though_one_is_killed(
    ray_driver: RayCluster, corpora: tuple[CorpusSpec, ...], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    spared = str(tmp_path / "spared")
    toy = Toy(corpora, die_at="room0-002", die_epoch=3, spared=spared)
    end = on_ray(toy, run, least=2, most=2, max_failures=1)
    assert os.path.exists(spared), "one was killed"
    assert (end.step, end.samples_consumed) == (20, 40)
    assert weights(run) == weights(undisturbed)
    assert learned(run) == learned(undisturbed)
