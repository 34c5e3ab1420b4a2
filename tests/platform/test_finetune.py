"""The finetuning job on corpora of 3D labels: shares of them, and what cannot be finetuned on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import labelled_corpora
import pytest
import tiny_corpora
import torch
from run_log import learned
from test_pretrain import NETWORK

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig
from liftgs.model.liftgs import LiftGS
from liftgs.scene import BadInput, scene_of_key
from liftgs.training.trainer import OptimConfig
from liftgs_platform import finetune, learning
from liftgs_platform import job as launcher
from liftgs_platform.finetune import Finetuning, Spec, settled
from liftgs_platform.finetune_replay import ReplayConfig
from liftgs_platform.finetune_validation import HeldOut, ValidationConfig
from liftgs_platform.job import JobFailed
from liftgs_platform.learning import ModelSpec, check_labels
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.names import kinds_in, names_of
from liftgs_platform.training import LoopConfig, train

STEPS = 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled corpus of five rooms, one without, and a network whose queries are the small CLIP's."""
    folder = tmp_path_factory.mktemp("inputs")
    labelled_corpora.write(folder / "labelled", scenes=5)
    tiny_corpora.write(str(folder / "plain"), tiny_corpora.plan())
    torch.manual_seed(0)
    LiftGS(replace(NETWORK, embed_dim=128)).save(folder / "start")
    return folder


def spec_of(inputs: Path, output: Path, corpus: str = "labelled", **fields: object) -> Spec:
    return Spec(
        str(output),
        corpora=(CorpusSpec(str(inputs / corpus)),),
        model=ModelSpec(start=str(inputs / "start")),
        optim=OptimConfig(steps=STEPS, batch_size=2, lr=1e-3, warmup_steps=2),
        loop=LoopConfig(checkpoint_every=2, panel_every=STEPS),
        item=LabelledItemConfig(sets=2),
        **fields,  # type: ignore[arg-type]
    )


def test_a_finetuning_that_is_cut_goes_on_as_if_it_were_not(inputs: Path, tmp_path: Path) -> None:
    whole, cut = spec_of(inputs, tmp_path / "whole"), spec_of(inputs, tmp_path / "cut")
    train(Finetuning(whole), whole.output, whole.loop)

    class Half(Finetuning):
        @property
        def steps(self) -> int:
            return 2

    train(Half(cut), cut.output, cut.loop)
    train(Finetuning(cut), cut.output, cut.loop)
    for row, expected in zip(learned(tmp_path / "cut"), learned(tmp_path / "whole"), strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    names = {"mask", "dice", "token", "loss"}
    assert names <= learned(tmp_path / "whole")[0].keys()
    assert list((tmp_path / "whole" / "panels").glob("*.png"))
    assert LiftGS.from_pretrained(tmp_path / "whole").config.embed_dim == 128


def test_smaller_shares_of_the_labels_lie_within_larger_ones(inputs: Path, tmp_path: Path) -> None:
    def scenes(ratio: float, seed: int = 0) -> set[str]:
        spec = settled(spec_of(inputs, tmp_path, ratio=ratio, ratio_seed=seed))
        mixture = Mixture(spec.corpora, 0)
        keys = [mixture.key(mixture.order[position]) for position in range(len(mixture))]
        assert len(set(keys)) == len(keys)
        return {scene_of_key(key) for key in keys}

    counts = [len(scenes(ratio)) for ratio in (0.1, 0.2, 0.5, 1.0)]
    assert counts == [1, 1, 3, 5]
    assert scenes(0.2) <= scenes(0.5) <= scenes(1.0)
    assert len({frozenset(scenes(0.5, seed)) for seed in range(6)}) > 1


def test_a_ratio_of_a_share_lies_within_that_share(inputs: Path, tmp_path: Path) -> None:
    """Whose seed is the corpus' own."""
    for seed in range(4):
        own = (CorpusSpec(str(inputs / "labelled"), share=0.6, share_seed=seed),)
        whole, half = (settled(replace(spec_of(inputs, tmp_path), corpora=own, ratio=ratio)) for ratio in (1.0, 0.5))
        used = [set(Mixture(spec.corpora, 0).kept[0]) for spec in (half, whole)]
        assert used[0] < used[1]


def test_scannets_words_are_learned_as_its_classes(inputs: Path, tmp_path: Path) -> None:
    kinds = names_of(Mixture((CorpusSpec(str(inputs / "labelled")),), 0), kinds_in)
    rows = [f"{kind}\t{kind}\t0\t" + ("5" if kind in kinds[:3] else "40") for kind in kinds]
    (tmp_path / "labels.tsv").write_text("\n".join(["raw_category\tcategory\tid\tnyu40id", *rows]))
    spec = replace(
        spec_of(inputs, tmp_path / "run"),
        kinds=("scannet20",),
        label_table=str(tmp_path / "labels.tsv"),
        validation=ValidationConfig((CorpusSpec(str(inputs / "plain")),)),
        item=LabelledItemConfig(task="instances", sets=1),
    )
    task = Finetuning(spec)
    assert [kind for kind in kinds if task.class_of[kind] == "chair"] == list(kinds[:3])
    mixture, asked = Mixture(spec.corpora, 0), 0
    for place in range(len(mixture)):
        draw = mixture.order[place]
        sample = mixture.sample(draw)
        assert sample.labels is not None
        chairs = {row.id for row in sample.labels.instances if row.kind in kinds[:3]}
        try:
            item = task.item(sample, mixture.key(draw), draw)
        except BadInput:
            continue  # none is large enough
        assert isinstance(item, LabelledItem)
        assert set(item.questions[0].instances.tolist()) <= chairs
        assert item.questions[0].positives.shape[1] == 1, "no room holds any other class"
        asked += 1
    assert asked
    assert task.validation is not None
    assert isinstance(task.validation.score, HeldOut)
    assert task.validation.score.class_of == task.class_of
    (tmp_path / "labels.tsv").write_text("no table")
    with pytest.raises(BadInput, match="has no column raw_category"):
        finetune.run_here(spec)


def test_a_share_is_another_run(inputs: Path, tmp_path: Path) -> None:
    whole, half = (settled(spec_of(inputs, tmp_path, ratio=ratio)) for ratio in (1.0, 0.5))
    first, second = (learning.identity(s, learning.open_corpora(s, check_labels)) for s in (whole, half))
    assert first != second


def test_a_run_is_known_again_whatever_a_replay_would_have_been(inputs: Path, tmp_path: Path) -> None:
    spec = replace(spec_of(inputs, tmp_path / "run"), optim=OptimConfig(steps=1, batch_size=1))
    took = finetune.run_here(spec)
    assert finetune.run_here(replace(spec, replay=ReplayConfig(share=0.3))) == took, "it is done"
    with pytest.raises(JobFailed, match="holds a run of another spec"):
        finetune.run_here(replace(spec, seed=1))


def test_a_corpus_without_3d_labels_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(launcher.JobFailed, match="no 3D labels"):
        finetune.run(spec_of(inputs, tmp_path / "run", "plain"), launcher.Job(Path("jobs/finetune.yaml")))
    assert not (tmp_path / "run").exists()


def test_a_corpus_without_pseudo_labels_has_none_to_lift(inputs: Path, tmp_path: Path) -> None:
    spec = replace(spec_of(inputs, tmp_path / "run"), item=LabelledItemConfig(labels="lifted", task="instances"))
    with pytest.raises(launcher.JobFailed, match="no labels to learn from"):
        finetune.run(spec, launcher.Job(Path("jobs/finetune.yaml")))
    assert not (tmp_path / "run").exists()


def test_a_ratio_of_nothing_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ratio"):
        spec_of(inputs, tmp_path, ratio=0.0)
