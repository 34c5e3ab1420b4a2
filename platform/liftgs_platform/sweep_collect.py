"""Folders of stages -> the results of a sweep."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import nan
from typing import Any

from liftgs import codecs
from liftgs.scene import scene_of_key
from liftgs_platform import spec as specs
from liftgs_platform import storage
from liftgs_platform.manifest import MANIFEST
from liftgs_platform.mixture import Mixture
from liftgs_platform.revision import code_revision, git_revision
from liftgs_platform.stages import Stage, Store
from liftgs_platform.sweep_plan import NETWORK, CellPlan, PlanSpec
from liftgs_platform.sweep_results import Cell, Planned, StageCost, SweepResults

_NAMES = {"pseudolabel": "label", "pretrain": "pretrain", "finetune": "finetune", "evaluate": "evaluate"}


def collect(spec: PlanSpec, cells: Sequence[CellPlan], store: Store, reused: Collection[str]) -> SweepResults:
    """What has been measured so far.

    Args:
        spec: of the sweep.
        cells: planned; those that are not evaluated yet are left out.
        store: of the stages.
        reused: hashes of stages that were there before this sweep began.

    Raises:
        BadInput: a file of a stage is damaged; says which.
    """
    stages = {stage.hash: stage for cell in cells for stage in cell.stages}
    ends = {digest: store.done(stage) for digest, stage in stages.items()}
    measured = [cell for cell in cells if ends[cell.evaluation.hash] is not None]
    users = Counter(stage.hash for cell in measured for stage in cell.stages)
    costs = tuple(
        StageCost(_NAMES[stage.kind], stage.title, digest, end.seconds, digest in reused, users[digest])  # type: ignore[arg-type]
        for digest, stage in stages.items()
        if (end := ends[digest]) is not None and users[digest]
    )
    found = tuple(_cell(cell, store) for cell in measured)
    return SweepResults(
        name="",
        task_metric="AP25",
        cells=found,
        stages=costs,
        planned=tuple(Planned(cell.mix, cell.control, cell.ratio, cell.seed) for cell in cells),
        axes={"mix": [*dict.fromkeys(cell.mix for cell in cells)], "ratio": list(spec.ratios), "seeds": spec.seeds},
        provenance={
            "code": code_revision(),
            "git": git_revision() or "",
            "versions": {name: version(name) for name in ("liftgs", "ray", "torch", "numpy")}
            | {"python": platform.python_version()},
            "machine": f"{platform.machine()}, {platform.system()}",
            "devices": dict(Counter(end.device or "not noted" for end in ends.values() if end is not None)),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "spec": specs.plain(spec),
        },
        mixes=_sizes(spec, cells, store),
        replay={name: mix.replay for name, mix in spec.mixes.items() if mix.replay},
    )


def _cell(cell: CellPlan, store: Store) -> Cell:
    stage = cell.evaluation
    folder = store.folder(stage)
    uri = storage.join(folder, "draws.npz")
    drawn = codecs.decode_npz(storage.read_bytes(uri), uri)
    network = json.loads(storage.read_bytes(storage.join(folder, "result.json")))["networks"][NETWORK]
    tuned = _training(cell.finetuning, store)
    return Cell(
        mix=cell.mix,
        control=cell.control,  # type: ignore[arg-type]
        ratio=cell.ratio,
        seed=cell.seed,
        figures={name.partition("/")[2]: values.tolist() for name, values in drawn.items()},
        classes={name: {k: _number(v) for k, v in row.items()} for name, row in network["classes"].items()},
        groups={row["group"]: _accuracies(row) for row in network["groups"]},
        scenes={name: _number(value) for name, value in network["scenes"].items()},
        pictures={name: storage.join(folder, "papers", NETWORK, f"{name}.png") for name in network["scenes"]},
        steps=tuned.get("steps", 0),
        plateau=tuned.get("plateau", False),
        seconds=sum(end.seconds for one in (cell.finetuning, stage) if one and (end := store.done(one))),
        labelled_scenes=_labelled(cell.finetuning, store),
        stage=stage.hash,
    )


def _training(stage: Stage | None, store: Store) -> dict[str, Any]:
    """How a finetuning ended."""
    if stage is None:
        return {}
    try:
        facts = json.loads(storage.read_bytes(storage.join(store.folder(stage), "result.json")))
    except FileNotFoundError:
        return {}
    return dict(facts)


def _labelled(stage: Stage | None, store: Store) -> int:
    """Scenes that a finetuning learned from."""
    if stage is None:
        return 0
    corpora = Mixture(store.ready_spec(stage).corpora, 0)
    kept = zip(corpora.readers, corpora.kept, strict=True)
    return sum(len({scene_of_key(reader.key(index)) for index in used}) for reader, used in kept)


def _accuracies(row: dict[str, Any]) -> dict[str, float]:
    thresholds = (".25", ".5", ".75")
    return {"expressions": float(row["expressions"])} | {
        f"Acc@{threshold}": _number(value) for threshold, value in zip(thresholds, row["accuracy"], strict=True)
    }


def _sizes(spec: PlanSpec, cells: Sequence[CellPlan], store: Store) -> dict[str, dict[str, int]]:
    """Mix -> corpus -> samples pretrained on, where they are known."""
    sizes: dict[str, dict[str, int]] = {}
    for cell in cells:
        if cell.mix in sizes or not (cell.mix in spec.mixes and spec.mixes[cell.mix].corpora):
            continue
        training = next(stage for stage in cell.stages if stage.kind in ("pretrain", "finetune"))
        needed = [stage for stage in cell.stages if stage.hash in training.inputs]
        if all(store.done(stage) for stage in needed):
            corpora = store.ready_spec(training).corpora
            if all(storage.exists(storage.join(corpus.uri, MANIFEST)) for corpus in corpora):
                kept = Mixture(corpora, 0).kept
                sizes[cell.mix] = dict(zip(spec.mixes[cell.mix].corpora, map(len, kept), strict=True))
    return sizes


def _number(value: float | None) -> float:
    return nan if value is None else float(value)
