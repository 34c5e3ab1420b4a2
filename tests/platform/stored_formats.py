"""What a version of the code writes, kept as tests/data/formats/v{N}.tar.xz: corpora, half a run, half an evaluation.

Made once by the code of that version, before its formats change, and never again:

    cd tests/platform; python stored_formats.py v1; tar -cJf ../data/formats/v1.tar.xz v1; rm -r v1

Paths are relative to that folder, so whoever resumes goes there first.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
import torch

from liftgs.chunks import ChunkingConfig
from liftgs.model.decoder import DecoderConfig
from liftgs.model.gaussians import GaussianConfig
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.unet import UNetConfig
from liftgs.pretraining.items import ItemConfig
from liftgs.training.trainer import OptimConfig
from liftgs_platform import evaluate, learning, pretrain, pseudolabel
from liftgs_platform.classes import class_names
from liftgs_platform.evaluate_work import Examiner, examine_here
from liftgs_platform.learning import ModelSpec
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.training import LoopConfig, claim, train

DATA = Path(__file__).parents[1] / "data" / "formats"
ROOMS = "procedural:apartments?scenes=2&views=4&width=48&height=36"
CORPUS = pseudolabel.Spec(ROOMS, "corpus", chunking=ChunkingConfig(frames_per_chunk=2), chunks_per_shard=1)
LABELLED = pseudolabel.Spec(
    "procedural:apartments?scenes=2&views=2&width=48&height=48&seed=7", "labelled", pseudo_labels=False
)
NETWORK = LiftGSConfig(
    voxel_size_m=0.1,
    embed_dim=3,  # of the quick teachers
    clip="tiny",
    clip_pretrained="",
    unet=UNetConfig(stem_channels=4, stem_kernel=3, channels=(4, 4, 4, 4), layers=(1, 1, 1, 1), norm="layer"),
    gaussians=GaussianConfig(features=4, hidden=4),
    decoder=DecoderConfig(layers=1, dim=8, heads=2, feedforward=8, dropout=0.1, proposals=6, scene_level=1),
)
RUN = pretrain.Spec(
    "run",
    corpora=(CorpusSpec("corpus"),),
    model=ModelSpec(start="start"),
    item=ItemConfig(image_px=16),
    optim=OptimConfig(steps=4, batch_size=2, warmup_steps=2),
    loop=LoopConfig(checkpoint_every=2, keep_last=1, panel_every=0, log_every=1),
)
EVALUATION = evaluate.Spec(
    "evaluation",
    checkpoints=(evaluate.CheckpointSpec("small", "network"),),
    corpora=(CorpusSpec("labelled"),),
    draws=20,
)


def label(spec: pseudolabel.Spec) -> None:
    """In this process, with the quick teachers."""
    build = pseudolabel.factories(spec, pseudolabel.open_plans(spec))
    pseudolabel.run_here(spec, tiny.with_quick_teachers(build) if spec.pseudo_labels else build)


def pretrain_here() -> None:
    """Until the spec's last step."""
    claim(RUN.output, learning.identity(RUN, learning.open_corpora(RUN, learning.check_pseudo_labels)), pretrain.Spec)
    train(pretrain.Pretraining(RUN), RUN.output, RUN.loop)


def evaluate_here() -> None:
    """What is missing."""
    mixture, weights = evaluate.look(EVALUATION)
    claim(EVALUATION.output, evaluate.identity(EVALUATION, mixture, weights), evaluate.Spec)
    examiner = Examiner(EVALUATION.output, class_names(EVALUATION.classes), EVALUATION.exam)
    missing = set(evaluate.sheets_of(EVALUATION, mixture))
    examine_here(examiner, [s for s in missing if s.path not in evaluate.marked(EVALUATION.output)])


def kill_half_way(training: Callable[[], None]) -> None:
    """In the step after its first checkpoint."""
    step, done = pretrain.Trainer.step, 0

    def dying(self: Any, items: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done > RUN.loop.checkpoint_every:
            raise KeyboardInterrupt
        return step(self, items)

    pretrain.Trainer.step = dying  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):
        training()
    pretrain.Trainer.step = step  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Write everything, then take away half of the evaluation."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    os.chdir(folder)
    label(CORPUS)
    label(LABELLED)
    for name, network in (("start", NETWORK), ("network", replace(NETWORK, embed_dim=128))):
        torch.manual_seed(0)
        LiftGS(network).save(name)
    kill_half_way(pretrain_here)
    evaluate_here()
    shutil.rmtree("run/tensorboard", ignore_errors=True)
    Path("run/report.html").unlink(missing_ok=True)
    for paper in sorted(Path("evaluation/papers/small").iterdir())[2:]:
        paper.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
