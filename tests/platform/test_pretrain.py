"""The pretraining job, as it is submitted, with a network of a few thousand weights and photos of 16x12 pixels."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny_corpora
import torch
import yaml
from clusters import ROOT, RayCluster
from PIL import Image
from run_log import learned

from liftgs.model.decoder import Decoder, DecoderConfig
from liftgs.model.gaussians import GaussianConfig
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.unet import UNetConfig
from liftgs.pretraining.items import ItemConfig
from liftgs.pretraining.objective import ObjectiveConfig
from liftgs.sample import decode_sample
from liftgs.training.trainer import OptimConfig, TrainingDiverged
from liftgs.training.world import World
from liftgs_platform import checkpoints, learning, pretrain
from liftgs_platform import job as launcher
from liftgs_platform.learning import ModelSpec, check_pseudo_labels
from liftgs_platform.mixture import CorpusSpec, Draw
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.reader import CorpusReader
from liftgs_platform.spec import SpecError, identity
from liftgs_platform.training import LoopConfig, WorkerConfig, claim, train

JOB = ROOT / "jobs" / "pretrain.yaml"
STEPS = 8
LOOP = LoopConfig(checkpoint_every=2, panel_every=4, log_every=1)
NETWORK = LiftGSConfig(
    voxel_size_m=0.1,
    embed_dim=tiny_corpora.DIM,
    clip="tiny",
    clip_pretrained="",
    unet=UNetConfig(stem_channels=8, stem_kernel=3, channels=(8, 8, 8, 8), layers=(1, 1, 1, 1), norm="layer"),
    gaussians=GaussianConfig(features=8, hidden=8),
    decoder=DecoderConfig(layers=1, dim=16, heads=2, feedforward=16, dropout=0.1, proposals=6, scene_level=1),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """As in the workers below, for the last bits of a sum depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of six samples, and a network to start from."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_corpora.write(str(folder / "corpus"), tiny_corpora.plan())
    torch.manual_seed(0)
    LiftGS(NETWORK).save(folder / "start")
    return folder


def spec_of(inputs: Path, output: Path, **fields: Any) -> Spec:
    return Spec(
        str(output),
        corpora=(CorpusSpec(str(inputs / "corpus")),),
        model=ModelSpec(start=str(inputs / "start")),
        item=ItemConfig(image_px=16),
        optim=OptimConfig(steps=STEPS, batch_size=2, lr=1e-3, warmup_steps=2),
        loop=LOOP,
        **fields,
    )


def arguments(inputs: Path, output: Path) -> list[str]:
    """The same on the command line."""
    return [
        f"corpora=[{{uri: {inputs / 'corpus'}}}]",
        *(f"output={output}", f"model.start={inputs / 'start'}", "item.image_px=16", "item.views=1"),
        *("item.queries=embeds", "item.same_query=1.0", "item.only_seen=false"),
        *("objective.grounding=1.0", "objective.features=0.1"),
        *("objective.match_px=128", "objective.matching.token=2.0"),
        *(f"optim.steps={STEPS}", "optim.batch_size=2", "optim.lr=1e-3", "optim.warmup_steps=2"),
        *("optim.weight_decay=1e-4", "loop.checkpoint_every=2", "loop.panel_every=4", "loop.log_every=1"),
        "worker.cpus=1",
    ]


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    spec = spec_of(inputs, run)
    train(Pretraining(spec), spec.output, spec.loop)
    return run


def assert_same_run(run: Path, other: Path) -> None:
    """The same samples and losses, and the same weights."""
    for row, expected in zip(learned(run), learned(other), strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    weights, others = (LiftGS.from_pretrained(folder).state_dict() for folder in (run, other))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-6)


# ---- in this process


def test_a_run_is_a_model_and_its_panels_are_pictures(undisturbed: Path) -> None:
    model = LiftGS.from_pretrained(undisturbed)
    assert model.config == NETWORK
    start = LiftGS.from_pretrained(checkpoints.uri_of(str(undisturbed), STEPS - 2)).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in model.state_dict().items())
    panel = Image.open(undisturbed / "panels" / f"step-{STEPS:06d}.png")
    assert panel.width >= 4 * 16
    assert len(panel.getcolors(10**6)) > 50  # type: ignore[arg-type]


def test_the_log_holds_every_term_of_the_loss(undisturbed: Path) -> None:
    rows = learned(undisturbed)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    terms = {"photometric", "features", "mask", "dice", "token"}
    assert all(
        terms <= row.keys() and sum(row[t] for t in terms) == pytest.approx(row["loss"], rel=1e-3) for row in rows
    )


def test_a_resumed_run_is_the_same_run(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    steps = 0
    step = pretrain.Trainer.step

    def interrupted(self: Any, items: Any) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return step(self, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain.Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(Pretraining(spec), spec.output, spec.loop)
    end = train(Pretraining(spec), spec.output, spec.loop)
    assert (end.step, end.samples_consumed) == (STEPS, 2 * STEPS)
    assert_same_run(tmp_path / "run", undisturbed)


def test_losses_that_are_not_numbers_are_skipped_and_counted_and_then_stop_the_run(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    spec = replace(spec, optim=replace(spec.optim, steps=40, max_skipped=0.25))
    make = pretrain.make_item

    def poisoned(sample: Any, config: Any, voxel_size_m: float, key: str, *more: Any) -> Any:
        item = make(sample, config, voxel_size_m, key, *more)
        if key == "room1-000":
            view = item.views[0]
            item = replace(item, views=(replace(view, photo=view.photo * float("nan")),))
        return item

    monkeypatch.setattr(pretrain, "make_item", poisoned)
    with pytest.raises(TrainingDiverged, match="were skipped"):
        train(Pretraining(spec), spec.output, spec.loop)
    rows = learned(tmp_path / "run")
    assert rows[-1]["skipped"] >= 5
    assert rows[-1]["step"] >= 19, "a few are forgiven"
    skipped = [row["skipped"] for row in rows]
    assert [("loss" in row) for row in rows] == [a == b for a, b in zip(skipped, [0, *skipped], strict=False)]


def test_a_corpus_whose_up_is_unknown_is_told(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    learning.open_corpora(spec, check_pseudo_labels)
    assert capsys.readouterr().out == ""
    known = tiny_corpora.LoadedChunk
    monkeypatch.setattr(tiny_corpora, "LoadedChunk", lambda *parts: known(*parts[:3], "unknown"))
    tiny_corpora.write(str(tmp_path / "lying"), tiny_corpora.plan())
    learning.open_corpora(replace(spec, corpora=(CorpusSpec(str(tmp_path / "lying")),)), check_pseudo_labels)
    assert "lying: up is unknown" in capsys.readouterr().out


def test_a_corpus_counts_by_its_content_in_a_runs_identity(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    tiny_corpora.write(str(tmp_path / "copy"), tiny_corpora.plan())
    tiny_corpora.write(str(tmp_path / "other"), tiny_corpora.plan(tiny_corpora.chunks(3)))

    def identity_with(name: str) -> dict[str, Any]:
        moved = replace(spec, corpora=(CorpusSpec(str(tmp_path / name)),))
        return learning.identity(moved, learning.open_corpora(moved, check_pseudo_labels))

    assert identity_with("copy") == learning.identity(spec, learning.open_corpora(spec, check_pseudo_labels))
    assert identity_with("copy") != identity_with("other")


def test_how_it_is_run_is_no_part_of_what_is_learned(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(inputs, tmp_path / "a")
    elsewhere = replace(spec, output=str(tmp_path / "b"), loop=LoopConfig(loaders=3), dry_run=True)
    assert identity(spec) == identity(elsewhere)
    assert identity(spec) != identity(replace(spec, seed=1))


# ---- the job file


def test_a_missing_corpus_is_told_with_the_job_that_makes_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus"
    code = launcher.main([str(JOB), f"corpora=[{{uri: {corpus}}}]", f"output={tmp_path / 'run'}"])
    err = capfd.readouterr().err
    assert code == 1
    assert err == f"error: {corpus}: no finished corpus is there; make it with jobs/pseudolabel.yaml output={corpus}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("optim.stepz=3", "did you mean 'optim.steps'?"),
        ("model=bass", "did you mean 'base'?"),
        ("corpora=[{uri: x, wight: 2}]", "corpora: a CorpusSpec has no key 'wight'"),
        ("corpora=[]", "corpora needs at least one"),
        ("objective.inner.mask_loss=bce2", "did you mean 'bce'?"),
        ("loop.checkpoint_every=0", "must be at least 1"),
    ],
)
def test_mistakes_are_one_line(wrong: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher.main([str(JOB), wrong]) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_both_models_are_valid_specs() -> None:
    tiny, base = (launcher.specs.load(JOB, [f"model={name}"], Spec) for name in ("tiny", "base"))
    assert (tiny.model.config, base.model.config) == ("tiny", "base")
    paper = OptimConfig()
    assert base.optim == paper
    assert (paper.lr, paper.weight_decay) == (1e-4, 1e-4)
    assert base.item.image_px == 512


@pytest.mark.parametrize(
    ("losses", "terms"),
    [
        ("full", {"mask", "dice", "token", "photometric", "features"}),
        ("ground", {"mask", "dice", "token"}),
        ("ground_rgb", {"mask", "dice", "token", "photometric"}),
        ("ponder", {"photometric", "features"}),
    ],
)
def test_each_choice_of_losses_does_a_step(inputs: Path, losses: str, terms: set[str]) -> None:
    chosen = launcher.specs.load(JOB, [f"losses={losses}"], Spec)
    task = Pretraining(replace(spec_of(inputs, inputs / "none"), objective=chosen.objective))
    sample = decode_sample(CorpusReader(str(inputs / "corpus"))[0], "sample")
    learner = task.learner("cpu", None, World())
    with mock.patch.object(Decoder, "forward", autospec=True, side_effect=Decoder.forward) as decoder:
        metrics = learner.step([task.item(sample, "k", Draw(0, 0, 0, 0))] * 2)
    assert terms <= metrics.keys()
    assert not ({"mask", "dice", "token", "photometric", "features"} - terms) & metrics.keys()
    assert metrics["skipped"] == 0
    assert decoder.called == ("token" in terms)  # its cost goes with its loss


@pytest.mark.parametrize("model", ["tiny", "base"])
def test_all_losses_are_those_of_the_networks_recipe(model: str) -> None:
    file = JOB.parent / "rendering" / f"{model}.yaml"
    recipe = yaml.safe_load(file.read_text())["objective"] if file.exists() else {}
    objective = launcher.specs.load(JOB, [f"model={model}"], Spec).objective
    paper = ObjectiveConfig()
    for name in ("grounding", "photometric", "features"):
        assert getattr(objective, name) == recipe.get(name, getattr(paper, name))


def test_a_corpus_of_another_clip_is_refused(inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = launcher.main([str(JOB), *arguments(inputs, tmp_path / "run"), "model.start=''"])
    err = capfd.readouterr().err
    assert code == 1
    assert "embeddings of 4 numbers and the network takes 128" in err


def test_a_dry_run_says_how_much(inputs: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = launcher.main([str(JOB), *arguments(inputs, undisturbed), "dry_run=true"])
    lines = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert code == 0
    assert lines["corpus0"] == f"{inputs / 'corpus'}: 6 samples, weight 1"
    assert lines["steps"] == "8 of 2 items = 16 items, 2.7 epochs"
    assert lines["done"].startswith("8 steps, by ")
    assert lines["time"] == "none, all is done"
    assert lines["model"].endswith("0.0 M parameters")
    longer = [*arguments(inputs, undisturbed), "optim.steps=16", "nodes.count=2", "nodes.usd_per_h=3", "dry_run=true"]
    assert launcher.main([str(JOB), *longer]) == 0
    lines = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert lines["time"].startswith("about 0:2")  # a start takes twenty seconds, as far as it knows
    assert lines["cost"] == "about $0"
    assert "goodput" in lines
    assert "advice" in lines


def test_an_output_of_another_run_is_refused(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    spec = spec_of(inputs, tmp_path / "run")
    claim(spec.output, learning.identity(spec, learning.open_corpora(spec, check_pseudo_labels)))
    with pytest.raises(launcher.JobFailed, match="seed: 0 -> 1"):
        pretrain.run(replace(spec, seed=1), launcher.Job(JOB))


def test_a_spec_without_corpora_is_refused() -> None:
    with pytest.raises(SpecError, match="corpora needs at least one"):
        launcher.specs.build(Spec, launcher.specs.plain(spec_of(Path("x"), Path("y"))) | {"corpora": []}, "x.yaml")


def test_more_workers_than_items_in_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"worker\.most is 3, but a batch has 2 items to share"):
        replace(spec_of(Path("x"), Path("y")), worker=WorkerConfig(most=3))


# ---- on Ray


def submit(cluster: RayCluster, inputs: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "liftgs_platform.job", str(JOB), *arguments(inputs, output)]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, env=environment, stdout=log.open("ab"), stderr=subprocess.STDOUT)


def trainer_pid(run: Path, but: int = 0) -> int:
    """The process that trains into a run's folder, 0 if there is none: it holds an event file of TensorBoard open."""
    psutil = importlib.import_module("psutil")  # Ray brings it
    for process in psutil.process_iter(["name"]):
        if process.pid == but or not process.info["name"].startswith("ray::"):
            continue
        with suppress(psutil.Error):
            if any(file.path.startswith(f"{run}/tensorboard") for file in process.open_files()):
                return int(process.pid)
    return 0


def wait_for(what: Callable[[], Any], driver: subprocess.Popen[bytes], log: Path, pause_s: float = 0.05) -> Any:
    """The first true value of `what`, while the job runs."""
    while driver.poll() is None:
        found = what()
        if found:
            return found
        time.sleep(pause_s)
    raise AssertionError(f"the job ended too early:\n{log.read_text()}")


def kill_worker(driver: subprocess.Popen[bytes], run: Path, log: Path) -> int:
    """SIGKILL the process that trains, once it has committed a checkpoint. Returns its id."""
    worker = int(wait_for(lambda: trainer_pid(run), driver, log, pause_s=0.1))
    wait_for(lambda: checkpoints.committed(str(run)), driver, log)
    os.kill(worker, signal.SIGKILL)
    assert max(checkpoints.committed(str(run))) < STEPS, "it was killed in the middle"
    return worker


def test_the_job_pretrains_though_its_worker_is_killed(
    ray_cluster: RayCluster, inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "driver.log"
    driver = submit(ray_cluster, inputs, run, log)
    kill_worker(driver, run, log)
    assert driver.wait() == 0, log.read_text()
    text = log.read_text()
    assert f"pretrain: {STEPS} steps, {2 * STEPS} samples" in text
    assert f"model: {run}" in text
    assert_same_run(run, undisturbed)
    assert len(checkpoints.committed(str(run))) == 2
    facts = yaml.safe_load((run / "runs" / "0000" / "spec.yaml").read_text())
    assert facts["job"] == "pretrain"
    assert facts["spec"]["optim"]["steps"] == STEPS
    assert json.loads((run / "runs" / "0000" / "result.json").read_text())["steps"] == STEPS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_and_driver_are_killed_and_the_run_ends_with_the_same_weights(
    ray_cluster: RayCluster, inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "driver.log"
    driver = submit(ray_cluster, inputs, run, log)
    worker = kill_worker(driver, run, log)
    successor = wait_for(lambda: trainer_pid(run, but=worker), driver, log)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while trainer_pid(run) == successor and time.monotonic() < deadline:
        time.sleep(0.1)

    assert submit(ray_cluster, inputs, run, log).wait() == 0, log.read_text()
    assert f"pretrain: {STEPS} steps, {2 * STEPS} samples" in log.read_text()
    assert_same_run(run, undisturbed)
    assert len(checkpoints.committed(str(run))) == 2
