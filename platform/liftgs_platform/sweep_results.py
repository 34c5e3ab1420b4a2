"""What a sweep measured, as it is stored: its networks, costs and provenance. Knows neither statistics nor Ray.

One JSON file, gzipped where its name ends in ".gz", and tables as CSV. NaN is null in the one and empty in the other.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from liftgs_platform.typed_json import read_json, write_json

#: The mix of networks that were never pretrained.
SCRATCH = "none"
#: The control that trains for as long as pretraining and finetuning take together.
COMPUTE = "compute"

#: Figures that every evaluation has for its task; beside them are those of single groups of expressions.
MAIN = ("AP25", "AP50", "AP", "Acc@.25 all", "Acc@.5 all", "Acc@.75 all")

FORMAT = "liftgs-sweep/1"


@dataclass(frozen=True, eq=False)
class Cell:
    """One network as it was evaluated: finetuned, or zero-shot.

    Attributes:
        mix: what it was pretrained on; `SCRATCH` for nothing.
        control: "" for an ordinary network; `COMPUTE`, see there.
        ratio: share of the labelled scenes it was finetuned on; 0 is zero-shot, above 1 are extra scenes.
        seed: of its training and its choice of scenes; networks of one seed share them.
        figures: metric -> value on all scenes, then on each resample of the scenes, the same for all networks; 0..1.
        classes: class -> "AP", "AP50", "AP25", "instances".
        groups: group of expressions -> "Acc@.25", "Acc@.5", "Acc@.75", "expressions".
        scenes: scene -> AP25 of it alone; NaN where it holds no instance.
        pictures: scene -> PNG of the answer, a path or URL.
        steps: of finetuning.
        plateau: whether finetuning stopped because validation no longer improved.
        seconds: of finetuning and evaluation.
        labelled_scenes: it was finetuned on.
        stage: hash of the stage that evaluated it.

    Raises:
        ValueError: a ratio that is no ratio, or a figure without a value.
    """

    mix: str
    control: Literal["", "compute"]
    ratio: float
    seed: int
    figures: dict[str, list[float]]
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    scenes: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    plateau: bool = True
    seconds: float = 0.0
    labelled_scenes: int = 0
    stage: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio >= 0):
            raise ValueError(f"ratio {self.ratio} is not a share of the labelled scenes")
        empty = [metric for metric, draws in self.figures.items() if not draws]
        if empty:
            raise ValueError(f"{empty[0]!r} of {self.label} has no value")

    @property
    def label(self) -> str:
        """For messages: "A+B, ratio 0.1, seed 2"."""
        arm = f"{self.mix} ({self.control})" if self.control else self.mix
        return f"{arm}, ratio {self.ratio:g}, seed {self.seed}"


@dataclass(frozen=True)
class Planned:
    """A network that the sweep is to measure; see `Cell`."""

    mix: str
    control: str
    ratio: float
    seed: int


#: Of stages, in the order of the work.
StageKind = Literal["label", "pretrain", "finetune", "evaluate"]


@dataclass(frozen=True)
class StageCost:
    """What a stage cost.

    Attributes:
        kind: of stage.
        name: for people.
        hash: its identity.
        seconds: that it ran, when it ran.
        reused: it was there already, from another sweep or an earlier try.
        users: networks so far that needed it; a plain grid would have run it so often.
    """

    kind: StageKind
    name: str
    hash: str
    seconds: float
    reused: bool
    users: int


@dataclass(frozen=True, eq=False)
class SweepResults:
    """All of a sweep.

    Attributes:
        name: of the sweep.
        task_metric: the headline, e.g. "AP25".
        cells: in any order; runs that failed are simply not there.
        stages: every distinct stage, once.
        planned: all networks, those that are not there yet or failed too; empty if nobody knows.
        axes: what was varied: axis -> its values.
        provenance: code revision, versions, spec, machine, dates: whatever names where this comes from.
        mixes: mix -> corpus -> samples pretrained on; from these follow the pairs of mixes that differ by one corpus.
        replay: mix -> share of finetuning's steps in which its pretraining went on, where it did.
        orderings: claims to be tested, each a list of mixes, the best first.

    Raises:
        ValueError: a network is there twice, or figures have different numbers of resamples.
    """

    name: str
    task_metric: str
    cells: tuple[Cell, ...]
    stages: tuple[StageCost, ...] = ()
    planned: tuple[Planned, ...] = ()
    axes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    mixes: dict[str, dict[str, int]] = field(default_factory=dict)
    replay: dict[str, float] = field(default_factory=dict)
    orderings: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        there: set[tuple[str, str, float, int]] = set()
        draws: dict[str, int] = {}
        for cell in self.cells:
            key = (cell.mix, cell.control, cell.ratio, cell.seed)
            if key in there:
                raise ValueError(f"{cell.label} is there twice")
            there.add(key)
            for metric, values in cell.figures.items():
                if draws.setdefault(metric, len(values)) != len(values):
                    raise ValueError(
                        f"{metric!r} of {cell.label} has {len(values) - 1} resamples, not {draws[metric] - 1}"
                    )

    def arms(self) -> list[tuple[str, str]]:
        """(mix, control) that have networks: from scratch first, then in order of appearance."""
        arms = dict.fromkeys((cell.mix, cell.control) for cell in self.cells)
        return sorted(arms, key=lambda arm: (arm[0] != SCRATCH, arm[1] != ""))

    def metrics(self) -> list[str]:
        """All figures: the headline, the others of `MAIN`, then the rest by name."""
        names = {name for cell in self.cells for name in cell.figures}
        first = [name for name in dict.fromkeys((self.task_metric, *MAIN)) if name in names]
        return first + sorted(names.difference(first))

    def scores(
        self, mix: str, metric: str, control: str = ""
    ) -> tuple[Float[np.ndarray, " ratios"], tuple[int, ...], Float[np.ndarray, "ratios seeds draws"]]:
        """A metric of one arm.

        Args:
            mix: see `Cell`.
            metric: name.
            control: see `Cell`.

        Returns:
            Ratios that the arm has a network for, ascending, 0 among them if it was tried; the seeds of the whole
            sweep, so that columns of different arms are the same seed; values, NaN where that network is missing.
        """
        mine = [c for c in self.cells if (c.mix, c.control) == (mix, control) and metric in c.figures]
        ratios = sorted({cell.ratio for cell in mine})
        seeds = sorted({cell.seed for cell in self.cells})
        draws = len(mine[0].figures[metric]) if mine else 0
        values = np.full((len(ratios), len(seeds), draws), np.nan)
        for cell in mine:
            values[ratios.index(cell.ratio), seeds.index(cell.seed)] = cell.figures[metric]
        return np.array(ratios), tuple(seeds), values

    def write(self, uri: str) -> None:
        """As JSON."""
        write_json(uri, FORMAT, self)

    @staticmethod
    def read(uri: str) -> SweepResults:
        """The inverse of `write`.

        Raises:
            FileNotFoundError: no such file.
            BadInput: it holds something else.
        """
        return read_json(uri, FORMAT, SweepResults)


@dataclass(frozen=True)
class MultiplierRow:
    """A line of `multiplier.csv`.

    Attributes:
        mix: pretrained on.
        ratio: of finetuning; None is all ratios together.
        multiplier: what pretraining is worth in labels; a bound where censored.
        low: lower end of the 95 % interval.
        high: upper end; infinite where the interval has none.
        censored: "above" or "below" the scratch curve, "" within it.
        seeds: that the comparison rests on.
        metric: that was compared.
        undertrained: whether scratch could be better where the multiplier ends, which then is not to be quoted.
    """

    mix: str
    ratio: float | None
    multiplier: float
    low: float
    high: float
    censored: str
    seeds: int
    metric: str
    undertrained: bool = False


def multiplier_csv(rows: Iterable[MultiplierRow]) -> str:
    """`multiplier.csv`; the ratio of all together is "all"."""
    names = [f.name for f in fields(MultiplierRow)]
    return _csv(names, ([getattr(row, name) if name != "ratio" else _all(row.ratio) for name in names] for row in rows))


def cells_csv(results: SweepResults) -> str:
    """All networks, a column per metric, values on all scenes."""
    facts = ["mix", "control", "ratio", "labelled_scenes", "seed", "steps", "plateau", "seconds", "stage"]
    metrics = results.metrics()
    rows = (
        [getattr(c, fact) for fact in facts] + [c.figures.get(metric, [math.nan])[0] for metric in metrics]
        for c in sorted(results.cells, key=lambda c: (c.mix, c.control, c.ratio, c.seed))
    )
    return _csv(facts + metrics, rows)


def _all(ratio: float | None) -> float | str:
    return "all" if ratio is None else ratio


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in row])
    return out.getvalue()
