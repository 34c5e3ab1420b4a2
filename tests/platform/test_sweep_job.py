"""Sweeps: which stages there are and when two are the same; what runs, what is reused, what a failure blocks."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_sweep
import torch
from clusters import RayCluster

from liftgs.model.liftgs import LiftGSConfig
from liftgs_platform import job as launcher
from liftgs_platform import runs, sweep, sweep_plan
from liftgs_platform import spec as specs
from liftgs_platform.finetune_replay import ReplayConfig
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.spec import SpecError
from liftgs_platform.stages import PoolSpec, Stage, Store, order, run_without_ray
from liftgs_platform.sweep_collect import collect
from liftgs_platform.sweep_plan import CellPlan, FairnessSpec, MixSpec, SourceSpec


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    small_sweep.make_inputs(folder)
    return folder


def load(file: Path) -> sweep.Spec:
    return sweep.resolve(specs.load(file, [], sweep.Spec), launcher.resolve, launcher.resolve_if_file)


def plan(file: Path, **changes: Any) -> list[CellPlan]:
    return sweep_plan.plan(replace(load(file), **changes), file.parent)


def hashes(cells: Sequence[CellPlan], kind: str) -> set[str]:
    return {stage.hash for cell in cells for stage in cell.stages if stage.kind == kind}


# ---- which stages there are


def test_cells_and_their_stages(inputs: Path, tmp_path: Path) -> None:
    cells = plan(small_sweep.write_job(tmp_path, inputs))
    found = Counter((cell.mix, cell.ratio) for cell in cells)
    assert found == {("first", r): 2 for r in (0.0, 0.5, 1.0)} | {("none", r): 2 for r in (0.5, 1.0, 2.0)}
    stages = order(stage for cell in cells for stage in cell.stages)
    # Zero-shot networks of all seeds are the same checkpoint.
    assert Counter(stage.kind for stage in stages) == {"finetune": 10, "evaluate": 11}
    position = {stage.hash: i for i, stage in enumerate(stages)}
    assert all(position[needed] < position[stage.hash] for stage in stages for needed in stage.inputs)


def test_everything_made_from_scratch_is_shared(inputs: Path, tmp_path: Path) -> None:
    rooms = SourceSpec(source="procedural:apartments?scenes=3")
    changes: dict[str, Any] = {
        "corpora": {"a": rooms, "b": SourceSpec(source="procedural:offices?scenes=3")},
        "mixes": {"a": MixSpec(corpora={"a": 1}), "a+b": MixSpec(corpora={"a": 1, "b": 2})},
        "labelled": (replace(rooms, share=0.5),),
        "held_out": (SourceSpec(source="procedural:apartments?scenes=2&seed=9"),),
        "compute": FairnessSpec((0.5,), 2.0),
    }
    cells = plan(small_sweep.write_job(tmp_path, inputs), **changes)
    kinds = Counter(stage.kind for stage in order(stage for cell in cells for stage in cell.stages))
    scratch, tuned = 2 * 3 + 2, 2 * 2 * 2
    assert kinds == {
        "pseudolabel": 4,  # a and b by teachers, the labelled and the held-out rooms without
        "pretrain": 4,
        "finetune": scratch + tuned,
        "evaluate": scratch + tuned + 4,
    }
    longer = [cell for cell in cells if cell.control == sweep_plan.COMPUTE]
    assert {(cell.mix, cell.ratio, cell.seed) for cell in longer} == {("none", 0.5, 0), ("none", 0.5, 1)}
    usual = next(cell for cell in cells if cell.mix == "none" and not cell.control)
    specs = [cell.finetuning.spec for cell in (longer[0], usual) if cell.finetuning]
    assert [spec.optim.steps for spec in specs] == [2 + 2 * 1000, 2]  # jobs/model/tiny.yaml pretrains for 1,000 steps
    assert [spec.validation.patience for spec in specs] == [15, 5], "or it would stop where the other does"
    replayed = changes | {"mixes": {"a": MixSpec(corpora={"a": 1}, replay=0.5)}, "compute": FairnessSpec((0.5,), 3.0)}
    (longer, _) = [cell for cell in plan(tmp_path / "jobs/sweep.yaml", **replayed) if cell.control]
    assert longer.finetuning is not None
    assert longer.finetuning.spec.optim.steps == 2 + 3 * 1000 + 2, "one of two steps cost three"
    weights = next(c for c in cells if c.mix == "a+b").stages[2].spec.corpora
    assert [corpus.weight for corpus in weights] == [1, 2]


def test_seeds_choose_nested_scenes_and_are_paired_between_arms(inputs: Path, tmp_path: Path) -> None:
    cells = plan(small_sweep.write_job(tmp_path, inputs))
    chosen = {}
    for cell in cells:
        if cell.finetuning:
            (corpus,) = cell.finetuning.spec.corpora
            chosen[cell.mix, cell.ratio, cell.seed] = (corpus.share, corpus.share_seed, cell.finetuning.spec.seed)
    assert chosen["none", 1.0, 1] == chosen["first", 1.0, 1] == (0.5, 1, 1)
    assert chosen["none", 2.0, 0] == (1.0, 0, 0)


def test_a_mix_that_replays_goes_on_with_its_own_pretraining(inputs: Path, tmp_path: Path) -> None:
    rooms = {name: SourceSpec(source=f"procedural:{name}?scenes=3") for name in ("apartments", "offices")}
    weights = {"apartments": 1.0, "offices": 2.0}
    mixes = {"alone": MixSpec(weights), "replayed": MixSpec(weights, replay=0.3, pretrain=("item.absent=5",))}
    cells = plan(small_sweep.write_job(tmp_path, inputs), corpora=rooms, mixes=mixes)
    of = {cell.mix: cell for cell in cells if cell.ratio == 1.0 and cell.finetuning}
    tuned = {name: cell.finetuning.spec for name, cell in of.items() if cell.finetuning}
    assert tuned["none"].replay == tuned["alone"].replay == ReplayConfig(), "its presets are in no hash"
    replay = tuned["replayed"].replay
    pretraining = next(stage for stage in of["replayed"].stages if stage.kind == "pretrain")
    assert replay == ReplayConfig(pretraining.spec.corpora, 0.3, pretraining.spec.item, pretraining.spec.objective)
    assert replay.item.absent == 5
    assert [corpus.weight for corpus in replay.corpora] == [1.0, 2.0]
    made = {
        stage.hash
        for stage in of["replayed"].stages
        if stage.title.endswith(tuple(f"{name}?scenes=3" for name in rooms))
    }
    finetuning = of["replayed"].finetuning
    assert finetuning is not None
    assert len(made) == 2
    assert made < {*finetuning.inputs}, "it waits for the corpora, too"


def test_editing_a_finetuning_field_changes_finetuning_and_what_follows_alone(inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs)
    usual = {"corpora": {"a": SourceSpec(source="procedural:apartments?scenes=3")}, "mixes": {"a": MixSpec({"a": 1})}}
    before = plan(file, **usual)
    after = plan(file, **usual, finetune=(*load(file).finetune, "objective.weight=0.5"))
    for kind in ("pseudolabel", "pretrain"):
        assert hashes(before, kind) == hashes(after, kind)
    assert hashes(before, "finetune").isdisjoint(hashes(after, "finetune"))
    same = hashes(before, "evaluate") & hashes(after, "evaluate")
    assert len(same) == 2, "only the zero-shot ones"


def test_where_and_how_fast_is_no_part_of_a_stage(inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs)
    elsewhere = (*load(file).finetune, "worker.most=1", "loop.loaders=3", "loop.log_every=7")
    for kind in ("finetune", "evaluate"):
        assert hashes(plan(file), kind) == hashes(plan(file, finetune=elsewhere), kind)


def test_inputs_count_by_their_content_not_by_their_place(inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs)
    before = plan(file)
    shutil.copytree(inputs, tmp_path / "moved")
    moved = small_sweep.write_job(tmp_path, tmp_path / "moved")
    assert hashes(plan(moved), "evaluate") == hashes(before, "evaluate")
    shutil.copy(inputs / "network1" / "model.safetensors", tmp_path / "moved" / "network0" / "model.safetensors")
    other = plan(moved)
    of_mix = [cell.evaluation.hash for cell in before if cell.mix == "first"]
    assert not set(of_mix) & hashes(other, "evaluate")
    assert {c.evaluation.hash for c in before if c.mix == "none"} <= hashes(other, "evaluate")


def test_a_network_that_ships_counts_by_its_sizes_not_by_its_name(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small_sweep.write_job(tmp_path, inputs)
    before = plan(file)
    named = {(cell.mix, cell.ratio, cell.seed): cell.evaluation.hash for cell in before}
    coarser = replace(LiftGSConfig.named("tiny"), voxel_size_m=0.3)
    monkeypatch.setattr(LiftGSConfig, "named", lambda name: coarser)
    after = {(cell.mix, cell.ratio, cell.seed): cell.evaluation.hash for cell in plan(file)}
    assert {place[0] for place in named if named[place] != after[place]} == {"none"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held_out": []}, "held_out"),
        ({"ratios": [0.5, 2.0]}, "ratios above 0 and at most 1"),
        ({"scratch_ratios": [4.0]}, "not enough labelled scenes"),
        ({"scratch_ratios": [0.0]}, "scratch_ratios must be above 0"),
        ({"compute": {"ratios": [4.0]}}, "not enough labelled scenes"),
        ({"compute": {"ratios": [0.0]}}, "compute needs ratios"),
        ({"compute": {"step_cost": -1.0}}, "compute needs ratios"),
        ({"mixes": {"b": {"corpora": {"b": 0}}}}, "must be positive"),
        ({"labelled": [{"uri": "x", "share": 0.0}]}, "share must be above 0"),
        ({"mixes": {"b": {"corpora": {"b": 1}}}}, "names 'b'"),
        ({"mixes": {"b": {"corpora": {"b": 1}, "checkpoint": "x"}}}, "not both"),
        ({"labelled": [{"share": 0.5}]}, "either a uri or a source"),
        ({"mixes": {"b": {"checkpoint": "x", "replay": 0.5}}}, "of corpora that were pretrained on"),
        ({"orderings": ["second > none"]}, "'second', which is no mix"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(
    changes: dict[str, Any], reason: str, inputs: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=reason):
        load(small_sweep.write_job(tmp_path, inputs, **changes))


def test_a_mistyped_override_names_its_job(inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs, finetune=["optim.step=2"])
    with pytest.raises(SpecError, match=r"finetune: .*did you mean 'optim.steps'"):
        plan(file)


def test_a_missing_network_is_named(inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs, mixes={"x": {"checkpoint": str(tmp_path / "nothing")}})
    with pytest.raises(JobFailed, match="nothing"):
        [cell.evaluation.hash for cell in plan(file)]


def test_planning_mends_what_an_older_version_wrote_and_the_list_shows_what_nobody_can_read(
    inputs: Path, tmp_path: Path
) -> None:
    first, second, *_ = order(stage for cell in plan(small_sweep.write_job(tmp_path, inputs)) for stage in cell.stages)
    store = Store(str(tmp_path / "stages"))
    for stage in (first, second):
        store.describe(stage)
    file = tmp_path / "stages" / first.name / "stage.json"
    whole = file.read_bytes()
    facts = json.loads(whole)
    del facts["spec"]["optim"]
    file.write_text(json.dumps(facts))
    known = store.known()
    assert isinstance(known[first.name], JobFailed)
    assert known[second.name] == second
    store.describe(first)
    assert file.read_bytes() == whole


def test_a_stage_that_would_be_another_one_today_is_not_done_in_its_folder(inputs: Path, tmp_path: Path) -> None:
    """Else its output would lie where no sweep looks."""
    cells = plan(small_sweep.write_job(tmp_path, inputs))
    stage = next(stage for cell in cells for stage in cell.stages if stage.kind == "finetune")
    store = Store(str(tmp_path / "stages"))
    store.describe(stage)
    folder = tmp_path / "stages" / stage.name
    moved = folder.rename(folder.with_name(f"finetune-{'0' * 16}"))
    with pytest.raises(JobFailed, match=f"{moved.name}: would be {stage.name} today"):
        store.load(moved.name)


def test_a_number_of_stages_is_asked_for_whatever_nodes_there_are() -> None:
    """Or a cluster that grows by what waits would never grow."""
    from liftgs_platform.stage_pool import Pool

    assert Pool(Store("nowhere"), PoolSpec(gpus=1, most=16), Job(Path("sweep.yaml")))._room() == 16


# ---- running them


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that ran in this process, one stage after the other."""
    folder = tmp_path_factory.mktemp("finished")
    cells = plan(small_sweep.write_job(folder, inputs, seeds=1, ratios=[1.0], scratch_ratios=[]))
    run_without_ray(Store(str(folder / "stages")), order(stage for cell in cells for stage in cell.stages))
    return folder


def outcome(folder: Path) -> dict[str, str]:
    """Figures of each network, as text: NaN does not equal itself."""
    file = folder / "jobs" / "sweep.yaml"
    results = collect(load(file), plan(file), Store(str(folder / "stages")), set())
    return {f"{cell.label}: {name}": repr(values) for cell in results.cells for name, values in cell.figures.items()}


def test_results_are_collected_from_the_folders(finished: Path) -> None:
    file = finished / "jobs" / "sweep.yaml"
    results = collect(load(file), plan(file), Store(str(finished / "stages")), set())
    assert [(cell.mix, cell.ratio) for cell in results.cells] == [("none", 1.0), ("first", 0.0), ("first", 1.0)]
    for cell in results.cells:
        assert len(cell.figures["AP25"]) == 1 + 20
        assert cell.groups["all"]["expressions"] > 0
        assert len(cell.scenes) == 2
    assert [cell.labelled_scenes for cell in results.cells] == [2, 0, 2]
    assert [cell.steps for cell in results.cells] == [2, 0, 2]
    assert Counter(cost.kind for cost in results.stages) == {"finetune": 2, "evaluate": 3}
    assert all(cost.seconds > 0 for cost in results.stages)
    assert results.provenance["devices"] == {"CPU": 5}


def test_a_folder_that_was_computed_elsewhere_is_adopted(finished: Path, inputs: Path, tmp_path: Path) -> None:
    file = small_sweep.write_job(tmp_path, inputs, seeds=1, ratios=[1.0], scratch_ratios=[])
    shutil.copytree(finished / "stages", tmp_path / "stages")
    cells = plan(file)
    store = Store(str(tmp_path / "stages"))
    assert all(store.done(stage) for cell in cells for stage in cell.stages)
    assert "0 to run" in sweep.forecast(load(file), cells, order(s for c in cells for s in c.stages), store)
    assert outcome(tmp_path) == outcome(finished)


def test_a_stage_is_run_from_its_folder_alone(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "stages", tmp_path / "stages")
    folder = next((tmp_path / "stages").glob("finetune-*"))
    for path in folder.iterdir():
        if path.name != "stage.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    store = Store(str(tmp_path / "stages"))
    stage = store.load(folder.name.rpartition("-")[2][:8])
    assert stage.name == folder.name
    run_without_ray(store, [stage])
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (finished / "stages" / folder.name / weights).read_bytes()


def one_of_each(folder: Path, inputs: Path) -> tuple[Store, list[Stage]]:
    """A finetuning and its evaluation."""
    (cell,) = plan(small_sweep.write_job(folder, inputs, mixes={}, seeds=1, ratios=[1.0], scratch_ratios=[]))
    return Store(str(folder / "stages")), list(cell.stages)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(inputs: Path, tmp_path: Path) -> None:
    store, stages = one_of_each(tmp_path, inputs)
    with pytest.raises(JobFailed, match="a GPU is asked for, and PyTorch sees none"):
        run_without_ray(store, stages, gpu=True)
    assert not any(store.done(stage) for stage in stages)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_stages_run_on_a_gpu(inputs: Path, tmp_path: Path) -> None:
    store, stages = one_of_each(tmp_path, inputs)
    run_without_ray(store, stages, gpu=True)
    ends = [store.done(stage) for stage in stages]
    assert [end and end.device for end in ends] == [torch.cuda.get_device_name()] * 2


def test_a_folder_of_another_stage_or_a_damaged_mark_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "stages", tmp_path / "stages")
    first, second = sorted((tmp_path / "stages").glob("evaluate-*"))[:2]
    shutil.copy(first / "done.json", second / "done.json")
    store = Store(str(tmp_path / "stages"))
    with pytest.raises(JobFailed, match=f"{second.name}.*is of stage"):
        store.done(store.load(second.name))
    (second / "done.json").write_text("{")
    with pytest.raises(JobFailed, match="is damaged"):
        store.done(store.load(second.name))
    with pytest.raises(JobFailed, match="no stages are called 'nothing'"):
        store.load("nothing")


def run_pool(folder: Path, stages: Sequence[Stage], ray: RayCluster, changed: Any = lambda _: None) -> dict[str, Any]:
    from liftgs_platform.stage_pool import Pool

    pool = Pool(Store(str(folder / "stages")), PoolSpec(), Job(folder / "jobs" / "sweep.yaml"), changed)
    return pool.run(stages)


def test_a_failed_stage_blocks_what_needs_it_and_nothing_else(
    inputs: Path, tmp_path: Path, ray_driver: RayCluster
) -> None:
    shutil.copytree(inputs, tmp_path / "inputs")
    file = small_sweep.write_job(tmp_path, tmp_path / "inputs", seeds=1, ratios=[1.0], scratch_ratios=[])
    cells = plan(file)
    stages = order(stage for cell in cells for stage in cell.stages)
    for stage in stages:
        assert stage.hash  # of the network that is there now
    (tmp_path / "inputs" / "network0" / "model.safetensors").write_bytes(b"cut")
    ends = run_pool(tmp_path, stages, ray_driver)
    by_title = {one.stage.title: one for one in ends.values()}
    assert by_title["finetune first, ratio 1, seed 0"].state == "failed"
    assert "network0" in by_title["finetune first, ratio 1, seed 0"].reason
    assert by_title["evaluate first, ratio 1, seed 0"].state == "blocked"
    assert by_title["evaluate none, ratio 1, seed 0"].state == "done"


def test_what_ray_ends_is_tried_again_and_fails_alone(inputs: Path, tmp_path: Path, ray_driver: RayCluster) -> None:
    """A node's memory monitor tells of itself by another exception than that of a process that died."""
    import ray

    from liftgs_platform.stage_pool import Pool, Progress

    @ray.remote(max_retries=0)
    def fail() -> None:
        raise ray.exceptions.OutOfMemoryError("the node ran out of memory")

    @ray.remote(num_cpus=0)
    class Idle:  # not the stages' own, whose processes the next test looks for
        pass

    stage = plan(small_sweep.write_job(tmp_path, inputs))[0].evaluation
    pool = Pool(Store(str(tmp_path / "stages")), PoolSpec(retries=1), Job(tmp_path / "sweep.yaml"))
    one = Progress(stage, "running")
    for attempts, state in ((1, "waiting"), (2, "failed")):
        one.attempts = attempts
        pool._running[fail.remote()] = (one, Idle.remote())
        while pool._running:
            pool._collect()
        assert one.state == state
        assert "its process is lost" in one.reason


def test_a_stage_whose_process_is_killed_goes_on_in_another(
    finished: Path, inputs: Path, tmp_path: Path, ray_driver: RayCluster
) -> None:
    psutil = pytest.importorskip("psutil")
    file = small_sweep.write_job(tmp_path, inputs, seeds=1, ratios=[1.0], scratch_ratios=[])
    cells = [cell for cell in plan(file) if cell.mix == "first" and cell.ratio]
    killed: list[int] = []
    lines: list[tuple[str, str]] = []

    def processes() -> set[int]:
        found = psutil.process_iter(["cmdline"])
        return {one.pid for one in found if " ".join(one.info["cmdline"] or []).startswith("ray::_StageActor")}

    of_others = processes()  # of an earlier test, on their way out

    def kill_the_first(one: Any) -> None:
        if one is not None:
            lines.append((one.stage.kind, one.state))
        for process in () if killed else processes() - of_others:
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    ends = run_pool(tmp_path, order(cells[0].stages), ray_driver, kill_the_first)
    assert killed
    assert [(one.state, one.reason) for one in ends.values()] == [("done", "")] * 2
    assert ("finetune", "waiting") in lines
    found, expected = outcome(tmp_path), outcome(finished)
    assert all(found[key] == expected[key] for key in found)


def test_a_job_that_is_submitted_again_runs_nothing_and_reports(
    finished: Path, inputs: Path, tmp_path: Path, ray_driver: RayCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "stages", tmp_path / "stages")
    file = small_sweep.write_job(tmp_path, inputs, seeds=1, ratios=[1.0], scratch_ratios=[])
    assert launcher.start(file, []) == 0
    printed = capsys.readouterr().out
    assert "finetune 2/2 | evaluate 3/3" in printed
    events = [json.loads(line) for line in (tmp_path / "sweep/runs/0000/events.jsonl").read_text().splitlines()]
    assert {event["state"] for event in events} == {"reused"}
    rows = list(csv.DictReader((tmp_path / "sweep" / "cells.csv").open()))
    assert {(row["mix"], float(row["ratio"])) for row in rows} == {("none", 1), ("first", 0), ("first", 1)}
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "first" in page
    assert runs.find(str(tmp_path / "sweep"))[0].state == "complete"


def test_two_sweeps_at_once_run_what_they_share_once(inputs: Path, tmp_path: Path, ray_driver: RayCluster) -> None:
    from threading import Thread

    file = small_sweep.write_job(tmp_path, inputs, seeds=1, ratios=[1.0], scratch_ratios=[])
    stages = order(s for cell in plan(file) if cell.mix == "first" and cell.ratio for s in cell.stages)
    asked: set[int] = set()
    ends: list[dict[str, Any]] = []

    def run_sweep(number: int) -> None:
        def note(one: Any) -> None:
            if one is not None and one.state == "running" and one.stage.kind == "finetune":
                asked.add(number)

        ends.append(run_pool(tmp_path, stages, ray_driver, note))

    sweeps = [Thread(target=run_sweep, args=(number,)) for number in range(2)]
    for thread in sweeps:
        thread.start()
    for thread in sweeps:
        thread.join()
    assert [one.state for end in ends for one in end.values()] == ["done"] * 4
    assert asked == {0, 1}
    folder = next((tmp_path / "stages").glob("finetune-*"))
    rows = [json.loads(line) for line in next((folder / "log").glob("*.jsonl")).read_text().splitlines()]
    assert [row["step"] for row in rows if "event" not in row] == [1, 2], "one trained"


def test_help_and_shipped_sweeps_load() -> None:
    from clusters import ROOT

    for preset in sorted((ROOT / "jobs" / "sweeps").glob("*.yaml")):
        spec = specs.load(ROOT / "jobs" / "sweep.yaml", [f"sweeps={preset.stem}"], sweep.Spec)
        assert spec.output == f"sweeps/{preset.stem}", "or one preset would overwrite the results of another"
        cells = sweep_plan.plan(spec, ROOT / "jobs")
        assert cells[0].mix == sweep_plan.SCRATCH
    with pytest.raises(SpecError, match="no sweeps is called"):
        specs.load(ROOT / "jobs" / "sweep.yaml", ["sweeps=nothing"], sweep.Spec)
