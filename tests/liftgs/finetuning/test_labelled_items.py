"""Questions about labelled chunks: who is asked for, by what name, and which voxels are whose."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from labelled_room import room_sample
from torch import Tensor

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig, majority, make_labelled_item
from liftgs.lifting import sight
from liftgs.sample import decode_sample
from liftgs.scene import BadInput
from liftgs.training.augment import AugmentConfig

SAMPLE = room_sample(size=96)
LABELS = SAMPLE.labels
assert LABELS is not None
KIND_OF = {row.id: row.kind for row in LABELS.instances}
STILL = AugmentConfig(rotate=False, flip=False, scale=0.0, colour=0.0)


class Words:
    """An encoder that remembers what it was asked; each phrase has a number as its embedding."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        self.asked.append(list(phrases))
        return torch.tensor([[float(len(phrase)), 1.0] for phrase in phrases])


def take(seed: int = 0, epoch: int = 0, words: Words | None = None, **config: object) -> LabelledItem:
    chosen = LabelledItemConfig(**config)  # type: ignore[arg-type]
    kinds = ["kangaroo", "walrus", *sorted(set(KIND_OF.values()))]
    return make_labelled_item(SAMPLE, chosen, 0.1, kinds, words or Words(), "room-000", seed, epoch)


def test_an_item_is_a_pure_function_of_its_arguments() -> None:
    one, two, other = take(), take(), take(epoch=1)
    assert torch.equal(one.voxels.xyz, two.voxels.xyz)
    assert all(torch.equal(a.instances, b.instances) for a, b in zip(one.questions, two.questions, strict=True))
    assert one.seed == two.seed != other.seed
    assert one.voxels.xyz.shape != other.voxels.xyz.shape or not torch.equal(one.voxels.xyz, other.voxels.xyz)


def test_a_name_names_all_instances_of_its_kind_and_no_others() -> None:
    for epoch in range(8):
        words = Words()
        item = take(epoch=epoch, words=words, task="instances", sets=1)
        question, asked = item.questions[0], words.asked[0]
        for row, instance in enumerate(question.instances.tolist()):
            column = question.positives[row].argmax()
            assert question.positives[row].sum() == 1
            assert asked[int(column)].partition(" ")[2] == KIND_OF[instance]
        for column, phrase in enumerate(asked):
            kind = phrase.partition(" ")[2]
            large = [i for i, name in KIND_OF.items() if name == kind and (item.instance == i).sum() >= 3]
            assert sorted(question.instances[question.positives[:, column] > 0].tolist()) == sorted(large)


def test_kinds_that_are_not_there_are_asked_for_too_and_the_shell_never() -> None:
    asked: Counter[str] = Counter()
    for epoch in range(20):
        words = Words()
        take(epoch=epoch, words=words, task="instances", sets=1, absent=2)
        asked.update(phrase.partition(" ")[2] for phrase in words.asked[0])
    assert asked["kangaroo"]
    assert asked["walrus"]
    assert not {"wall", "floor", "ceiling"} & set(asked)


def test_the_shell_is_not_asked_for_where_it_is_absent_either() -> None:
    words = Words()
    for epoch in range(10):
        take(epoch=epoch, words=words, task="instances", sets=1, absent=2, structure=("walrus",))
    assert "walrus" not in {phrase.partition(" ")[2] for asked in words.asked for phrase in asked}


@pytest.mark.parametrize("sets", [1, 2, 3])
def test_half_of_the_questions_are_of_either_sort(sets: int) -> None:
    words = Words()
    for epoch in range(40):
        take(epoch=epoch, words=words, task="both", sets=sets)
    names = sum(asked[0].startswith(("a ", "an ")) for asked in words.asked)
    assert 0.4 < names / len(words.asked) < 0.6


def test_kinds_are_asked_for_by_the_names_that_a_benchmark_has_for_them() -> None:
    class_of = dict.fromkeys(KIND_OF.values(), "") | {KIND_OF[min(KIND_OF)]: "walrus"}
    words, config = Words(), LabelledItemConfig(task="instances", sets=1)
    item = make_labelled_item(SAMPLE, config, 0.1, ["walrus", "kangaroo"], words, "room-000", 0, 0, class_of)
    assert {phrase.partition(" ")[2] for phrase in words.asked[0]} <= {"walrus", "kangaroo"}
    named = {KIND_OF[instance] for instance in item.questions[0].instances.tolist()}
    assert named == {KIND_OF[min(KIND_OF)]}


def test_an_expression_names_its_target() -> None:
    assert LABELS is not None
    targets = {one.text: set(one.target.instances) for one in LABELS.expressions}
    assert targets
    words = Words()
    question = take(words=words, task="referral", sets=1).questions[0]
    for column, text in enumerate(words.asked[0]):
        assert set(question.instances[question.positives[:, column] > 0].tolist()) == targets[text]
    torch.testing.assert_close(question.positives.sum(1), torch.ones(len(question.instances)))


def test_rooms_are_not_mirrored_where_words_say_left_and_right() -> None:
    """The signed area of a triangle of far apart points tells."""
    augment = AugmentConfig(rotate=False, flip=True, scale=0.0, colour=0.0)

    def mirrored(epoch: int, task: str) -> bool:
        changed = take(epoch=epoch, task=task, augment=augment).voxels
        still = take(epoch=epoch, task=task, augment=STILL).voxels
        return abs(float(changed.xyz[:, 0].mean() - still.xyz[:, 0].mean())) > 0.02

    assert not any(mirrored(epoch, "both") for epoch in range(6))
    assert {mirrored(epoch, "instances") for epoch in range(8)} == {True, False}


def test_a_voxel_belongs_to_the_instance_of_most_of_its_points() -> None:
    rng = np.random.default_rng(0)
    of_point, instances = rng.integers(0, 40, 500), rng.integers(0, 4, 500)
    found = majority(torch.from_numpy(instances), torch.from_numpy(of_point), 40)
    for voxel in range(40):
        counts = Counter(instances[of_point == voxel].tolist())
        best = max(counts.values())
        assert found[voxel] == min(i for i, count in counts.items() if count == best)


def test_small_instances_are_not_asked_for() -> None:
    item = take(task="instances", sets=1, min_voxels=30, absent=0)
    assert all((item.instance == i).sum() >= 30 for i in item.questions[0].instances)


def test_lifted_labels_ask_for_things_by_what_photos_show() -> None:
    """`room_sample` gives each instance an embedding of its own, and exact segments."""
    looks = sight(SAMPLE).embeds
    for epoch in range(4):
        words = Words()
        item = take(epoch=epoch, words=words, labels="lifted", task="instances", augment=STILL)
        assert not words.asked
        assert len(item) == 2
        for question in item.questions:
            assert 0 < len(question.instances) == len(question.queries) <= 8
            assert torch.equal(question.positives, torch.eye(len(question.queries)))
            assert (question.queries @ torch.from_numpy(looks).T).max(1).values.min() > 0.99
            fits = [best_iou(item.instance == i, truth_of(item)) for i in question.instances]
            assert np.median(fits) > 0.8


def truth_of(item: LabelledItem) -> Tensor:
    assert SAMPLE.cloud.instances is not None
    return majority(torch.from_numpy(SAMPLE.cloud.instances).long(), item.voxels.of_point, len(item.voxels))


def best_iou(mask: Tensor, truth: Tensor) -> float:
    pairs = [(mask & (truth == i), mask | (truth == i)) for i in truth[mask].unique()]
    return max(float(shared.sum() / union.sum()) for shared, union in pairs)


def test_lifted_things_that_look_alike_are_asked_for_together() -> None:
    item = take(labels="lifted", task="instances", same_query=-1.0, sets=1, targets=5)
    question = item.questions[0]
    assert len(question.queries) == 1
    assert question.positives.tolist() == [[1.0]] * 5


def test_lifted_labels_need_pseudo_labels_and_have_no_expressions() -> None:
    config = LabelledItemConfig(labels="lifted", task="instances")
    members = {name: data for name, data in SAMPLE.members.items() if ".segments." not in name}
    with pytest.raises(BadInput, match="no segments with embeddings"):
        make_labelled_item(decode_sample(members, "x"), config, 0.1, [], Words(), "x", 0, 0)
    unnamed = {name: data for name, data in SAMPLE.members.items() if name not in ("instances.npz", "expressions.json")}
    assert len(make_labelled_item(decode_sample(unnamed, "x"), config, 0.1, [], Words(), "x", 0, 0))
    with pytest.raises(ValueError, match="task=instances"):
        LabelledItemConfig(labels="lifted")


def test_a_sample_without_labels_or_without_an_answer_is_bad_input() -> None:
    members = {name: data for name, data in SAMPLE.members.items() if name not in ("instances.npz", "expressions.json")}
    with pytest.raises(BadInput, match="no 3D labels"):
        make_labelled_item(decode_sample(members, "x"), LabelledItemConfig(), 0.1, [], Words(), "x", 0, 0)
    with pytest.raises(BadInput, match="nothing to ask for"):
        take(task="instances", min_voxels=10_000_000)


def test_a_config_that_could_ask_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="absent"):
        dataclasses.replace(LabelledItemConfig(), queries=2, absent=2)
