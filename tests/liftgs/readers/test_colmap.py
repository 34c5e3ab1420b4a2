"""COLMAP: world-to-camera, scalar-first quaternions, text and binary alike, lenses, units."""

import struct

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
    photo,
    png,
    points_on_surfaces,
    rays_of,
    render_rays,
    write_files,
)
from scipy.spatial.transform import Rotation

from liftgs.readers import ReaderOptions, open_scene
from liftgs.scene import BadInput

IDS = ["left view/1.png", "left view/2.png", "left view/10.png"]
MODELS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
PINHOLE = ("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def placements(scale=1.0):
    """(image id, quaternion wxyz, translation, name), world-to-camera, not in name order."""
    for image_id, (name, pose) in enumerate(zip(IDS[::-1], POSES[::-1], strict=True), 1):
        world_to_cam = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(world_to_cam[:3, :3]).as_quat()
        yield image_id, (w, x, y, z), scale * world_to_cam[:3, 3], name


def text(camera=PINHOLE, scale=1.0, count=3000) -> dict[str, bytes]:
    model, params = camera
    lens = " ".join(repr(float(value)) for value in params)
    cameras = f"# Camera list\n# CAMERA_ID, MODEL, ...\n7 {model} {WIDTH} {HEIGHT} {lens}\n"
    images = "# Image list\n#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n#   POINTS2D[]\n"
    for image_id, q, t, name in placements(scale):
        points = "" if image_id == 2 else "1.5 2.5 -1 3.5 4.5 17"  # an image may have no point: an empty line
        images += f"{image_id} {' '.join(repr(float(v)) for v in (*q, *t))} 7 {name}\n{points}\n"
    points3D = "# 3D point list\n"
    for i, (p, c) in enumerate(zip(*points_on_surfaces(count), strict=True)):
        points3D += f"{i} {' '.join(repr(float(v * scale)) for v in p)} {c[0]} {c[1]} {c[2]} 0.5 1 0 2 {i % 7}\n"
    return {
        f"{name}.txt": data.encode()
        for name, data in {"cameras": cameras, "images": images, "points3D": points3D}.items()
    }


def binary(camera=PINHOLE, scale=1.0, count=3000) -> dict[str, bytes]:
    model, params = camera
    cameras = struct.pack("<QIiQQ", 1, 7, MODELS[model], WIDTH, HEIGHT) + struct.pack(f"<{len(params)}d", *params)
    images = struct.pack("<Q", 3)
    for image_id, q, t, name in placements(scale):
        images += struct.pack("<I7dI", image_id, *q, *t, 7) + name.encode() + b"\0"
        points = [] if image_id == 2 else [(1.5, 2.5, 2**64 - 1)] * 1000
        images += struct.pack("<Q", len(points)) + b"".join(struct.pack("<ddQ", *point) for point in points)
    xyz, rgb = points_on_surfaces(count)
    points3D = struct.pack("<Q", len(xyz))
    for i, (p, c) in enumerate(zip(xyz, rgb, strict=True)):
        track = [(1, 0), (2, i % 7)][: 1 + i % 2]
        points3D += struct.pack("<Q3d3BdQ", i, *(p * scale), *c, 0.5, len(track))
        points3D += b"".join(struct.pack("<II", *element) for element in track)
    return {"cameras.bin": cameras, "images.bin": images, "points3D.bin": points3D}


def reconstruction(model: dict[str, bytes], place="sparse/0/", photos=None) -> dict[str, bytes]:
    photos = photos or [photo(camera) for camera in CAMERAS]
    return {place + name: data for name, data in model.items()} | {
        f"images/{name}": png(pixels) for name, pixels in zip(IDS, photos, strict=True)
    }


@pytest.mark.parametrize("place", ["sparse/0/", "sparse/", ""])
@pytest.mark.parametrize("write", [text, binary])
def test_a_reconstruction_reads_back(tmp_path, write, place):
    write_files(tmp_path, reconstruction(write(), place))
    scene = open_scene(str(tmp_path))
    frames = assert_cameras(scene, IDS)
    assert frames[0].depth is None
    assert scene.gravity == "unknown"
    xyz, rgb = points_on_surfaces(3000)
    np.testing.assert_allclose(scene.cloud().xyz, xyz, atol=1e-6)
    np.testing.assert_array_equal(scene.cloud().rgb, rgb)
    assert_cloud_projects_into_frames(scene)


def test_text_and_binary_are_the_same_scene(tmp_path):
    write_files(tmp_path / "text", reconstruction(text()))
    write_files(tmp_path / "binary", reconstruction(binary()))
    a, b = open_scene(str(tmp_path / "text")), open_scene(str(tmp_path / "binary"))
    assert list(a.frame_ids()) == list(b.frame_ids())
    for frame_id in a.frame_ids():
        x, y = a.load(frame_id), b.load(frame_id)
        np.testing.assert_array_equal(x.camera.cam_to_world, y.camera.cam_to_world)
        np.testing.assert_array_equal(x.camera.K, y.camera.K)
    np.testing.assert_array_equal(a.cloud().xyz, b.cloud().xyz)


def test_units_of_the_reconstruction_become_metres(tmp_path):
    write_files(tmp_path, reconstruction(binary(scale=0.25)))
    scene = open_scene(str(tmp_path), ReaderOptions(metres_per_unit=4.0))
    assert_cameras(scene, IDS)
    assert_cloud_projects_into_frames(scene)


@pytest.mark.parametrize("place", ["sparse/0/", ""])
def test_a_file_beside_the_model_may_tell_of_gravity(tmp_path, place):
    write_files(tmp_path, reconstruction(binary(count=50), place) | {f"{place}world.json": b'{"gravity": "estimated"}'})
    assert open_scene(str(tmp_path)).gravity == "estimated"


@pytest.mark.parametrize("said", [b"[]", b"{}", b'{"gravity": "down"}', b'{"gravity": ["z-up"]}'])
def test_a_broken_file_about_gravity_is_bad_input(tmp_path, said):
    write_files(tmp_path, reconstruction(binary(count=50)) | {"sparse/0/world.json": said})
    with pytest.raises(BadInput, match=r"world.json: is not JSON with .gravity."):
        _ = open_scene(str(tmp_path)).gravity


def test_simple_pinhole_has_one_focal_length(tmp_path):
    write_files(tmp_path, reconstruction(text(("SIMPLE_PINHOLE", (140.0, 81.0, 59.0)))))
    assert_cameras(open_scene(str(tmp_path)), IDS, np.array([[140.0, 0, 81], [0, 140, 59], [0, 0, 1]]))


@pytest.mark.parametrize(
    ("model", "k1", "k2", "p1", "p2"),
    [("SIMPLE_RADIAL", -0.2, 0, 0, 0), ("RADIAL", 0.1, -0.05, 0, 0), ("OPENCV", -0.1, 0.02, 0.003, -0.002)],
)
def test_lenses_are_undistorted(tmp_path, model, k1, k2, p1, p2):
    f = 130.0
    params = {
        "SIMPLE_RADIAL": (f, 83, 58, k1),
        "RADIAL": (f, 83, 58, k1, k2),
        "OPENCV": (f, f, 83, 58, k1, k2, p1, p2),
    }[model]
    photos = []
    for camera in CAMERAS:
        target = rays_of(camera.__class__([[f, 0, 83], [0, f, 58], [0, 0, 1]], camera.cam_to_world, WIDTH, HEIGHT))
        x, y = target[..., 0].copy(), target[..., 1].copy()
        for _ in range(100):
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2**2
            x = x + 0.5 * (target[..., 0] - (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)))
            y = y + 0.5 * (target[..., 1] - (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y))
        pixels = render_rays(np.stack([x, y, np.ones_like(x)], -1), camera.cam_to_world)[0]
        photos.append(np.rint(pixels).astype(np.uint8))
    write_files(tmp_path, reconstruction(binary((model, params)), photos=photos))
    scene = open_scene(str(tmp_path))
    for frame_id in IDS:
        frame = scene.load(frame_id)
        off = np.abs(frame.rgb.astype(float) - photo(frame.camera)).max(-1)
        assert np.mean(off <= 4) > 0.97
    assert_cloud_projects_into_frames(scene)


def test_a_fisheye_is_refused_with_the_way_out(tmp_path):
    write_files(tmp_path, reconstruction(text(("OPENCV_FISHEYE", (130, 126, 83, 58, 0, 0, 0, 0)))))
    with pytest.raises(BadInput, match="OPENCV_FISHEYE is not supported; run `colmap image_undistorter` first"):
        open_scene(str(tmp_path)).load(IDS[0])


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage"])
def test_a_broken_binary_file_is_bad_input(tmp_path, part, kind):
    model = binary(count=50)
    whole = model[f"{part}.bin"]
    model[f"{part}.bin"] = {"truncated": whole[:-9], "empty": b"", "garbage": b"\xff" * 200}[kind]
    write_files(tmp_path, reconstruction(model))
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=f"truncated or not a COLMAP {part} file") as caught:
        scene.cloud() if part == "points3D" else scene.load(scene.frame_ids()[0])
    assert caught.value.uri == f"{tmp_path}/sparse/0/{part}.bin"


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
def test_a_broken_text_file_is_bad_input(tmp_path, part):
    write_files(tmp_path, reconstruction(text(count=50) | {f"{part}.txt": b"1 two three\n"}))
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=f"not a COLMAP {part} file"):
        scene.cloud() if part == "points3D" else scene.load(scene.frame_ids()[0])


def test_damaged_binary_files_raise_nothing_but_bad_input(tmp_path):
    """Random damage either parses or is a BadInput; no length field makes the reader run away."""
    rng = np.random.default_rng(2)
    files = reconstruction(binary(count=30))
    write_files(tmp_path, files)
    for part in ("cameras", "images", "points3D"):
        whole = files[f"sparse/0/{part}.bin"]
        for _ in range(60):
            data = bytearray(whole)
            for position in rng.integers(0, min(len(data), 200), 3):
                data[position] = rng.integers(256)
            (tmp_path / f"sparse/0/{part}.bin").write_bytes(bytes(data))
            scene = open_scene(str(tmp_path))
            try:
                scene.cloud()
                for frame_id in scene.frame_ids():
                    scene.load(frame_id)
            except BadInput:
                continue
        (tmp_path / f"sparse/0/{part}.bin").write_bytes(whole)


def test_a_missing_photo_costs_its_frame(tmp_path):
    files = reconstruction(text(count=50))
    del files[f"images/{IDS[1]}"]
    write_files(tmp_path, files)
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match="the file is missing") as caught:
        scene.load(IDS[1])
    assert caught.value.uri == f"{tmp_path}/images/{IDS[1]}"
    assert scene.load(IDS[0]).id == IDS[0]


def test_names_do_not_lead_out_of_the_scene(tmp_path):
    model = text(count=50)
    model["images.txt"] = model["images.txt"].replace(b"left view/1.png", b"../../secret.png")
    write_files(tmp_path, reconstruction(model))
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match="not a path inside the scene's folder"):
        scene.load("../../secret.png")
