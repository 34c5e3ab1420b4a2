"""A whole sweep of seconds: rooms of two small views, a network of a few thousand weights, trainings of two steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import labelled_corpora
import torch
import yaml
from clusters import ROOT
from test_pretrain import NETWORK

from liftgs.model.liftgs import LiftGS


def make_inputs(folder: Path) -> None:
    """Labelled rooms to finetune on, others to evaluate on, and two networks to start from."""
    labelled_corpora.write(folder / "labelled", scenes=4)
    labelled_corpora.write(folder / "held-out", scenes=2, seed=50)
    for seed in (0, 1):
        torch.manual_seed(seed)
        LiftGS(replace(NETWORK, embed_dim=128)).save(folder / f"network{seed}")


def write_job(folder: Path, inputs: Path, **changes: object) -> Path:
    """A sweep file beside links to the real jobs that it needs."""
    jobs = folder / "jobs"
    jobs.mkdir(exist_ok=True)
    for name in ("pseudolabel", "pretrain", "finetune", "evaluate"):
        link = jobs / f"{name}.yaml"
        if not link.exists():
            link.symlink_to(ROOT / "jobs" / f"{name}.yaml")
    for group in ("model", "rendering", "finetuning", "scale", "teachers"):
        link = jobs / group
        if not link.exists():
            link.symlink_to(ROOT / "jobs" / group)
    spec = {
        "job": "sweep",
        "output": str(folder / "sweep"),
        "stages": str(folder / "stages"),
        "mixes": {"first": {"checkpoint": str(inputs / "network0")}},
        "labelled": [{"uri": str(inputs / "labelled"), "share": 0.5}],
        "held_out": [{"uri": str(inputs / "held-out")}],
        "ratios": [0.5, 1.0],
        "scratch_ratios": [2.0],
        "seeds": 2,
        # tiny from scratch takes seconds a step; from scratch means here: the other small network
        "finetune": ["optim.steps=2", "optim.batch_size=1", "loop.panel_every=0", "loop.checkpoint_every=1"],
        "evaluate": ["draws=20"],
        "pool": {"cpus": 1},
    } | changes
    file = jobs / "sweep.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file
