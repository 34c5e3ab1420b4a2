from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import webdataset
from clusters import RayCluster
from PIL import Image

from liftgs.chunks import ChunkingConfig
from liftgs.geometry import CloudConfig, project, sees
from liftgs.sample import decode_sample
from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable
from liftgs_platform import label_toll, manifest, metrics, pseudolabel, shards
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.label_scale import PoolSpec, ScaleSpec
from liftgs_platform.label_stages import Caption, Stage
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.reader import CorpusReader
from liftgs_platform.verify import verify

ONE_PROCESS = ScaleSpec({"load+segment+embed+caption+commit": PoolSpec(num_cpus=0.5)})
FOUR_POOLS = ScaleSpec(
    {
        "load": PoolSpec(num_cpus=0.2),
        "segment": PoolSpec(min=2, max=2, num_cpus=0.3),
        "embed+caption": PoolSpec(num_cpus=0.3),
        "commit": PoolSpec(num_cpus=0.2),
    }
)

Teachers = Callable[..., None]


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> Teachers:
    """Sets the teachers of jobs that this process runs."""
    original = pseudolabel.factories

    def use(choose: Callable[..., dict[str, Any]] = tiny.with_quick_teachers, **options: Any) -> None:
        monkeypatch.setattr(pseudolabel, "factories", lambda spec, plans: choose(original(spec, plans), **options))

    use()
    return use


def label(spec: Spec) -> None:
    pseudolabel.run(spec, Job(Path("jobs/pseudolabel.yaml")))


def spec_of(source: Path, corpus: Path, **changes: Any) -> Spec:
    spec = Spec(str(source), str(corpus), chunks_per_shard=1, scale=ONE_PROCESS)
    return replace(spec, **{"chunking": ChunkingConfig(frames_per_chunk=2), **changes})


def rows_of(corpus: Path) -> dict[tuple[str, str | None], str]:
    return {(row["scene"], row["frame"]): row["error"] for row in manifest.read_quarantine(str(corpus))}


def test_ray_writes_the_bytes_of_one_process_whatever_the_scale(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    """With SAM's and CLIP's own classes."""
    teachers(tiny.with_random_models)
    source = tiny.write_scenes(tmp_path / "scans", 3)
    pseudolabel.run_here(spec_of(source, tmp_path / "here"))
    label(spec_of(source, tmp_path / "ray", scale=FOUR_POOLS))
    expected = tiny.corpus_files(tmp_path / "here")
    assert {"manifest.json", "plan.jsonl", "quarantine.jsonl", "README.md", "shards/000005.tar"} <= expected.keys()
    assert tiny.corpus_files(tmp_path / "ray") == expected
    assert not list(verify(str(tmp_path / "ray"), deep=True))


def test_the_corpus_is_plain_webdataset(teachers: Teachers, tmp_path: Path) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 2)
    pseudolabel.run_here(spec_of(source, tmp_path / "corpus"))
    tars = sorted(str(path) for path in (tmp_path / "corpus").glob("shards/*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"scene{s:02d}-{c:03d}" for s in range(2) for c in range(2)]
    for raw in samples:
        sample = decode_sample(raw)
        sample.check()
        assert sample.meta["teachers"] == {"segment": "patches", "embed": "colours", "caption": "channels"}
        for view in sample.views:
            assert view.segments is not None
            assert view.segments.embeds is not None
            assert view.segments.captions is not None
            assert len(view.segments) == len(view.segments.embeds) == len(view.segments.captions) > 0


def test_the_cloud_projects_onto_the_photos(teachers: Teachers, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path / "corpus", chunking=ChunkingConfig())
    pseudolabel.run_here(replace(spec, source="procedural:apartments?scenes=1&views=3&width=256&height=192"))
    sample = decode_sample(CorpusReader(str(tmp_path / "corpus"))[0])
    for view in sample.views:
        assert view.depth is not None
        visible = np.flatnonzero(sees(view.camera, sample.cloud.xyz, CloudConfig()))
        pixels, z = project(sample.cloud.xyz[visible].astype(np.float64), view.camera)
        columns, rows = pixels.astype(int).T
        surface = np.abs(view.depth[rows, columns] - z) < 0.1  # two voxels; the rest is hidden behind something
        assert surface.mean() > 0.5
        seen = sample.cloud.rgb[visible][surface].astype(float)
        difference = np.abs(seen - view.photo[rows, columns][surface])
        assert np.median(difference) < 12
        shuffled = np.abs(seen - np.random.default_rng(0).permutation(view.photo[rows, columns][surface]))
        assert np.median(difference) < 0.5 * np.median(shuffled)


def test_large_photos_are_stored_small_with_their_cameras(teachers: Teachers, tmp_path: Path) -> None:
    source = tmp_path / "scans"
    tiny.write_scene(source / "scene00", frames=2, size=(128, 96))
    pseudolabel.run_here(spec_of(source, tmp_path / "corpus", photo_long_side_px=64))
    view = decode_sample(CorpusReader(str(tmp_path / "corpus"))[0]).views[0]
    assert view.photo.shape == (48, 64, 3)
    assert (view.camera.width, view.camera.height, view.camera.K[0, 0]) == (64, 48, 64)
    assert view.depth is not None
    assert view.depth.shape == (96, 128)


def test_a_rerun_does_only_what_is_missing(ray_driver: RayCluster, teachers: Teachers, tmp_path: Path) -> None:
    spec = spec_of(tiny.write_scenes(tmp_path / "scans", 2), tmp_path / "corpus")
    label(spec)
    before = tiny.corpus_files(tmp_path / "corpus")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus" / "shards").iterdir()}
    (tmp_path / "corpus" / "shards" / "000002.json").unlink()
    label(spec)
    assert tiny.corpus_files(tmp_path / "corpus") == before
    again = {path.name for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert again == {"000002.json", "000002.tar"}


# ---- bad inputs


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _pose(value: float) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        pose = np.loadtxt(file)
        pose[1, 3] = value
        np.savetxt(file, pose)

    return spoil


def _sixteen_bit_colour(file: Path) -> None:
    """A PNG of 16 bits per channel, by hand, since Pillow writes none."""
    import struct
    import zlib

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = 64, 48
    pixels = b"".join(b"\0" + os.urandom(6 * width) for _ in range(height))
    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(pixels)) + part(b"IEND", b""))


def _save(image: Image.Image) -> Callable[[Path], None]:
    return image.save


#: what is wrong -> (suffix of the frame's file, how it is spoilt, words of the reason)
BAD_FRAMES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "truncated-jpeg": ("color.jpg", _truncate, "truncated"),
    "truncated-png": ("depth.png", _truncate, "truncated"),
    "wrong-size": ("color.jpg", _save(Image.new("RGB", (50, 40), "red")), "50x40"),
    "nan-pose": ("pose.txt", _pose(np.nan), "nan"),
    "inf-pose": ("pose.txt", _pose(-np.inf), "-inf"),
    "empty-depth": ("depth.png", _save(Image.fromarray(np.zeros((48, 64), np.uint16))), "no valid"),
    "missing-file": ("depth.png", Path.unlink, "missing"),
    "zero-bytes": ("color.jpg", lambda file: file.write_bytes(b""), "empty"),
    "16-bit-colour": ("color.jpg", _sixteen_bit_colour, "16"),
    "non-image": ("color.jpg", lambda file: file.write_text("<html>not found</html>"), "not a JPEG or PNG image"),
}
ABSURD = "absurd-intrinsics"


def write_bad_source(folder: Path) -> Path:
    """A scene per kind of fault, in which frame 1 of 4 is spoilt, and one whose intrinsics spoil every frame."""
    for number, (kind, (suffix, spoil, _)) in enumerate(BAD_FRAMES.items()):
        spoil(tiny.write_scene(folder / kind, seed=number) / f"{tiny.name(1)}.{suffix}")
    np.savetxt(tiny.write_scene(folder / ABSURD, frames=2, seed=99) / "camera-intrinsics.txt", np.diag([1e9, 1e9, 1]))
    return folder


def mend(folder: Path) -> None:
    for number, kind in enumerate(BAD_FRAMES):
        shutil.rmtree(folder / kind)
        tiny.write_scene(folder / kind, seed=number)
    tiny.write_scene(folder / ABSURD, frames=2, seed=99)


def test_bad_inputs_cost_only_themselves_and_retry_adds_only_them(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    source = write_bad_source(tmp_path / "scans")
    spec = spec_of(source, tmp_path / "corpus", chunks_per_shard=4)
    label(spec)
    rows = rows_of(tmp_path / "corpus")
    reasons = {scene: error for (scene, _), error in rows.items()}
    assert {kind: reasons[kind] for kind, (*_, words) in BAD_FRAMES.items() if words not in reasons[kind]} == {}
    assert "absurd" in reasons[ABSURD]
    assert rows.keys() == {(kind, tiny.name(1)) for kind in BAD_FRAMES} | {
        (ABSURD, tiny.name(0)),
        (ABSURD, tiny.name(1)),
    }
    assert all(row["traceback"] for row in manifest.read_quarantine(spec.output))
    assert manifest.read_manifest(spec.output)["counts"]["views"] == 3 * len(BAD_FRAMES), "the rest is complete"
    assert not list(verify(spec.output))

    first = tiny.corpus_files(tmp_path / "corpus")
    label(replace(spec, retry=True))
    assert {key: error for key, error in rows_of(tmp_path / "corpus").items() if error != rows[key]} == {}
    unmended = tiny.corpus_files(tmp_path / "corpus")

    mend(source)
    label(replace(spec, retry=True))
    assert rows_of(tmp_path / "corpus") == {}
    mended = tiny.corpus_files(tmp_path / "corpus")
    old_shards = {name: data for name, data in unmended.items() if name.startswith(("shards/", "plan"))}
    assert {name: mended[name] for name in old_shards} == old_shards, "a retry only adds"
    assert {name for name in first if name.startswith("shards/")} < old_shards.keys()
    assert not list(verify(spec.output))

    pseudolabel.run_here(replace(spec, output=str(tmp_path / "clean")))
    assert photos_and_labels(tmp_path / "corpus") == photos_and_labels(tmp_path / "clean")


def photos_and_labels(corpus: Path) -> dict[tuple[str, str], tuple[bytes, ...]]:
    """(scene, frame) -> photo, segments, embeddings and captions; each frame once."""
    found = {}
    for number in shards.committed_indices(str(corpus)):
        tar = str(corpus / "shards" / f"{number:06d}.tar")
        for raw in webdataset.WebDataset(tar, shardshuffle=False, empty_check=False):
            sample = decode_sample(raw)
            for view in sample.views:
                names = [
                    f"{view.number:02d}.{end}" for end in ("rgb.jpg", "segments.png", "embeds.npy", "captions.json")
                ]
                key = str(sample.meta["scene"]), view.id
                assert key not in found
                found[key] = tuple(raw[name] for name in names)
    return found


def test_a_scene_that_cannot_be_opened_is_in_quarantine_until_it_is_mended(teachers: Teachers, tmp_path: Path) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 2)
    broken = source / "scene01"
    kept = {file: file.read_bytes() for file in broken.iterdir()}
    for file in broken.glob("frame-*.color.jpg"):
        file.unlink()
    for file in broken.glob("frame-*.depth.png"):
        file.unlink()
    spec = spec_of(source, tmp_path / "corpus")
    pseudolabel.run_here(spec)
    assert {scene for scene, _ in rows_of(tmp_path / "corpus")} == {"scene01"}
    for file, data in kept.items():
        file.write_bytes(data)
    plans = pseudolabel.open_plans(spec)
    retry = pseudolabel.planner(spec).retry(plans, label_toll.committed(spec.output))
    assert retry is not None
    assert {chunk.scene for shard in retry.shards for chunk in shard.chunks} == {"scene01"}


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_scenes_none_of_which_can_be_opened_make_no_corpus(tmp_path: Path, rate: float) -> None:
    """Or a sweep would go on, for good, with a corpus of nothing."""
    source = tmp_path / "scans"
    for scene in ("one", "two"):
        _write_unopenable(source / scene)
    spec = replace(spec_of(source, tmp_path / "corpus"), max_quarantine_rate=rate)
    with pytest.raises(JobFailed, match=r"2 of 2 scenes of .*scans cannot be labelled.*mostly 2x \w"):
        pseudolabel.run_here(spec)
    assert not (tmp_path / "corpus" / "manifest.json").exists()


def test_too_many_scenes_that_cannot_be_opened_end_the_job_and_a_few_do_not(tmp_path: Path) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 1)
    for scene in ("one", "two", "three"):
        _write_unopenable(source / scene)
    spec = spec_of(source, tmp_path / "corpus")
    with pytest.raises(JobFailed, match="3 of 4 scenes"):
        pseudolabel.open_plans(spec)
    (plan,) = pseudolabel.open_plans(replace(spec, max_quarantine_rate=0.8))
    assert len(plan.quarantine) == 3


def test_a_retry_of_scenes_that_still_cannot_be_opened_ends_well(teachers: Teachers, tmp_path: Path) -> None:
    """There is no shard to make, so nothing is put on Ray."""
    source = tiny.write_scenes(tmp_path / "scans", 1)
    _write_unopenable(source / "broken")
    spec = spec_of(source, tmp_path / "corpus")
    pseudolabel.run_here(spec)
    for attempt in (1, 2):
        pseudolabel.run(replace(spec, retry=True), Job(tmp_path / "pseudolabel.yaml"))
        assert len(pseudolabel.open_plans(spec)) == 1 + attempt
    assert [Path(scene).name for scene, _ in rows_of(tmp_path / "corpus")] == ["broken"]


def _write_unopenable(folder: Path) -> None:
    """A recording of the TUM format whose lists are empty."""
    folder.mkdir(parents=True)
    for name in ("rgb.txt", "depth.txt", "groundtruth.txt"):
        (folder / name).write_text("")


def test_a_shard_that_a_dying_run_commits_is_not_counted_twice(teachers: Teachers, tmp_path: Path) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 1)
    _truncate(source / "scene00" / f"{tiny.name(0)}.color.jpg")
    spec = spec_of(source, tmp_path / "corpus")
    plans = pseudolabel.open_plans(spec)
    todo = pseudolabel.missing_shards(spec, plans)
    pseudolabel.run_here(spec)  # the other run, after this one has seen what is missing
    assert label_toll.Toll(spec.output, 0.05, plans, todo).lost == 0
    assert label_toll.Toll(spec.output, 0.05, plans, []).lost == 1


def test_too_much_in_quarantine_ends_the_job_with_the_reasons(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 8)
    for file in source.glob("scene*/frame-*.color.jpg"):
        if file.parent.name != "scene00":
            _truncate(file)
    spec = spec_of(source, tmp_path / "corpus")
    with pytest.raises(JobFailed, match=r"of 32 frames cannot be labelled.*truncated"):
        label(spec)
    kept = shards.committed_indices(spec.output)
    assert kept, "what is committed stays"
    label(replace(spec, max_quarantine_rate=0.9))
    assert manifest.read_manifest(spec.output)["counts"]["views"] == 4


class BuildDown:
    """A captioner whose endpoint is down."""

    def __call__(self, before: dict[str, Stage]) -> Stage:
        class Down(tiny.Channels):
            def __call__(self, *_: Any) -> list[str]:
                raise CaptionerUnavailable("caption.base_url=http://127.0.0.1:1/v1: connection refused")

        return Caption(Down(), "down")


def test_a_captioner_that_is_down_ends_the_job_and_quarantines_nothing(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    import ray
    import test_pseudolabel

    ray.cloudpickle.register_pickle_by_value(test_pseudolabel)
    teachers(lambda build: {**tiny.with_quick_teachers(build), "caption": BuildDown()})
    spec = spec_of(tiny.write_scenes(tmp_path / "scans", 1), tmp_path / "corpus")
    with pytest.raises(JobFailed, match=r"stage caption, scene00-00\d: CaptionerUnavailable: .*connection refused"):
        label(spec)
    assert shards.committed_indices(spec.output) == []


def test_an_interpreter_for_captions_needs_a_pool_for_them() -> None:
    vllm = CaptionConfig(captioner="vllm", model="llava", python="/envs/vllm/bin/python")
    assert Spec("scans", "corpus", caption=vllm).scale.layout["caption"]
    with pytest.raises(ValueError, match="choose scale=cluster"):
        Spec("scans", "corpus", caption=vllm, scale=ScaleSpec({"load+segment+embed+caption+commit": PoolSpec()}))


def test_storage_that_cannot_be_written_ends_the_job(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    spec = spec_of(tiny.write_scenes(tmp_path / "scans", 1), tmp_path / "corpus")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "shards").write_text("a file in the way of the folder")
    with pytest.raises((JobFailed, OSError), match="shards"):
        label(spec)


def test_a_teacher_that_cannot_be_built_is_told_in_one_line(
    ray_driver: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 1)
    spec = spec_of(source, tmp_path / "corpus")
    weights = tmp_path / "sam.pth"
    spec = replace(spec, segment=replace(spec.segment, checkpoint=str(weights)))
    with pytest.raises(JobFailed, match=rf"nothing was begun, since files: no node has {weights}; mend the spec"):
        label(spec)
    weights.write_bytes(b"no weights")
    with pytest.raises(JobFailed, match=r"stage segment, .*sam.pth: "):
        label(spec)


def test_a_photo_that_kills_its_process_is_convicted_and_the_rest_is_labelled(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path
) -> None:
    source = tiny.write_scenes(tmp_path / "scans", 2)
    victim = source / "scene00" / f"{tiny.name(2)}.color.jpg"
    deadly = float(np.asarray(Image.open(victim).convert("RGB")).mean(-1).mean())
    teachers(tiny.with_quick_teachers, deadly=deadly)
    spec = spec_of(source, tmp_path / "corpus")
    label(spec)
    assert rows_of(tmp_path / "corpus").keys() == {("scene00", tiny.name(2))}
    assert "the process died" in rows_of(tmp_path / "corpus")["scene00", tiny.name(2)]
    assert manifest.read_manifest(spec.output)["counts"]["views"] == 7


def test_metrics_reach_prometheus(ray_driver: RayCluster, teachers: Teachers, tmp_path: Path) -> None:
    import time

    import ray

    label(spec_of(tiny.write_scenes(tmp_path / "scans", 1), tmp_path / "corpus"))
    node = next(node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    of_labelling = {metric for metric in metrics.METRICS if "stage" in metric.labels}
    wanted = {name for metric in of_labelling for name in metric.series} - {"ray_liftgs_quarantined_total"}
    missing = wanted
    for _ in range(30):
        text = urllib.request.urlopen(url).read().decode()
        missing = {name for name in wanted if f"{name}{{" not in text}
        if not missing:
            break
        time.sleep(1)
    assert not missing
    assert 'stage="segment"' in text


def test_a_run_leaves_its_speed_for_the_next_forecast(
    ray_driver: RayCluster, teachers: Teachers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tiny.write_scenes(tmp_path / "scans", 4), tmp_path / "corpus")
    label(spec)
    result = json.loads((tmp_path / "corpus" / "runs" / "0000" / "result.json").read_text())
    assert result["frames"] == 16
    assert set(result["stages"]) == {"load", "segment", "embed", "caption", "commit"}
    assert result["stages"]["segment"]["frames"] == 16
    (tmp_path / "corpus" / "shards" / "000001.json").unlink()
    capfd.readouterr()
    label(replace(spec, dry_run=True))
    text = capfd.readouterr().out
    assert "to do   1 shards, 2 frames" in text
    assert "frames/s a node, as in the last run" in text
    assert "on 1 node" in text
    assert "unknown" not in text
