"""Finetuning between whose labels pretraining goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import labelled_corpora
import pytest
import tiny_corpora
import torch
from clusters import ROOT
from run_log import learned
from test_pretrain import NETWORK

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig
from liftgs.model.liftgs import LiftGS
from liftgs.pretraining.items import Item, ItemConfig
from liftgs.training.trainer import OptimConfig
from liftgs_platform import finetune, learning, pretrain
from liftgs_platform import job as launcher
from liftgs_platform.finetune import Finetuning, Spec, settled
from liftgs_platform.finetune_replay import ReplayConfig
from liftgs_platform.learning import ModelSpec, check_labels
from liftgs_platform.mixture import BLOCK, CorpusSpec, apportion
from liftgs_platform.training import LoopConfig, train


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled rooms, pseudo-labelled samples, and a network that knows neither."""
    folder = tmp_path_factory.mktemp("inputs")
    labelled_corpora.write(folder / "labelled", scenes=2)
    tiny_corpora.write(str(folder / "photos"), tiny_corpora.plan())
    torch.manual_seed(0)
    LiftGS(NETWORK).save(folder / "start")
    return folder


@pytest.fixture
def spec_of(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The network's queries are 4 numbers, as the photos' embeddings are; names get such, too."""

    def encode(phrases: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.tensor([[*phrase.encode()[-4:]] for phrase in phrases]).float())

    monkeypatch.setattr(finetune, "phrase_encoder", lambda config: encode)

    def make(output: str = "run", replayed: str = "photos", **fields: Any) -> Spec:
        replay = ReplayConfig((CorpusSpec(str(inputs / replayed)),), item=ItemConfig(image_px=16))
        given: dict[str, Any] = {
            "corpora": (CorpusSpec(str(inputs / "labelled")),),
            "model": ModelSpec(start=str(inputs / "start")),
            "optim": OptimConfig(steps=6, batch_size=2, lr=1e-3, warmup_steps=2),
            "loop": LoopConfig(checkpoint_every=3, panel_every=6, panel_samples=4),
            "item": LabelledItemConfig(sets=1),
            "replay": replay,
        }
        return Spec(str(tmp_path / output), **given | fields)

    return make


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_share_is_of_all_samples_whatever_the_weights(share: float) -> None:
    labelled = (CorpusSpec("a", weight=3.0), CorpusSpec("b", weight=1.0))
    replay = ReplayConfig((CorpusSpec("c", weight=0.5), CorpusSpec("d", weight=1.5)), share)
    learned_from = replay.after(labelled)
    assert [corpus.uri for corpus in learned_from] == ["a", "b", "c", "d"]
    counts = apportion([corpus.weight for corpus in learned_from], BLOCK)
    assert sum(counts[2:]) == share * BLOCK
    assert counts[0] == 3 * counts[1]
    assert counts[3] == 3 * counts[2]
    assert ReplayConfig().after(labelled) == labelled


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        ReplayConfig(share=share)


def test_samples_are_learned_from_as_their_corpus_says_and_a_cut_run_goes_on(spec_of: Any, tmp_path: Path) -> None:
    whole, cut = spec_of("whole"), spec_of("cut")
    task = Finetuning(whole)
    mixture = task.mixture()
    sorts = [
        type(task.item(mixture.sample(draw), mixture.key(draw), draw))
        for draw in map(mixture.order.__getitem__, range(12))
    ]
    assert sorts == [Item if mixture.order[position].corpus else LabelledItem for position in range(12)]
    assert set(sorts) == {Item, LabelledItem}
    train(task, whole.output, whole.loop)
    rows = learned(tmp_path / "whole")
    assert {"mask", "token", "replay_mask", "replay_photometric", "replay_features"} <= set().union(*rows)
    assert list((tmp_path / "whole" / "panels").glob("*.png")), "of both sorts"

    class Half(Finetuning):
        @property
        def steps(self) -> int:
            return 3

    train(Half(cut), cut.output, cut.loop)
    train(Finetuning(cut), cut.output, cut.loop)
    for row, expected in zip(learned(tmp_path / "cut"), rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_is_replayed_is_another_run_and_counts_by_what_is_in_it(
    spec_of: Any, inputs: Path, tmp_path: Path
) -> None:
    tiny_corpora.write(str(tmp_path / "copy"), tiny_corpora.plan())
    tiny_corpora.write(str(tmp_path / "other"), tiny_corpora.plan(tiny_corpora.chunks(scenes=3)))

    def identity(spec: Spec) -> Any:
        spec = settled(spec)
        return learning.identity(spec, learning.open_corpora(spec, check_labels))

    spec = spec_of()
    copied = spec_of(replayed=str(tmp_path / "copy"))
    assert identity(spec) == identity(copied)
    assert identity(spec) != identity(spec_of(replayed=str(tmp_path / "other")))
    assert identity(spec) != identity(replace(spec, replay=replace(spec.replay, share=0.4)))
    none = replace(spec, replay=ReplayConfig())
    assert identity(spec) != identity(none)
    assert identity(none) == identity(replace(none, replay=ReplayConfig(share=0.4))), (
        "of what is not done nothing counts"
    )


def test_samples_without_pseudo_labels_cannot_be_replayed(spec_of: Any) -> None:
    with pytest.raises(launcher.JobFailed, match="no labels to learn from"):
        learning.open_corpora(spec_of(replayed="labelled"), check_labels)
    with pytest.raises(launcher.JobFailed, match="no finished corpus is there"):
        learning.open_corpora(spec_of(replayed="absent"), check_labels)


def test_the_small_network_replays_what_it_was_pretrained_on() -> None:
    pretraining = launcher.specs.load(ROOT / "jobs/pretrain.yaml", [], pretrain.Spec)
    replay = launcher.specs.load(ROOT / "jobs/finetune.yaml", [], Spec).replay
    assert (replay.item, replay.objective) == (pretraining.item, pretraining.objective)
    assert replay.corpora == ()
