"""The .sens stream: codecs, seeking, and every way in which a file can be broken."""

import struct
import zlib

import fsspec
import numpy as np
import pytest
from box_room import CAMERAS, HEIGHT, K, depth_m, jpeg, photo, png, write_files
from scannet_files import DEPTH_K, DEPTH_SIZE, matrix4, sens, sens_frame, sens_header

from liftgs.readers.files import Folder
from liftgs.readers.sens import SensFile
from liftgs.scene import BadInput, Camera

DEPTH = Camera(DEPTH_K, CAMERAS[0].cam_to_world, *DEPTH_SIZE)
RAW_DEPTH = np.rint(depth_m(DEPTH) * 1000).astype("<u2")
GOOD_PHOTO, GOOD_DEPTH = jpeg(photo(CAMERAS[1])), zlib.compress(RAW_DEPTH.tobytes())
PLACE = "a.sens#frame-000001"


def opened(tmp_path, data: bytes) -> SensFile:
    write_files(tmp_path, {"a.sens": data})
    return SensFile(Folder(str(tmp_path)), "a.sens")


@pytest.mark.parametrize(
    ("codecs", "encode_photo", "encode_depth"),
    [
        ((0, 0), lambda rgb: rgb.tobytes(), lambda raw: raw.tobytes()),
        ((1, 0), png, lambda raw: raw.tobytes()),
        ((1, 1), png, lambda raw: zlib.compress(raw.tobytes())),
        ((2, 1), jpeg, lambda raw: zlib.compress(raw.tobytes())),
    ],
)
def test_every_codec_reads_back(tmp_path, codecs, encode_photo, encode_depth):
    data = sens(
        np.eye(4),
        encode_photo=encode_photo,
        encode_depth=encode_depth,
        photo_codec=codecs[0],
        depth_codec=codecs[1],
        units_per_m=4000.0,
    )
    stream = opened(tmp_path, data)
    assert stream.header.frames == 3
    np.testing.assert_allclose(stream.header.photo_K, K, atol=1e-5)
    np.testing.assert_allclose(stream.header.depth_K, DEPTH_K, atol=1e-5)
    for number in (2, 0, 1):  # in any order
        frame = stream.read(number)
        np.testing.assert_allclose(frame.depth_to_world, CAMERAS[number].cam_to_world, atol=1e-6)
        truth = depth_m(Camera(DEPTH_K, CAMERAS[number].cam_to_world, *DEPTH_SIZE))
        np.testing.assert_allclose(frame.depth, truth, atol=1.3e-4)  # 4000 units per metre
        if codecs[0] == 2:
            assert frame.jpeg == jpeg(photo(CAMERAS[number]))
        else:
            assert frame.jpeg is None
            np.testing.assert_array_equal(frame.rgb, photo(CAMERAS[number]))


def test_zero_and_65535_are_no_depth(tmp_path):
    raw = RAW_DEPTH.copy()
    raw[:40], raw[40:50] = 65535, 0
    data = sens(frames={1: sens_frame(np.eye(4), GOOD_PHOTO, zlib.compress(raw.tobytes()))})
    depth = opened(tmp_path, data).read(1).depth
    assert (depth[:50] == 0).all()
    assert (depth[50:] > 0).all()


def test_a_file_cut_anywhere_keeps_the_frames_before_the_cut(tmp_path):
    """Whatever is left whole reads as before; what is not says so, and names the frame."""
    whole = sens()
    reference = [opened(tmp_path, whole).read(number) for number in range(3)]
    start = len(sens_header(3))
    ends = [start + sum(map(len, frames)) for frames in (stored_frames()[:1], stored_frames()[:2], stored_frames())]
    assert len(whole) - ends[2] == 8 + 3 * 128  # the rest is inertial measurements
    rng = np.random.default_rng(0)
    cuts = {
        0,
        1,
        11,
        12,
        start - 1,
        start,
        start + 95,
        start + 96,
        ends[0] - 1,
        ends[0],
        *rng.integers(0, len(whole), 20),
    }
    for cut in sorted(map(int, cuts)):
        stream = opened(tmp_path, whole[:cut])
        for number in range(3):
            if cut >= ends[number]:
                assert stream.read(number).rgb.tobytes() == reference[number].rgb.tobytes()
                assert stream.read(number).depth.tobytes() == reference[number].depth.tobytes()
            else:
                with pytest.raises(BadInput, match="truncated") as caught:
                    stream.read(number)
                assert caught.value.uri == f"{tmp_path}/a.sens"
                first_lost = next(i for i in range(3) if cut < ends[i])
                assert cut < start + 288 or f"frame {first_lost}: " in caught.value.reason


def stored_frames() -> list[bytes]:
    """The bytes of each frame of `sens()`."""
    data, frames = sens(), []
    at = len(sens_header(3))
    for _ in range(3):
        photo_bytes, depth_bytes = struct.unpack_from("<QQ", data, at + 80)
        frames.append(data[at : at + 96 + photo_bytes + depth_bytes])
        at += len(frames[-1])
    return frames


HEADERS = {
    "wrong version": ({"version": 3}, r"not a \.sens file of version 4 \(its first number is 3\)"),
    "another file": ({"version": 0x04034B50}, "not a .sens file of version 4"),
    "unknown colour codec": ({"photo_codec": -1}, "unknown colour compression -1"),
    "unknown depth codec": ({"depth_codec": 7}, "unknown depth compression 7"),
    "Occipital's codec": ({"depth_codec": 2}, "Occipital's own compression; convert"),
    "no photo": ({"sizes": (0, HEIGHT, *DEPTH_SIZE)}, "photos of 0x120 pixels"),
    "huge depth": ({"sizes": (160, HEIGHT, 2**31, 2**31)}, "depth maps of 2147483648x2147483648 pixels"),
    "no depth unit": ({"units_per_m": 1.0, "depth_shift": 0.0}, "0.0 depth units per metre"),
    "NaN depth unit": ({"units_per_m": 1.0, "depth_shift": np.nan}, "nan depth units per metre"),
    "absurd photo K": ({"photo_K": np.eye(4)}, "absurd intrinsics: focal lengths"),
    "NaN depth K": ({"depth_K": np.full((4, 4), np.nan)}, "intrinsics are not a finite"),
    "photo K of twice the size": (
        {"photo_K": np.diag([2.0, 2, 1, 1]) @ matrix4(K)},
        "are for another size",
    ),
    "mirrored rig": ({"depth_extrinsic": np.diag([1.0, 1, -1, 1])}, "extrinsic matrix of the depth camera is no rot"),
    "singular rig": ({"depth_extrinsic": np.zeros((4, 4))}, "extrinsic matrix of the depth camera is no rotation"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_broken_header_is_bad_input(tmp_path, name):
    changes, reason = HEADERS[name]
    changes = {key: value for key, value in changes.items() if key != "units_per_m"}
    stream = opened(tmp_path, sens_header(3, **changes) + b"".join(stored_frames()))
    for _ in range(2):  # and stays so
        with pytest.raises(BadInput, match=reason) as caught:
            stream.read(0)
        assert caught.value.uri == f"{tmp_path}/a.sens"


@pytest.mark.parametrize("frames", [2**63, 10**6])
def test_a_forged_number_of_frames_is_refused_before_they_are_listed(tmp_path, frames):
    with pytest.raises(BadInput, match=f"cannot hold {frames} frames"):
        _ = opened(tmp_path, sens_header(frames) + b"".join(stored_frames())).header


def test_a_forged_name_is_not_read(tmp_path):
    with pytest.raises(BadInput, match="sensor's name would have"):
        _ = opened(tmp_path, struct.pack("<IQ", 4, 2**60) + bytes(1000)).header


def with_lengths(photo_bytes: int, depth_bytes: int) -> bytes:
    frame = bytearray(stored_frames()[1])
    frame[80:96] = struct.pack("<QQ", photo_bytes, depth_bytes)
    return bytes(frame)


def pose_with(value: float) -> np.ndarray:
    pose = np.eye(4)
    pose[1, 3] = value
    return pose


FRAMES = {
    "lost tracking": (sens_frame(np.full((4, 4), -np.inf), GOOD_PHOTO, GOOD_DEPTH), PLACE, r"-inf \(lost tracking\)"),
    "NaN": (sens_frame(pose_with(np.nan), GOOD_PHOTO, GOOD_DEPTH), PLACE, r"pose holds nan \(lost tracking\)"),
    "no photo": (sens_frame(np.eye(4), b"", GOOD_DEPTH), PLACE, r"empty \(0 bytes\)"),
    "half a photo": (sens_frame(np.eye(4), GOOD_PHOTO[:3000], GOOD_DEPTH), PLACE, "truncated or corrupt"),
    "small photo": (
        sens_frame(np.eye(4), jpeg(photo(CAMERAS[1])[:90, :120]), GOOD_DEPTH),
        PLACE,
        "photo is 120x90, but the header says 160x120",
    ),
    "no depth": (sens_frame(np.eye(4), GOOD_PHOTO, b""), PLACE, r"0 bytes, not 128x96x2"),
    "half a depth map": (sens_frame(np.eye(4), GOOD_PHOTO, GOOD_DEPTH[:-900]), PLACE, "bytes, not 128x96x2"),
    "corrupt depth": (sens_frame(np.eye(4), GOOD_PHOTO, b"?" + GOOD_DEPTH[1:]), PLACE, "corrupt depth map"),
    "depth bomb": (sens_frame(np.eye(4), GOOD_PHOTO, zlib.compress(bytes(10**8))), PLACE, "24577 bytes, not 128x96x2"),
    "blind sensor": (sens_frame(np.eye(4), GOOD_PHOTO, zlib.compress(bytes(24576))), PLACE, "no valid pixel"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_broken_frame_costs_itself_only(tmp_path, name):
    frame, place, reason = FRAMES[name]
    stream = opened(tmp_path, sens(frames={1: frame}))
    with pytest.raises(BadInput, match=reason) as caught:
        stream.read(1)
    assert caught.value.uri == f"{tmp_path}/{place}"
    for number in (0, 2):
        assert stream.read(number).rgb.shape == (120, 160, 3)


@pytest.mark.parametrize("lengths", [(2**63, 10), (10, 2**40), (10**7, 10**7)])
def test_absurd_lengths_cost_the_frames_from_there_on(tmp_path, lengths):
    stream = opened(tmp_path, sens(frames={1: with_lengths(*lengths)}))
    assert stream.read(0).rgb.shape == (120, 160, 3)
    with pytest.raises(BadInput, match=r"sens: frame 1: corrupt: \d+ bytes for a"):
        stream.read(1)
    with pytest.raises(BadInput, match="frame 2 cannot be reached; frame 1: corrupt"):
        stream.read(2)


def test_only_small_headers_are_read_on_the_way_to_a_frame(tmp_path, monkeypatch):
    stream = opened(tmp_path, sens())
    read = []
    original = fsspec.implementations.local.LocalFileSystem.cat_file

    def counted(self, path, start=None, end=None, **kwargs):
        read.append(end - start)
        return original(self, path, start, end, **kwargs)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", counted)
    assert stream.header.frames == 3
    assert read == [12, 292]  # all but the sensor's name
    read.clear()
    stream.read(2)
    assert read == [96, 96, 96, len(stored_frames()[2])]
    read.clear()
    stream.read(1)
    assert read == [len(stored_frames()[1])]


def test_a_stream_on_an_object_store_reads_the_same(tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/a.sens", sens())
    remote, local = SensFile(Folder("memory://bucket"), "a.sens"), opened(tmp_path, sens())
    for number in range(3):
        assert remote.read(number).depth.tobytes() == local.read(number).depth.tobytes()
    store.rm("/bucket", recursive=True)


def test_foreign_bytes_raise_nothing_but_bad_input(tmp_path):
    rng = np.random.default_rng(2)
    whole = sens()
    for _ in range(60):
        data = bytearray(whole)
        for position in rng.integers(0, 500, rng.integers(1, 6)):
            data[position] = rng.integers(256)
        try:
            opened(tmp_path, bytes(data)).read(0)
        except BadInput:
            continue
