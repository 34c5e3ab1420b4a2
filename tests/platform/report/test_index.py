"""What `liftgs runs` finds is what the jobs' own code leaves, finished, under way or damaged."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_corpora
import typer
from typer.testing import CliRunner

from liftgs import codecs
from liftgs.scene import BadInput
from liftgs.tasks.instances import THRESHOLDS, InstanceScores
from liftgs.tasks.intervals import Interval
from liftgs_platform import evaluate, learning, pretrain
from liftgs_platform.evaluate import CheckpointSpec
from liftgs_platform.evaluate_scores import NetworkScores, Scores
from liftgs_platform.job import Job
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.report import index
from liftgs_platform.runs import DEPTH, Run, find
from liftgs_platform.shard_plan import write_plan
from liftgs_platform.training import claim
from liftgs_platform.training_log import TrainingLog

JOB = Job(Path("jobs/x.yaml"))


def write_training(folder: Path, corpus: Path, steps: int) -> None:
    """As `learning.run` and `training.train` do, as far as the step."""
    corpora = (CorpusSpec(str(corpus)),)
    spec = pretrain.Spec(str(folder), job="pretrain", corpora=corpora)
    spec = replace(spec, optim=replace(spec.optim, steps=4, batch_size=1))
    claim(spec.output, learning.identity(spec, Mixture(corpora, 0)))
    JOB.record(spec)
    with TrainingLog(spec.output, 4) as log:
        for step in range(1, steps + 1):
            facts = {"step": step, "samples": step, "epoch": 1.0, "skipped": 0, "bad_samples": 0, "seconds": 1.0}
            log.step(facts, {"loss": 10.0 / step}, 1)
        log.event(steps, "start", "1 worker")
    if steps == 4:
        (folder / "config.json").write_text("{}")


def write_evaluation(folder: Path, corpus: Path, finished: bool) -> None:
    spec = evaluate.Spec(str(folder), checkpoints=(CheckpointSpec("n", "tiny"),), corpora=(CorpusSpec(str(corpus)),))
    claim(spec.output, evaluate.identity(spec, Mixture(spec.corpora, 0), {"n": "0" * 64}))
    JOB.record(spec)
    if finished:
        nothing = InstanceScores(np.zeros((0, len(THRESHOLDS))), np.zeros(0, int))
        networks = [
            NetworkScores(name, {"AP25": Interval(value, 0, 1)}, {}, {}, nothing, [], {})
            for name, value in (("scratch", 0.25), ("pretrained", 0.5), ("empty", float("nan")))
        ]
        facts = Scores((), tuple(networks), 0, 0, {}, {}).plain()
        (folder / "result.json").write_bytes(codecs.encode_json(facts))
        (folder / "report.html").write_text("<p>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of all kinds, some of them deep and with names that HTML and URLs must not take literally."""
    root = tmp_path_factory.mktemp("experiments")
    lost = [tiny_corpora.row(tiny_corpora.chunks()[0], None)]
    tiny_corpora.write(str(root / "corpora" / "a [bold]<b>&"), tiny_corpora.plan(), lost)
    corpus = next((root / "corpora").iterdir())
    write_plan(str(root / "corpora" / "begun"), tiny_corpora.plan())
    write_training(root / "runs" / "base", corpus, 4)
    write_training(root / "runs" / "killed", corpus, 3)
    write_evaluation(root / "deep" / "er" / "scores", corpus, finished=True)
    write_evaluation(root / "waiting", corpus, finished=False)
    (root / "notes" / "runs").mkdir(parents=True)  # a folder that only is called so
    (root / ".cache" / "runs" / "0000").mkdir(parents=True)
    return root


def by_name(folder: Path) -> dict[str, Run]:
    return {run.name: run for run in find(str(folder))}


def test_every_kind_of_output_is_found_with_its_state_and_figure(folder: Path) -> None:
    found = by_name(folder)
    assert {name: (run.kind, run.state, run.figure) for name, run in found.items()} == {
        "corpora/a [bold]<b>&": ("corpus", "complete", "5 samples, 10 views, 1 in quarantine"),
        "corpora/begun": ("corpus", "not finished", ""),
        "runs/base": ("training", "complete", "loss 2.5"),
        "runs/killed": ("training", "step 3 of 4", "loss 3.333"),
        "deep/er/scores": ("evaluation", "complete", "AP25 %: pretrained 50.0, scratch 25.0"),
        "waiting": ("evaluation", "not finished", ""),
    }
    assert found["runs/base"].started.startswith("20")
    assert [run.kind for run in find(str(folder))] == ["corpus"] * 2 + ["training"] * 2 + ["evaluation"] * 2


def test_an_output_itself_is_found_too(folder: Path) -> None:
    assert [(run.name, run.page) for run in find(str(folder / "runs" / "base"))] == [(".", "report.html")]


def test_a_job_without_a_file_of_its_own_is_known_by_its_record(tmp_path: Path) -> None:
    from liftgs_platform import teachers

    folder = JOB.record(teachers.Spec(str(tmp_path / "weights")))
    assert [(run.kind, run.state) for run in find(str(tmp_path))] == [("teachers", "not finished")]
    (Path(folder) / "result.json").write_text("{}")
    assert [(run.kind, run.state) for run in find(str(tmp_path))] == [("teachers", "complete")]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("manifest.json", '{"counts": 3}'),
        ("run.json", "[" * 100_000),
        ("runs/0000/spec.yaml", "- !!python/object/apply:os.system [id]"),
        ("runs/0000/spec.yaml", "just words"),
        ("runs/0000/none", ""),
        ("log/000000.jsonl", "{}\n[1\n"),
        ("log/000000.jsonl", "3\n"),
        ("log/000000.jsonl", "[3]\n"),
    ],
)
def test_what_is_damaged_is_listed_and_named_and_costs_itself_only(tmp_path: Path, file: str, content: str) -> None:
    tiny_corpora.write(str(tmp_path / "good"), tiny_corpora.plan())
    bad = tmp_path / "bad" / file
    bad.parent.mkdir(parents=True)
    bad.write_text(content)
    if file.startswith("log"):
        (tmp_path / "bad" / "run.json").write_text(json.dumps({"job": "pretrain"}))
    found = by_name(tmp_path)
    good, damaged = found["good"], found["bad"]
    assert good.state == "complete"
    assert damaged.state == "damaged"
    assert str(bad if file != "runs/0000/none" else bad.with_name("spec.yaml")) in damaged.figure


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        find(str(tmp_path / "none"))


def test_circles_of_links_end(tmp_path: Path) -> None:
    tiny_corpora.write(str(tmp_path / "a" / "corpus"), tiny_corpora.plan())
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    names = by_name(tmp_path)
    assert "a/corpus" in names
    assert all(name.count("/") <= DEPTH for name in names)


class Links(html.parser.HTMLParser):
    """Targets of a page's links, and whatever it would load; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                (self.links if tag == "a" else self.loads).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_command_lists_all_and_its_page_links_what_is_there(folder: Path) -> None:
    from urllib.parse import unquote

    found = by_name(folder)
    app = typer.Typer()
    app.command()(index.runs)
    done = CliRunner().invoke(app, [str(folder)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "a [bold]<b>&" in done.output, "markup in a name is not interpreted"
    assert "2 corpus, 2 training, 2 evaluation" in done.output
    page = Links((folder / "index.html").read_text())
    assert len(page.links) == 4  # both trainings', the evaluation's, the corpus' card
    for link in page.links:
        assert link.startswith("./")
        assert (folder / unquote(link)).is_file(), link
    assert not page.loads
    assert "a [bold]<b>&" in page.text
    assert "pretrained 50.0" in page.text
    assert by_name(folder).keys() == found.keys(), "the page itself changes nothing"


def test_an_empty_folder_is_said_to_be_empty_and_no_page_is_written_unasked(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(index.runs)
    done = CliRunner().invoke(app, [str(tmp_path), "--no-page"])
    assert "no output of a job is here" in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())
