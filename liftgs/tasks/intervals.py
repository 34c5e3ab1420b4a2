"""How far a score would move with other scenes: bootstrap over scenes, for one method or two on the same scenes.

Scenes are drawn with replacement, not expressions or instances: those of one scene share its scan and stand or fall
together. A score is a function of how often each scene counts, so a draw repeats no matching of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from liftgs.tasks.instances import MIN_POINTS, Overlaps, judge_instances
from liftgs.tasks.referral import THRESHOLDS, Referral, groups_of, is_hit


@dataclass(frozen=True, eq=False)
class SceneScore:
    """Figures of a set of scenes, or of parts of scenes, of which any may count several times or not at all.

    Attributes:
        scenes: their names.
        items: how many instances or expressions each holds.
        score: how often each scene counts -> the figures by name; NaN where there is nothing to score.
    """

    scenes: tuple[str, ...]
    items: tuple[int, ...]
    score: Callable[[Int[np.ndarray, " s"]], dict[str, float]]


@dataclass(frozen=True)
class Interval:
    """A figure and where the middle share of the draws puts it.

    Attributes:
        value: on the scenes as they are.
        low: lower percentile.
        high: upper percentile.
    """

    value: float
    low: float
    high: float


def bootstrap(
    score: SceneScore, draws: int = 1000, level: float = 0.95, seed: int = 0, scene_of: Callable[[str], str] = str
) -> dict[str, Interval]:
    """Percentile intervals of every figure.

    Args:
        score: from `instance_scores`, `referral_scores` or `difference`.
        draws: see `draw`.
        level: share of the draws inside an interval.
        seed: see `draw`.
        scene_of: see `draw`.

    Raises:
        ValueError: no scene, no draw, or a level outside (0, 1).
    """
    return {name: interval(values, level) for name, values in draw(score, draws, seed, scene_of).items()}


def draw(
    score: SceneScore, draws: int = 1000, seed: int = 0, scene_of: Callable[[str], str] = str
) -> dict[str, Float[np.ndarray, " 1+draws"]]:
    """Every figure on the scenes as they are, then on scenes drawn with replacement, as many as there are.

    Args:
        score: from `instance_scores`, `referral_scores` or `difference`.
        draws: how many.
        seed: of the draws; the same seed draws the same scenes, whatever is scored.
        scene_of: name -> the scene that it is a part of; parts of one scene are drawn together.

    Raises:
        ValueError: no scene, or no draw.
    """
    place = {scene: number for number, scene in enumerate(dict.fromkeys(map(scene_of, score.scenes)))}
    part_of = np.array([place[scene_of(name)] for name in score.scenes], np.int64)
    scenes = len(place)
    if not scenes or draws < 1:
        raise ValueError(f"needs scenes and draws; got {scenes} and {draws}")
    times = np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=draws)[:, part_of]
    rows = [score.score(row) for row in (np.ones(len(part_of), np.int64), *times)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def interval(drawn: Float[np.ndarray, " 1+draws"], level: float = 0.95) -> Interval:
    """Of a figure from `draw`. A draw in which it is NaN, as when it holds none of a group, is left out.

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"needs a level in (0, 1), not {level}")
    known = drawn[1:][~np.isnan(drawn[1:])]
    if not len(known):
        return Interval(float(drawn[0]), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(drawn[0]), float(low), float(high))


def instance_scores(
    scenes: Mapping[str, Overlaps],
    classes: int,
    min_points: int = MIN_POINTS,
    groups: Mapping[str, Int[np.ndarray, " k"]] | None = None,
) -> SceneScore:
    """AP, AP50 and AP25, and of each group of classes its AP, named as "AP tail"; see `score_instances`.

    Args:
        scenes: by name.
        classes: how many there are.
        min_points: see `MIN_POINTS`.
        groups: name -> places of its classes.
    """
    names = tuple(sorted(scenes))
    judged = judge_instances([scenes[name] for name in names], classes, min_points)

    def score(times: Int[np.ndarray, " s"]) -> dict[str, float]:
        scores = judged.score(times)
        of_groups = {f"AP {name}": scores[places].ap for name, places in (groups or {}).items()}
        return {"AP": scores.ap, "AP50": scores.ap50, "AP25": scores.ap25} | of_groups

    return SceneScore(names, tuple(judged.instances.sum(axis=1).tolist()), score)


def referral_scores(
    records: Sequence[Referral], thresholds: Sequence[float] = THRESHOLDS, inclusive: bool = False
) -> SceneScore:
    """Accuracies by group and threshold, named as "Acc@.25 all" and "Acc@.5 unique"; see `accuracy_table`."""
    names = tuple(sorted({record.scene for record in records}))
    groups = groups_of(records)
    row = {name: i for i, name in enumerate(names)}
    column = {group: i for i, group in enumerate(groups)}
    asked = np.zeros((len(names), len(groups)), np.int64)
    hits = np.zeros((len(names), len(groups), len(thresholds)), np.int64)
    for record in records:
        columns = [column["all"], *(column[group] for group in record.groups)]
        asked[row[record.scene], columns] += 1
        hits[row[record.scene], columns] += [is_hit(record.iou, threshold, inclusive) for threshold in thresholds]
    figures = [f"Acc@{f'{threshold:g}'.removeprefix('0')} {group}" for group in groups for threshold in thresholds]

    def score(times: Int[np.ndarray, " s"]) -> dict[str, float]:
        count = (times @ asked)[:, None]
        share = np.where(count > 0, np.einsum("s,sgt->gt", times, hits) / np.maximum(count, 1), np.nan)
        return dict(zip(figures, share.ravel().tolist(), strict=True))

    return SceneScore(names, tuple(asked[:, column["all"]].tolist()), score)


def difference(ours: SceneScore, theirs: SceneScore) -> SceneScore:
    """How much higher the first method's figures are, on the same scenes in every draw.

    Raises:
        ValueError: the two were not measured on the same scenes with as many instances or expressions in each.
    """
    if (ours.scenes, ours.items) != (theirs.scenes, theirs.items):
        raise ValueError("only methods measured on the same scenes and items can be paired")

    def score(times: Int[np.ndarray, " s"]) -> dict[str, float]:
        first, second = ours.score(times), theirs.score(times)
        return {name: first[name] - second[name] for name in first if name in second}

    return SceneScore(ours.scenes, ours.items, score)
