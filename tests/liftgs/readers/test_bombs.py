"""Files of some kilobytes that would become gigabytes are refused by name, in little memory and soon."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import bombs
import numpy as np
import pytest
import scannet_files
import test_scannetpp
from box_room import CAMERAS, jpeg, photo, write_files
from test_folder import seven_scenes

from liftgs import limits
from liftgs.codecs import decode_json, decode_npz, decode_png16, encode_json, encode_npz
from liftgs.readers import open_scene
from liftgs.readers.files import Folder
from liftgs.readers.images import decode_photo
from liftgs.readers.video_frames import VideoFrames
from liftgs.sample import decode_sample
from liftgs.scene import BadInput, Frame
from liftgs.video.decode import shots

PHOTO, DEPTH = "frame-000001.color.png", "frame-000001.depth.png"
#: Pillow warns of more than 89 million pixels, and refuses 179 million.
WARNED_OF, REFUSED = (9000, 9900), (20000, 20000)


def refused(action: Callable[[], object], uri: str, reason: str) -> None:
    fault = bombs.outcome(action)
    assert isinstance(fault, BadInput), repr(fault)
    assert uri in fault.uri
    with pytest.raises(BadInput, match=reason):
        raise fault


def loading(folder: Path, files: dict[str, bytes], number: int = 1) -> Callable[[], Frame]:
    """Of a frame of a scene of these files; the scene is read as the pipeline does."""
    write_files(folder, files)
    assert max(map(len, files.values())) < 4 << 20, "a bomb is small"
    scene = open_scene(str(folder))
    return lambda: scene.load(scene.frame_ids()[number])


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (PHOTO, bombs.png(*WARNED_OF)),
        (PHOTO, bombs.png(*REFUSED)),
        (PHOTO, bombs.jpeg(*WARNED_OF)),
        (PHOTO, bombs.claiming_jpeg(65500, 65500)),
        (DEPTH, bombs.png(*WARNED_OF, bits=16)),
        (DEPTH, bombs.png(*REFUSED, bits=1)),
    ],
    ids=["PNG Pillow warns of", "PNG", "JPEG", "JPEG by its header", "depth", "depth Pillow refuses"],
)
def test_pictures_of_a_scene(tmp_path, path, data):
    refused(loading(tmp_path, seven_scenes() | {path: data}), path, "pixels")


def test_a_jpeg_that_is_drawn_over_and_over():
    """Each scan of a progressive JPEG goes over the whole picture: half a second here, hours if there are more."""
    refused(lambda: decode_photo(bombs.jpeg(2000, 2000, scans=3000), "a.jpg"), "a.jpg", "scans")
    assert decode_photo(bombs.jpeg(200, 200, scans=2), "a.jpg")[0].shape == (200, 200, 3)


def test_depth_in_a_sens_file(tmp_path):
    frame = scannet_files.sens_frame(CAMERAS[1].cam_to_world, jpeg(photo(CAMERAS[1])), bombs.zeros(190 << 20, 15))
    files = scannet_files.scan() | {f"{scannet_files.ID}.sens": scannet_files.sens(frames={1: frame})}
    refused(loading(tmp_path, files), ".sens#frame-000001", "depth map has")


@pytest.mark.parametrize("record", [True, False], ids=["record", "stream"])
def test_depth_of_a_phone(tmp_path, record):
    packed = bombs.zeros(350 << 20) if record else bombs.zeros(2 * bombs.GIB)
    data = struct.pack("<I", len(packed)) + packed if record else packed
    files = test_scannetpp.iphone(depth=data) | {"dslr/readme.txt": b"x"}
    # The stream is endless and empty but valid, so a map of it is read, and no more.
    uri, reason = ("depth.bin", "not a depth.bin") if record else ("frame_000000.jpg", "depth has no valid pixel")
    refused(loading(tmp_path, files, 0), uri, reason)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian"])
def test_a_mesh_that_claims_more_vertices_than_its_file_holds(tmp_path, order):
    header = f"ply\nformat {order} 1.0\nelement vertex 199999999\n"
    header += "".join(f"property double {name}\n" for name in ("x", "y", "z", "red", "green", "blue")) + "end_header\n"
    path = f"{scannet_files.ID}_vh_clean_2.ply"
    write_files(tmp_path, scannet_files.scan() | {path: header.encode() + b"0 0 0 1 1 1\n" * 100})
    refused(open_scene(str(tmp_path)).cloud, path, "truncated")


@pytest.mark.parametrize("read", [lambda uri: list(shots(uri)), lambda uri: VideoFrames(*split(uri)).read(2)])
def test_a_video_whose_pictures_grow(tmp_path, read):
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'liftgs[sfm]'")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
        for number, data in enumerate([bombs.jpeg(64, 48), bombs.jpeg(64, 48), bombs.claiming_jpeg(30000, 30000)]):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, stream.time_base
            packet.is_keyframe = True
            container.mux(packet)
    refused(lambda: read(str(path)), "a.mkv", "damaged|decoded|not a video")


def split(uri: str) -> tuple[Folder, str]:
    folder, _, name = uri.rpartition("/")
    return Folder(folder), name


# ---- samples of a corpus

META = encode_json({"views": ["a"]})
CLOUD = encode_npz({"xyz": np.zeros((4, 3), np.float32), "rgb": np.zeros((4, 3), np.uint8)})


def sample(**members: bytes):
    return decode_sample({"cloud.npz": CLOUD, "meta.json": META, "00.rgb.jpg": jpeg(photo(CAMERAS[0]))} | members, "s")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bombs.npz(3 * bombs.GIB, 3 * bombs.GIB), "are not read"),
        (bombs.npz(1000, 2 * bombs.GIB), "not a readable .npz"),
        (bombs.npz(300 << 20, 10), "not a readable .npz"),
        (bombs.npz(1000, 100, method=zipfile.ZIP_BZIP2), "neither stored nor deflated"),
        (bombs.npz(1000, 100, method=zipfile.ZIP_LZMA), "neither stored nor deflated"),
    ],
    ids=["claims it", "hides it", "claims what is not there", "bzip2", "LZMA"],
)
def test_clouds_of_a_sample(data, reason):
    refused(lambda: sample(**{"cloud.npz": data}).cloud, "s.cloud.npz", reason)


def test_many_members_that_are_one():
    """Archives may overlap: a thousand names for the same bytes."""
    stream = io.BytesIO(bombs.npz(100 << 20, 100 << 20))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.filelist *= 1000
        archive._didModify = True
    refused(lambda: decode_npz(stream.getvalue(), "a.npz"), "a.npz", "1000 members of 104,857,600,000 bytes")


def test_an_array_whose_header_claims_another_size():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        header = io.BytesIO()
        claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
        np.lib.format.write_array_header_1_0(header, claimed)
        archive.writestr("xyz.npy", header.getvalue() + bytes(48))
    refused(lambda: sample(**{"cloud.npz": stream.getvalue()}).cloud, "xyz.npy", "holds 48 bytes")


@pytest.mark.parametrize(
    ("name", "data", "piece"),
    [
        ("00.rgb.jpg", bombs.jpeg(*WARNED_OF), "photo"),
        ("00.rgb.jpg", bombs.claiming_jpeg(65500, 65500), "photo"),
        ("00.depth.png", bombs.png(*WARNED_OF, bits=16), "depth"),
        ("00.segments.png", bombs.png(*WARNED_OF, bits=16), "segments"),
    ],
)
def test_pictures_of_a_sample(name, data, piece):
    refused(lambda: getattr(sample(**{name: data}).views[0], piece), name, "pixels")


def test_the_size_of_a_bomb_is_not_told_either():
    refused(lambda: sample(**{"00.rgb.jpg": bombs.jpeg(*WARNED_OF)}).views[0].size, "00.rgb.jpg", "pixels")


@pytest.mark.parametrize("name", ["meta.json", "00.camera.json"])
def test_json_of_a_sample_that_is_nested_without_end(name):
    deep = b'{"views":' * 100_000
    piece = {
        "meta.json": lambda: sample(**{name: deep}).meta,
        "00.camera.json": lambda: sample(**{name: deep}).views[0].camera,
    }
    refused(piece[name], name, "not readable JSON")


def test_json_of_a_scene_that_is_nested_without_end(tmp_path):
    write_files(tmp_path, {"transforms.json": b'{"frames":' * 100_000})
    refused(lambda: open_scene(str(tmp_path)).frame_ids(), "transforms.json", "JSON")


def test_what_is_within_the_limits_is_read():
    """The largest photo that a scan has, and an archive of many members, pass."""
    assert limits.MAX_PIXELS >= 61_000_000
    assert decode_png16(bombs.png(3000, 2000, bits=16), "a.png").shape == (2000, 3000)
    arrays = {f"a{i}": np.full(1000, i) for i in range(200)}
    assert decode_npz(encode_npz(arrays), "a.npz").keys() == arrays.keys()
    assert decode_json(json.dumps([[[[1]]]]).encode(), "a.json") == [[[[1]]]]


def test_a_member_that_is_damaged_is_told_though_it_is_cut_at_its_claim():
    """The checksum is compared at the end of what is claimed."""
    data = bytearray(encode_npz({"xyz": np.arange(1000)}))
    at = data.index(b"PK\1\2") + 16
    data[at] ^= 1
    with pytest.raises(BadInput, match="CRC"):
        decode_npz(bytes(data), "a.npz")
