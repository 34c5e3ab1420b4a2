"""Annotation files become the expressions of a labelled corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from liftgs.chunks import ChunkingConfig
from liftgs.procedural import ProceduralScene
from liftgs.sample import Sample, decode_sample
from liftgs.scene import SceneLabels
from liftgs_platform import job as launcher
from liftgs_platform import label_plan, label_stages, pseudolabel
from liftgs_platform.job import JobFailed
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.reader import CorpusReader
from liftgs_platform.spec import identity

JOB = Path(__file__).parents[2] / "jobs" / "pseudolabel.yaml"
NAME = "scene0011_00"


class Silent(ProceduralScene):
    """A labelled room by the name of a ScanNet scene, about which nobody has said anything."""

    def __init__(self) -> None:
        super().__init__("apartments", 0, views=4, width=128, height=96)
        self.name = NAME

    def labels(self) -> SceneLabels:
        return replace(super().labels(), expressions=())


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Silent:
    """What `procedural:apartments/000000` is in this test."""
    scene = Silent()
    for module in (label_plan, label_stages):
        monkeypatch.setattr(module, "open_scene", lambda uri, options: scene)
    original = pseudolabel.factories
    monkeypatch.setattr(pseudolabel, "factories", lambda *args: tiny.with_quick_teachers(original(*args)))
    return scene


def row(target: int, other: int, scene: str = NAME) -> dict[str, Any]:
    """An annotation of ScanEnts3D about two of our instances; theirs count from 0."""
    return {
        "scene_id": scene,
        "object_id": str(target - 1),
        "object_name": "coffee_table",
        "ann_id": str(target),
        "token": ["The", "table", "by", "the", "coffee", "table", "."],
        "entities": [[[4, 5], [f"{other - 1}_coffee_table"]], [[1], [f"{target - 1}_table"]]],
    }


def spec_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Spec:
    file = tmp_path / "ScanRefer_filtered_train_ScanEnts3D.json"
    file.write_text(json.dumps(rows))
    spec = Spec("procedural:apartments/000000", str(tmp_path / "corpus"), annotations=(str(file),))
    return replace(spec, chunking=ChunkingConfig(frames_per_chunk=2))


def test_a_corpus_holds_the_expressions_whose_instances_its_chunks_hold(room: Silent, tmp_path: Path) -> None:
    ids = [instance.id for instance in room.labels().instances]
    pairs = [(target, other) for target in ids for other in ids[:3] if target != other]
    spec = spec_of(tmp_path, [row(*pair) for pair in pairs] + [row(1, 2, scene="scene0012_00"), row(900, 1)])
    pseudolabel.run_here(spec)
    samples = [Sample(decode_sample(raw).members, "x") for raw in CorpusReader(spec.output)]
    assert len(samples) == 2
    for sample in samples:
        assert sample.labels is not None
        assert sample.cloud.instances is not None
        held = set(sample.cloud.instances.tolist())
        found = sample.labels.expressions
        assert [(e.target.instances[0], e.anchors[0].instances[0]) for e in found] == [
            pair for pair in pairs if held.issuperset(pair)
        ]
        assert 0 < len(found) < len(pairs)
        for expression in found:
            assert expression.text[slice(*expression.target.chars)] == "table"
            assert expression.words[slice(*expression.anchors[0].words)] == ["coffee", "table"]
            assert expression.tag("dataset") == "scanrefer"
            assert expression.tag("ann_id") == str(expression.target.instances[0])


def test_annotations_about_other_instances_are_no_silent_nothing(room: Silent, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="4x load: its labels have none of the targets of its 1 expressions"):
        pseudolabel.run_here(spec_of(tmp_path, [row(900, 901)]))


def test_annotations_of_a_source_without_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pseudolabel.factories
    monkeypatch.setattr(pseudolabel, "factories", lambda *args: tiny.with_quick_teachers(original(*args)))
    tiny.write_scene(tmp_path / "scans" / NAME)
    spec = replace(spec_of(tmp_path, [row(1, 2)]), source=str(tmp_path / "scans"))
    with pytest.raises(JobFailed, match="4x load: has no instance labels for its 1 expressions to speak of"):
        pseudolabel.run_here(spec)


def test_a_file_about_none_of_the_scenes_ends_the_job_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    spec_of(tmp_path, [row(1, 2)])
    source = "source=procedural:apartments?scenes=2&views=2"
    arguments = [source, "output=corpus", "annotations=[ScanRefer_filtered_train_ScanEnts3D.json]"]
    assert launcher.main([str(JOB), *arguments]) == 1
    said = capfd.readouterr().err
    assert f"{tmp_path}/ScanRefer_filtered_train_ScanEnts3D.json: speaks of 1 scenes, e.g. of '{NAME}'" in said
    assert "none of the source's 2" in said
    assert not (tmp_path / "corpus").exists()


def test_a_faulty_file_ends_the_job_before_it_starts(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, [row(1, 2), row(1, 2) | {"object_id": "table"}])
    with pytest.raises(JobFailed, match=r"ScanEnts3D\.json: row 2: object_id holds 'table'"):
        pseudolabel.open_plans(spec)


def test_a_corpus_of_other_annotations_is_another_corpus(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, [row(1, 2)])
    assert identity(spec) != identity(replace(spec, annotations=()))
