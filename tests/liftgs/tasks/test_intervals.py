"""Bootstrap over scenes: against scoring the drawn scenes again, against theory, and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scored_scenes import perfect, predictions, random_scene, spans, truth

from liftgs.scene import scene_of_key
from liftgs.tasks.instances import Overlaps, overlap, score_instances
from liftgs.tasks.intervals import Interval, SceneScore, bootstrap, difference, instance_scores, referral_scores
from liftgs.tasks.referral import Referral, accuracy_table


@pytest.fixture(scope="module")
def overlaps() -> dict[str, Overlaps]:
    rng = np.random.default_rng(0)
    return {f"scene{number:02d}": overlap(*random_scene(rng), 3) for number in range(12)}


def records(hits: list[list[bool]], group: str = "unique") -> list[Referral]:
    """A scene per list; every other expression of a scene is in the group."""
    return [
        Referral(f"scene{scene:03d}", str(number), 0.6 * hit, (group,) if number % 2 else ())
        for scene, row in enumerate(hits)
        for number, hit in enumerate(row)
    ]


def drawn_scenes(scenes: int, draws: int, seed: int) -> list[np.ndarray]:
    """What `bootstrap` draws, as lists of scenes."""
    seen: list[np.ndarray] = []

    def score(times: np.ndarray) -> dict[str, float]:
        seen.append(np.repeat(np.arange(scenes), times))
        return {}

    bootstrap(SceneScore(tuple(map(str, range(scenes))), (1,) * scenes, score), draws, seed=seed)
    return seen[1:]  # after the scenes as they are


def test_ap_of_every_draw_is_that_of_the_drawn_scenes_scored_again(overlaps: dict[str, Overlaps]) -> None:
    draws = drawn_scenes(len(overlaps), 40, seed=3)
    scenes = list(overlaps.values())
    again = [score_instances([scenes[i] for i in draw], 3, 3).ap for draw in draws]
    found = bootstrap(instance_scores(overlaps, 3, 3), 40, level=0.8, seed=3)["AP"]
    assert found.value == pytest.approx(score_instances(scenes, 3, 3).ap)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(again, [0.1, 0.9])))
    assert found.low < found.value < found.high


def test_groups_of_classes_have_an_ap_of_their_own(overlaps: dict[str, Overlaps]) -> None:
    whole = score_instances(list(overlaps.values()), 3, 3)
    groups = {"head": np.array([0, 2]), "tail": np.array([1])}
    found = bootstrap(instance_scores(overlaps, 3, 3, groups), 5)
    assert list(found) == ["AP", "AP50", "AP25", "AP head", "AP tail"]
    assert found["AP head"].value == pytest.approx(whole.class_ap[[0, 2]].mean())
    assert found["AP tail"].value == pytest.approx(whole.class_ap[1])


def test_parts_of_one_scene_are_drawn_together(overlaps: dict[str, Overlaps]) -> None:
    halves = {f"{name}-{part:03d}": found for name, found in overlaps.items() for part in range(2)}
    draws = drawn_scenes(len(overlaps), 40, seed=3)
    scenes = list(overlaps.values())
    again = [score_instances([scenes[i] for i in draw for _ in range(2)], 3, 3).ap for draw in draws]
    found = bootstrap(instance_scores(halves, 3, 3), 40, level=0.8, seed=3, scene_of=scene_of_key)["AP"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(again, [0.1, 0.9])))


def test_accuracies_of_every_draw_are_those_of_the_drawn_records() -> None:
    rng = np.random.default_rng(0)
    said = records([(rng.random(rng.integers(1, 9)) < 0.5).tolist() for _ in range(10)])
    names = sorted({record.scene for record in said})
    tables = []
    for draw in drawn_scenes(10, 30, seed=5):
        drawn = [
            replace(record, scene=f"{record.scene}, {turn}")
            for turn, i in enumerate(draw)
            for record in said
            if record.scene == names[i]
        ]
        tables.append({row.group: row.accuracy for row in accuracy_table(drawn)})
    found = bootstrap(referral_scores(said), 30, level=0.9, seed=5)
    assert list(found) == [f"Acc@{t} {group}" for group in ("all", "unique") for t in (".25", ".5", ".75")]
    for group in ("all", "unique"):
        for column, threshold in enumerate((".25", ".5", ".75")):
            again = [table[group][column] for table in tables if group in table]
            interval = found[f"Acc@{threshold} {group}"]
            assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(again, [0.05, 0.95])))


def test_the_interval_of_independent_expressions_is_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    scenes, share = 600, 0.3
    found = bootstrap(referral_scores(records([[bool(rng.random() < share)] for _ in range(scenes)])), draws=2000)
    half = 1.96 * math.sqrt(share * (1 - share) / scenes)
    interval = found["Acc@.5 all"]
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert (interval.high + interval.low) / 2 == pytest.approx(interval.value, abs=0.2 * half)


def test_expressions_that_stand_or_fall_with_their_scene_widen_the_interval() -> None:
    together = bootstrap(referral_scores(records([[scene % 2 == 0] * 16 for scene in range(100)])))["Acc@.5 all"]
    apart = bootstrap(referral_scores(records([[True, False] * 8 for _ in range(100)])))["Acc@.5 all"]
    assert together.value == apart.value == 0.5
    assert together.high - together.low > 0.15
    assert apart == Interval(0.5, 0.5, 0.5)


def test_the_same_seed_draws_the_same_scenes_and_another_one_others(overlaps: dict[str, Overlaps]) -> None:
    score = instance_scores(overlaps, 3, 3)
    assert bootstrap(score, 50, seed=1) == bootstrap(score, 50, seed=1)
    assert bootstrap(score, 50, seed=1) != bootstrap(score, 50, seed=2)


def test_a_draw_without_any_of_a_group_is_left_out_and_a_group_of_nothing_has_no_interval() -> None:
    one_scene_has_it = [Referral("a", "0", 1.0, ("rare",)), *(Referral(name, "0", 0.0) for name in "bcdef")]
    found = bootstrap(referral_scores(one_scene_has_it), 200)
    assert found["Acc@.25 rare"] == Interval(1, 1, 1)
    nothing = overlap(predictions(spans(10, (0, 5)), [0.5]), *truth(10), 1)
    interval = bootstrap(instance_scores({"a": nothing}, 1), 5)["AP"]
    assert all(math.isnan(value) for value in (interval.value, interval.low, interval.high))


# ---- paired


def test_a_method_does_not_differ_from_itself(overlaps: dict[str, Overlaps]) -> None:
    score = instance_scores(overlaps, 3, 3)
    assert set(bootstrap(difference(score, score), 20).values()) == {Interval(0, 0, 0)}


def test_pairing_sees_a_small_steady_gain_that_lies_within_both_intervals() -> None:
    rng = np.random.default_rng(0)
    theirs = [(rng.random(20) < rng.choice([0.1, 0.9])).tolist() for _ in range(80)]
    ours = [[*row[:-1], True] for row in theirs]  # never worse
    first, second = referral_scores(records(ours)), referral_scores(records(theirs))
    name = "Acc@.5 all"
    gain = bootstrap(difference(first, second))[name]
    assert gain.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert gain.low > 0
    assert bootstrap(first)[name].low < bootstrap(second)[name].value, "unpaired, the two cannot be told apart"


def test_pairing_sees_that_perfect_masks_are_better(overlaps: dict[str, Overlaps]) -> None:
    rng, again = np.random.default_rng(0), np.random.default_rng(1)
    best = {}
    for name in overlaps:
        _, labels, ids = random_scene(rng)
        best[name] = overlap(perfect(labels, ids, again), labels, ids, 3)
    found = bootstrap(difference(instance_scores(best, 3, 3), instance_scores(overlaps, 3, 3)), 100)
    assert found["AP50"].low > 0


def test_methods_on_other_scenes_or_other_expressions_cannot_be_paired() -> None:
    base = referral_scores(records([[True], [False, True]]))
    for other in ([[True]], [[True], [False]], [[True], [False, True], [True]]):
        with pytest.raises(ValueError, match="same scenes"):
            difference(base, referral_scores(records(other)))


@pytest.mark.parametrize(
    ("draws", "level", "reason"), [(0, 0.95, "scenes and draws"), (10, 1.0, "level"), (10, 0.0, "level")]
)
def test_impossible_draws_and_levels_are_refused(draws: int, level: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bootstrap(referral_scores(records([[True]])), draws, level)


def test_no_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs scenes"):
        bootstrap(referral_scores([]))
