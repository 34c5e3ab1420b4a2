"""TUM RGB-D: quaternion order, time association, depth scale, calibrations and their half pixel."""

import numpy as np
import pytest
from box_room import (
    CAMERAS,
    POSES,
    K,
    assert_cameras,
    assert_cloud_projects_into_frames,
    depth_m,
    depth_png,
    matrix_text,
    photo,
    png,
    rays_of,
    render_rays,
    write_files,
)
from scipy.optimize import fsolve
from scipy.spatial.transform import Rotation

from liftgs.readers import ReaderOptions, open_scene
from liftgs.scene import BadInput, Camera

STAMPS = ["1305031102.175304", "1305031102.275326", "1305031102.375329"]


def trajectory(offset_s: float = 0.004) -> bytes:
    """Poses near the photos' times, with wrong ones a little farther away on either side."""
    lines = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for stamp, pose in zip(STAMPS, POSES, strict=True):
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()  # scipy: x, y, z, w
        numbers = " ".join(f"{value:.9f}" for value in (*pose[:3, 3], *quaternion))
        lines.append(f"{float(stamp) - 0.012:.6f} 9 9 9 0 0 0 1")
        lines.append(f"{float(stamp) + offset_s:.6f} {numbers}")
        lines.append(f"{float(stamp) + 0.014:.6f} 9 9 9 0 0 0 1")
    return "\n".join(lines).encode()


def sequence(offset_s: float = 0.004) -> dict[str, bytes]:
    files = {"groundtruth.txt": trajectory(offset_s), "camera-intrinsics.txt": matrix_text(K)}
    photos, depths = ["# color images", "# timestamp filename"], ["# depth maps"]
    for stamp, camera in zip(STAMPS, CAMERAS, strict=True):
        depth_stamp = f"{float(stamp) - 0.007:.6f}"
        files[f"rgb/{stamp}.png"] = png(photo(camera))
        files[f"depth/{depth_stamp}.png"] = depth_png(depth_m(camera), 5000)
        photos.append(f"{stamp} rgb/{stamp}.png")
        depths.append(f"{depth_stamp} depth/{depth_stamp}.png")
    return files | {"rgb.txt": "\n".join(photos).encode(), "depth.txt": "\n".join(depths).encode()}


def test_a_sequence_reads_back(tmp_path):
    write_files(tmp_path, sequence())
    scene = open_scene(str(tmp_path))
    frames = assert_cameras(scene, STAMPS)
    assert frames[0].uri == f"{tmp_path}/rgb/{STAMPS[0]}.png"
    np.testing.assert_allclose(frames[0].depth, depth_m(CAMERAS[0]), atol=1.5e-4)  # 5000 units per metre
    assert_cloud_projects_into_frames(scene)


def test_photos_without_a_pose_or_depth_in_time_are_no_frames(tmp_path):
    files = sequence()
    late = f"{float(STAMPS[2]) + 0.1:.6f}"
    files["rgb.txt"] += f"\n{late} rgb/{late}.png".encode()
    write_files(tmp_path, files)
    assert list(open_scene(str(tmp_path)).frame_ids()) == STAMPS
    strict = ReaderOptions(max_time_difference_s=0.005)  # depth is 7 ms away
    assert list(open_scene(str(tmp_path), strict).frame_ids()) == []


def test_the_benchmarks_principal_points_are_moved_by_half_a_pixel(tmp_path):
    """ROS default: (319.5, 239.5) with the first pixel's centre at 0 is the very middle of 640x480."""
    camera = Camera([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]], POSES[0], 640, 480)
    files = sequence()
    del files["camera-intrinsics.txt"]
    [depth_name] = [name for name in files if name.startswith("depth/") and f"{float(STAMPS[0]) - 0.007:.6f}" in name]
    files |= {f"rgb/{STAMPS[0]}.png": png(photo(camera)), depth_name: depth_png(depth_m(camera), 5000)}
    write_files(tmp_path / "somewhere", files)
    frame = open_scene(str(tmp_path / "somewhere")).load(STAMPS[0])
    np.testing.assert_allclose(frame.camera.K, camera.K)
    write_files(tmp_path / "rgbd_dataset_freiburg3_long", files)
    frame = open_scene(str(tmp_path / "rgbd_dataset_freiburg3_long")).load(STAMPS[0])
    np.testing.assert_allclose(frame.camera.K, [[535.4, 0, 320.6], [0, 539.2, 248.1], [0, 0, 1]])


def test_the_lens_of_freiburg1_is_undistorted(tmp_path):
    """Photo and depth are rendered through the published distortion, inverted here by a solver of its own."""
    fx, fy, cx, cy = 517.3, 516.5, 318.6, 255.3
    k1, k2, p1, p2, k3 = 0.2624, -0.9531, -0.0054, 0.0026, 1.1633
    ideal = Camera([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]], POSES[0], 640, 480)

    def distorted(xy):
        x, y = xy.reshape(2, -1)
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        return np.concatenate(
            [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y]
        )

    target = rays_of(ideal)[..., :2]
    coarse = target[::16, ::16].reshape(-1, 2)
    # One pixel in 16x16 exactly, the rest by fixed-point iteration from the pinhole ray; both must agree.
    exact = np.array([fsolve(lambda xy, goal=goal: distorted(xy) - goal, goal) for goal in coarse])
    xy = np.concatenate([target[..., 0].ravel(), target[..., 1].ravel()])
    solution = xy.copy()
    for _ in range(60):
        solution += xy - distorted(solution)
    x, y = solution.reshape(2, 480, 640)
    np.testing.assert_allclose(np.stack([x, y], -1)[::16, ::16].reshape(-1, 2), exact, atol=1e-5)

    colours, z = render_rays(np.stack([x, y, np.ones_like(x)], -1), POSES[0])
    files = sequence()
    del files["camera-intrinsics.txt"]
    [depth_name] = [name for name in files if name.startswith("depth/") and f"{float(STAMPS[0]) - 0.007:.6f}" in name]
    files |= {f"rgb/{STAMPS[0]}.png": png(np.rint(colours).astype(np.uint8)), depth_name: depth_png(z, 5000)}
    write_files(tmp_path / "rgbd_dataset_freiburg1_xyz", files)
    frame = open_scene(str(tmp_path / "rgbd_dataset_freiburg1_xyz")).load(STAMPS[0])

    K = frame.camera.K
    assert 1 <= K[0, 0] / fx < 1.1
    np.testing.assert_allclose(K[0, 0] / fx, K[1, 1] / fy)
    assert (frame.depth > 0).all()  # no empty border
    off = np.abs(frame.rgb.astype(float) - photo(frame.camera)).max(-1)
    assert np.mean(off <= 3) > 0.99
    assert np.mean(np.abs(frame.depth - depth_m(frame.camera)) < 0.02) > 0.99
    pinhole_only = np.abs(np.rint(colours) - photo(ideal)).max(-1)
    assert np.mean(pinhole_only <= 3) < 0.95  # the test would notice a reader that ignored the lens


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("groundtruth.txt", b"# nothing", "lines of 8 numbers"),
        ("groundtruth.txt", b"1 2 3", "lines of 8 numbers"),
        ("groundtruth.txt", b"1 a b c d e f g", "not a number"),
        ("rgb.txt", b"yesterday rgb/1.png", "is not 'timestamp path'"),
        ("rgb.txt", b"# nothing", "lists no image"),
        ("depth.txt", b"12.5", "is not 'timestamp path'"),
        ("rgb.txt", b"1.5 ../../etc/passwd", "not a path inside the scene's folder"),
        ("rgb.txt", b"1.5 /etc/passwd", "not a path inside the scene's folder"),
        ("rgb.txt", b"1.5 s3://other/photo.png", "not a path inside the scene's folder"),
    ],
)
def test_a_broken_index_is_bad_input(tmp_path, name, data, reason):
    write_files(tmp_path, sequence() | {name: data})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).frame_ids()
    assert caught.value.uri == f"{tmp_path}/{name}"


@pytest.mark.parametrize(
    ("row", "reason"), [("0 0 0 0 0 0 0", "is no rotation"), ("nan 0 0 0 0 0 1", "pose holds nan")]
)
def test_a_pose_that_is_none_costs_its_frame(tmp_path, row, reason):
    lines = trajectory().decode().splitlines()
    lines[3] = f"{float(STAMPS[0]) + 0.004:.6f} {row}"
    write_files(tmp_path, sequence() | {"groundtruth.txt": "\n".join(lines).encode()})
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=reason) as caught:
        scene.load(STAMPS[0])
    assert caught.value.uri.endswith("/groundtruth.txt")
    assert scene.load(STAMPS[1]).id == STAMPS[1]
