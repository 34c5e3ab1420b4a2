"""A sample survives its members exactly, opens with plain tools, and fails by name."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from liftgs import codecs, sample
from liftgs.labels import SegmentMap
from liftgs.sample import Members, decode_sample, encode_chunk
from liftgs.scene import (
    BadInput,
    Camera,
    Chunk,
    Expression,
    Frame,
    Instance,
    LoadedChunk,
    Mention,
    PointCloud,
    SceneLabels,
)

HEIGHT, WIDTH, DIM = 12, 16, 8
PROVENANCE = {"teachers": {"sam": "tiny@abc"}, "config_hash": "0f", "code": "deadbeef"}


def make_frame(index: int, rng: np.random.Generator) -> Frame:
    pose = np.eye(4)
    pose[:3, 3] = rng.normal(size=3)
    K = np.array([[20 * np.pi, 0, 8], [0, 20, 6], [0, 0, 1]])
    depth = rng.uniform(0.2, 9, (HEIGHT // 2, WIDTH // 2)).astype(np.float32) if index else None
    rgb = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Frame(f"frame-{index:06d}", f"file:{index}", Camera(K, pose, WIDTH, HEIGHT), rgb, depth)


def make_segments(rng: np.random.Generator) -> SegmentMap:
    semantics = np.repeat(np.arange(4, dtype=np.uint16), WIDTH * HEIGHT // 4).reshape(HEIGHT, WIDTH)
    rows = rng.normal(size=(3, DIM))
    table = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return SegmentMap(semantics, table, ("a red chair", "a desk", "ein Tisch mit \u00d6l"))


def make_chunk() -> tuple[LoadedChunk, list[SegmentMap]]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, 50).astype(np.int32)
    cloud = PointCloud(rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 255, (50, 3), np.uint8), ids)
    instances = (
        Instance(1, "chair", "red", "wood", (0.1, 0.2, 0.3), (1.0, 1 / 3, 2.0)),
        Instance(2, "desk", "", "", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )
    expression = Expression(
        "the red chair nearest to the desk",
        Mention((1,), (0, 13), (0, 3)),
        (Mention((2,), (25, 33), (5, 7)),),
        "nearest",
    )
    frames = [make_frame(index, rng) for index in range(3)]
    chunk = Chunk("file:room", "room", 7, (*(f.id for f in frames), "frame-000003"), tuple(f.id for f in frames))
    failures = [("frame-000003", BadInput("file:3", "truncated"))]
    loaded = LoadedChunk(chunk, cloud, frames, "z-up", SceneLabels(instances, (expression,)), failures)
    return loaded, [make_segments(rng) for _ in frames]


def make_members() -> Members:
    loaded, segments = make_chunk()
    return encode_chunk(loaded, PROVENANCE, segments)


def test_a_sample_survives_its_members() -> None:
    loaded, segments = make_chunk()
    back = decode_sample(encode_chunk(loaded, PROVENANCE, segments), "x")
    back.check()
    np.testing.assert_array_equal(back.cloud.xyz, loaded.cloud.xyz)
    np.testing.assert_array_equal(back.cloud.rgb, loaded.cloud.rgb)
    np.testing.assert_array_equal(back.cloud.instances, loaded.cloud.instances)
    assert back.labels == loaded.labels
    assert [view.id for view in back.views] == [frame.id for frame in loaded.frames]
    for view, frame, labels in zip(back.views, loaded.frames, segments, strict=True):
        np.testing.assert_array_equal(view.camera.K, frame.camera.K)
        np.testing.assert_array_equal(view.camera.cam_to_world, frame.camera.cam_to_world)
        assert view.size == (view.camera.height, view.camera.width) == (HEIGHT, WIDTH)
        assert view.segments is not None
        np.testing.assert_array_equal(view.segments.dense(), labels.dense())
        assert view.segments.captions == labels.captions
        if frame.depth is None or view.depth is None:
            assert (frame.depth, view.depth) == (None, None)
        else:
            np.testing.assert_allclose(view.depth, frame.depth, atol=0.0005 + 1e-6)
    assert back.meta["cloud_frames"] == ["frame-000000", "frame-000001", "frame-000002"]
    assert back.meta["teachers"] == PROVENANCE["teachers"]
    assert (back.meta["scene_uri"], back.meta["scene"], back.meta["chunk"]) == ("file:room", "room", 7)
    assert back.meta["gravity"] == "z-up"


def test_tags_survive_and_old_members_without_them_are_read() -> None:
    loaded, _ = make_chunk()
    assert loaded.labels is not None
    (plain,) = loaded.labels.expressions
    tagged = replace(plain, tags=("dataset=nr3d", "others=a,b=c", "note="))
    labels = replace(loaded.labels, expressions=(plain, tagged))
    members = sample.encode_labels(labels, loaded.cloud)
    assert sample.decode_labels(members["instances.npz"], members["expressions.json"], "x")[0] == labels
    first, second = json.loads(members["expressions.json"])
    assert "tags" not in first, "expressions without tags keep the bytes that they had before there were any"
    assert second["tags"] == list(tagged.tags)
    assert (tagged.tag("others"), tagged.tag("note"), tagged.tag("data")) == ("a,b=c", "", None)


def test_a_sample_of_an_unlabelled_source_before_labelling() -> None:
    loaded, _ = make_chunk()
    cloud = PointCloud(loaded.cloud.xyz, loaded.cloud.rgb)
    members = encode_chunk(replace(loaded, cloud=cloud, labels=None), {})
    assert {"instances.npz", "expressions.json", "00.segments.png", "00.depth.png"}.isdisjoint(members)
    back = decode_sample(members, "x")
    back.check()
    assert (back.labels, back.cloud.instances, back.views[0].segments) == (None, None, None)


def test_bytes_depend_on_the_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    once = make_members()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
    assert make_members() == once
    for name in ("cloud.npz", "instances.npz"):
        with zipfile.ZipFile(io.BytesIO(once[name])) as archive:
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_plain_webdataset_and_numpy_read_it(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    members = make_members()
    with tarfile.open(tmp_path / "000000.tar", "w") as tar:
        for name, data in sorted(members.items()):
            info = tarfile.TarInfo(f"room-007.{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (raw,) = wds.WebDataset(str(tmp_path / "000000.tar"), shardshuffle=False)
    assert raw["__key__"] == "room-007"
    assert {name for name in raw if not name.startswith("__")} == members.keys()
    back = decode_sample(raw)
    back.check()
    assert back.uri.endswith("000000.tar#room-007")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw["01.rgb.jpg"]))), back.views[1].photo)
    np.testing.assert_array_equal(np.load(io.BytesIO(raw["cloud.npz"]))["xyz"], back.cloud.xyz)
    assert np.load(io.BytesIO(raw["instances.npz"]))["kinds"].tolist() == ["chair", "desk"]
    assert json.loads(raw["00.camera.json"])["width"] == WIDTH
    (decoded,) = wds.WebDataset(str(tmp_path / "000000.tar"), shardshuffle=False).decode("rgb8")
    np.testing.assert_array_equal(decoded["01.rgb.jpg"], back.views[1].photo)
    assert back.views[0].segments is not None
    np.testing.assert_array_equal(decoded["00.embeds.npy"], back.views[0].segments.embeds)


def test_a_photo_keeps_its_own_jpeg_bytes_unless_readers_would_differ() -> None:
    frame = make_frame(0, np.random.default_rng(0))
    smooth = np.linspace(0, 255, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)

    def jpeg(image: Image.Image, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=70, **options)
        return buffer.getvalue()

    own = jpeg(Image.fromarray(smooth))
    assert sample.encode_photo(replace(frame, jpeg=own)) == own
    turned = Image.Exif()
    turned[0x0112] = 6
    for unlike in (
        jpeg(Image.fromarray(smooth), exif=turned),
        jpeg(Image.fromarray(smooth).convert("L")),
        jpeg(Image.fromarray(smooth).resize((8, 8))),
        own[:10],
    ):
        stored = sample.encode_photo(replace(frame, jpeg=unlike, rgb=smooth))
        assert stored != unlike
        error = np.abs(sample.decode_photo(stored, "x").astype(int) - smooth)
        assert error.max() <= 12  # JPEG at quality 95, colour at full resolution


@given(
    hnp.arrays(
        np.float32,
        (3, 4),
        elements=st.floats(-1, 70, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 65.535, 65.536]),
    )
)
@settings(max_examples=60, deadline=None)
def test_depth_keeps_millimetres_and_marks_the_rest_invalid(depth: np.ndarray) -> None:
    back = sample.decode_depth(sample.encode_depth(depth), "x")
    valid = (depth > 0.0005) & (depth < 65.535)
    np.testing.assert_allclose(back[valid], depth[valid], atol=0.00051)
    assert not back[~np.isfinite(depth) | (depth <= 0) | (depth > 65.536)].any()


def test_keeping_some_views_renumbers_them() -> None:
    kept = sample.keep_views(make_members(), [2, 0])
    back = decode_sample(kept, "x")
    back.check()
    assert [view.id for view in back.views] == ["frame-000000", "frame-000002"]
    whole = decode_sample(make_members(), "x")
    np.testing.assert_array_equal(back.views[1].photo, whole.views[2].photo)
    assert back.views[1].depth is not None
    assert back.views[0].depth is None
    with pytest.raises(ValueError, match="cannot keep"):
        sample.keep_views(make_members(), [3])


def test_provenance_cannot_overwrite_what_the_sample_says() -> None:
    loaded, _ = make_chunk()
    with pytest.raises(ValueError, match="views"):
        encode_chunk(loaded, {"views": []})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cloud.npz": None}, "not a sample"),
        ({"meta.json": b"{"}, r"here\.meta\.json: not readable JSON"),
        ({"meta.json": b'{"views": ["a"]}'}, "do not match"),
        ({"01.rgb.jpg": b"\xff\xd8\xff"}, r"here\.01\.rgb\.jpg: not a readable JPEG"),
        ({"01.camera.json": None}, r"here\.01\.camera\.json: the sample has no such member"),
        ({"01.camera.json": b"{}"}, r"here\.01\.camera\.json: 'K' is missing"),
        ({"01.camera.json": b"[1]"}, r"here\.01\.camera\.json"),
        ({"01.segments.png": codecs.encode_png16(np.ones((3, 3), np.uint16))}, "1 segments but 3"),
        ({"02.depth.png": b""}, r"here\.02\.depth\.png: not a readable PNG"),
        ({"cloud.npz": codecs.encode_npz({"xyz": np.zeros((50, 3), np.float32)})}, "'rgb' is missing"),
        ({"cloud.npz": codecs.encode_npz({"xyz": np.zeros((50, 3))})}, "xyz is float64"),
        ({"expressions.json": None}, "no such member"),
        (
            {
                "expressions.json": b'[{"text": "a b", "relation": "", "anchors": [], "target":'
                b' {"instances": [9], "chars": [0, 1], "words": [0, 1]}}]'
            },
            "not in the table",
        ),
        (
            {
                "expressions.json": b'[{"text": "a b", "relation": "", "anchors": [], "tags": "hard", "target":'
                b' {"instances": [1], "chars": [0, 1], "words": [0, 1]}}]'
            },
            "tags are 'hard', not a list",
        ),
    ],
)
def test_a_broken_member_is_named(change: dict[str, bytes | None], reason: str) -> None:
    members = make_members()
    for name, data in change.items():
        if data is None:
            del members[name]
        else:
            members[name] = data
    with pytest.raises(BadInput, match=reason):
        decode_sample(members, "here").check()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_members_raise_bad_input_and_nothing_else(data: st.DataObject) -> None:
    members = make_members()
    name = data.draw(st.sampled_from(sorted(members)))
    damaged = bytearray(members[name])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    members[name] = bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))])
    with contextlib.suppress(BadInput):
        decode_sample(members, "x").check()
