"""Aria Synthetic Environments: rendered through the fisheye (photos, distances, ids), read back as upright pinholes."""

import io
import json
import math
from functools import lru_cache

import numpy as np
import pytest
from box_room import (
    CRATE,
    POSES,
    ROOM,
    assert_cameras,
    assert_cloud_projects_into_frames,
    colour,
    depth_m,
    jpeg,
    photo,
    png,
    render_rays,
    write_files,
)
from PIL import Image
from scipy.spatial.transform import Rotation

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.readers import ase, open_scene
from liftgs.scene import BadInput

# As published, in pixels whose centres are whole numbers; focal, principal point, radial, tangential.
F, CX, CY = 297.6375381033778, 357.6599197217746, 349.1922497127481
RADIAL = (0.36508904, -0.17380824, -0.75349455, 2.43478888, -2.57786220, 0.87884835)
P0, P1 = 0.00080052, -0.00029424
DEVICE_CAMERA = np.eye(4)
DEVICE_CAMERA[:3, :3] = Rotation.from_quat([0.32640934, 0.02927499, 0.03336106, 0.94418587]).as_matrix()
DEVICE_CAMERA[:3, 3] = (-0.00753010, -0.01090855, -0.00359806)
RADIUS = 353.75
IDS = ["0000000", "0000001", "0000002"]
PINHOLE = np.array([[F, 0, 256], [0, F, 256], [0, 0, 1]])
WALL, TABLE, UNNAMED, NOTHING = 2, 300, 77, 5
CLASSES = {"0": "empty_space", "5": "background", "2": "wall", "300": "coffee_table", "999": "chair"}


@lru_cache
def fisheye_rays() -> tuple[np.ndarray, np.ndarray]:
    """The unit ray of each pixel, by looking angles up in a fine table, and which pixels are in the valid circle.

    Independent of the reader: no Newton steps and no half pixels.
    """
    column, row = np.meshgrid(np.arange(704.0), np.arange(704.0))
    seen_x, seen_y = (column - CX) / F, (row - CY) / F
    x, y = seen_x.copy(), seen_y.copy()
    for _ in range(30):
        r2 = x * x + y * y
        x, y = (
            seen_x - ((2 * x * x + r2) * P0 + 2 * x * y * P1),
            seen_y - ((2 * y * y + r2) * P1 + 2 * x * y * P0),
        )
    angles = np.linspace(0, 1.1, 200_001)
    radii = angles + sum(k * angles ** (2 * i + 3) for i, k in enumerate(RADIAL))
    radius = np.hypot(x, y)
    angle = np.interp(radius, radii, angles)
    rays = np.stack([np.sin(angle) * x / radius, np.sin(angle) * y / radius, np.cos(angle)], -1)
    return rays, np.hypot(column - CX, row - CY) <= RADIUS


def sideways(pose: np.ndarray) -> np.ndarray:
    """The pose of the camera whose picture, turned clockwise, is that of an upright camera.

    Its x axis points where the upright one's y axis does (down), its y axis to the upright one's left.
    """
    turned = pose.copy()
    turned[:3, 0], turned[:3, 1] = pose[:3, 1], -pose[:3, 0]
    return turned


@lru_cache
def images(index: int) -> tuple[bytes, bytes, bytes]:
    """Photo, distance and ids as the data set stores them."""
    rays, seen = fisheye_rays()
    pose = sideways(POSES[index])
    colours, _ = render_rays(rays / rays[..., 2:], pose)
    _, distance = render_rays(rays, pose)  # in lengths of the rays given, which are of length 1
    points = pose[:3, 3] + distance[..., None] * (rays @ pose[:3, :3].T)
    on_crate = ((points > CRATE[0] - 1e-6) & (points < CRATE[1] + 1e-6)).all(-1)
    ids = np.where(on_crate, TABLE, WALL)
    ids[points[..., 2] < 1e-6] = NOTHING  # the floor
    ids[points[..., 2] > ROOM[1][2] - 1e-6] = UNNAMED  # the ceiling
    rgb = np.where(seen[..., None], np.rint(colours), 0).astype(np.uint8)
    millimetres = np.where(seen, np.rint(distance * 1000), 65535).astype(np.uint16)
    return jpeg(rgb), png(millimetres), png(ids.astype(np.uint16))


def trajectory(rows: int = 3) -> bytes:
    """With columns that are not read, and in the header's order."""
    lines = [
        "graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx_world_device,ty_world_device,tz_world_device,"
        "qx_world_device,qy_world_device,qz_world_device,qw_world_device,device_linear_velocity_x_device"
    ]
    for i in range(rows):
        device = sideways(POSES[i % 3]) @ np.linalg.inv(DEVICE_CAMERA)
        numbers = [*device[:3, 3], *Rotation.from_matrix(device[:3, :3]).as_quat(), 9.9]  # scipy: x, y, z, w
        lines.append(f"uid,{i * 100000},-1," + ",".join(f"{number:.12f}" for number in numbers))
    return "\n".join(lines).encode()


def walk() -> dict[str, bytes]:
    files = {"trajectory.csv": trajectory(), "object_instances_to_classes.json": json.dumps(CLASSES).encode()}
    for i, number in enumerate(IDS):
        rgb, depth, ids = images(i)
        files[f"rgb/vignette{number}.jpg"] = rgb
        files[f"depth/depth{number}.png"] = depth
        files[f"instances/instance{number}.png"] = ids
    return files


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ase")
    write_files(folder, walk())
    return open_scene(str(folder))


def test_a_walk_reads_back_upright(scene):
    assert scene.gravity == "z-up"
    for frame in assert_cameras(scene, IDS, PINHOLE):
        assert frame.jpeg is None
        truth = depth_m(frame.camera)
        assert (frame.depth > 0).all()
        assert np.mean(np.abs(frame.depth - truth) < 0.015) > 0.985  # the rest is at the crate's silhouette
        off = np.abs(frame.rgb.astype(float) - photo(frame.camera)).max(-1)
        assert np.mean(off <= 4) > 0.98
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.99)


def test_distance_is_not_taken_for_depth(scene):
    """In a corner of the picture they differ by a half."""
    frame = scene.load(IDS[0])
    for corner in (np.s_[:20, :20], np.s_[-20:, -20:]):
        np.testing.assert_allclose(frame.depth[corner], depth_m(frame.camera)[corner], atol=0.03)
    assert 1 / math.cos(math.atan(256 * math.sqrt(2) / F)) > 1.5


def test_clockwise_is_the_way_up(scene):
    """As the data set's tutorial turns the photo: by -90 degrees of Pillow. Blue tells height."""
    stored = Image.open(io.BytesIO(images(0)[0]))
    upright = np.asarray(stored.rotate(-90, expand=True)).astype(float)
    frame = scene.load(IDS[0])
    for picture in (upright[200:500, 200:500], frame.rgb.astype(float)):
        assert picture[:50, :, 2].mean() > picture[-50:, :, 2].mean() + 20


def test_no_pixel_comes_from_the_border_that_sees_nothing():
    rows, columns = ase._source(704)
    assert rows.shape == (512, 512)
    assert np.hypot(columns - CX, rows - CY).max() < RADIUS - 2
    assert min(rows.min(), columns.min()) > 0
    assert max(rows.max(), columns.max()) < 703


def test_ids_are_those_of_things_that_have_a_name(scene):
    frame = scene.load(IDS[0])
    assert frame.instances.dtype == np.uint16
    assert set(np.unique(frame.instances)) == {0, WALL, TABLE}
    points = np.array([[1.8, 1.0, 0.4], [1.8, 1.3, 0.8], [0.5, 2.99, 1.2]])
    [chunk] = plan_chunks(scene)
    cloud = load_chunk(scene, chunk).cloud
    for point, thing in zip(points, (TABLE, TABLE, WALL), strict=True):
        near = np.argmin(np.linalg.norm(cloud.xyz - point, axis=1))
        assert cloud.instances[near] == thing
    on_table = cloud.xyz[cloud.instances == TABLE]
    assert ((on_table > CRATE[0] - 0.05) & (on_table < CRATE[1] + 0.05)).all()


def test_labels_name_what_is_seen_and_box_it(scene):
    [wall, table] = scene.labels().instances
    assert (wall.id, wall.kind, table.id, table.kind) == (WALL, "wall", TABLE, "coffee table")
    np.testing.assert_allclose(table.box_min, CRATE[0], atol=0.06)
    np.testing.assert_allclose(table.box_max, CRATE[1], atol=0.06)
    np.testing.assert_array_less(np.array(wall.box_max), ROOM[1] + 0.05)
    assert scene.labels().expressions == ()
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    assert [instance.id for instance in loaded.labels.instances] == [WALL, TABLE]


def test_without_instance_images_there_are_no_labels(tmp_path):
    write_files(tmp_path, {name: data for name, data in walk().items() if not name.startswith("instances/")})
    scene = open_scene(str(tmp_path))
    assert scene.labels() is None
    assert scene.load(IDS[0]).instances is None
    assert load_chunk(scene, plan_chunks(scene)[0]).cloud.instances is None


def test_images_of_twice_the_size_keep_their_sharpness(tmp_path):
    grey, two_metres = np.full((1408, 1408, 3), 90, np.uint8), np.full((1408, 1408), 2000, np.uint16)
    files = {name: data for name, data in walk().items() if not name.startswith("instances/")}
    files |= {f"rgb/vignette{IDS[0]}.jpg": jpeg(grey), f"depth/depth{IDS[0]}.png": png(two_metres)}
    write_files(tmp_path, files)
    frame = open_scene(str(tmp_path)).load(IDS[0])
    np.testing.assert_allclose(frame.camera.K, np.diag([2, 2, 1]) @ PINHOLE)
    assert frame.rgb.shape == (1024, 1024, 3)
    assert frame.depth[512, 512] == pytest.approx(2, abs=1e-3)
    assert frame.depth[0, 0] == pytest.approx(2 / math.hypot(1, 256 * math.sqrt(2) / F), abs=5e-3)


def test_invalid_distance_is_no_depth(tmp_path):
    raw = np.full((704, 704), 2000, np.uint16)
    raw[:, 300:] = 65535
    raw[:350, :300] = 0
    write_files(tmp_path, walk() | {f"depth/depth{IDS[0]}.png": png(raw)})
    depth = open_scene(str(tmp_path)).load(IDS[0]).depth  # turned: the left of the stored image is on top
    assert (depth[220:] == 0).all()
    assert (depth[:190, :250] > 0).all()
    assert (depth[:190, 270:] == 0).all()


PHOTO, DEPTH, INSTANCES = f"rgb/vignette{IDS[1]}.jpg", f"depth/depth{IDS[1]}.png", f"instances/instance{IDS[1]}.png"
SMALL = np.full((512, 512), 2000, np.uint16)
FAULTS = {
    "missing photo": (PHOTO, None, "file is missing"),
    "missing depth": (DEPTH, None, "file is missing"),
    "missing instances": (INSTANCES, None, "file is missing"),
    "truncated photo": (PHOTO, images(1)[0][:9000], "truncated or corrupt"),
    "truncated depth": (DEPTH, images(1)[1][:9000], "truncated or corrupt"),
    "truncated instances": (INSTANCES, images(1)[2][:900], "truncated or corrupt"),
    "no magic": (PHOTO, b"XXXX" + images(1)[0][4:], "not a JPEG or PNG"),
    "rectified already": (PHOTO, jpeg(np.zeros((512, 512, 3), np.uint8)), "512x512, its depth map 704x704"),
    "rectified depth": (DEPTH, png(SMALL), "depth is 512x512; the lens is known for 704x704"),
    "other instances": (INSTANCES, png(SMALL), "instance image is 512x512, its depth map 704x704"),
    "colour instances": (INSTANCES, png(np.zeros((704, 704, 3), np.uint8)), "grey PNG, not a PNG of mode RGB"),
    "nothing seen": (DEPTH, png(np.full((704, 704), 65535, np.uint16)), "depth has no valid pixel"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_costs_its_frame_only(tmp_path, name):
    path, data, reason = FAULTS[name]
    files = walk()
    files.pop(path)
    write_files(tmp_path, files | ({} if data is None else {path: data}))
    scene = open_scene(str(tmp_path))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(frame, fault)] = loaded.failures
    assert frame == IDS[1]
    assert fault.uri == f"{tmp_path}/{path}"
    with pytest.raises(BadInput, match=reason):
        raise fault
    assert {instance.kind for instance in loaded.labels.instances} == {"wall", "coffee table"}


def row_with(values: str) -> bytes:
    header, first, _, last = trajectory().decode().splitlines()
    return "\n".join([header, first, f"uid,100000,-1,{values},9.9", last]).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (row_with("nan,0,0,0,0,0,1"), r"pose holds nan \(lost tracking\)"),
        (row_with("0,0,0,nan,0,0,1"), "is no rotation"),
        (row_with("0,0,0,0,0,0,0"), "is no rotation"),
        (trajectory(1), "has 1 poses, so none for frame 0000001"),
        (trajectory()[:-30], "line 4 has .* values, not 11: truncated"),
        (row_with("a,0,0,0,0,0,1"), "not a number"),
        (trajectory().replace(b"qw_world_device", b"qw"), "has no column 'qw_world_device'"),
        (b"\n\n", "has no column"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_a_bad_trajectory_is_named(tmp_path, text, reason):
    write_files(tmp_path, walk() | {"trajectory.csv": text})
    with pytest.raises(BadInput, match=reason) as caught:
        open_scene(str(tmp_path)).load(IDS[1])
    assert caught.value.uri == f"{tmp_path}/trajectory.csv"


@pytest.mark.parametrize("text", [b"[1, 2]", b'{"a": "chair"}', b'{"1": 7}', b'{"1": "cha', b"[" * 5000])
def test_bad_classes_are_named(tmp_path, text):
    write_files(tmp_path, walk() | {"object_instances_to_classes.json": text})
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=r"not a JSON object of class names by id|not valid JSON") as caught:
        scene.load(IDS[0])
    assert caught.value.uri == f"{tmp_path}/object_instances_to_classes.json"


def test_colours_tell_positions():
    """The helper itself: a ray of length 1 meets the room where its distance says."""
    rays, seen = fisheye_rays()
    pose = sideways(POSES[0])
    colours, distance = render_rays(rays, pose)
    points = pose[:3, 3] + distance[..., None] * (rays @ pose[:3, :3].T)
    np.testing.assert_allclose(colour(points)[seen], colours[seen], atol=1e-6)
