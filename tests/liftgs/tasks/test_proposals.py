"""Proposals -> scored masks: what is scored how, and what gives way to what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liftgs.model.liftgs import Prediction
from liftgs.tasks.instances import ScoredMasks
from liftgs.tasks.proposals import Answer, ProposalConfig, SeenScene, largest_parts, on_points, propose, select

MASK_LOGITS = torch.tensor([[2.0, -1.0, 0.0], [-3.0, 1.0, 3.0], [-1.0, -1.0, 0.0]])


def answer(queries: torch.Tensor) -> Prediction:
    """Three proposals over three points, the last one with an empty mask; a query is its own probability."""
    return Prediction(MASK_LOGITS, torch.tensor([0.5, 0.8, 1.0])[:, None] * queries[None, :, 0])


def seen(method: Answer, cells: int = 3) -> SeenScene:
    """A point to a cell, all in one place."""
    return SeenScene(method, np.arange(cells), np.zeros((cells, 3)))


def test_a_score_is_the_querys_probability_times_the_mean_probability_inside_the_mask() -> None:
    found = propose(seen(answer), torch.tensor([[0.9], [0.3]]), queries_at_once=2, part_m=0)
    first, second = torch.sigmoid(torch.tensor(2.0)), torch.sigmoid(torch.tensor([1.0, 3.0])).mean()
    scores = {(row, label): score for row, label, score in zip(found.row, found.label, found.score, strict=True)}
    assert found.masks.tolist() == [[True, False, False], [False, True, True]]
    assert scores == pytest.approx(
        {
            (0, 0): 0.5 * 0.9 * float(first),
            (0, 1): 0.5 * 0.3 * float(first),
            (1, 0): 0.8 * 0.9 * float(second),
            (1, 1): 0.8 * 0.3 * float(second),
        }
    )
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.parametrize("at_once", [1, 2, 3, 10])
def test_queries_keep_their_labels_however_they_are_grouped(at_once: int) -> None:
    asked: list[int] = []

    def listen(queries: torch.Tensor) -> Prediction:
        asked.append(len(queries))
        return answer(queries)

    found = propose(seen(listen), torch.tensor([[0.1], [0.2], [0.4], [0.8], [1.0]]), at_once, 0)
    assert max(asked) == min(at_once, 5)
    assert sum(asked) == 5
    assert found.label[:2].tolist() == [4, 3]
    assert sorted(found.label.tolist()) == sorted(2 * [0, 1, 2, 3, 4])
    points = found.masks[found.row].sum(axis=1)
    np.testing.assert_array_equal(points, np.where(points == 1, 1, 2))
    assert found.row.max() == len(found.masks) - 1


def test_no_mask_is_no_proposal() -> None:
    mute = seen(lambda q: Prediction(torch.full((4, 6), -1.0), torch.ones(4, len(q))), cells=6)
    nothing = propose(mute, torch.ones(3, 1), 2, 0)
    assert len(nothing) == 0
    assert nothing.masks.shape == (0, 6)
    assert len(select(nothing, ProposalConfig(nms_iou=0.5))) == 0


def test_without_suppression_the_best_are_kept() -> None:
    found = propose(seen(answer), torch.tensor([[0.9], [0.3]]), 2, 0)
    kept = select(found, ProposalConfig(top_k=3))
    assert kept.score.tolist() == found.score[:3].tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.integers(1, 30))
def test_suppression_leaves_no_overlap_within_a_query_and_drops_nothing_without_cause(
    seed: int, limit: float, top_k: int
) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((10, 12)) < 0.5
    masks[:, 0] = True
    candidates = ScoredMasks(masks, rng.integers(0, 10, 40), rng.integers(0, 3, 40), -np.sort(-rng.random(40)))
    kept = select(candidates, ProposalConfig(top_k=top_k, nms_iou=limit))
    expected: list[int] = []
    for i in range(40):  # the definition, on all candidates
        rivals = [j for j in expected if candidates.label[j] == candidates.label[i]]
        if all(iou(masks, candidates.row[i], candidates.row[j]) <= limit for j in rivals):
            expected.append(i)
    assert kept.score.tolist() == candidates.score[expected[:top_k]].tolist()


def iou(masks: np.ndarray, a: int, b: int) -> float:
    return float((masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum())


@pytest.mark.parametrize("wrong", [{"queries_at_once": 0}, {"top_k": 0}, {"nms_iou": 1.5}, {"part_m": -0.1}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ProposalConfig(**wrong)  # type: ignore[arg-type]


def test_masks_over_voxels_are_those_over_their_points() -> None:
    rng = np.random.default_rng(0)
    of_point = np.concatenate([np.arange(12), rng.integers(0, 12, 40)])
    logits = torch.from_numpy(rng.normal(size=(10, 12))).float()
    tokens = torch.from_numpy(rng.random((10, 2))).float()
    dense = SeenScene(lambda _: Prediction(logits, tokens), of_point, np.zeros((12, 3)))
    plain = seen(lambda _: Prediction(logits[:, of_point], tokens), cells=len(of_point))
    config, queries = ProposalConfig(nms_iou=0.4), torch.ones(2, 1)

    few = on_points(select(propose(dense, queries, 2, 0), config, dense.points), of_point)
    many = select(propose(plain, queries, 2, 0), config)

    assert few.label.tolist() == many.label.tolist()
    np.testing.assert_allclose(few.score, many.score, rtol=1e-5)
    np.testing.assert_array_equal(few.masks[few.row], many.masks[many.row])
    assert len(few) < 20  # some gave way


def test_the_largest_part_of_a_mask_is_what_a_flood_reaches() -> None:
    rng = np.random.default_rng(1)
    xyz = rng.random((300, 3)) * (1.0, 1.0, 0.1)
    points = rng.integers(1, 5, 300)
    masks = rng.random((8, 300)) < np.linspace(0.0, 0.25, 8)[:, None]
    found = largest_parts(masks, xyz, points, 0.05)
    cubes = np.floor(xyz / 0.05).astype(int)
    several = 0
    for mask, part in zip(masks, found, strict=True):
        rest, parts = set(np.flatnonzero(mask).tolist()), []
        while rest:  # a flood over cells whose cubes touch
            reached, edge = set(), {rest.pop()}
            while edge:
                one = edge.pop()
                reached.add(one)
                near = {other for other in rest if np.abs(cubes[one] - cubes[other]).max() <= 1}
                rest -= near
                edge |= near
            parts.append(reached)
        several += len(parts) > 1
        most = max((points[list(one)].sum() for one in parts), default=0)
        assert (
            set(np.flatnonzero(part).tolist()) in [one for one in parts if points[list(one)].sum() == most] or not parts
        )
        assert part.sum() <= mask.sum()
    assert several >= 5
    np.testing.assert_array_equal(largest_parts(masks, xyz, points, 0.0), masks)


def test_what_is_proposed_is_the_largest_part() -> None:
    apart = SeenScene(answer, np.arange(3), np.array([[0.0, 0, 0], [1, 0, 0], [1.1, 0, 0]]))
    wide = Prediction(torch.tensor([[3.0, 1.0, 2.0]]), torch.ones(1, 1))
    found = propose(replace(apart, answer=lambda _: wide), torch.ones(1, 1), 1, 0.15)
    assert found.masks.tolist() == [[False, True, True]]
    assert found.score == pytest.approx(torch.sigmoid(torch.tensor([1.0, 2.0])).mean().item())
