"""How well a network that is being finetuned does on labelled scenes from which it does not learn.

Scenes are shared over the workers; what is kept of each is gathered, so the score is that of one worker alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from liftgs.model.liftgs import LiftGS
from liftgs.scene import BadInput
from liftgs.tasks.evaluation import ExamConfig, by_network, examine
from liftgs.tasks.instances import Overlaps, score_instances
from liftgs.tasks.phrases import Encode
from liftgs.tasks.referral import Referral, accuracy_table
from liftgs.training.world import World
from liftgs_platform.mixture import CorpusSpec, Draw, Mixture
from liftgs_platform.training_task import Learner


@dataclass(frozen=True)
class ValidationConfig:
    """Checks of a finetuning on scenes that it does not learn from.

    Attributes:
        corpora: labelled, each with a uri, of other scenes than those learned from and those it is measured on at last;
            none = no checks.
        every: steps between checks.
        patience: with optim.schedule=plateau, checks in a row without a better score, after which training ends.
        exam: how answers are counted, as in jobs/evaluate.yaml. The score is the mean of AP25 by names and of Acc@.25
            of expressions; of those alone that `item.task` learns and the corpora hold.
    """

    corpora: tuple[CorpusSpec, ...] = ()
    every: int = 250
    patience: int = 5
    exam: ExamConfig = field(default_factory=ExamConfig)

    def __post_init__(self) -> None:
        if min(self.every, self.patience) < 1:
            raise ValueError("every and patience must be at least 1")


#: What is kept of a sample's answers: instances by names, and expressions.
_Marks = tuple[Overlaps, list[Referral]]


@dataclass(frozen=True)
class HeldOut:
    """Scores a learner; see `Validation.score`. Opens the corpora when it is first asked.

    Attributes:
        config: which corpora, and how.
        task: "instances", "referral" or "both"; see `LabelledItemConfig`.
        names: of the kinds that are asked for.
        encode: phrases -> queries of the learner's network.
        cache_bytes: of samples, that are kept in memory.
        class_of: see `examine`.
    """

    config: ValidationConfig
    task: str
    names: tuple[str, ...]
    encode: Encode
    cache_bytes: int = 0
    class_of: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, learner: Learner, world: World) -> float:
        """Mean of the figures that there are, 0 to 1.

        Raises:
            BadInput: a sample is damaged or has no 3D labels, or all hold nothing to ask for. All workers raise it.
        """
        model: LiftGS = learner.model
        training = model.training
        model.eval()
        try:
            mine = {place: self._examine(model, place) for place in range(world.rank, len(self._draws), world.size)}
        finally:
            model.train(training)
        told = {place: marks for of_worker in world.gather(mine) for place, marks in of_worker.items()}
        marks: list[_Marks] = []
        for place in range(len(self._draws)):
            one = told[place]
            if isinstance(one, BadInput):
                raise one
            marks.append(one)
        return self._score(marks)

    @cached_property
    def _corpora(self) -> Mixture:
        return Mixture(self.config.corpora, 0, self.cache_bytes)

    @cached_property
    def _draws(self) -> list[Draw]:
        """Every sample once, as the corpora have them."""
        places = [(corpus, index) for corpus, kept in enumerate(self._corpora.kept) for index in range(len(kept))]
        return [Draw(number, corpus, index, 0) for number, (corpus, index) in enumerate(places)]

    def _examine(self, model: LiftGS, place: int) -> _Marks | BadInput:
        """A fault is told like an answer, since the others wait for one."""
        draw = self._draws[place]
        try:
            sample = self._corpora.sample(draw)
            key = f"{place:05d}"
            paper = examine(by_network(model), sample, key, self.names, self.encode, self.config.exam, self.class_of)
        except BadInput as fault:
            return fault
        return paper.overlaps, paper.referrals

    def _score(self, marks: Sequence[_Marks]) -> float:
        figures = []
        if self.task != "referral":
            overlaps = [one for one, _ in marks]
            figures.append(score_instances(overlaps, len(self.names), self.config.exam.min_points).ap25)
        if self.task != "instances":
            figures.append(accuracy_table([one for _, of_scene in marks for one in of_scene])[0].accuracy[0])
        known = [figure for figure in figures if not math.isnan(figure)]
        if not known:
            uris = ", ".join(corpus.uri for corpus in self.config.corpora)
            raise BadInput(uris, f"hold nothing to ask for by {self.task}, so nothing can be validated on them")
        return sum(known) / len(known)
