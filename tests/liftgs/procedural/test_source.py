"""Procedural scenes as scenes: reproducible to the byte, one frame at a time, depth and poses that project."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from liftgs.procedural import CORPORA, ProceduralScene, list_scenes, open_scene
from liftgs.scene import BadInput, Frame

SIZE = 128


def digest(frame: Frame) -> str:
    assert frame.depth is not None
    assert frame.instances is not None
    content = hashlib.sha256()
    for array in (frame.rgb, frame.depth, frame.instances, frame.camera.K, frame.camera.cam_to_world):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def test_frames_are_the_same_bytes_in_another_process_in_another_order() -> None:
    here = {
        f"{kind} {i}": digest(ProceduralScene(kind, 2, 7, width=SIZE, height=SIZE).load(i))
        for kind in CORPORA
        for i in ("000000", "000004")
    }
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_source import CORPORA, SIZE, ProceduralScene, digest\n"
        "for kind in reversed(CORPORA):\n"
        "    scene = ProceduralScene(kind, 2, 7, width=SIZE, height=SIZE)\n"
        "    for i in ('000004', '000001', '000000'):\n"
        "        print(kind, i, digest(scene.load(i)))\n"
    )
    folder = __file__.rsplit("/", 1)[0]
    environment = {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True, env=environment
    )
    there = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {k: there[k] for k in here} == here


def test_index_seed_and_frame_each_change_the_picture() -> None:
    def first(*args: int) -> str:
        return digest(ProceduralScene("apartments", *args, width=64, height=64).load("000000"))

    scene = ProceduralScene("apartments", 0, width=64, height=64)
    assert len({first(0, 0), first(1, 0), first(0, 1), digest(scene.load("000001"))}) == 4


@pytest.mark.parametrize("kind", CORPORA)
def test_a_frame_unprojected_lands_where_another_frame_sees_it(kind: str) -> None:
    scene = ProceduralScene(kind, 0, views=16, width=SIZE, height=SIZE, depth_noise_mm=0)
    compared = 0
    for a_id, b_id in pairwise(scene.frame_ids()):
        a, b = scene.load(a_id), scene.load(b_id)
        assert a.depth is not None
        assert b.depth is not None
        assert a.instances is not None
        assert b.instances is not None
        rows, columns = np.mgrid[0:SIZE, 0:SIZE].reshape(2, -1)
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(SIZE * SIZE)])
        in_a = np.linalg.inv(a.camera.K) @ pixels * a.depth.ravel()
        world = a.camera.cam_to_world[:3, :3] @ in_a + a.camera.cam_to_world[:3, 3:]
        in_b = b.camera.world_to_cam[:3, :3] @ world + b.camera.world_to_cam[:3, 3:]
        u, v = (b.camera.K @ in_b)[:2] / in_b[2]
        seen = (in_b[2] > 0.1) & (u > 0) & (u < SIZE) & (v > 0) & (v < SIZE)
        column, row = u[seen].astype(int), v[seen].astype(int)
        expected, found = in_b[2][seen], b.depth[row, column]
        # A point may be hidden in b, never stand before what b sees, up to the slope within a pixel.
        assert np.mean(found < 1.05 * expected + 0.05) > 0.97
        # Walls, floor and ceiling cannot hide themselves: what both see of one of them is one place.
        same = (a.instances.ravel()[seen] == b.instances[row, column]) & (b.instances[row, column] <= 6)
        if same.sum() > 300:
            assert (np.abs(found - expected) < 0.03 * expected + 0.02)[same].mean() > 0.97
            compared += 1
    assert compared >= 5


def test_depth_noise_is_a_few_millimetres_and_can_be_left_out() -> None:
    noisy = ProceduralScene("offices", 1, width=SIZE, height=SIZE).load("000000")
    exact = ProceduralScene("offices", 1, width=SIZE, height=SIZE, depth_noise_mm=0).load("000000")
    assert noisy.depth is not None
    assert exact.depth is not None
    assert np.array_equal(noisy.rgb, exact.rgb)
    assert noisy.depth.dtype == exact.depth.dtype == np.float32
    error = np.abs(noisy.depth - exact.depth)
    near = exact.depth < 2
    assert 0.0002 < error[near].mean() < 0.004
    assert error.max() < 0.15


def test_a_photo_has_light_and_shade_but_little_clipping() -> None:
    for kind in CORPORA:
        photo = ProceduralScene(kind, 0, width=SIZE, height=SIZE).load("000002").rgb
        assert 60 < photo.mean() < 225
        assert photo.std() > 25
        assert (photo == 0).all(-1).mean() < 0.05


def test_frames_load_without_each_other_and_name_themselves() -> None:
    scene = ProceduralScene("warehouses", 3, views=4, width=48, height=32)
    assert scene.name == "warehouses-000003"
    assert list(scene.frame_ids()) == ["000000", "000001", "000002", "000003"]
    frame = scene.load("000003")
    assert frame.rgb.shape == (32, 48, 3)
    assert frame.instances is not None
    assert frame.instances.dtype == np.uint16
    assert set(np.unique(frame.instances)) <= {o.id for o in scene.room.objects}
    assert scene.gravity == "z-up"
    assert scene.cloud() is None
    with pytest.raises(BadInput, match="no such frame"):
        scene.load("000004")


def test_a_uri_names_a_scene_and_a_corpus_lists_its_scenes() -> None:
    uris = list_scenes("procedural:offices?scenes=3&seed=4&width=64&height=48")
    assert uris == [f"procedural:offices/00000{i}?seed=4&width=64&height=48" for i in range(3)]
    scene = open_scene(uris[2])
    assert (scene.name, scene.uri, scene.options.seed, scene.options.views) == ("offices-000002", uris[2], 4, 6)
    assert digest(scene.load("000000")) == digest(ProceduralScene("offices", 2, 4, width=64, height=48).load("000000"))
    assert list_scenes(uris[1]) == [uris[1]]
    assert len(list_scenes("procedural:apartments")) == 24


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("procedural:castles/000000", "no procedural corpus"),
        ("procedural:apartments?rooms=3", "unknown option 'rooms'"),
        ("procedural:apartments/000000?views=many", "not a number"),
        ("procedural:apartments/000000?views=0", "views >= 1"),
        ("procedural:apartments/x", "is not like"),
        ("procedural:apartments", "names a corpus"),
        ("procedural:apartmants/000000", "did you mean 'apartments'"),
        ("procedural:apartments/000000?scenes=3", "names one room"),
        ("procedural:apartments/000000?depth_noise_mm=nan", "finite"),
    ],
)
def test_a_wrong_uri_is_refused_saying_why(uri: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        open_scene(uri)


def test_labels_name_every_object_and_talk_only_about_what_is_seen() -> None:
    scene = ProceduralScene("apartments", 1)
    labels = scene.labels()
    assert [i.id for i in labels.instances] == [o.id for o in scene.room.objects]
    assert {"wall", "floor", "ceiling"} <= {i.kind for i in labels.instances}
    assert labels.expressions
    seen: set[int] = set()
    for frame_id in scene.frame_ids():
        frame = scene.load(frame_id)
        assert frame.instances is not None
        seen |= set(np.unique(frame.instances).tolist())
    for expression in labels.expressions:
        assert set(expression.target.instances) <= seen


def test_a_corpus_of_impossible_rooms_is_refused_when_it_is_listed() -> None:
    for query in ("scenes=0", "scenes=-1", "views=0", "width=8", "seed=-1"):
        with pytest.raises(BadInput, match="needs scenes >= 1"):
            list_scenes(f"procedural:offices?{query}")
