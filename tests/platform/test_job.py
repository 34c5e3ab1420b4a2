from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from clusters import ROOT, RayCluster

from liftgs.sample import decode_sample
from liftgs_platform import finetune, pseudolabel, spec_help
from liftgs_platform import job as launcher
from liftgs_platform import spec as specs
from liftgs_platform.label_teachers import BuildCommit
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.reader import CorpusReader
from liftgs_platform.spec import SpecError
from liftgs_platform.storage import StorageError

JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_every_job_is_an_executable_that_ray_can_run_as_it_is(file: Path) -> None:
    assert file.read_text().startswith("#!/usr/bin/env -S python -m liftgs_platform.job\n")
    assert os.access(file, os.X_OK)
    in_git = subprocess.run(["git", "ls-files", "-s", str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert in_git.stdout.startswith("100755") or not in_git.stdout, "a clone must be executable too"


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_every_job_tells_about_itself_and_runs_dry(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launcher.main([str(file), "--help"]) == 0
    text = capfd.readouterr().out
    assert ("scale=laptop" in text) == ("scale: laptop" in file.read_text()), "only groups that the job has"
    assert launcher.main([str(file), f"output={tmp_path / 'output'}", "dry_run=true"]) == 0
    assert str(tmp_path / "output") in capfd.readouterr().out
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("scale", sorted(spec_help.group_choices(ROOT / "jobs" / "pseudolabel.yaml")["scale"]))
def test_every_scale_of_the_labelling_job_is_a_valid_spec(scale: str) -> None:
    loaded = launcher.specs.load(ROOT / "jobs" / "pseudolabel.yaml", [f"scale={scale}"], Spec)
    assert "+".join(loaded.scale.pools).split("+") == ["load", "segment", "embed", "caption", "commit"]
    assert (loaded.segment.checkpoint == "tiny") == (scale == "laptop")


def test_mistakes_end_with_code_2_and_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher.main([str(ROOT / "jobs" / "pseudolabel.yaml"), "segment.ponts_per_side=3"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "'segment.points_per_side'" in err


def test_an_unknown_kind_of_job_is_told_its_nearest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("job: pseudolable\n")
    assert launcher.main([str(tmp_path / "x.yaml")]) == 2
    assert "did you mean 'pseudolabel'?" in capfd.readouterr().err


def test_help_names_every_key_and_group(capfd: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "jobs" / "pseudolabel.yaml"
    assert launcher.main([str(file), "--help"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("Labels raw posed RGB-D")
    assert not [key.name for key in spec_help.keys(Spec) if not key.doc]
    assert all(f"  {key.name}=" in text for key in spec_help.keys(Spec))
    assert "scale=cluster" in text
    assert "teachers=paper" in text
    assert "  source=procedural:apartments?scenes=24" in text, "what the file sets, not what the class leaves open"


def test_dry_run_says_how_much_and_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import tiny

    source = tiny.write_scenes(tmp_path / "scans", 3, frames=7)
    arguments = [f"source={source}", f"output={tmp_path / 'corpus'}", "chunks_per_shard=4", "dry_run=true"]
    assert launcher.main([str(ROOT / "jobs" / "pseudolabel.yaml"), *arguments]) == 0
    lines = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert (lines["scenes"], lines["chunks"], lines["frames"]) == ("3", "6", "21")
    assert lines["shards"] == "2, of which 0 are committed"
    assert not (tmp_path / "corpus").exists()


def test_relative_paths_are_the_shells_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"")
    assert launcher.resolve("../scans") == str(tmp_path.parent / "scans")
    assert launcher.resolve("/scans") == "/scans"
    assert launcher.resolve("s3://bucket/scans") == "s3://bucket/scans"
    assert launcher.resolve("procedural:apartments?scenes=2") == "procedural:apartments?scenes=2"
    assert launcher.resolve_if_file("weights.pth") == str(tmp_path / "weights.pth")
    assert launcher.resolve_if_file("tiny") == "tiny"


def test_paths_of_the_captioner_are_the_shells_own_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["caption.cache=answers", "caption.python=envs/vllm/bin/python"]
    spec = pseudolabel.resolve(
        specs.load(ROOT / "jobs" / "pseudolabel.yaml", settings, Spec), launcher.resolve, launcher.resolve_if_file
    )
    assert (spec.caption.cache, spec.caption.python) == (f"{tmp_path}/answers", f"{tmp_path}/envs/vllm/bin/python")


def test_the_address_for_submissions_is_not_one_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(launcher.JobFailed, match="is where jobs are submitted"):
        launcher.connect()


def test_only_the_small_network_starts_from_the_one_that_ships() -> None:
    file = ROOT / "jobs" / "finetune.yaml"
    assert specs.load(file, [], finetune.Spec).model.start == "tiny"
    assert specs.load(file, ["finetuning=base"], finetune.Spec).model.start == "", "which would win over its config"


def test_a_node_that_writes_elsewhere_than_the_driver_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"plan\.jsonl: this node does not see what the driver wrote there; give s3"):
        BuildCommit(str(tmp_path), {})({})


def test_relative_paths_are_refused_where_they_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = '{"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}}'
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", uploaded)  # as in a job, but no raylet is above this process
    with pytest.raises(SpecError, match="absolute paths"):
        launcher.resolve("corpora/mine")


def test_runs_are_recorded_one_after_the_other(tmp_path: Path) -> None:
    run = launcher.Job(Path("jobs/pseudolabel.yaml"), ("source=x",))
    wanted = Spec("x", str(tmp_path / "corpus"))
    folders = [run.record(wanted) for _ in range(2)]
    assert [Path(folder).name for folder in folders] == ["0000", "0001"]
    facts = yaml.safe_load((Path(folders[1]) / "spec.yaml").read_text())
    assert facts["spec"]["source"] == "x"
    assert facts["spec_hash"] == launcher.specs.digest(launcher.specs.identity(wanted))
    assert facts["code_revision"].startswith("0.1.0+")


def test_a_corpus_of_another_spec_is_refused_with_what_differs(tmp_path: Path) -> None:
    import tiny

    source = str(tiny.write_scenes(tmp_path / "scans", 1))
    first = Spec(source, str(tmp_path / "corpus"))
    pseudolabel.write_plan(first.output, pseudolabel.open_plans(first)[0])
    assert len(pseudolabel.open_plans(first)) == 1
    with pytest.raises(launcher.JobFailed, match="photo_long_side_px: 512 -> 256"):
        pseudolabel.open_plans(Spec(source, first.output, photo_long_side_px=256))


def submit(cluster: RayCluster, *arguments: str, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "RAY_ADDRESS": cluster.dashboard}
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ray_job_submit_runs_the_yaml_itself(jobs_cluster: RayCluster) -> None:
    text = submit(jobs_cluster, "jobs/pseudolabel.yaml", "dry_run=true")
    assert "dry run: nothing was done" in text
    assert f"{ROOT}/corpora/apartments" in text


def test_a_submitted_job_labels_with_the_teachers_that_ship(jobs_cluster: RayCluster, tmp_path: Path) -> None:
    source = "source=procedural:apartments?scenes=1&views=2&width=160&height=120"
    text = submit(jobs_cluster, "--", "jobs/pseudolabel.yaml", source, f"output={tmp_path / 'corpus'}")
    assert f"corpus: {tmp_path / 'corpus'}" in text
    sample = decode_sample(CorpusReader(str(tmp_path / "corpus"))[0])
    for view in sample.views:
        assert view.segments is not None
        assert view.segments.captions
    assert sample.meta["teachers"]["segment"].startswith("sam_tiny:sha256-")
    assert sample.meta["teachers"]["embed"].startswith("clip_tiny:sha256-")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_frames_are_labelled_with_official_checkpoints_given_by_path(
    jobs_cluster: RayCluster, tmp_path: Path
) -> None:
    """Random weights in the formats of `segment_anything` and open_clip; what matters is that they load and run."""
    import open_clip
    import torch
    from segment_anything import sam_model_registry

    frames = ROOT / "../shared/data/7scenes-kitchen"
    if not frames.exists():
        pytest.skip("needs real frames in ../shared/data/7scenes-kitchen")
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), tmp_path / "sam_vit_b.pth")
    clip = open_clip.create_model("ViT-S-32-alt")
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    text = submit(
        jobs_cluster,
        *("--working-dir", ".", "--", "jobs/pseudolabel.yaml", "source=../shared/data/7scenes-kitchen"),
        *(f"output={tmp_path / 'corpus'}", "chunking.frame_stride=200", "teachers=none"),
        *(
            f"segment.checkpoint={tmp_path / 'sam_vit_b.pth'}",
            "segment.points_per_side=2",
            "segment.pred_iou_thresh=-9",
        ),
        *("embed.model=ViT-S-32-alt", f"embed.pretrained={tmp_path / 'clip.pt'}"),
    )
    assert f"corpus: {tmp_path / 'corpus'}" in text
    sample = decode_sample(CorpusReader(str(tmp_path / "corpus"))[0])
    assert sample.meta["scene"] == "7scenes-kitchen"
    assert sample.meta["teachers"]["segment"].startswith("sam_vit_b:sha256-")
    for view in sample.views:
        assert view.photo.shape == (384, 512, 3)
        assert view.segments is not None


def test_an_uploaded_folder_runs_its_own_code_with_the_heads_paths(jobs_cluster: RayCluster, tmp_path: Path) -> None:
    """As from another machine: a changed checkout is uploaded; paths mean the folder where Ray was started."""
    import shutil

    import tiny

    checkout = tmp_path / "checkout"
    for part in ("liftgs", "platform", "jobs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    changed = checkout / "platform" / "liftgs_platform" / "pseudolabel.py"
    changed.write_text(changed.read_text().replace("dry run: nothing was done", "dry run of the changed checkout"))
    source = os.path.relpath(tiny.write_scenes(tmp_path / "scans", 1), ROOT)
    arguments = ["jobs/pseudolabel.yaml", f"source={source}", "output=corpora/uploaded", "dry_run=true"]
    text = submit(jobs_cluster, "--working-dir", ".", "--", *arguments, cwd=checkout)
    assert "dry run of the changed checkout" in text
    assert f"{tmp_path}/scans" in text
    assert f"{ROOT}/corpora/uploaded" in text
