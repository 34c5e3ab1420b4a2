"""Keyframes out of a ScanNet `.sens` file, against the usual reader, which takes in the whole file first.

Ours is the path of a labelling job: the scene, every tenth frame, photo and depth decoded and checked, depth moved to
the photo's camera. The peers are straightforward readers, written after the one that ScanNet publishes in Python, with
our decoders (Pillow, zlib). "all decoded" decodes every frame up front; "all read" reads the whole file into a list and
decodes only the keyframes, which is the least a reader without seeking can do. Neither checks anything, and both leave
depth where it was measured; what our checking and moving costs is in our figures.

Seconds include opening the file, since a worker opens a scene for a few chunks. The file is in the page cache, so this
is what the code costs, not the disk. Frames have the real sizes, 1296x968 and 640x480, and are of a rendered room.

Memory is by how much resident memory grows at most, each in a fresh process, at two lengths of the file: the growth of
ours must be the same for both.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from benchmarks._processes import in_child, peak_growth_bytes
from benchmarks.common import Row, cost_row, interleaved_seconds, main, most_row, rate_row
from liftgs.procedural import ProceduralScene
from liftgs.readers import open_scene

FRAMES = 100
LONGER = 4 * FRAMES
STRIDE = 10
VIEWS = 4
REPEATS = 5
PHOTO_SIZE = (1296, 968)
DEPTH_SIZE = (640, 480)
PHOTO_K = (1170.187988, 1170.187988, 647.75, 483.75)
DEPTH_K = (571.623718, 571.623718, 319.5, 239.5)


def measure() -> Iterator[Row]:
    """Rates, then memory."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = (write_scan(Path(folder, f"scene{n:04d}_00"), n) for n in (FRAMES, LONGER))
        for case, most in ((f"every {STRIDE}th of {FRAMES} frames", FRAMES // STRIDE), ("one frame, from opening", 1)):
            calls = [partial(read, short, most) for read in READERS.values()]
            ours, *peers = (most / seconds for seconds in interleaved_seconds(REPEATS, *calls))
            for name, peer in zip(PEERS, peers, strict=True):
                yield rate_row(case, ours, peer, name, "frames/s")
        growth = {(name, scan): in_child(memory, name, scan) / 1e6 for name in READERS for scan in (short, long)}
        for scan, frames in ((short, FRAMES), (long, LONGER)):
            case = f"memory, {frames} frames ({(scan / f'{scan.name}.sens').stat().st_size / 1e6:.0f} MB)"
            for name in PEERS:
                yield cost_row(case, growth["ours", scan], growth[name, scan], name, "MB")
        case = f"memory of {LONGER} frames over that of {FRAMES}"
        yield most_row(case, growth["ours", long] / growth["ours", short], 1.1, "times")


def memory(name: str, scan: Path) -> int:
    """Bytes."""
    return peak_growth_bytes(lambda: READERS[name](scan, FRAMES // STRIDE))


def read_ours(scan: Path, most: int) -> None:
    """The keyframes, one after the other."""
    scene = open_scene(str(scan))
    for frame_id in scene.frame_ids()[::STRIDE][:most]:
        scene.load(frame_id)


# ---- the peers


@dataclass
class Stored:
    """One frame as it is in the file."""

    camera_to_world: np.ndarray
    photo: bytes
    depth: bytes


def read_all(scan: Path, most: int) -> None:
    """All frames into memory, then the keyframes decoded."""
    with open(scan / f"{scan.name}.sens", "rb") as file:
        stored = list(_stored_frames(file))
    for frame in stored[::STRIDE][:most]:
        _decoded(frame)


def decode_all(scan: Path, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All frames decoded, then the keyframes taken."""
    with open(scan / f"{scan.name}.sens", "rb") as file:
        decoded = [_decoded(frame) for frame in _stored_frames(file)]
    return decoded[::STRIDE][:most]


def _decoded(frame: Stored) -> tuple[np.ndarray, np.ndarray]:
    depth = np.frombuffer(zlib.decompress(frame.depth), np.uint16).reshape(DEPTH_SIZE[::-1]) / np.float32(1000)
    return np.array(Image.open(io.BytesIO(frame.photo))), depth


def _stored_frames(file: IO[bytes]) -> Iterator[Stored]:
    _, name_length = struct.unpack("<IQ", file.read(12))
    file.read(name_length + 4 * 64 + 4 * 7)
    (count,) = struct.unpack("<Q", file.read(8))
    for _ in range(count):
        pose = np.frombuffer(file.read(64), np.float32).reshape(4, 4)
        _, _, photo_bytes, depth_bytes = struct.unpack("<4Q", file.read(32))
        yield Stored(pose, file.read(photo_bytes), file.read(depth_bytes))


READERS: dict[str, Callable[[Path, int], object]] = {
    "ours": read_ours,
    "all decoded": decode_all,
    "all read": read_all,
}
PEERS = tuple(READERS)[1:]


# ---- the file


def write_scan(folder: Path, frames: int) -> Path:
    """A scan of so many frames, which repeat a few views of a room; to a reader, bytes are bytes."""
    folder.mkdir()
    photos = ProceduralScene("apartments", 0, views=VIEWS, width=PHOTO_SIZE[0], height=PHOTO_SIZE[1])
    depths = ProceduralScene("apartments", 0, views=VIEWS, width=DEPTH_SIZE[0], height=DEPTH_SIZE[1])
    views = []
    for frame_id in photos.frame_ids():
        photo, depth = photos.load(frame_id), depths.load(frame_id).depth
        assert depth is not None  # rooms have it
        jpeg = io.BytesIO()
        Image.fromarray(photo.rgb).save(jpeg, "JPEG", quality=90)
        packed = zlib.compress(np.rint(depth * 1000).astype("<u2").tobytes())
        pose = photo.camera.cam_to_world.astype("<f4").tobytes()
        lengths = struct.pack("<4Q", 0, 0, len(jpeg.getvalue()), len(packed))
        views.append(pose + lengths + jpeg.getvalue() + packed)
    with open(folder / f"{folder.name}.sens", "wb") as file:
        file.write(struct.pack("<IQ", 4, 4) + b"room")
        for fx, fy, cx, cy in (PHOTO_K, DEPTH_K):
            intrinsic = np.eye(4, dtype="<f4")
            intrinsic[[0, 1, 0, 1], [0, 1, 2, 2]] = fx, fy, cx, cy
            file.write(intrinsic.tobytes() + np.eye(4, dtype="<f4").tobytes())
        file.write(struct.pack("<2i4IfQ", 2, 1, *PHOTO_SIZE, *DEPTH_SIZE, 1000.0, frames))
        for number in range(frames):
            file.write(views[number % VIEWS])
        file.write(struct.pack("<Q", 0))
    return folder


if __name__ == "__main__":
    main(measure, "frames out of a .sens file")
