"""ScanNet++: a phone's video with depth in two encodings, fisheye photos in another world, objects that overlap."""

import io
import json
import struct
import zlib
from fractions import Fraction

import lz4.block
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
    depth_m,
    depth_png,
    jpeg,
    photo,
    png,
    render_rays,
    write_files,
)
from scannet_files import groups, mesh_ply, room_mesh
from scipy.optimize import brentq

from liftgs.chunks import plan_chunks
from liftgs.readers import ReaderOptions, list_scenes, open_scene
from liftgs.readers.files import Folder
from liftgs.readers.iphone_depth import DepthFile
from liftgs.readers.video_frames import VideoFrames
from liftgs.scene import BadInput, Camera

IDS = ["frame_000000", "frame_000001", "frame_000002"]
DEPTHS = [depth_m(camera.resized(256, 192)) for camera in CAMERAS]
DSLR = ReaderOptions(scannetpp_camera="dslr")


def scans() -> dict[str, bytes]:
    """The smaller object lies within the larger one, and has a segment with it in common."""
    xyz, rgb, segments = room_mesh()
    return {
        "scans/mesh_aligned_0.05.ply": mesh_ply(xyz, rgb),
        "scans/segments.json": json.dumps({"segIndices": segments.tolist()}).encode(),
        "scans/segments_anno.json": groups((3, "room", [1, 3, 15, 20]), (8, "box", [15])),
    }


def whole(depths) -> bytes:
    """One raw deflate stream of float32 metres."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(np.stack(depths).astype("<f4").tobytes()) + stream.flush()


def deflated(depth) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(depth.astype("<f4").tobytes()) + stream.flush()


def blocks(depths) -> bytes:
    """A length and an LZ4 block of 16-bit millimetres each; every third is a deflated float map instead."""
    data = b""
    for i, depth in enumerate(depths):
        raw = np.rint(depth * 1000).astype("<u2").tobytes()
        block = deflated(depth) if i % 3 == 2 else lz4.block.compress(raw, store_size=False)
        data += struct.pack("<I", len(block)) + block
    return data


def poses(**changes) -> dict:
    """Intrinsics are for 1920x1440; `pose` is the phone's own and must not be used."""
    intrinsic = np.diag([1920 / WIDTH, 1440 / HEIGHT, 1]) @ K
    return {
        name: {
            "timestamp": 0.1,
            "pose": np.eye(4).tolist(),
            "aligned_pose": pose.tolist(),
            "intrinsic": intrinsic.tolist(),
            "imu": {"gravity": [0, 0, -1]},
        }
        | changes
        for name, pose in zip(IDS, POSES, strict=True)
    }


def video(pictures, gop: int = 12, rate: int = 60, container: str = "matroska") -> bytes:
    """H.264 with B-frames; only the change of colour space loses something."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'liftgs[sfm]'")
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track = out.add_stream(
            "libx264", rate=rate, options={"crf": "0", "g": str(gop), "bf": "2", "sc_threshold": "0"}
        )
        track.height, track.width = pictures[0].shape[:2]
        track.pix_fmt = "yuv444p"
        track.time_base = Fraction(1, rate)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = number
            out.mux(track.encode(frame))
        out.mux(track.encode())
    return stream.getvalue()


def iphone(depth: bytes | None = None) -> dict[str, bytes]:
    """Photos extracted, depth not."""
    files = {f"iphone/rgb/{name}.jpg": jpeg(photo(camera)) for name, camera in zip(IDS, CAMERAS, strict=True)}
    return files | {
        "iphone/depth.bin": blocks(DEPTHS) if depth is None else depth,
        "iphone/pose_intrinsic_imu.json": json.dumps(poses()).encode(),
    }


def fused(tmp_path, files):
    """The scan without its mesh: the cloud comes from depth."""
    write_files(tmp_path, files | {"dslr/readme.txt": b"x"})
    return open_scene(str(tmp_path))


@pytest.mark.parametrize("encode", [whole, blocks])
def test_the_phones_frames_read_back_with_either_depth(tmp_path, encode):
    scene = fused(tmp_path, iphone(encode(DEPTHS)))
    assert scene.gravity == "z-up"
    frames = assert_cameras(scene, IDS)
    for frame, depth in zip(frames, DEPTHS, strict=True):
        assert frame.depth.shape == (192, 256)
        np.testing.assert_allclose(frame.depth, depth, atol=6e-4)
        assert frame.jpeg is not None
    assert frames[2].uri == scene.frame_uri(IDS[2]) == f"{tmp_path}/iphone/rgb/frame_000002.jpg"
    assert scene.cloud() is None
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def test_extracted_depth_is_preferred(tmp_path):
    files = {f"iphone/depth/{name}.png": depth_png(depth) for name, depth in zip(IDS, DEPTHS, strict=True)}
    scene = fused(tmp_path, iphone(b"not read") | files)
    assert_cameras(scene, IDS)
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def test_folders_that_extraction_left_empty_hide_nothing(tmp_path):
    files = {path: data for path, data in iphone().items() if "/rgb/" not in path}
    files["iphone/rgb.mkv"] = video([photo(camera) for camera in CAMERAS])
    scene = fused(tmp_path, files | {"iphone/rgb/log.txt": b"x", "iphone/depth/log.txt": b"x"})
    for frame, depth in zip(assert_cameras(scene, IDS), DEPTHS, strict=True):
        np.testing.assert_allclose(frame.depth, depth, atol=6e-4)


@pytest.mark.parametrize(("name", "container"), [("rgb.mkv", "matroska"), ("rgb.mp4", "mp4")])
def test_the_phones_video_is_decoded_where_photos_were_not_extracted(tmp_path, name, container):
    files = {path: data for path, data in iphone().items() if "/rgb/" not in path}
    files[f"iphone/{name}"] = video([photo(camera) for camera in CAMERAS], container=container)
    scene = fused(tmp_path, files)
    frames = assert_cameras(scene, IDS)
    assert frames[1].uri == f"{tmp_path}/iphone/{name}#frame_000001"
    assert frames[1].jpeg is None
    for frame, camera in zip(frames, CAMERAS, strict=True):
        assert np.abs(frame.rgb.astype(int) - photo(camera)).max() <= 4
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def test_intrinsics_are_scaled_to_the_photo(tmp_path):
    files = iphone() | {f"iphone/rgb/{IDS[0]}.jpg": jpeg(photo(CAMERAS[0].resized(240, 180)))}
    frame = fused(tmp_path, files).load(IDS[0])
    np.testing.assert_allclose(frame.camera.K, np.diag([1.5, 1.5, 1]) @ K)


def test_only_photos_that_were_extracted_are_frames(tmp_path):
    """The toolkit can extract those of the COLMAP model only."""
    files = iphone()
    del files[f"iphone/rgb/{IDS[1]}.jpg"]
    scene = fused(tmp_path, files)
    assert list(scene.frame_ids()) == [IDS[0], IDS[2]]
    with pytest.raises(BadInput, match="there is no frame"):
        scene.load(IDS[1])


def test_a_vertex_belongs_to_the_smaller_object(tmp_path):
    write_files(tmp_path, iphone() | scans())
    scene = open_scene(str(tmp_path))
    segments = room_mesh()[2]
    np.testing.assert_array_equal(scene.cloud().instances, np.where(segments == 15, 9, 4))
    room, box = scene.labels().instances
    assert (room.id, room.kind, box.id, box.kind) == (4, "room", 9, "box")
    assert np.all(np.array(room.box_min) <= box.box_min)
    assert_cloud_projects_into_frames(scene, colour_tolerance=4)


def test_what_annotators_marked_for_removal_is_no_object(tmp_path):
    marks = [(1, " REMOVE", [15]), (2, "split", [15]), (3, "SPLIT", [20])]
    write_files(tmp_path, iphone() | scans() | {"scans/segments_anno.json": groups((8, "box", [15, 20]), *marks)})
    scene = open_scene(str(tmp_path))
    assert [(instance.id, instance.kind) for instance in scene.labels().instances] == [(9, "box")]
    assert set(np.unique(scene.cloud().instances)) == {0, 9}


def test_without_annotation_there_are_no_labels(tmp_path):
    files = scans()
    del files["scans/segments_anno.json"]
    write_files(tmp_path, iphone() | files)
    scene = open_scene(str(tmp_path))
    assert scene.labels() is None
    assert scene.cloud().instances is None


# ---- DSLR

FISHEYE_K = np.array([[90.0, 0, 83], [0, 88, 58], [0, 0, 1]])
FISHEYE = (-0.02, 0.011, -0.005, 0.0008)
PHOTOS = ["DSC00001.JPG", "DSC00002.JPG", "DSC00010.JPG"]


def fisheye_photo(pose: np.ndarray) -> np.ndarray:
    """Through the published model, inverted by a root finder on a grid of radii."""
    k1, k2, k3, k4 = FISHEYE

    def seen_at(t: float) -> float:
        return t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8)

    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    x, y = (u - FISHEYE_K[0, 2]) / FISHEYE_K[0, 0], (v - FISHEYE_K[1, 2]) / FISHEYE_K[1, 1]
    radius = np.hypot(x, y)
    grid = np.linspace(0, radius.max() + 1e-9, 400)
    angles = [brentq(lambda t, goal=goal: seen_at(t) - goal, 0, 1.55) for goal in grid]
    tangent = np.tan(np.interp(radius, grid, angles))
    rays = np.stack([x / radius * tangent, y / radius * tangent, np.ones_like(x)], -1)
    return np.rint(render_rays(rays, pose)[0]).astype(np.uint8)


def nerfstudio(pose: np.ndarray) -> list:
    """As nerfstudio writes COLMAP's poses: camera axes, then rows, then the sign of z."""
    matrix = pose.copy()
    matrix[:3, 1:3] *= -1
    matrix = matrix[[1, 0, 2, 3]]
    matrix[2] *= -1
    return matrix.tolist()


def transforms(lens: dict) -> bytes:
    frames = [
        {"file_path": name, "mask_path": name, "is_bad": False, "transform_matrix": nerfstudio(pose)}
        for name, pose in zip(PHOTOS, POSES, strict=True)
    ]
    bad = {"file_path": "DSC00003.JPG", "is_bad": True, "transform_matrix": nerfstudio(POSES[0])}
    test = {"file_path": "DSC00004.JPG", "is_bad": False, "transform_matrix": nerfstudio(POSES[0])}
    return json.dumps({"w": WIDTH, "h": HEIGHT, **lens, "frames": [bad, *frames, test], "test_frames": [test]}).encode()


def of(camera_K: np.ndarray) -> dict:
    return {"fl_x": camera_K[0, 0], "fl_y": camera_K[1, 1], "cx": camera_K[0, 2], "cy": camera_K[1, 2]}


def dslr() -> dict[str, bytes]:
    lens = of(FISHEYE_K) | {
        "camera_model": "OPENCV_FISHEYE",
        **dict(zip(("k1", "k2", "k3", "k4"), FISHEYE, strict=True)),
    }
    files = {f"dslr/resized_images/{name}": png(fisheye_photo(pose)) for name, pose in zip(PHOTOS, POSES, strict=True)}
    return files | {"dslr/nerfstudio/transforms.json": transforms(lens)}


def test_fisheye_photos_are_undistorted_and_meet_the_mesh(tmp_path):
    write_files(tmp_path, dslr() | scans())
    scene = open_scene(str(tmp_path))
    frames = assert_cameras(scene, PHOTOS, camera_K=FISHEYE_K)
    for frame in frames:
        off = np.abs(frame.rgb.astype(float) - photo(frame.camera)).max(-1)
        assert np.mean(off <= 4) > 0.97
        assert frame.depth is None
    straight = np.abs(fisheye_photo(POSES[0]).astype(float) - photo(frames[0].camera)).max(-1)
    assert np.mean(straight <= 4) < 0.6  # the test would notice a reader that ignored the lens
    assert_cloud_projects_into_frames(scene, colour_tolerance=4)


def test_photos_that_the_toolkit_undistorted_are_taken_as_they_are(tmp_path):
    files = {f"dslr/undistorted_images/{n}": jpeg(photo(c)) for n, c in zip(PHOTOS, CAMERAS, strict=True)}
    files["dslr/nerfstudio/transforms_undistorted.json"] = transforms(of(K) | {"camera_model": "PINHOLE", "k4": 0.0})
    write_files(tmp_path, dslr() | files | scans())
    scene = open_scene(str(tmp_path))
    frames = assert_cameras(scene, PHOTOS)
    assert frames[0].jpeg is not None
    assert frames[0].uri == f"{tmp_path}/dslr/undistorted_images/DSC00001.JPG"


def test_one_option_chooses_the_camera(tmp_path):
    write_files(tmp_path / "both", iphone() | dslr() | scans())
    write_files(tmp_path / "phone", iphone() | scans())
    write_files(tmp_path / "photos", dslr() | scans())
    write_files(tmp_path / "neither" / "scans", scans())
    assert list(open_scene(f"{tmp_path}/both").frame_ids()) == IDS
    assert list(open_scene(f"{tmp_path}/both", DSLR).frame_ids()) == PHOTOS
    assert list(open_scene(f"{tmp_path}/phone", DSLR).frame_ids()) == IDS
    assert list(open_scene(f"{tmp_path}/photos").frame_ids()) == PHOTOS
    assert list_scenes(str(tmp_path)) == [f"{tmp_path}/{name}" for name in ("both", "phone", "photos")]
    assert plan_chunks(open_scene(f"{tmp_path}/both"))[0].frame_ids == tuple(IDS)
    with pytest.raises(BadInput, match="neither iphone/ nor dslr/"):
        open_scene(f"{tmp_path}/neither", ReaderOptions(format="scannetpp")).frame_ids()
    with pytest.raises(ValueError, match="scannetpp_camera must be"):
        ReaderOptions(scannetpp_camera="drone")


def test_photos_without_depth_need_the_mesh(tmp_path):
    write_files(tmp_path, dslr() | {"scans/readme.txt": b"x"})
    with pytest.raises(BadInput, match="the file is missing") as caught:
        open_scene(str(tmp_path)).cloud()
    assert caught.value.uri == f"{tmp_path}/scans/mesh_aligned_0.05.ply"


# ---- what can be wrong

LIST = "iphone/pose_intrinsic_imu.json"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aligned_pose": None}, "frame_000000 has no aligned_pose of 4x4 numbers"),
        ({"aligned_pose": [[1, 2], [3]]}, "frame_000000 has no aligned_pose of 4x4 numbers"),
        ({"aligned_pose": np.full((4, 4), np.nan).tolist()}, r"pose holds nan \(lost tracking\)"),
        ({"aligned_pose": np.diag([2.0, 2, 2, 1]).tolist()}, "not rigid"),
        ({"intrinsic": None}, "frame_000000 has no intrinsic of 3x3 numbers"),
        ({"intrinsic": K.tolist()}, "for another size"),  # for 160x120 pixels, not for 1920x1440
    ],
)
def test_a_bad_entry_costs_its_frame(tmp_path, changes, reason):
    entries = poses()
    entries[IDS[0]] |= changes
    scene = fused(tmp_path, iphone() | {LIST: json.dumps(entries).encode()})
    with pytest.raises(BadInput, match=reason) as caught:
        scene.load(IDS[0])
    assert caught.value.uri.startswith(f"{tmp_path}/{LIST}")
    assert scene.load(IDS[1]).id == IDS[1]


@pytest.mark.parametrize(
    ("path", "data", "place", "reason"),
    [
        (LIST, b"{", LIST, "not valid JSON"),
        (LIST, b'{"frame_000000": 3}', LIST, "not an object with one entry per frame"),
        (LIST, b'{"frame_000001": {}}', LIST, "has no entry frame_000000"),
        (LIST, None, LIST, "the file is missing"),
        ("iphone/depth.bin", None, "iphone/depth.bin", "the file is missing"),
        ("iphone/depth.bin", b"", "iphone/depth.bin", "not a depth.bin in either encoding"),
        ("iphone/depth.bin", b"<html>404</html>" * 99, "iphone/depth.bin", "not a depth.bin in either encoding"),
        ("iphone/depth.bin", blocks([DEPTHS[0] * 0]), f"iphone/rgb/{IDS[0]}.jpg", "depth has no valid pixel"),
        (f"iphone/rgb/{IDS[0]}.jpg", jpeg(photo(CAMERAS[0]))[:900], f"iphone/rgb/{IDS[0]}.jpg", "truncated or corrupt"),
        (f"iphone/rgb/{IDS[0]}.jpg", jpeg(photo(CAMERAS[0])[:90]), f"iphone/rgb/{IDS[0]}.jpg", "are for 1920x1440"),
    ],
)
def test_a_bad_file_is_named(tmp_path, path, data, place, reason):
    files = iphone()
    files.pop(path)
    scene = fused(tmp_path, files | ({} if data is None else {path: data}))
    with pytest.raises(BadInput, match=reason) as caught:
        scene.load(IDS[0])
    assert caught.value.uri == f"{tmp_path}/{place}"


def depth_file(tmp_path, data: bytes) -> DepthFile:
    write_files(tmp_path, {"depth.bin": data})
    return DepthFile(Folder(str(tmp_path)), "depth.bin")


MANY = [DEPTHS[i % 3] + 0.01 * i for i in range(7)]


@pytest.mark.parametrize("encode", [whole, blocks])
def test_depth_maps_are_found_in_any_order(tmp_path, encode):
    file = depth_file(tmp_path, encode(MANY))
    for number in (3, 4, 6, 0, 5, 5, 1):
        np.testing.assert_allclose(file.read(number), MANY[number], atol=6e-4)
    with pytest.raises(BadInput, match="depth map 9"):
        file.read(9)
    np.testing.assert_allclose(file.read(2), MANY[2], atol=6e-4)  # a fault leaves nothing behind


@pytest.mark.parametrize("encode", [whole, blocks])
def test_a_depth_file_cut_anywhere_never_gives_a_wrong_map(tmp_path, encode):
    data = encode(MANY)
    good = 0
    for cut in np.random.default_rng(3).integers(0, len(data), 20).tolist():
        file = depth_file(tmp_path, data[:cut])
        for number in range(7):
            try:
                depth = file.read(number)
            except BadInput:
                continue
            np.testing.assert_allclose(depth, MANY[number], atol=6e-4)
            good += 1
    assert good > 20


def test_what_no_sensor_measures_is_no_depth(tmp_path):
    odd = DEPTHS[0].copy()
    odd[0, :4] = np.nan, np.inf, -1, -np.inf
    for depth in (depth_file(tmp_path, whole([odd])).read(0), depth_file(tmp_path, blocks([DEPTHS[0]])).read(0)):
        assert np.isfinite(depth).all()
    assert (depth_file(tmp_path, whole([odd])).read(0)[0, :4] == 0).all()
    saturated = lz4.block.compress(np.full((192, 256), 65535, "<u2").tobytes(), store_size=False)
    assert not depth_file(tmp_path, struct.pack("<I", len(saturated)) + saturated).read(0).any()


def test_a_forged_length_is_refused_before_it_is_read(tmp_path):
    first = blocks(MANY[:1])
    file = depth_file(tmp_path, first + struct.pack("<I", 2**31) + first)
    assert file.read(0).any()
    with pytest.raises(BadInput, match="depth map 1: corrupt: 2147483648 bytes"):
        file.read(1)


# ---- video


def numbered(count: int) -> list[np.ndarray]:
    """Pictures that differ from all others by more than a codec's noise."""
    ramp = np.tile(np.arange(96, dtype=np.uint8), (64, 1))
    return [np.stack([ramp + 2 * n, 255 - ramp, np.full_like(ramp, 4 * n)], -1) for n in range(count)]


@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize("order", [range(40), range(0, 40, 7), (39, 0, 12, 11, 13, 13, 24, 2, 38, 37)])
def test_any_frame_of_a_video_is_the_one_that_was_asked_for(tmp_path, container, order):
    pictures = numbered(40)
    write_files(tmp_path, {"rgb": video(pictures, container=container)})
    frames = VideoFrames(Folder(str(tmp_path)), "rgb")
    assert len(frames) == 40
    for number in order:
        assert np.abs(frames.read(number).astype(int) - pictures[number]).max() <= 4


def test_asking_in_order_decodes_nothing_twice(tmp_path, monkeypatch):
    write_files(tmp_path, {"rgb": video(numbered(40), gop=40)})
    frames = VideoFrames(Folder(str(tmp_path)), "rgb")
    seeks = []
    container = frames._container

    class Watched:
        def __getattr__(self, name):
            if name == "seek":
                seeks.append(name)
            return getattr(container, name)

    monkeypatch.setitem(frames.__dict__, "_container", Watched())
    for number in range(0, 40, 5):
        frames.read(number)
    assert len(seeks) == 1


def test_a_video_cut_short_keeps_the_frames_before_the_cut(tmp_path):
    pictures = numbered(40)
    data = video(pictures)
    lost = 0
    for cut in (len(data) // 3, len(data) // 2, len(data) - 40):
        write_files(tmp_path, {"rgb": data[:cut]})
        frames = VideoFrames(Folder(str(tmp_path)), "rgb")
        for number in range(40):
            try:
                picture = frames.read(number)
            except BadInput:
                lost += 1
                continue
            assert np.abs(picture.astype(int) - pictures[number]).max() <= 4
    assert 20 < lost < 100


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a video"),
        (b"<html>" * 500, "not a video"),
        (b"\x1aE\xdf\xa3" + bytes(500), "not a video|no video"),
        # playlists: FFmpeg would wait at the address that the first names, and open the file that the second names
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45004 RTP/AVP 96\n", "not a video"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "not a video"),
    ],
)
def test_what_is_no_video_is_bad_input(tmp_path, data, reason):
    pytest.importorskip("av", reason="needs PyAV: pip install 'liftgs[sfm]'")
    write_files(tmp_path, {"rgb": data})
    with pytest.raises(BadInput, match=reason):
        VideoFrames(Folder(str(tmp_path)), "rgb").read(0)


def test_pictures_are_of_the_size_that_depth_is_rendered_for():
    """The helper itself."""
    assert DEPTHS[0].shape == (192, 256)
    assert Camera(FISHEYE_K, POSES[0], WIDTH, HEIGHT).width == 160
