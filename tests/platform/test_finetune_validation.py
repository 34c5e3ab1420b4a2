"""Finetuning is checked on rooms of its own: with the scores of the evaluation job, and without a trace in training."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import labelled_corpora
import pytest
import tiny_corpora

from liftgs.finetuning.items import LabelledItemConfig
from liftgs.scene import BadInput
from liftgs.tasks.proposals import ProposalConfig
from liftgs.training.trainer import OptimConfig
from liftgs.training.world import ALONE, World
from liftgs_platform import evaluate, finetune, learning, pretrain
from liftgs_platform import finetune_validation as validation
from liftgs_platform import job as launcher
from liftgs_platform.classes import class_names
from liftgs_platform.evaluate import CheckpointSpec, sheets_of
from liftgs_platform.evaluate_work import Examiner, examine_here
from liftgs_platform.finetune import Finetuning, Spec
from liftgs_platform.finetune_validation import HeldOut, ValidationConfig
from liftgs_platform.learning import ModelSpec
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.training import LoopConfig, train

EXAM = validation.ExamConfig(proposals=ProposalConfig(queries_at_once=64, top_k=50))
JOB = launcher.Job(Path("jobs/finetune.yaml"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled rooms to learn from, others to validate on, and samples without labels."""
    folder = tmp_path_factory.mktemp("inputs")
    labelled_corpora.write(folder / "labelled", scenes=2)
    labelled_corpora.write(folder / "held-out", scenes=3, seed=7)
    tiny_corpora.write(str(folder / "plain"), tiny_corpora.plan())
    return folder


def spec_of(inputs: Path, output: Path, held_out: str = "held-out", **fields: Any) -> Spec:
    corpora = (CorpusSpec(str(inputs / held_out)),) if held_out else ()
    given: dict[str, Any] = {
        "corpora": (CorpusSpec(str(inputs / "labelled")),),
        "model": ModelSpec(start="tiny"),
        "optim": OptimConfig(steps=3, batch_size=1, lr=1e-3, warmup_steps=1),
        "loop": LoopConfig(checkpoint_every=2, panel_every=0),
        "item": LabelledItemConfig(sets=1, queries=4),
        "validation": ValidationConfig(corpora, every=2, patience=1, exam=EXAM),
    }
    return Spec(str(output), **given | fields)


def score_of(task: Finetuning) -> HeldOut:
    assert task.validation is not None
    score = task.validation.score
    assert isinstance(score, HeldOut)
    return score


def test_a_finetuning_that_is_checked_learns_the_same(inputs: Path, tmp_path: Path) -> None:
    """Also after its network answered in inference mode, whose tensors no gradient can go through."""
    plain, checked = spec_of(inputs, tmp_path / "plain", held_out=""), spec_of(inputs, tmp_path / "checked")
    train(Finetuning(plain), plain.output, plain.loop)
    end = train(Finetuning(checked), checked.output, checked.loop)
    same = "model.safetensors"
    assert (tmp_path / "plain" / same).read_bytes() == (tmp_path / "checked" / same).read_bytes()
    assert [step for step, _ in end.checks] == [2, 3]
    assert all(0 < score <= 1 for _, score in end.checks)
    assert learning.result(checked.output, end)["validation"] == [list(one) for one in end.checks]


def test_a_finetuning_ends_by_its_own_scores(inputs: Path, tmp_path: Path) -> None:
    """As the rule has it, on a room."""
    optim = OptimConfig(steps=8, batch_size=1, lr=1e-3, warmup_steps=1, schedule="plateau")
    room = (CorpusSpec(str(inputs / "held-out"), share=0.3),)
    spec = spec_of(inputs, tmp_path / "run", optim=optim, validation=ValidationConfig(room, 1, 1, EXAM))
    end = train(Finetuning(spec), spec.output, spec.loop)
    scores = [score for _, score in end.checks]
    assert [step for step, _ in end.checks] == list(range(1, end.step + 1))
    not_better = [step for step in range(2, len(scores) + 1) if scores[step - 1] <= max(scores[: step - 1])]
    assert end.plateau == (not_better[0] if not_better else None)
    assert end.step == (not_better[0] if not_better else 8)


def test_the_score_is_what_the_evaluation_job_finds(inputs: Path, tmp_path: Path) -> None:
    spec = evaluate.Spec(
        str(tmp_path / "run"),
        checkpoints=(CheckpointSpec("tiny", "tiny"),),
        corpora=(CorpusSpec(str(inputs / "held-out")),),
        exam=EXAM,
        draws=2,
    )
    sheets = list(sheets_of(spec, Mixture(spec.corpora, 0)))
    examine_here(Examiner(spec.output, class_names(spec.classes), EXAM), sheets)
    (network,) = evaluate.collect(spec, sheets).networks
    ap, accuracy = (network.figures[name].value for name in ("AP25", "Acc@.25 all"))
    assert ap > 0
    assert accuracy > 0
    for task, expected in (("both", (ap + accuracy) / 2), ("instances", ap), ("referral", accuracy)):
        tuning = Finetuning(spec_of(inputs, tmp_path, item=LabelledItemConfig(task=task)))  # type: ignore[arg-type]
        learner = tuning.learner("cpu", None, ALONE)
        assert score_of(tuning)(learner, ALONE) == pytest.approx(expected, abs=1e-12), task
        assert learner.model.training


@dataclass(frozen=True)
class Wired(World):
    """A worker that is told by hand what the others gave."""

    others: list[Any] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.given.append(value)
        return [value, *self.others][:: 1 if self.rank == 0 else -1]


def test_workers_share_the_rooms_and_find_the_same_score(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = []

    def examine(model: Any, sample: Any, key: str, *more: Any) -> Any:
        examined.append(key)
        return really(model, sample, key, *more)

    really = validation.examine
    monkeypatch.setattr(validation, "examine", examine)
    tuning = Finetuning(spec_of(inputs, tmp_path))
    learner, score = tuning.learner("cpu", None, ALONE), score_of(tuning)
    alone = score(learner, ALONE)
    rooms = sorted(examined)
    assert len(rooms) == len(set(rooms)) == 3
    first = Wired(0, 2)
    with pytest.raises(KeyError):
        score(learner, first)  # the second has not told yet
    second = Wired(1, 2, first.given)
    assert score(learner, second) == alone
    assert sorted(examined[3:]) == rooms, "each room once"
    assert score(learner, Wired(0, 2, second.given)) == alone


def test_a_bad_room_is_told_by_every_worker(inputs: Path, tmp_path: Path) -> None:
    tuning = Finetuning(spec_of(inputs, tmp_path, held_out="plain"))
    learner, score = tuning.learner("cpu", None, ALONE), score_of(tuning)
    with pytest.raises(BadInput, match="room0-000: has no 3D labels"):
        score(learner, Wired(1, 2, [{0: BadInput("room0-000", "has no 3D labels")}]))
    assert learner.model.training, "whatever happened"


def test_rooms_that_hold_nothing_to_ask_for_are_refused(inputs: Path, tmp_path: Path) -> None:
    tuning = Finetuning(spec_of(inputs, tmp_path, kinds=("unicorn",), item=LabelledItemConfig(task="instances")))
    with pytest.raises(BadInput, match="held-out: hold nothing to ask for by instances"):
        score_of(tuning)(tuning.learner("cpu", None, ALONE), ALONE)


# ---- what is refused before anything starts


PLATEAU = OptimConfig(steps=400, batch_size=1, schedule="plateau", warmup_steps=10)


def test_a_plateau_without_rooms_to_see_it_on_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation\.corpora=\[\{uri:"):
        spec_of(inputs, tmp_path, held_out="", optim=PLATEAU)
    with pytest.raises(ValueError, match="as job finetune can"):
        pretrain.Spec(str(tmp_path), corpora=(CorpusSpec(str(inputs / "labelled")),), optim=PLATEAU)


@pytest.mark.parametrize(
    ("held_out", "reason"),
    [("labelled", "is learned from"), ("plain", "no 3D labels"), ("absent", "no finished corpus is there")],
)
def test_rooms_that_cannot_validate_are_refused(inputs: Path, tmp_path: Path, held_out: str, reason: str) -> None:
    with pytest.raises(launcher.JobFailed, match=reason):
        finetune.run(spec_of(inputs, tmp_path / "run", held_out), JOB)
    assert not (tmp_path / "run").exists()


def test_a_copy_of_what_is_learned_from_is_refused_too(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "labelled", tmp_path / "copy")
    spec = spec_of(inputs, tmp_path / "run", ratio=0.5, held_out=str(tmp_path / "copy"))
    with pytest.raises(launcher.JobFailed, match="is learned from"):
        finetune.run(spec, JOB)


def test_one_room_of_those_learned_from_is_enough_to_be_refused(inputs: Path, tmp_path: Path) -> None:
    labelled_corpora.write(tmp_path / "more", scenes=3)  # of which two are those of "labelled"
    with pytest.raises(launcher.JobFailed, match=r"scene apartments-00000\d of .*more: is learned from"):
        finetune.run(spec_of(inputs, tmp_path / "run", held_out=str(tmp_path / "more")), JOB)


def test_rooms_to_validate_on_need_labels_of_people_whatever_is_learned_from(inputs: Path, tmp_path: Path) -> None:
    lifted = LabelledItemConfig(labels="lifted", task="instances")
    corpora = (CorpusSpec(str(inputs / "plain")),)
    with pytest.raises(launcher.JobFailed, match=r"plain#.*no 3D labels"):
        learning.open_corpora(spec_of(inputs, tmp_path, "plain", corpora=corpora, item=lifted), lambda *_: None)
    learning.open_corpora(spec_of(inputs, tmp_path, corpora=corpora, item=lifted), lambda *_: None)


def test_rooms_to_validate_on_count_by_what_is_in_them(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "held-out", tmp_path / "copy")
    there, elsewhere = spec_of(inputs, tmp_path), spec_of(inputs, tmp_path, held_out=str(tmp_path / "copy"))
    fewer = replace(there.validation, corpora=(replace(there.validation.corpora[0], share=0.4),))

    def identity(spec: Spec) -> dict[str, Any]:
        return learning.identity(spec, Mixture(spec.corpora, 0))

    assert identity(there) == identity(elsewhere)
    assert identity(there) != identity(replace(there, validation=fewer))


def test_paths_of_the_rooms_are_resolved(inputs: Path, tmp_path: Path) -> None:
    spec = finetune.resolve(spec_of(inputs, tmp_path), lambda uri: f"there:{uri}", lambda name: name)
    assert spec.validation.corpora[0].uri == f"there:{inputs / 'held-out'}"
    assert spec.corpora[0].uri == f"there:{inputs / 'labelled'}"


def test_a_forecast_says_that_it_may_end_before(inputs: Path, tmp_path: Path) -> None:
    told = learning.forecast(spec_of(inputs, tmp_path / "run", optim=PLATEAU), finetune.check_labels)
    assert "at most 400 of 1 items" in told
    assert f"checked  on 3 samples of {inputs / 'held-out'}" in told


def test_help_tells_of_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.main(["jobs/finetune.yaml", "--help"]) == 0
    told = capsys.readouterr().out
    for line in ("optim.schedule=cosine   [cosine|plateau]", "optim.average=0", "validation.patience=5"):
        assert line in told
    assert "validation.corpora=[]" in told


def test_the_command_line_takes_rooms_to_validate_on(inputs: Path, tmp_path: Path) -> None:
    from liftgs_platform import spec as specs

    given = [f"output={tmp_path}", f"validation.corpora=[{{uri: {inputs / 'held-out'}}}]", "optim.schedule=plateau"]
    spec = specs.load(Path("jobs/finetune.yaml"), given, Spec)
    assert spec.held_out == (CorpusSpec(str(inputs / "held-out")),)
    with pytest.raises(specs.SpecError, match=r"schedule=plateau needs scenes"):
        specs.load(Path("jobs/finetune.yaml"), ["optim.schedule=plateau"], Spec)
