"""Zero-shot answers from lifted labels: perfect labels and perfect words find everything, generic words nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from labelled_room import room_sample
from torch import Tensor

from liftgs.lifting import LiftingConfig
from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs.tasks.evaluation import ExamConfig, examine
from liftgs.tasks.instances import score_instances
from liftgs.tasks.lifted import Way, components, lifted, touching
from liftgs.tasks.phrases import class_phrase

WAYS: tuple[Way, ...] = get_args(Way)
DIM = 16


@pytest.fixture(scope="module")
def room() -> Sample:
    return room_sample(views=6, embed_dim=DIM)


def direction(seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal(DIM)), dim=0)


def words(sample: Sample) -> tuple[list[str], Callable[[Sequence[str]], Tensor]]:
    """Kinds of which the sample holds one, and an encoder that knows what their segments look like."""
    assert sample.labels is not None
    kinds = [row.kind for row in sample.labels.instances]
    looks = {class_phrase(row.kind): direction(row.id) for row in sample.labels.instances if kinds.count(row.kind) == 1}

    def encode(phrases: Sequence[str]) -> Tensor:
        unknown = [direction(1000 + len(phrase)) for phrase in phrases]
        return torch.stack([looks.get(p, other) for p, other in zip(phrases, unknown, strict=True)]).float()

    return [kind for kind in kinds if kinds.count(kind) == 1], encode


@pytest.mark.parametrize("way", WAYS)
def test_with_perfect_labels_names_find_their_things(room: Sample, way: Way) -> None:
    kinds, encode = words(room)
    paper = examine(partial(lifted, way, encode, LiftingConfig()), room, "room", kinds, encode, ExamConfig())
    scores = score_instances([paper.overlaps], len(kinds), ExamConfig().min_points)
    assert scores.instances.sum() > 5
    assert scores.ap50 > 0.85


@pytest.mark.parametrize("way", WAYS)
def test_what_generic_words_fit_better_is_nobodys(room: Sample, way: Way) -> None:
    """Asked for something rather like a thing, where the generic words describe that thing itself."""
    assert room.labels is not None
    kinds, encode = words(room)
    thing = next(row for row in room.labels.instances if row.kind == kinds[0])
    looks = encode([class_phrase(thing.kind)])
    like = torch.nn.functional.normalize(looks + 0.3 * direction(77).float(), dim=1)
    for generic, best in ((looks, 0.1), (-looks, 0.9)):
        seen = lifted(way, lambda phrases, g=generic: g.expand(len(phrases), -1), LiftingConfig(), room)  # type: ignore[misc]
        answered = seen.answer(like)
        on_it = torch.from_numpy(room.cloud.instances == thing.id)
        mine = (answered.mask_logits > 0)[:, on_it].float().mean(1) > 0.5
        found = float(answered.token_probs[mine].max()) if mine.any() else 0.0
        assert (found < best) == (best == 0.1), found


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_probabilities_and_masks_over_the_points(room: Sample, way: Way) -> None:
    _, encode = words(room)
    answered = lifted(way, encode, LiftingConfig(), room).answer(torch.stack([direction(n).float() for n in range(5)]))
    assert answered.mask_logits.shape[1] == len(room.cloud)
    assert (answered.token_probs >= 0).all()
    assert (answered.token_probs.sum(1) <= 1 + 1e-5).all()
    assert ((answered.mask_logits > 0).sum(1) >= LiftingConfig().min_points).all()


def test_things_of_one_name_that_do_not_touch_are_two() -> None:
    x = np.array([0, 0.05, 0.1, 0.2, 1, 1.05, 1.13])
    name = np.array([0, 0, 1, 0, 0, 0, 0])  # what has another name between does not touch
    part = components(name, touching(np.stack([x, 0 * x, 0 * x], 1)))
    assert part[0] == part[1]
    assert part[4] == part[5] == part[6]
    assert len({part[0], part[2], part[3], part[4]}) == 4


@pytest.mark.parametrize("way", WAYS)
def test_phrases_of_another_clip_are_refused(room: Sample, way: Way) -> None:
    with pytest.raises(BadInput, match="embeddings of 16 numbers, and phrases have 8"):
        lifted(way, lambda phrases: torch.zeros(len(phrases), 8), LiftingConfig(), room)
