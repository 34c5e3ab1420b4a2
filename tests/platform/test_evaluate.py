"""The evaluation job: on Ray, killed and resumed, with a bad sample, and with files that do not belong to it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import labelled_corpora
import numpy as np
import pytest
import torch
from clusters import RayCluster
from test_pretrain import NETWORK

from liftgs.model.liftgs import LiftGS
from liftgs.sample import decode_sample
from liftgs.scene import BadInput
from liftgs.tasks.benchmark_files import read_predictions
from liftgs.tasks.scannet_classes import SCANNET20
from liftgs.teachers.captions import CaptionConfig
from liftgs_platform import evaluate
from liftgs_platform import job as launcher
from liftgs_platform.classes import class_names
from liftgs_platform.evaluate import CheckpointSpec, Spec, sheets_of
from liftgs_platform.evaluate_work import LIFTED, Examiner, Marked, examine_here, marked
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.pseudolabel import Spec as LabelSpec
from liftgs_platform.pseudolabel import run_here
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shards import load_index

JOB = launcher.Job(Path("jobs/evaluate.yaml"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled corpus of three rooms, and two networks."""
    folder = tmp_path_factory.mktemp("inputs")
    labelled_corpora.write(folder / "labelled", scenes=3, seed=7)
    for seed in (0, 1):
        torch.manual_seed(seed)
        LiftGS(replace(NETWORK, embed_dim=128)).save(folder / f"network{seed}")
    return folder


def spec_of(inputs: Path, output: Path, **fields: object) -> Spec:
    checkpoints = tuple(CheckpointSpec(f"n{seed}", str(inputs / f"network{seed}")) for seed in (0, 1))
    corpora = (CorpusSpec(str(inputs / "labelled")),)
    given: dict[str, object] = {"checkpoints": checkpoints, "corpora": corpora, "draws": 50} | fields
    return Spec(str(output), **given)  # type: ignore[arg-type]


def test_a_job_on_ray_scores_all_networks_on_the_same_rooms(
    inputs: Path, tmp_path: Path, ray_driver: RayCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    evaluate.run(spec, JOB)
    printed = capsys.readouterr().out
    assert "AP25" in printed
    assert "more than n0" in printed
    facts = json.loads((tmp_path / "run" / "result.json").read_text())
    assert facts["scenes"] == 3
    reader = CorpusReader(str(inputs / "labelled"))
    for name, network in facts["networks"].items():
        figures = network["figures"]
        assert 0 <= figures["AP25"]["low"] <= figures["AP25"]["high"] <= 1
        assert figures["Acc@.25 all"]["value"] is not None, name
        expected = sum(len(json.loads(members["expressions.json"])) for members in reader)
        assert next(g["expressions"] for g in network["groups"] if g["group"] == "all") == expected
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/webp") == 2 * 6  # three rooms are best and worst, as two networks answer them
    before = {path: (tmp_path / "run" / path).stat().st_mtime_ns for path in marked(spec.output)}
    gone = sorted(before)[0]
    (tmp_path / "run" / gone).unlink()
    evaluate.run(spec, JOB)
    after = {path: (tmp_path / "run" / path).stat().st_mtime_ns for path in marked(spec.output)}
    assert {path for path in before if before[path] != after[path]} == {gone}
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert again["networks"] == facts["networks"]


def test_an_output_of_other_weights_is_refused(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "network0", tmp_path / "network")
    spec = spec_of(inputs, tmp_path / "run", checkpoints=(CheckpointSpec("n", str(tmp_path / "network")),))
    mixture = Mixture(spec.corpora, 0)
    evaluate.claim(spec.output, evaluate.identity(spec, mixture, {"n": evaluate.weights_hash(spec.checkpoints[0].uri)}))
    shutil.copy(inputs / "network1" / "model.safetensors", tmp_path / "network")
    with pytest.raises(launcher.JobFailed, match=r"checkpoints\.n"):
        evaluate.run(spec, JOB)


def test_a_bad_sample_costs_itself_and_is_named(inputs: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(inputs / "labelled", corpus)
    index = load_index(str(corpus), 1)
    key = next(iter(index.samples))
    tar = corpus / "shards" / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[index.samples[key]["cloud.npz"].offset + 40] ^= 255
    tar.write_bytes(bytes(data))
    spec = spec_of(inputs, tmp_path / "run", corpora=(CorpusSpec(str(corpus)),), max_bad_rate=0.5)
    sheets = list(sheets_of(spec, Mixture(spec.corpora, 0)))
    examine_here(Examiner(spec.output, class_names(spec.classes), spec.exam), sheets)
    scores = evaluate.collect(spec, sheets)
    assert list(scores.bad) == [f"00-{key}"]
    assert scores.scenes == 2
    assert key in scores.table()
    with pytest.raises(launcher.JobFailed, match="cannot be evaluated"):
        evaluate.collect(replace(spec, max_bad_rate=0.0), sheets)


def test_a_sample_that_is_bad_for_one_network_is_left_out_for_all(inputs: Path, tmp_path: Path) -> None:
    """Differences are paired scene by scene; and equal names in two corpora are two samples."""
    corpora = (CorpusSpec(str(inputs / "labelled")), CorpusSpec(str(inputs / "labelled")))
    spec = spec_of(inputs, tmp_path / "run", corpora=corpora, max_bad_rate=0.5)
    sheets = list(sheets_of(spec, Mixture(spec.corpora, 0)))
    examine_here(Examiner(spec.output, class_names(spec.classes), spec.exam), sheets)
    whole = evaluate.collect(spec, sheets).scenes
    broken = [sheet for sheet in sheets if (sheet.name, sheet.key) == ("n1", sheets[0].key)]
    assert [sheet.number for sheet in broken] == [0, 1]
    for sheet in broken:
        data = Marked(sheet, None, [], "its cloud is damaged").encode()
        (tmp_path / "run" / sheet.path).write_bytes(data)
    scores = evaluate.collect(spec, sheets)
    assert list(scores.bad) == [sheet.scene for sheet in broken]
    assert scores.scenes == whole - 2
    assert all(set(network.of_scene) == set(scores.networks[0].of_scene) for network in scores.networks)


def test_a_damaged_file_of_the_output_is_named(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(inputs, tmp_path / "run")
    sheet = next(sheets_of(spec, Mixture(spec.corpora, 0)))
    Examiner(spec.output, class_names(spec.classes), spec.exam)(sheet)
    file = tmp_path / "run" / sheet.path
    whole = Marked.read(spec.output, sheet)
    assert whole.overlaps is not None
    assert whole.referrals
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadInput, match=sheet.key):
        Marked.read(spec.output, sheet)


@pytest.mark.parametrize("benchmark", ["scannet20", "scannet200"])
def test_scannets_label_table_says_which_class_a_word_is_of(inputs: Path, tmp_path: Path, benchmark: str) -> None:
    samples = [decode_sample(members, "") for members in CorpusReader(str(inputs / "labelled"))]
    kinds = [row.kind for sample in samples if sample.labels for row in sample.labels.instances]
    kind = max(kinds, key=kinds.count)
    table = tmp_path / "labels.tsv"
    rows = [f"{word}\t{word}\t" + ("2\t5" if word == kind else "0\t40") for word in set(kinds)]
    table.write_text("\n".join(["raw_category\tcategory\tid\tnyu40id", *rows]))
    spec = spec_of(inputs, tmp_path / "run", classes=(benchmark,), label_table=str(table))
    evaluate.run_here(spec)
    classes = json.loads((tmp_path / "run" / "result.json").read_text())["networks"]["n0"]["classes"]
    assert list(classes) == ["chair"]
    assert 0 < classes["chair"]["instances"] <= kinds.count(kind)


def test_a_label_table_that_cannot_be_used_is_told_before_anything_is_asked(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("no table")
    spec = spec_of(inputs, tmp_path / "run", classes=("scannet20",), label_table=str(tmp_path / "labels.tsv"))
    with pytest.raises(launcher.JobFailed, match=r"labels\.tsv: has no column raw_category"):
        evaluate.run_here(spec)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="label_table is for"):
        replace(spec, classes=("procedural",))


def test_scannets_files_of_predictions_are_written_for_its_benchmarks(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(inputs, tmp_path / "run", classes=("scannet20",), predictions=True)
    sheet = next(sheets_of(spec, Mixture(spec.corpora, 0)))
    Examiner(spec.output, class_names(spec.classes), spec.exam, predictions_for=SCANNET20)(sheet)
    points = len(np.load(_cloud(inputs, sheet.position))["xyz"])
    read = read_predictions(str(tmp_path / "run" / "predictions" / "n0"), sheet.key, points, SCANNET20)
    assert read.masks.shape[1] == points
    with pytest.raises(ValueError, match="scannet20"):
        spec_of(inputs, tmp_path, predictions=True)


def test_lifted_labels_are_measured_like_a_network(tmp_path: Path) -> None:
    """On a corpus that is labelled by the small SAM and CLIP as well."""
    source = "procedural:apartments?scenes=1&views=2&width=128&height=128&seed=7"
    run_here(LabelSpec(source=source, output=str(tmp_path / "corpus"), caption=CaptionConfig(captioner="none")))
    lifted = tuple(CheckpointSpec(uri.replace(":", "-"), uri) for uri in LIFTED)
    spec = spec_of(tmp_path, tmp_path / "run", corpora=(CorpusSpec(str(tmp_path / "corpus")),), checkpoints=lifted)
    mixture, weights = evaluate.look(spec)
    assert weights == {"lifted-points": "lifted:points", "lifted-instances": "lifted:instances"}
    sheets = list(sheets_of(spec, mixture))
    examine_here(Examiner(spec.output, class_names(spec.classes), spec.exam), sheets)
    scores = evaluate.collect(spec, sheets)
    for network in scores.networks:
        assert network.figures["AP25"].value > 0.1  # a network with random weights has 0
        assert network.groups


def test_what_cannot_be_lifted_is_said_before_anything_starts(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lifted:points, lifted:instances"):
        CheckpointSpec("x", "lifted:voxels")
    with pytest.raises(launcher.JobFailed, match="no pseudo-labels to lift"):
        evaluate.run(spec_of(inputs, tmp_path / "run", checkpoints=(CheckpointSpec("x", "lifted:points"),)), JOB)
    assert not (tmp_path / "run").exists()


def _cloud(inputs: Path, position: int) -> Path:
    path = inputs / f"cloud{position}.npz"
    path.write_bytes(CorpusReader(str(inputs / "labelled"))[position]["cloud.npz"])
    return path


def test_names_of_checkpoints_are_names_of_folders() -> None:
    with pytest.raises(ValueError, match="cannot name"):
        CheckpointSpec("a/b", "tiny")


def test_a_missing_corpus_or_checkpoint_is_said_before_anything_starts(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(launcher.JobFailed, match="no finished corpus"):
        evaluate.run(spec_of(inputs, tmp_path / "run", corpora=(CorpusSpec(str(tmp_path / "none")),)), JOB)
    with pytest.raises(launcher.JobFailed, match="nowhere"):
        evaluate.run(spec_of(inputs, tmp_path / "run", checkpoints=(CheckpointSpec("x", "/nowhere"),)), JOB)
    assert not (tmp_path / "run").exists()
