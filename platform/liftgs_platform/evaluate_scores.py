"""Papers -> scores: figures with intervals, differences between networks, and tables of classes and groups."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from liftgs.scene import scene_of_key
from liftgs.tasks.instances import THRESHOLDS, InstanceScores, Overlaps, score_instances
from liftgs.tasks.intervals import (
    Interval,
    SceneScore,
    bootstrap,
    difference,
    draw,
    instance_scores,
    interval,
    referral_scores,
)
from liftgs.tasks.referral import GroupAccuracy, accuracy_table
from liftgs_platform.evaluate_work import Marked

#: What tables show first.
FIGURES = (
    *("AP", "AP50", "AP25", "AP head", "AP common", "AP tail"),
    *("Acc@.25 all", "Acc@.5 all", "Acc@.75 all"),
)


@dataclass(frozen=True, eq=False)
class NetworkScores:
    """Of one network.

    Attributes:
        name: what tables call it.
        figures: by name, with intervals.
        drawn: of each figure, what the intervals are made of: on all scenes, then on scenes drawn with replacement, the
            same for all networks, and for all evaluations on these scenes with this seed.
        gain: of each figure over the first network's, paired scene by scene; empty for the first.
        instances: by class.
        groups: of expressions.
        of_scene: AP25 of each sample alone, NaN where it holds no instance.
    """

    name: str
    figures: dict[str, Interval]
    drawn: dict[str, Float[np.ndarray, " 1+draws"]]
    gain: dict[str, Interval]
    instances: InstanceScores
    groups: list[GroupAccuracy]
    of_scene: dict[str, float]


@dataclass(frozen=True, eq=False)
class Scores:
    """Of all networks, on the same scenes.

    Attributes:
        classes: names.
        networks: in the spec's order.
        scenes: how many.
        samples: into how many they are cut.
        pictures: scene -> file, by network.
        bad: samples that could not be evaluated, and why.
    """

    classes: tuple[str, ...]
    networks: tuple[NetworkScores, ...]
    scenes: int
    samples: int
    pictures: dict[str, dict[str, str]]
    bad: dict[str, str]

    def counted(self) -> str:
        """On how much it was measured: "12 scenes", or "12 scenes in 40 windows, each measured by itself"."""
        windows = f" in {self.samples} windows, each measured by itself" if self.samples != self.scenes else ""
        return f"{self.scenes} scenes{windows}"

    def table(self) -> str:
        """For a terminal: percent, with 95 % intervals; then the gains over the first network."""
        shown = [name for name in FIGURES if name in self.networks[0].figures]
        wide = max(80, 16 + 21 * len(shown))
        out = Console(file=io.StringIO(), width=wide)
        for title, rows in (
            (f"{self.counted()}, %, with 95 % intervals over scenes", [(n.name, n.figures) for n in self.networks]),
            (f"more than {self.networks[0].name}", [(n.name, n.gain) for n in self.networks[1:]]),
        ):
            if rows:
                table = Table(title=title, title_justify="left")
                table.add_column("")
                for name in shown:
                    table.add_column(name.removesuffix(" all"), justify="right")
                for network, figures in rows:
                    table.add_row(network, *(show(figures[name]) for name in shown))
                out.print(table)
        for sample, error in self.bad.items():
            out.print(f"left out: {sample}: {error}")
        assert isinstance(out.file, io.StringIO)
        return out.file.getvalue()

    def plain(self) -> dict[str, Any]:
        """For JSON; NaN as null."""
        return {
            "scenes": self.scenes,
            "samples": self.samples,
            "bad": self.bad,
            "networks": {
                network.name: {
                    "figures": {name: _plain(value) for name, value in network.figures.items()},
                    "gain": {name: _plain(value) for name, value in network.gain.items()},
                    "classes": {
                        name: {
                            "instances": count,
                            "AP": _number(ap),
                            "AP50": _number(row[AT_50]),
                            "AP25": _number(row[AT_25]),
                        }
                        for name, count, ap, row in zip(
                            self.classes,
                            network.instances.instances.tolist(),
                            network.instances.class_ap.tolist(),
                            network.instances.table.tolist(),
                            strict=True,
                        )
                        if count
                    },
                    "groups": [asdict(group) for group in network.groups],
                    "scenes": {scene: _number(value) for scene, value in network.of_scene.items()},
                }
                for network in self.networks
            },
        }


def score(
    papers: Mapping[str, Sequence[Marked]],
    classes: Sequence[str],
    min_points: int,
    draws: int,
    seed: int,
    bad: Mapping[str, str],
    class_groups: Mapping[str, Int[np.ndarray, " k"]] | None = None,
) -> Scores:
    """Score networks that were examined on the same scenes.

    Args:
        papers: of each network.
        classes: names.
        min_points: as in the exam.
        draws: of the bootstrap.
        seed: of the draws, the same for all.
        bad: samples left out.
        class_groups: name -> places of the classes whose AP is told beside that of all.
    """
    measures = {name: _measures(of, len(classes), min_points, class_groups) for name, of in papers.items()}
    first = next(iter(measures.values()))
    networks = []
    for name, mine in measures.items():
        drawn: dict[str, np.ndarray] = {}
        gain: dict[str, Interval] = {}
        for ours, theirs in zip(mine, first, strict=True):
            drawn |= draw(ours, draws, seed, scene_of_key)
            if mine is not first:
                gain |= bootstrap(difference(ours, theirs), draws, seed=seed, scene_of=scene_of_key)
        figures = {figure: interval(values) for figure, values in drawn.items()}
        overlaps = {paper.scene: _overlaps(paper) for paper in papers[name]}
        instances = score_instances(list(overlaps.values()), len(classes), min_points)
        records = [record for paper in papers[name] for record in paper.referrals]
        of_scene = {scene: score_instances([one], len(classes), min_points).ap25 for scene, one in overlaps.items()}
        networks.append(
            NetworkScores(name, figures, drawn, gain, instances, accuracy_table(records) if records else [], of_scene)
        )
    pictures = {name: {paper.scene: paper.sheet.picture for paper in of} for name, of in papers.items()}
    samples = [paper.scene for paper in next(iter(papers.values()))]
    scenes = len({scene_of_key(sample) for sample in samples})
    return Scores(tuple(classes), tuple(networks), scenes, len(samples), pictures, dict(bad))


def _measures(
    papers: Sequence[Marked], classes: int, min_points: int, groups: Mapping[str, Int[np.ndarray, " k"]] | None
) -> list[SceneScore]:
    records = [record for paper in papers for record in paper.referrals]
    found = [instance_scores({paper.scene: _overlaps(paper) for paper in papers}, classes, min_points, groups)]
    return [*found, referral_scores(records)] if records else found


def _overlaps(paper: Marked) -> Overlaps:
    assert paper.overlaps is not None  # bad ones are left out
    return paper.overlaps


def show(interval: Interval) -> str:
    """In percent: "12.3 (10.1 to 14.0)"."""
    if math.isnan(interval.value):
        return "–"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _plain(interval: Interval) -> dict[str, float | None]:
    return {"value": _number(interval.value), "low": _number(interval.low), "high": _number(interval.high)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


#: Columns of a class table beside AP: places of .25 and .50 in `THRESHOLDS`.
AT_25, AT_50 = THRESHOLDS.index(0.25), THRESHOLDS.index(0.5)
