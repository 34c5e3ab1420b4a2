"""Taskonomy: Blender's poses, a field of view per view, two kinds of depth, and its units."""

import json

import numpy as np
import pytest
from box_room import (
    POSES,
    assert_cloud_projects_into_frames,
    depth_m,
    depth_png,
    matrix_text,
    photo,
    png,
    rays_of,
    write_files,
)
from scipy.spatial.transform import Rotation

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.geometry import project
from liftgs.readers import open_scene
from liftgs.scene import BadInput, Camera

VIEWS = ["point_2_view_0", "point_2_view_11", "point_10_view_3"]
FOVS = [1.2, 1.0, 0.9]
SIZE = 160


def camera_of(index: int) -> Camera:
    focal = SIZE / 2 / np.tan(FOVS[index] / 2)
    K = [[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]]
    return Camera(K, POSES[index], SIZE, SIZE)


def info(index: int) -> dict:
    """As Blender says it: axes x right, y up, z backward."""
    blender = POSES[index][:3, :3] * [1, -1, -1]
    return {
        "camera_location": POSES[index][:3, 3].tolist(),
        "camera_rotation_final": Rotation.from_matrix(blender).as_euler("xyz").tolist(),
        "camera_rotation_original": [1.58, 0.01, 0.93],
        "field_of_view_rads": FOVS[index],
        "resolution": SIZE,
        "point_uuid": VIEWS[index].split("_")[1],
    }


def building(depth: str = "depth_zbuffer") -> dict[str, bytes]:
    files = {"normal/point_2_view_0_domain_normal.png": b"not read", "rgb/.DS_Store": b"not a view"}
    for i, view in enumerate(VIEWS):
        camera = camera_of(i)
        z = depth_m(camera)
        distance = z * np.linalg.norm(rays_of(camera), axis=-1)
        stored = np.where(z > 0, z if depth == "depth_zbuffer" else distance, 0)
        files[f"rgb/{view}_domain_rgb.png"] = png(photo(camera))
        files[f"{depth}/{view}_domain_{depth}.png"] = depth_png(stored, 512)
        files[f"point_info/{view}_domain_point_info.json"] = json.dumps(info(i)).encode()
    return files


@pytest.mark.parametrize("depth", ["depth_zbuffer", "depth_euclidean"])
def test_a_building_reads_back(tmp_path, depth):
    write_files(tmp_path, building(depth))
    scene = open_scene(str(tmp_path))
    assert list(scene.frame_ids()) == VIEWS
    assert scene.gravity == "z-up"
    assert scene.frame_uri(VIEWS[1]) == f"{tmp_path}/rgb/{VIEWS[1]}_domain_rgb.png"
    for i, view in enumerate(VIEWS):
        frame, truth = scene.load(view), camera_of(i)
        np.testing.assert_allclose(frame.camera.K, truth.K)
        np.testing.assert_allclose(frame.camera.cam_to_world, truth.cam_to_world, atol=1e-9)
        np.testing.assert_allclose(frame.depth, depth_m(truth), atol=1.01 / 512)
    assert_cloud_projects_into_frames(scene)


def test_z_buffer_is_preferred_and_the_other_not_read(tmp_path):
    broken = {f"depth_euclidean/{view}_domain_depth_euclidean.png": b"broken" for view in VIEWS}
    write_files(tmp_path, building() | broken)
    assert_cloud_projects_into_frames(open_scene(str(tmp_path)))


def test_omnidatas_name_for_point_info_is_understood(tmp_path):
    renamed = {name.replace("domain_point_info", "domain_fixatedpose"): data for name, data in building().items()}
    write_files(tmp_path, renamed)
    assert_cloud_projects_into_frames(open_scene(str(tmp_path)))


def test_a_published_view_looks_at_its_point(tmp_path):
    """Numbers of omnidata_annotator/assets/taskonomy/point_202_view_5: the point is the middle of its view."""
    published = {
        "camera_location": [-6.191483974456787, 4.649560928344727, 1.414849042892456],
        "camera_rotation_final": [1.5115954875946045, -0.004465199075639248, -1.702255129814148],
        "field_of_view_rads": 1.180512021910271,
        "resolution": SIZE,  # 512 there
    }
    point = np.array([[1.3095685243606567, 3.6557424068450928, 0.9663798213005066]])
    files = building() | {f"point_info/{VIEWS[0]}_domain_point_info.json": json.dumps(published).encode()}
    write_files(tmp_path, files)
    camera = open_scene(str(tmp_path)).load(VIEWS[0]).camera
    pixels, z = project(point, camera)
    np.testing.assert_allclose(pixels, [[SIZE / 2, SIZE / 2]], atol=1e-3)
    np.testing.assert_allclose(z, 7.579880283037506, rtol=1e-6)
    above, _ = project(point + np.array([0, 0, 0.2]), camera)
    assert above[0, 1] < pixels[0, 1]  # up in the world is up in the picture


def test_65535_and_0_are_holes(tmp_path):
    raw = np.rint(depth_m(camera_of(0)) * 512).astype(np.uint16)
    raw[:30], raw[30:40] = 65535, 0
    write_files(tmp_path, building() | {f"depth_zbuffer/{VIEWS[0]}_domain_depth_zbuffer.png": png(raw)})
    depth = open_scene(str(tmp_path)).load(VIEWS[0]).depth
    assert (depth[:40] == 0).all()
    assert (depth[40:] > 0).all()


RGB, DEPTH, INFO = (
    f"{folder}/{VIEWS[1]}_domain_{folder}.{suffix}"
    for folder, suffix in (("rgb", "png"), ("depth_zbuffer", "png"), ("point_info", "json"))
)


def changed(**fields) -> bytes:
    return json.dumps(info(1) | fields).encode()


FAULTS = {
    "missing photo": (RGB, None, "file is missing"),
    "missing depth": (DEPTH, None, "file is missing"),
    "missing info": (INFO, None, "file is missing"),
    "truncated photo": (RGB, building()[RGB][:2000], "truncated or corrupt"),
    "truncated depth": (DEPTH, building()[DEPTH][:2000], "truncated or corrupt"),
    "truncated info": (INFO, changed()[:-20], "not valid JSON"),
    "no magic": (RGB, b"XXXX" + building()[RGB][4:], "not a JPEG or PNG"),
    "a list": (INFO, b"[1, 2]", "not a JSON object"),
    "text": (INFO, matrix_text(POSES[0]), "not valid JSON"),
    "no fov": (INFO, changed(field_of_view_rads=None), "field_of_view_rads is None, not a number"),
    "fov in degrees": (INFO, changed(field_of_view_rads=61.2), "not between 0 and pi"),
    "NaN fov": (INFO, changed(field_of_view_rads=float("nan")), "not between 0 and pi"),
    "no resolution": (INFO, changed(resolution="large"), "resolution is large, not a number"),
    "half a pixel": (INFO, changed(resolution=160.5), "not a number of pixels"),
    "endless": (INFO, changed(resolution=float("inf")), "not a number of pixels"),
    "other size": (INFO, changed(resolution=512), r"photo is 160x160, but the scene's intrinsics are for 512x512"),
    "two angles": (INFO, changed(camera_rotation_final=[0.1, 0.2]), "camera_rotation_final is .*, not 3 numbers"),
    "NaN rotation": (INFO, changed(camera_rotation_final=[0.1, float("nan"), 0]), "no rotation"),
    "NaN place": (INFO, changed(camera_location=[0, float("nan"), 0]), "pose holds nan"),
    "all holes": (DEPTH, png(np.full((SIZE, SIZE), 65535, np.uint16)), "depth has no valid pixel"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_costs_its_view_only(tmp_path, name):
    path, data, reason = FAULTS[name]
    files = building()
    files.pop(path)
    write_files(tmp_path, files | ({} if data is None else {path: data}))
    scene = open_scene(str(tmp_path))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(view, fault)] = loaded.failures
    assert view == VIEWS[1]
    # A photo of another size than its camera's may be the photo's fault or the camera's; the photo is named.
    assert fault.uri == f"{tmp_path}/{RGB if name == 'other size' else path}"
    with pytest.raises(BadInput, match=reason):
        raise fault
    assert [frame.id for frame in loaded.frames] == [VIEWS[0], VIEWS[2]]
