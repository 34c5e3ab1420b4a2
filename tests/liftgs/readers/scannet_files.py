"""The box room in the layouts of ScanNet: written from the published description, by code that shares nothing with the
readers."""

import json
import struct
import zlib

import numpy as np
from box_room import CAMERAS, CRATE, HEIGHT, WIDTH, K, depth_m, jpeg, photo, points_on_surfaces
from box_room import ROOM as ROOM_BOX

from liftgs.scene import Camera

ID = "scene0011_00"
DEPTH_K = np.array([[70.0, 0, 66.0], [0, 72.0, 49.0], [0, 0, 1]])  # wider than the photo, and of another size
DEPTH_SIZE = (128, 96)
#: a quarter of a metre and 30 degrees away: forgetting it, or applying it twice, shows
ALIGNMENT = np.array([[0.866025404, 0.5, 0, 0.25], [-0.5, 0.866025404, 0, -1.5], [0, 0, 1, 0.1], [0, 0, 0, 1]])


def turned(degrees: float, xyz) -> np.ndarray:
    """A small turn about y, and a move."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    matrix[:3, 3] = xyz
    return matrix


def matrix4(camera_K: np.ndarray) -> np.ndarray:
    """As .sens keeps intrinsics: the first pixel's centre at 0."""
    matrix = np.eye(4)
    matrix[:3, :3] = camera_K
    matrix[:2, 2] -= 0.5
    return matrix


def sens_header(frames: int, **changes) -> bytes:
    values = {
        "version": 4,
        "name": b"StructureSensor",
        "photo_K": matrix4(K),
        "photo_extrinsic": np.eye(4),
        "depth_K": matrix4(DEPTH_K),
        "depth_extrinsic": np.eye(4),
        "photo_codec": 2,
        "depth_codec": 1,
        "sizes": (WIDTH, HEIGHT, *DEPTH_SIZE),
        "depth_shift": 1000.0,
    } | changes
    head = struct.pack("<IQ", values["version"], len(values["name"])) + values["name"]
    for matrix in ("photo_K", "photo_extrinsic", "depth_K", "depth_extrinsic"):
        head += values[matrix].astype("<f4").tobytes()
    head += struct.pack("<ii", values["photo_codec"], values["depth_codec"]) + struct.pack("<4I", *values["sizes"])
    return head + struct.pack("<f", values["depth_shift"]) + struct.pack("<Q", frames)


def sens_frame(pose: np.ndarray, photo_bytes: bytes, depth_bytes: bytes) -> bytes:
    sizes = struct.pack("<QQ", len(photo_bytes), len(depth_bytes))
    return pose.astype("<f4").tobytes() + struct.pack("<QQ", 123, 456) + sizes + photo_bytes + depth_bytes


def imu(count: int = 3) -> bytes:
    return struct.pack("<Q", count) + count * (struct.pack("<15d", *range(15)) + struct.pack("<Q", 7))


def sens(
    alignment=ALIGNMENT,
    photo_extrinsic=None,
    depth_extrinsic=None,
    encode_photo=jpeg,
    encode_depth=lambda raw: zlib.compress(raw.tobytes()),
    units_per_m=1000.0,
    frames=None,
    **header,
) -> bytes:
    """The three cameras' frames. `frames` replaces the bytes of some of them, by number."""
    photo_extrinsic = np.eye(4) if photo_extrinsic is None else photo_extrinsic
    depth_extrinsic = np.eye(4) if depth_extrinsic is None else depth_extrinsic
    body = b""
    for number, camera in enumerate(CAMERAS):
        depth_pose = camera.cam_to_world @ np.linalg.inv(photo_extrinsic) @ depth_extrinsic
        z = depth_m(Camera(DEPTH_K, depth_pose, *DEPTH_SIZE))
        raw = np.rint(z * units_per_m).astype("<u2")
        stored = sens_frame(np.linalg.inv(alignment) @ depth_pose, encode_photo(photo(camera)), encode_depth(raw))
        body += (frames or {}).get(number, stored)
    extrinsics = {"photo_extrinsic": photo_extrinsic, "depth_extrinsic": depth_extrinsic}
    return sens_header(len(CAMERAS), depth_shift=units_per_m, **extrinsics, **header) + body + imu()


def mesh_ply(xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    """Vertices with an alpha channel, then faces, as the release's meshes have them."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(xyz)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.zeros(len(xyz), [("p", "<f4", 3), ("c", "u1", 4)])
    rows["p"], rows["c"] = xyz, np.c_[rgb, np.full(len(rgb), 255)]
    return header.encode() + rows.tobytes() + struct.pack("<B3i", 3, 0, 1, 2)


def room_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices in the room's frame, colours, and a segment for each: 3 = floor, 15 and 20 = halves of the crate, 1 =
    walls."""
    xyz, rgb = points_on_surfaces(4000)
    on_crate = ((xyz > CRATE[0] - 1e-6) & (xyz < CRATE[1] + 1e-6)).all(1)
    crate_half = np.where(xyz[:, 0] < CRATE[:, 0].mean(), 15, 20)
    floor = (xyz[:, 2] < ROOM_BOX[0, 2] + 1e-6) & ~on_crate
    return xyz, rgb, np.where(on_crate, crate_half, np.where(floor, 3, 1))


def groups(*objects: tuple[int, str, list[int]]) -> bytes:
    entries = [{"id": i, "objectId": i, "label": label, "segments": segments} for i, label, segments in objects]
    return json.dumps({"sceneId": "x", "appId": "y", "segGroups": entries, "segmentsFile": "z"}).encode()


OBJECTS = groups((0, "floor", [3]), (4, "cardboard box", [15, 20]))


def annotation(alignment=ALIGNMENT, objects: bytes = OBJECTS) -> dict[str, bytes]:
    xyz, rgb, segments = room_mesh()
    raw = (xyz - alignment[:3, 3]) @ alignment[:3, :3]
    return {
        f"{ID}_vh_clean_2.ply": mesh_ply(raw, rgb),
        f"{ID}_vh_clean_2.0.010000.segs.json": json.dumps({"segIndices": segments.tolist()}).encode(),
        f"{ID}.aggregation.json": objects,
    }


def meta(alignment=ALIGNMENT) -> bytes:
    numbers = " ".join(f"{value:.9f}" for value in alignment.ravel())
    off = "colorToDepthExtrinsics = 0.999263 -0.010031 0.037048 -0.3 0.009933 0.999947 0.002817 -0.4 "
    return (
        f"axisAlignment = {numbers} \ncolorHeight = {HEIGHT}\n{off}"
        "-0.037074 -0.002447 0.999310 -0.020574 -0.0 0.0 -0.0 1.0\nsceneType = Office\n"
    ).encode()


def scan(**how) -> dict[str, bytes]:
    """Frames and text file of a scan, without annotation."""
    return {f"{ID}.sens": sens(**how), f"{ID}.txt": meta()}
