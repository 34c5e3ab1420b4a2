"""The names that corpora use, read from a few of their samples."""

from __future__ import annotations

from pathlib import Path

import labelled_corpora
import pytest
import tiny_corpora
import torch

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig, Question
from liftgs.sample import decode_sample
from liftgs.tasks.phrases import class_phrase
from liftgs_platform import finetune, learning, pretrain
from liftgs_platform.learning import ModelSpec
from liftgs_platform.mixture import CorpusSpec, Draw, Mixture
from liftgs_platform.names import captions_in, kinds_in, names_of
from liftgs_platform.shards import tar_uri


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return labelled_corpora.write(tmp_path_factory.mktemp("rooms") / "labelled", scenes=3)


def kinds_of(mixture: Mixture, number: int) -> set[str]:
    labels = decode_sample(mixture.readers[0][number], "room").labels
    assert labels is not None
    return {row.kind for row in labels.instances}


def test_kinds_are_those_of_the_scenes_that_are_used(labelled: str) -> None:
    whole = Mixture([CorpusSpec(labelled)], 0)
    rooms = [kinds_of(whole, number) for number in range(3)]
    assert set(names_of(whole, kinds_in)) == set.union(*rooms)
    part = Mixture([CorpusSpec(labelled, share=0.3)], 0)
    assert set(names_of(part, kinds_in)) == rooms[part.kept[0][0]] != set.union(*rooms)


def test_few_samples_are_read_of_a_large_corpus(labelled: str) -> None:
    mixture = Mixture([CorpusSpec(labelled)], 0)
    rooms = [kinds_of(mixture, number) for number in range(3)]
    assert set(names_of(mixture, kinds_in, most=1)) == rooms[0]
    assert set(names_of(mixture, kinds_in, most=2)) == rooms[0] | rooms[2], "spread over the corpus"


def test_captions_are_those_of_all_corpora_and_a_damaged_sample_has_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny_corpora.write(str(tmp_path / name), tiny_corpora.plan())
    mixture = Mixture([CorpusSpec(str(tmp_path / "a")), CorpusSpec(str(tmp_path / "b"))], 0)
    assert names_of(mixture, captions_in) == ("thing 0", "thing 1", "thing 2")
    assert names_of(mixture, kinds_in) == ()
    for name in ("a", "b"):
        for shard in range(3):
            tar = Path(tar_uri(str(tmp_path / name), shard))
            tar.write_bytes(bytes(tar.stat().st_size))
    assert names_of(mixture, captions_in) == ()


def test_finetuning_asks_for_no_kind_that_no_labelled_scene_holds(labelled: str, tmp_path: Path) -> None:
    """A pretrained network would unlearn its name."""
    spec = finetune.Spec(
        str(tmp_path / "run"),
        corpora=(CorpusSpec(labelled, share=0.6),),
        model=ModelSpec("tiny"),
        item=LabelledItemConfig(task="instances", sets=8, queries=8, absent=7),
    )
    task = finetune.Finetuning(spec)
    mixture = Mixture(spec.corpora, 0)
    rooms = [kinds_of(mixture, number) for number in mixture.kept[0]]
    encode = learning.phrase_encoder(learning.model_config(spec.model))
    known = {kind: encode([class_phrase(kind)])[0] for kind in spec.kinds}

    def absent(question: Question) -> set[str]:
        rows = question.queries[~question.positives.any(0)]
        return {kind for row in rows for kind, embed in known.items() if torch.equal(row, embed)}

    first = decode_sample(mixture.readers[0][mixture.kept[0][0]], "room")
    asked: set[str] = set()
    for epoch in range(4):
        item = task.item(first, "room", Draw(epoch, 0, 0, epoch))
        assert isinstance(item, LabelledItem)
        asked |= set().union(*map(absent, item.questions))
    assert asked == set.union(*rooms) - rooms[0] - set(spec.item.structure)


def test_pretraining_asks_for_captions_of_the_whole_corpus(tmp_path: Path) -> None:
    tiny_corpora.write(str(tmp_path / "corpus"), tiny_corpora.plan())
    corpora = (CorpusSpec(str(tmp_path / "corpus")),)
    plain, asking = (
        pretrain.Pretraining(
            pretrain.Spec(str(tmp_path), corpora=corpora, item=pretrain.ItemConfig(queries="captions", absent=absent))
        )
        for absent in (0, 4)
    )
    assert plain._names == ()
    assert asking._names == ("thing 0", "thing 1", "thing 2")
