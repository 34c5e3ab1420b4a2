"""Every fault of a frame is a BadInput that names the file and the fault, and costs that frame only."""

import numpy as np
import pytest
from box_room import CAMERAS, K, depth_m, jpeg, matrix_text, photo, png, write_files
from PIL import Image, ImageFile
from test_folder import seven_scenes

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.readers import open_scene
from liftgs.readers.images import decode_depth, decode_ids, decode_photo
from liftgs.scene import BadInput

PHOTO, DEPTH, POSE = "frame-000001.color.png", "frame-000001.depth.png", "frame-000001.pose.txt"
GOOD = photo(CAMERAS[1])


def png16_rgb() -> bytes:
    """Pillow cannot write 16-bit RGB, so by hand."""
    import struct
    import zlib

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = GOOD.shape[:2]
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in GOOD)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bomb() -> bytes:
    """A PNG header that claims 30,000 x 30,000 pixels."""
    data = bytearray(png(np.zeros((8, 8), np.uint8)))
    data[16:24] = (30000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def pose_with(value) -> bytes:
    pose = CAMERAS[1].cam_to_world.copy()
    pose[1, 3] = value
    return matrix_text(pose)


FAULTS = {
    "truncated PNG": (PHOTO, png(GOOD)[:5000], "truncated or corrupt"),
    "truncated JPEG": (PHOTO, jpeg(GOOD)[:3000], "truncated or corrupt"),
    "header only": (PHOTO, jpeg(GOOD)[:20], "truncated or corrupt"),
    "flipped bit": (PHOTO, png(GOOD)[:4000] + b"\x55" + png(GOOD)[4001:], "truncated or corrupt"),
    "wrong size": (PHOTO, png(GOOD[:90, :120]), "photo is 120x90, but the scene's intrinsics are for 160x120"),
    "missing photo": (PHOTO, None, "the file is missing"),
    "missing depth": (DEPTH, None, "the file is missing"),
    "missing pose": (POSE, None, "the file is missing"),
    "zero bytes": (PHOTO, b"", r"empty \(0 bytes\)"),
    "16-bit colour": (PHOTO, png16_rgb(), "16 bits per channel"),
    "16-bit grey photo": (PHOTO, png(GOOD[..., 0].astype(np.uint16) * 257), "16 bits per channel"),
    "not an image": (PHOTO, b"<html>404 not found</html>", "not a JPEG or PNG"),
    "decompression bomb": (PHOTO, bomb(), "megapixels|million"),
    "empty depth": (DEPTH, png(np.zeros((120, 160), np.uint16)), "depth has no valid pixel"),
    "saturated depth": (DEPTH, png(np.full((120, 160), 65535, np.uint16)), "depth has no valid pixel"),
    "8-bit depth": (DEPTH, png(np.full((120, 160), 200, np.uint8)), "16-bit grey PNG, not a PNG of mode L"),
    "colour depth": (DEPTH, png(GOOD), "16-bit grey PNG, not a PNG of mode RGB"),
    "JPEG depth": (DEPTH, jpeg(GOOD), "16-bit grey PNG, not a JPEG"),
    "truncated depth": (DEPTH, png(np.full((120, 160), 2000, np.uint16))[:60], "truncated or corrupt"),
    "depth of another shape": (DEPTH, png(np.full((160, 160), 2000, np.uint16)), "not the same field of view"),
    "NaN pose": (POSE, pose_with(np.nan), r"pose holds nan \(lost tracking\)"),
    "-inf pose": (POSE, pose_with(-np.inf), r"pose holds -inf \(lost tracking\)"),
    "3x4 pose": (POSE, matrix_text(CAMERAS[1].cam_to_world[:3]), "3x4, not 4x4"),
    "ragged pose": (POSE, b"1 0 0 0\n0 1 0", "not a matrix"),
    "words for a pose": (POSE, b"no pose here", "not a number"),
    "scaled pose": (POSE, matrix_text(np.diag([2.0, 2, 2, 1])), "not rigid"),
    "mirrored pose": (POSE, matrix_text(np.diag([1.0, 1, -1, 1])), "not rigid"),
    "pose that is no text": (POSE, b"\xff\xfe\x00\x01", "not a text file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_costs_its_frame_only(tmp_path, name):
    path, data, reason = FAULTS[name]
    files = seven_scenes()
    files.pop(path)
    write_files(tmp_path, files | ({} if data is None else {path: data}))
    scene = open_scene(str(tmp_path))
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(frame_id, fault)] = loaded.failures
    assert frame_id == "frame-000001"
    assert fault.uri == f"{tmp_path}/{path}"
    with pytest.raises(BadInput, match=reason):
        raise fault
    assert [frame.id for frame in loaded.frames] == ["frame-000000", "frame-000002"]
    assert len(loaded.cloud) > 1000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (matrix_text(np.diag([0.5, 0.5, 1])), "absurd intrinsics: focal lengths"),
        (matrix_text(np.diag([1e7, 1e7, 1])), "absurd intrinsics: focal lengths"),
        (matrix_text(K * np.nan), "absurd intrinsics"),
        (matrix_text(K.T), "absurd intrinsics"),
        (matrix_text(K + np.array([[0, 0, 900], [0, 0, 0], [0, 0, 0]])), "absurd intrinsics: principal point"),
        (matrix_text(K[:2]), "2x3, not 3x3 or 4x4"),
        (b"fx 585", "not a number"),
    ],
)
def test_absurd_intrinsics_name_their_file(tmp_path, text, reason):
    write_files(tmp_path, seven_scenes() | {"camera-intrinsics.txt": text})
    scene = open_scene(str(tmp_path))
    with pytest.raises(BadInput, match=reason) as caught:
        scene.load("frame-000000")
    assert caught.value.uri == f"{tmp_path}/camera-intrinsics.txt"


def test_intrinsics_of_another_resolution_are_noticed(tmp_path):
    doubled = np.diag([2.0, 2.0, 1.0]) @ K
    write_files(tmp_path, seven_scenes() | {"camera-intrinsics.txt": matrix_text(doubled)})
    with pytest.raises(BadInput, match="these intrinsics are for another size"):
        open_scene(str(tmp_path)).load("frame-000000")


@pytest.mark.parametrize("encode", [png, jpeg])
def test_no_truncation_of_a_photo_passes(encode):
    whole = encode(GOOD)
    np.testing.assert_allclose(decode_photo(whole, "x")[0], GOOD, atol=12)
    # A PNG without its end marker (12 bytes and the checksum before) still has all its pixels.
    end = len(whole) - (16 if encode is png else 1)
    lengths = np.random.default_rng(0).integers(3, end, 40).tolist()
    for length in {0, 1, 2, 8, 20, end, *lengths}:
        with pytest.raises(BadInput, match=r"empty|truncated|not a JPEG"):
            decode_photo(whole[:length], "x")


def test_foreign_bytes_raise_nothing_but_bad_input():
    """Random damage either decodes or is a BadInput; no other exception of the decoder gets through."""
    rng = np.random.default_rng(1)
    depth = png(np.rint(depth_m(CAMERAS[0]) * 1000).astype(np.uint16))
    for whole, decode in ((png(GOOD), decode_photo), (jpeg(GOOD), decode_photo), (depth, decode_depth)):
        for _ in range(80):
            data = bytearray(whole)
            for position in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
                data[position] = rng.integers(256)
            try:
                decode(bytes(data), "x", *([1000.0] if decode is decode_depth else []))
            except BadInput:
                continue


def test_grey_palette_and_transparent_photos_become_rgb():
    import io

    for mode in ("L", "P", "RGBA"):
        stream = io.BytesIO()
        Image.fromarray(GOOD).convert(mode).save(stream, "PNG")
        rgb, kept = decode_photo(stream.getvalue(), "x")
        assert rgb.shape == GOOD.shape
        assert rgb.dtype == np.uint8
        assert kept is None
        if mode == "RGBA":
            np.testing.assert_array_equal(rgb, GOOD)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_ids_are_read_as_written(kind):
    ids = np.arange(120 * 160).reshape(120, 160).astype(kind)
    read = decode_ids(png(ids), "x")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, ids)
    for whole, reason in (
        (png(GOOD), "mode RGB"),
        (jpeg(GOOD[..., 0]), "JPEG of mode L"),
        (png(ids)[:90], "truncated"),
    ):
        with pytest.raises(BadInput, match=reason):
            decode_ids(whole, "x")


def test_pillow_is_told_to_refuse_truncated_images():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
