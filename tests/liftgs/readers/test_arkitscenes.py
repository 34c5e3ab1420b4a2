"""ARKitScenes: world-to-camera poses between time stamps, devices held in any way, confidence, boxes on the mesh."""

import json

import numpy as np
import pytest
from box_room import (
    CAMERAS,
    CRATE,
    HEIGHT,
    POSES,
    WIDTH,
    K,
    assert_cameras,
    assert_cloud_projects_into_frames,
    depth_m,
    depth_png,
    photo,
    png,
    points_on_surfaces,
    write_files,
)
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.readers import open_scene
from liftgs.scene import BadInput, Camera

VIDEO = "40753679"
IDS = ["6845.707", "6850.707", "6855.707"]
#: the upright camera's axes (columns) in those of the device, by where the sky is in the stored photo
SKY = {
    "up": np.eye(3),
    "left": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),  # right is up there, down is right
    "down": np.diag([-1.0, -1, 1]),
    "right": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
}
#: intrinsics of the upright picture of a device whose own are K, worked out by hand: fx, fy, cx, cy and size
UPRIGHT = {
    "up": ((130, 126, 83, 58), (WIDTH, HEIGHT)),
    "left": ((126, 130, HEIGHT - 58, 83), (HEIGHT, WIDTH)),
    "down": ((130, 126, WIDTH - 83, HEIGHT - 58), (WIDTH, HEIGHT)),
    "right": ((126, 130, 58, WIDTH - 83), (HEIGHT, WIDTH)),
}
#: a box around the crate, turned by 25 degrees about a slanting axis, and a smaller one within
AXES = Rotation.from_rotvec(np.deg2rad(25) * np.array([0.6, -0.48, 0.64])).as_matrix()
BOXES = [("tv_monitor", [1.8, 1.3, 0.4], [1.1, 0.9, 1.3]), ("other/chair", [1.4, 1.3, 0.4], [0.5, 0.4, 0.3])]


def held(pose: np.ndarray, sky: str) -> np.ndarray:
    """The device's pose when the upright camera's would be `pose`."""
    device = pose.copy()
    device[:3, :3] = pose[:3, :3] @ SKY[sky].T
    return device


def trajectory(sky: str = "up") -> bytes:
    """10 Hz around each photo, none of it at the photo's time: the device passes through the true pose at 0.3 s/10."""
    spin, speed = np.array([0.05, -0.08, 0.1]), np.array([0.04, 0.02, -0.03])
    lines = []
    for stamp, pose in zip(IDS, POSES, strict=True):
        device = held(pose, sky)
        for when in (-0.13, -0.03, 0.07, 0.17):
            share = when / 0.1
            R = device[:3, :3] @ Rotation.from_rotvec(share * spin).as_matrix()
            t = device[:3, 3] + share * speed
            numbers = (*Rotation.from_matrix(R.T).as_rotvec(), *(-R.T @ t))  # world to camera
            lines.append(f"{float(stamp) + when:.4f} " + " ".join(f"{number:.12f}" for number in numbers))
    return ("\n".join(lines) + "\n").encode()


def ply() -> bytes:
    """A mesh as ARKit exports it: coloured vertices with alpha, then faces."""
    xyz, rgb = points_on_surfaces(8000)
    vertices = np.zeros(len(xyz), [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue", "alpha")])
    for axis, name in enumerate("xyz"):
        vertices[name] = xyz[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = rgb[:, channel]
    properties = [f"property float {n}" for n in "xyz"] + [f"property uchar {n}" for n in vertices.dtype.names[3:]]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *properties]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header\n"]
    return "\n".join(header).encode() + vertices.tobytes() + b"\x03" + bytes(12)


def annotation(**fields) -> bytes:
    data = [
        {
            "label": label,
            "uid": f"uid-{i}",
            "segments": {
                "obbAligned": {"centroid": centre, "axesLengths": lengths, "normalizedAxes": AXES.ravel().tolist()},
                "obb": {"centroid": [180.0, 130.0, 40.0]},  # centimetres, in another frame; not read
            },
        }
        for i, (label, centre, lengths) in enumerate(BOXES)
    ]
    return json.dumps({"data": data, "skipped": False, "stats": {}} | fields).encode()


def video(sky: str = "up", mesh: bool = False) -> dict[str, bytes]:
    files = {"lowres_wide.traj": trajectory(sky), f"{VIDEO}.mov": b"not read"}
    for stamp, pose in zip(IDS, POSES, strict=True):
        device = Camera(K, held(pose, sky), WIDTH, HEIGHT)
        name = f"{VIDEO}_{stamp}.png"
        files[f"lowres_wide/{name}"] = png(photo(device))
        files[f"lowres_depth/{name}"] = depth_png(depth_m(device))
        files[f"confidence/{name}"] = png(np.full((HEIGHT, WIDTH), 2, np.uint8))
        # The true intrinsics are a millisecond off in name; those of a frame before and after are others.
        for off, fx in ((-0.016, 99), (0.001, 130), (0.018, 99)):
            path = f"lowres_wide_intrinsics/{VIDEO}_{float(stamp) + off:.3f}.pincam"
            files[path] = f"{WIDTH} {HEIGHT} {fx} 126.0 83.0 58.0".encode()
    if mesh:
        files |= {f"{VIDEO}_3dod_mesh.ply": ply(), f"{VIDEO}_3dod_annotation.json": annotation()}
    return files


@pytest.mark.parametrize("sky", SKY)
def test_a_video_reads_back_upright_however_the_device_was_held(tmp_path, sky):
    write_files(tmp_path / VIDEO, video(sky))
    scene = open_scene(str(tmp_path / VIDEO))
    assert scene.gravity == "z-up"
    (fx, fy, cx, cy), size = UPRIGHT[sky]
    for frame in assert_cameras(scene, IDS, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])):
        assert (frame.camera.width, frame.camera.height) == size
        np.testing.assert_array_equal(np.abs(frame.rgb.astype(int) - photo(frame.camera)).max(), 0)
        np.testing.assert_allclose(frame.depth, depth_m(frame.camera), atol=6e-4)
    assert scene.cloud() is None
    assert scene.labels() is None
    assert_cloud_projects_into_frames(scene)


def test_photos_without_depth_or_poses_are_no_frames(tmp_path):
    files = video()
    anything = files[f"lowres_wide/{VIDEO}_{IDS[0]}.png"]
    depth = files[f"lowres_depth/{VIDEO}_{IDS[0]}.png"]
    files[f"lowres_wide/{VIDEO}_6845.724.png"] = anything  # 60 Hz, but no depth of that instant
    for lost in ("6848.000", "6840.000"):  # in a gap of the trajectory, and before it
        files |= {f"lowres_wide/{VIDEO}_{lost}.png": anything, f"lowres_depth/{VIDEO}_{lost}.png": depth}
    write_files(tmp_path, files)
    assert list(open_scene(str(tmp_path)).frame_ids()) == IDS


def test_depth_that_is_a_millisecond_off_in_name_belongs(tmp_path):
    files = video()
    files[f"lowres_depth/{VIDEO}_6845.708.png"] = files.pop(f"lowres_depth/{VIDEO}_6845.707.png")
    write_files(tmp_path, files)
    assert_cloud_projects_into_frames(open_scene(str(tmp_path)))


def test_depth_of_low_confidence_is_dropped(tmp_path):
    confidence = np.full((HEIGHT, WIDTH), 1, np.uint8)
    confidence[:40], confidence[40:80] = 0, 2
    nonsense = depth_m(CAMERAS[0])
    nonsense[:40] = 0.7
    name = f"{VIDEO}_{IDS[0]}.png"
    files = video() | {f"confidence/{name}": png(confidence), f"lowres_depth/{name}": depth_png(nonsense)}
    write_files(tmp_path, files)
    scene = open_scene(str(tmp_path))
    depth = scene.load(IDS[0]).depth
    assert (depth[:40] == 0).all()
    np.testing.assert_allclose(depth[40:], depth_m(CAMERAS[0])[40:], atol=6e-4)
    assert_cloud_projects_into_frames(scene)


@pytest.mark.parametrize("which", ["all", IDS[0]])
def test_without_confidence_all_depth_is_kept(tmp_path, which):
    names = {f"confidence/{VIDEO}_{stamp}.png" for stamp in IDS if which in ("all", stamp)}
    write_files(tmp_path, {name: data for name, data in video().items() if name not in names})
    assert (open_scene(str(tmp_path)).load(IDS[0]).depth > 0).all()


def corners(centre, lengths) -> np.ndarray:
    """As the data set's `compute_box_3d` has them: transposed axes times the corner, plus the centre."""
    signs = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]), -1).reshape(-1, 3)
    return (AXES.T @ (signs * lengths).T).T + centre


def test_points_in_a_box_belong_to_its_thing(tmp_path):
    write_files(tmp_path, video(mesh=True))
    scene = open_scene(str(tmp_path))
    cloud = scene.cloud()
    assert len(cloud) == 24000
    xyz = cloud.xyz.astype(np.float64)
    big, small = (Delaunay(corners(centre, lengths)).find_simplex(xyz) >= 0 for _, centre, lengths in BOXES)
    assert small.sum() > 100
    assert (small & ~big).sum() < small.sum()
    np.testing.assert_array_equal(cloud.instances, np.where(small, 2, np.where(big, 1, 0)))
    on_crate = ((xyz > CRATE[0] - 1e-4) & (xyz < CRATE[1] + 1e-4)).all(1) & (xyz[:, 2] > 0.1)
    assert np.mean(cloud.instances[on_crate] > 0) > 0.9

    [monitor, chair] = scene.labels().instances
    assert (monitor.id, monitor.kind, chair.id, chair.kind) == (1, "tv monitor", 2, "other/chair")
    for instance, (_, centre, lengths) in zip((monitor, chair), BOXES, strict=True):
        np.testing.assert_allclose(instance.box_min, corners(centre, lengths).min(0))
        np.testing.assert_allclose(instance.box_max, corners(centre, lengths).max(0))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    assert [instance.id for instance in loaded.labels.instances] == [1, 2]
    assert_cloud_projects_into_frames(scene)


def test_a_mesh_without_annotation_is_a_cloud_without_labels(tmp_path):
    for name, files in {
        "none": {key: data for key, data in video(mesh=True).items() if not key.endswith("annotation.json")},
        "skipped": video(mesh=True) | {f"{VIDEO}_3dod_annotation.json": annotation(skipped=True, data=[])},
    }.items():
        write_files(tmp_path / name, files)
        scene = open_scene(str(tmp_path / name))
        assert scene.cloud().instances is None
        assert scene.labels() is None
        assert load_chunk(scene, plan_chunks(scene)[0]).labels is None


def test_an_annotation_without_mesh_labels_nothing(tmp_path):
    write_files(tmp_path, video() | {f"{VIDEO}_3dod_annotation.json": annotation()})
    scene = open_scene(str(tmp_path))
    assert load_chunk(scene, plan_chunks(scene)[0]).labels is None


PHOTO, DEPTH, CONFIDENCE = (f"{name}/{VIDEO}_{IDS[1]}.png" for name in ("lowres_wide", "lowres_depth", "confidence"))
PINCAM = f"lowres_wide_intrinsics/{VIDEO}_6850.708.pincam"
GOOD = video()
FAULTS = {
    "truncated photo": (PHOTO, GOOD[PHOTO][:3000], "truncated or corrupt"),
    "truncated depth": (DEPTH, GOOD[DEPTH][:3000], "truncated or corrupt"),
    "truncated confidence": (CONFIDENCE, GOOD[CONFIDENCE][:70], "truncated or corrupt"),
    "no magic": (PHOTO, b"XXXX" + GOOD[PHOTO][4:], "not a JPEG or PNG"),
    "other photo": (PHOTO, png(photo(CAMERAS[1])[:90]), "photo is 160x90, but the scene's intrinsics are for 160x120"),
    "other confidence": (CONFIDENCE, png(np.full((60, 80), 2, np.uint8)), "map is 80x60, the depth map 160x120"),
    "colour confidence": (CONFIDENCE, GOOD[PHOTO], "grey PNG, not a PNG of mode RGB"),
    "no confidence": (CONFIDENCE, png(np.zeros((HEIGHT, WIDTH), np.uint8)), "no depth has more than low confidence"),
    "five numbers": (PINCAM, b"160 120 130 126 83", "needs 6 numbers"),
    "NaN focal": (PINCAM, b"160 120 nan 126 83 58", "needs 6 numbers"),
    "no numbers": (PINCAM, b"a b c d e f", "not a number"),
    "absurd focal": (PINCAM, b"160 120 1 1 83 58", "absurd intrinsics"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_costs_its_frame_only(tmp_path, name):
    path, data, reason = FAULTS[name]
    write_files(tmp_path, video() | {path: data})
    scene = open_scene(str(tmp_path))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(frame, fault)] = loaded.failures
    assert frame == IDS[1]
    assert fault.uri == f"{tmp_path}/{path}"
    with pytest.raises(BadInput, match=reason):
        raise fault


def test_a_frame_far_from_any_intrinsics_says_so(tmp_path):
    write_files(tmp_path, {name: data for name, data in video().items() if "_6850" not in name or "pincam" not in name})
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=r"no \.pincam within 0\.1 s of 6850\.707"):
        scene.load(IDS[1])
    assert scene.load(IDS[0]).id == IDS[0]


@pytest.mark.parametrize("value", ["nan", "-inf"])
@pytest.mark.parametrize("column", [1, 5])
def test_a_lost_pose_costs_its_frames_only(tmp_path, column, value):
    lines = trajectory().decode().splitlines()
    words = lines[5].split()
    words[column] = value
    lines[5] = " ".join(words)
    write_files(tmp_path, video() | {"lowres_wide.traj": "\n".join(lines).encode()})
    scene = open_scene(str(tmp_path))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(frame, fault)] = loaded.failures
    assert frame == IDS[1]
    assert fault.uri == f"{tmp_path}/lowres_wide.traj"
    assert "lost tracking" in fault.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (trajectory()[:-20], "not a matrix"),
        (b"1 2 3\n4 5 6", "lines of 7 numbers"),
        (b"nan 0 0 0 0 0 0", "lines of 7 numbers"),
        (b"0 0 0 zero 0 0 0", "not a number"),
        (b"\n \n", "not a matrix"),
    ],
)
def test_a_broken_trajectory_is_named(tmp_path, text, reason):
    write_files(tmp_path, video() | {"lowres_wide.traj": text})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).frame_ids()
    assert caught.value.uri == f"{tmp_path}/lowres_wide.traj"


def boxed(**box) -> bytes:
    good = {"centroid": [0, 0, 0], "axesLengths": [1, 1, 1], "normalizedAxes": np.eye(3).ravel().tolist()}
    return annotation(data=[{"label": "chair", "segments": {"obbAligned": good | box}}])


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        (f"{VIDEO}_3dod_annotation.json", annotation()[:-30], "not valid JSON"),
        (f"{VIDEO}_3dod_annotation.json", b"[]", "not a 3DOD annotation"),
        (f"{VIDEO}_3dod_annotation.json", b"[" * 5000, "not valid JSON"),
        (f"{VIDEO}_3dod_annotation.json", b'{"skipped": false}', "KeyError: 'data'"),
        (f"{VIDEO}_3dod_annotation.json", annotation(data=[{"label": "chair"}]), "KeyError: 'segments'"),
        (f"{VIDEO}_3dod_annotation.json", boxed(centroid=[0, 0]), "not a 3DOD annotation"),
        (f"{VIDEO}_3dod_annotation.json", boxed(centroid=[0, float("nan"), 0]), "a box at .*nan"),
        (f"{VIDEO}_3dod_annotation.json", boxed(axesLengths=[1, 0, 1]), "lengths .*0.0"),
        (f"{VIDEO}_3dod_annotation.json", boxed(normalizedAxes=[0.0] * 9), "not orthonormal"),
        (f"{VIDEO}_3dod_mesh.ply", ply()[:-200_000], "truncated: holds"),
        (f"{VIDEO}_3dod_mesh.ply", b"obj" + ply()[3:], "not a PLY file"),
    ],
)
def test_a_bad_annotation_or_mesh_is_named(tmp_path, path, data, reason):
    write_files(tmp_path, video(mesh=True) | {path: data})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).cloud()
    assert caught.value.uri == f"{tmp_path}/{path}"
