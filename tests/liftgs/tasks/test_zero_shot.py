"""The zero-shot evaluation, of networks for which the right figures are known, and of an untrained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from liftgs.model.liftgs import LiftGS, LiftGSConfig, Prediction
from liftgs.procedural import KINDS, ProceduralScene
from liftgs.scene import PointCloud
from liftgs.tasks.instances import VOID, ScoredMasks
from liftgs.tasks.proposals import ProposalConfig
from liftgs.tasks.zero_shot import (
    LabelledCloud,
    ZeroShotScores,
    best_overlaps,
    class_phrases,
    evaluate_zero_shot,
    labelled_clouds,
    untrained_twin,
)
from liftgs.teachers.evaluate_clip import held_out_scenes

QUERIES = torch.eye(len(KINDS))
MIN = 5  # points of an instance: the rooms here have few and large voxels, so that they are quick


@pytest.fixture(scope="module")
def clouds() -> list[LabelledCloud]:
    return list(labelled_clouds(held_out_scenes(3, 1_000_000, views=2, image_px=128)))


@dataclass
class Oracle:
    """Knows what it is shown by heart; may call a class by the name of the next, or find only some of the points."""

    clouds: Sequence[LabelledCloud]
    shift: int = 0
    every: int = 1

    def voxelise(self, cloud: PointCloud) -> LabelledCloud:
        return next(known for known in self.clouds if known.cloud is cloud)

    def encode(self, clouds: list[LabelledCloud]) -> list[SimpleNamespace]:
        of_voxels = [
            SimpleNamespace(of_point=torch.arange(len(known.cloud)), xyz=torch.from_numpy(known.cloud.xyz))
            for known in clouds
        ]
        return [SimpleNamespace(known=known, voxels=of) for known, of in zip(clouds, of_voxels, strict=True)]

    def answer(self, scene: SimpleNamespace, queries: torch.Tensor) -> Prediction:
        known = scene.known
        ids = np.unique(known.instances[known.labels != VOID])
        inside = known.instances == ids[:, None]
        inside &= (np.cumsum(inside, axis=1) - 1) % self.every == 0
        labels = np.array([known.labels[known.instances == i][0] for i in ids])
        names = QUERIES[(labels + self.shift) % len(KINDS)]
        return Prediction(torch.from_numpy(np.where(inside, 10.0, -10.0)), names @ queries.T)


def evaluate(model: object, clouds: Sequence[LabelledCloud], at_once: int = 8) -> ZeroShotScores:
    config = ProposalConfig(queries_at_once=at_once, part_m=0)  # what is hidden may split an instance
    return evaluate_zero_shot(
        cast(LiftGS, model), QUERIES, clouds, config=config, min_points=MIN, progress=lambda line: None
    )


def test_one_who_knows_everything_scores_one(clouds: list[LabelledCloud]) -> None:
    scores = evaluate(Oracle(clouds), clouds)
    assert set(scores.summary().values()) == {1.0}
    assert scores.clouds == 3
    assert scores.referrals > 10


def test_one_who_confuses_all_names_scores_nothing(clouds: list[LabelledCloud]) -> None:
    summary = evaluate(Oracle(clouds, shift=1), clouds).summary()
    assert summary.pop("best IoU") == 1, "though its masks are perfect"
    assert set(summary.values()) == {0.0}


def test_masks_of_a_third_of_the_points_pass_a_quarter_and_no_more(clouds: list[LabelledCloud]) -> None:
    summary = evaluate(Oracle(clouds, every=3), clouds).summary()
    assert summary["Acc@.25"] == 1
    assert summary["AP25"] > 0.5  # not 1: a third of a small instance is too small to be a prediction
    assert summary["best IoU"] == pytest.approx(0.35, abs=0.03)
    assert summary["AP50"] == summary["AP"] == summary["Acc@.5"] == 0


def test_neither_grouping_nor_the_order_of_scenes_matters_to_one_who_knows(clouds: list[LabelledCloud]) -> None:
    assert evaluate(Oracle(clouds), clouds, at_once=3).summary() == evaluate(Oracle(clouds), clouds[::-1]).summary()


def test_every_class_that_is_there_is_in_the_table_and_no_other(clouds: list[LabelledCloud]) -> None:
    scores = evaluate(Oracle(clouds), clouds)
    counts: dict[str, int] = {}
    for known in clouds:
        for i in np.unique(known.instances[known.labels != VOID]):
            if (known.instances == i).sum() >= MIN:
                kind = KINDS[known.labels[known.instances == i][0]]
                counts[kind] = counts.get(kind, 0) + 1
    assert {name: count for name, count, _ in scores.by_class()} == counts
    assert sum(counts.values()) > 20


def test_the_shell_of_a_room_is_void_and_its_objects_are_not() -> None:
    scene = ProceduralScene("apartments", 1, seed=1_000_000, views=1, width=128, height=128)
    known = next(iter(labelled_clouds([scene])))
    kinds = {instance.id: instance.kind for instance in scene.labels().instances}
    assert {kinds[i] for i in np.unique(known.instances)} >= {"wall", "floor"}
    for i in np.unique(known.instances).tolist():
        label = set(known.labels[known.instances == i].tolist())
        assert label == ({KINDS.index(kinds[i])} if kinds[i] in KINDS else {VOID})


def test_corpora_take_turns_and_a_seed_is_a_result() -> None:
    def rooms(count: int) -> list[tuple[str, int]]:
        scenes = held_out_scenes(count, 1_000_007, views=1, image_px=64)
        return [(known.name, len(known.cloud)) for known in labelled_clouds(scenes)]

    three = rooms(3)
    assert [name.partition("-")[0] for name, _ in three] == ["apartments", "offices", "warehouses"]
    assert rooms(1) == three[:1]


def test_a_phrase_is_judged_by_its_best_mask_alone() -> None:
    labels = np.repeat([0, 0, 1, VOID], 30)
    ids = np.repeat([1, 2, 3, 0], 30)
    cloud = PointCloud(np.zeros((120, 3), np.float32), np.zeros((120, 3), np.uint8))
    masks = np.stack([ids == 1, ids == 2, (ids == 3) | (ids == 0)])
    candidates = ScoredMasks(masks, np.array([2, 1, 0, 2]), np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.1]))
    known = LabelledCloud("", cloud, labels, ids)
    # class 0: its best mask is that of another thing; class 1: its only mask covers as much again of nothing
    assert best_overlaps(candidates, known, min_points=20) == [0.0, 0.5]
    assert best_overlaps(candidates[1:], known, min_points=20) == [1.0, 0.5]
    assert best_overlaps(candidates[:3], known, min_points=20) == [0.0, 0.0]
    assert best_overlaps(candidates, known, min_points=31) == []


def test_phrases_are_english() -> None:
    assert class_phrases(["armchair", "bed", "oil can"]) == ["an armchair", "a bed", "an oil can"]


def test_an_untrained_twin_is_another_network_of_the_same_shape_and_depends_on_its_seed() -> None:
    model = LiftGS(LiftGSConfig.named("tiny")).eval()
    before = torch.random.get_rng_state()
    first, again, other = (untrained_twin(model, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "decoder.proposal_content"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], model.state_dict()[name])
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_an_untrained_network_is_evaluated_without_error_and_finds_next_to_nothing(clouds: list[LabelledCloud]) -> None:
    model = untrained_twin(LiftGS(LiftGSConfig.named("tiny")), seed=3)
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(len(KINDS), 128, generator=generator), dim=1)
    lines: list[str] = []
    at_once = ProposalConfig(queries_at_once=len(KINDS))
    scores = evaluate_zero_shot(model, queries, clouds[:1], config=at_once, progress=lines.append)
    assert scores.summary()["AP25"] < 0.1
    assert len(lines) == 1
