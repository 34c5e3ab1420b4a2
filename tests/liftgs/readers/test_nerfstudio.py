"""nerfstudio: OpenGL axes, global and per-frame intrinsics, lenses, units, clouds."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from box_room import (
    CAMERAS,
    HEIGHT,
    POSES,
    WIDTH,
    K,
    assert_cameras,
    assert_cloud_projects_into_frames,
    colour,
    depth_m,
    depth_png,
    photo,
    png,
    points_on_surfaces,
    rays_of,
    render_rays,
    write_files,
)

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.geometry import CloudConfig
from liftgs.readers import ReaderOptions, open_scene
from liftgs.readers.files import Folder
from liftgs.readers.ply import read_ply
from liftgs.scene import BadInput

IDS = ["images/frame_1.png", "images/frame_2.png", "images/frame_10.png"]
INTRINSICS = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": WIDTH, "h": HEIGHT}


def opengl(pose: np.ndarray, scale: float = 1.0) -> list:
    """x right, y up, z backward; written out column by column."""
    matrix = pose.copy()
    matrix[:3, 1] = -pose[:3, 1]
    matrix[:3, 2] = -pose[:3, 2]
    matrix[:3, 3] *= scale
    return matrix.tolist()


def meta(scale: float = 1.0, **extra) -> dict:
    frames = [
        {
            "file_path": f"./{name}",
            "depth_file_path": name.replace("images", "depths"),
            "transform_matrix": opengl(pose, scale),
        }
        for name, pose in zip(IDS, POSES, strict=True)
    ]
    return {**INTRINSICS, "frames": frames[::-1], **extra}


def files_of(index: dict) -> dict[str, bytes]:
    files = {"transforms.json": json.dumps(index).encode()}
    for name, camera in zip(IDS, CAMERAS, strict=True):
        files[name] = png(photo(camera))
        files[name.replace("images", "depths")] = depth_png(depth_m(camera))
    return files


def test_a_scene_reads_back(tmp_path):
    write_files(tmp_path, files_of(meta()))
    scene = open_scene(str(tmp_path))
    assert scene.gravity == "z-up"
    assert scene.cloud() is None
    assert_cameras(scene, IDS)
    assert_cloud_projects_into_frames(scene)


def test_intrinsics_may_be_per_frame(tmp_path):
    index = meta()
    for entry in index["frames"]:
        entry.update(INTRINSICS)
    for key in INTRINSICS:
        index[key] = 1  # the frame's own value counts
    write_files(tmp_path, files_of(index))
    assert_cameras(open_scene(str(tmp_path)), IDS)


def test_a_field_of_view_stands_in_for_the_focal_length(tmp_path):
    index = {key: value for key, value in meta().items() if key not in ("fl_x", "fl_y", "cx", "cy")}
    index["camera_angle_x"] = 2 * np.arctan(WIDTH / 2 / K[0, 0])
    write_files(tmp_path, files_of(index))
    expected = [[K[0, 0], 0, WIDTH / 2], [0, K[0, 0], HEIGHT / 2], [0, 0, 1]]
    assert_cameras(open_scene(str(tmp_path)), IDS, np.array(expected))


def test_scaled_poses_come_back_in_metres(tmp_path):
    write_files(tmp_path / "applied", files_of(meta(0.2, applied_scale=0.2)))
    write_files(tmp_path / "stated", files_of(meta(0.2)))
    for scene in (
        open_scene(str(tmp_path / "applied")),
        open_scene(str(tmp_path / "stated"), ReaderOptions(metres_per_unit=5.0)),
    ):
        assert_cameras(scene, IDS)
        assert_cloud_projects_into_frames(scene)


def test_a_world_that_was_turned_before_has_no_known_up(tmp_path):
    write_files(tmp_path, files_of(meta(applied_transform=np.eye(4)[:3].tolist())))
    scene = open_scene(str(tmp_path))
    assert scene.gravity == "unknown"
    assert_cameras(scene, IDS)


@pytest.mark.parametrize("lens", [(-0.28, 0.09, 0.0, 0.001, -0.002), (0.2, 0.05, 0.01, 0.0, 0.0)])
def test_lens_distortion_is_taken_out_of_photo_and_depth(tmp_path, lens):
    """Barrel and pincushion, rendered by inverting the published model with fixed-point iterations."""
    k1, k2, k3, p1, p2 = lens
    files = files_of(meta(camera_model="OPENCV", k1=k1, k2=k2, k3=k3, p1=p1, p2=p2))
    for name, camera in zip(IDS, CAMERAS, strict=True):
        target = rays_of(camera)
        x, y = target[..., 0].copy(), target[..., 1].copy()
        for _ in range(200):
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
            yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
            x, y = x + 0.5 * (target[..., 0] - xd), y + 0.5 * (target[..., 1] - yd)
        assert np.abs(xd - target[..., 0]).max() < 1e-6
        colours, z = render_rays(np.stack([x, y, np.ones_like(x)], -1), camera.cam_to_world)
        files[name] = png(np.rint(colours).astype(np.uint8))
        files[name.replace("images", "depths")] = depth_png(z)
    write_files(tmp_path, files)
    scene = open_scene(str(tmp_path))
    for frame_id, pose in zip(IDS, POSES, strict=True):
        frame = scene.load(frame_id)
        np.testing.assert_allclose(frame.camera.cam_to_world, pose, atol=1e-9)
        assert frame.camera.K[0, 0] >= K[0, 0]
        assert frame.jpeg is None
        assert (frame.depth > 0).all()
        off = np.abs(frame.rgb.astype(float) - photo(frame.camera)).max(-1)
        assert np.mean(off <= 4) > 0.97
        assert np.mean(np.abs(frame.depth - depth_m(frame.camera)) < 0.05) > 0.97
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def ply(kind: str, xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    header = (
        f"ply\nformat {kind} 1.0\ncomment by hand\nelement vertex {len(xyz)}\nproperty float x\nproperty float y\n"
        "property float z\nproperty double quality\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    if kind == "ascii":
        rows = [" ".join(map(str, (*p.tolist(), 0.5, *c.tolist()))) for p, c in zip(xyz, rgb, strict=True)]
        return header + "\n".join(rows).encode()
    order = "<" if "little" in kind else ">"
    rows = np.zeros(len(xyz), [("p", order + "f4", 3), ("q", order + "f8"), ("c", "u1", 3)])
    rows["p"], rows["c"] = xyz, rgb
    return header + rows.tobytes()


def photos_only(**extra) -> dict:
    index = meta(**extra)
    for entry in index["frames"]:
        del entry["depth_file_path"]
    return index


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_the_point_cloud_stands_in_for_depth(tmp_path, kind):
    xyz, rgb = points_on_surfaces(3000)
    index = photos_only(scale=0.5, applied_scale=0.5, ply_file_path="cloud.ply")
    write_files(tmp_path, files_of(index) | {"cloud.ply": ply(kind, xyz * 0.5, rgb)})
    scene = open_scene(str(tmp_path))
    cloud = scene.cloud()
    np.testing.assert_allclose(cloud.xyz, xyz, atol=1e-5)
    np.testing.assert_array_equal(cloud.rgb, rgb)
    assert_cameras(scene, IDS)
    assert_cloud_projects_into_frames(scene)


def test_depth_that_is_null_is_no_depth(tmp_path):
    index = photos_only(ply_file_path="cloud.ply")
    for entry in index["frames"]:
        entry["depth_file_path"] = None
    xyz, rgb = points_on_surfaces(100)
    write_files(tmp_path, files_of(index) | {"cloud.ply": ply("ascii", xyz, rgb)})
    assert len(open_scene(str(tmp_path)).cloud()) == len(xyz)


@pytest.mark.parametrize(
    ("kind", "colours", "read"),
    [
        ("ushort", [0, 257, 65535], [0, 1, 255]),
        ("ushort", [0, 128, 255], [0, 128, 255]),
        ("float", [0, 0.5, 1], [0, 128, 255]),
        ("float", [0, 64, 255], [0, 64, 255]),
        ("int", [0, 64, 255], [0, 64, 255]),
    ],
)
def test_colours_of_a_cloud_come_in_several_ranges(tmp_path, kind, colours, read):
    rows = "\n".join(f"0 0 {row} 0 {value} {value} {value}" for row, value in enumerate(colours))
    header, _ = ply("ascii", np.ones((3, 3)), np.ones((3, 3), np.uint8)).split(b"end_header\n")
    data = header.replace(b"uchar red", f"{kind} red".encode())
    data = data.replace(b"uchar green", f"{kind} green".encode()).replace(b"uchar blue", f"{kind} blue".encode())
    (tmp_path / "cloud.ply").write_bytes(data + b"end_header\n" + rows.encode())
    assert read_ply(Folder(str(tmp_path)), "cloud.ply").rgb[:, 0].tolist() == read


def test_a_chunk_takes_only_the_points_that_its_views_see(tmp_path):
    xyz, rgb = points_on_surfaces(2000)
    index = photos_only(ply_file_path="cloud.ply")
    write_files(tmp_path, files_of(index) | {"cloud.ply": ply("ascii", xyz, rgb)})
    scene = open_scene(str(tmp_path))
    [chunk] = plan_chunks(scene)
    one = load_chunk(scene, replace(chunk, frame_ids=IDS[:1], view_ids=IDS[:1]), CloudConfig(voxel_size_m=0.02)).cloud
    every = load_chunk(scene, chunk, CloudConfig(voxel_size_m=0.02)).cloud
    assert 1000 < len(one) < 0.8 * len(every)
    np.testing.assert_allclose(one.rgb, colour(one.xyz), atol=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"solid stl", "not a PLY"),
        (b"ply\nformat ascii 1.0\nelement vertex 9\n", "does not end"),
        (ply("binary_little_endian", np.ones((9, 3)), np.ones((9, 3), np.uint8))[:-5], "truncated: holds 8 of 9"),
        (ply("ascii", np.ones((9, 3)), np.ones((9, 3), np.uint8))[:-30], "rows of|holds"),
        (ply("ascii", np.ones((9, 3)), np.ones((9, 3), np.uint8)).replace(b"uchar red", b"uchar rod"), "needed are x"),
        (ply("ascii", np.ones((9, 3)), np.ones((9, 3), np.uint8)).replace(b"double", b"list"), "not supported"),
        (b"", "empty|not a PLY"),
        (
            ply("ascii", np.ones((9, 3)), np.full((9, 3), 300)).replace(b"uchar red", b"int red"),
            "colours go from 44 to 300",
        ),
    ],
)
def test_a_broken_point_cloud_is_bad_input(tmp_path, data, reason):
    write_files(tmp_path, files_of(photos_only(ply_file_path="cloud.ply")) | {"cloud.ply": data})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).cloud()
    assert caught.value.uri == f"{tmp_path}/cloud.ply"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[]", 'has no list "frames"'),
        (b'{"frames": [{}]}', 'no "file_path"'),
        (json.dumps(photos_only()).encode(), 'neither "depth_file_path" nor "ply_file_path"'),
        (json.dumps(meta()).replace("./images/frame_1.png", "../x.png").encode(), "not a path inside"),
        (json.dumps(meta()).replace("./images/frame_1.png", "images/frame_2.png").encode(), "twice"),
    ],
)
def test_a_broken_index_is_bad_input(tmp_path, data, reason):
    write_files(tmp_path, files_of(meta()) | {"transforms.json": data})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).frame_ids()
    assert caught.value.uri == f"{tmp_path}/transforms.json"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "THIN_PRISM_FISHEYE is not supported; undistort"),
        ({"k4": 0.1}, "k4 is not supported"),
        ({"k1": 9.0}, "does not fit"),
        ({"w": 80, "h": 60}, "the photo is 160x120, but the scene's intrinsics are for 80x60"),
        ({"fl_x": "wide"}, "not a finite number"),
        ({"w": math.nan}, "w is nan, not a finite number"),
        ({"h": math.inf}, "h is inf, not a finite number"),
        ({"k1": 10**400}, "k1 is 1000"),
        ({"fl_x": 1e9}, "absurd intrinsics"),
        ({"fl_x": None, "camera_angle_x": 4.0}, "intrinsics are not a finite"),
        ({"fl_x": None}, "no focal length"),
        ({"w": None}, "no image size"),
        ({"applied_scale": 0}, "not a positive number"),
    ],
)
def test_a_camera_that_cannot_be_is_bad_input(tmp_path, change, reason):
    write_files(tmp_path, files_of(meta(**change)))
    with pytest.raises(BadInput, match=reason):
        open_scene(str(tmp_path)).load(IDS[0])


@pytest.mark.parametrize("matrix", [None, [[1, 2], [3]], np.eye(3).tolist(), [["a"] * 4] * 4])
def test_a_matrix_that_is_no_pose_costs_its_frame(tmp_path, matrix):
    index = meta()
    index["frames"][-1]["transform_matrix"] = matrix
    write_files(tmp_path, files_of(index))
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match="transform_matrix is not 4x4 numbers"):
        scene.load(IDS[0])
    assert scene.load(IDS[1]).id == IDS[1]
