"""The vertices of a PLY file, coloured. Reads ASCII and binary, the vertex element only; writes binary."""

from __future__ import annotations

import io
from typing import IO, Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from liftgs.readers.files import Folder
from liftgs.scene import BadInput, PointCloud

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_MAX_HEADER_LINES = 1000
_MAX_VERTICES = 200_000_000

_Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.void]]"


def read_ply(folder: Folder, path: str) -> PointCloud:
    """The vertices, in the file's own unit; those with a coordinate that is not finite are left out.

    Raises:
        BadInput: missing, truncated, not a PLY whose first element is `vertex`, or vertices without position or colour.
    """
    uri = folder.uri_of(path)
    size = folder.size(path)
    with folder.open(path) as stream:
        order, count, fields = _parse_header(_header_lines(stream, uri), uri)
        if count * len(fields) > size:  # a property takes a byte at least; readers make room for what they are to read
            raise BadInput(uri, f"truncated: {size} bytes cannot hold {count} vertices of {len(fields)} numbers")
        if order == "=":
            vertices = _ascii_rows(stream, count, fields, uri)
        else:
            row = np.dtype([(name, order + kind) for name, kind in fields.items()])
            data = stream.read(count * row.itemsize)
            if len(data) < count * row.itemsize:
                raise BadInput(uri, f"truncated: holds {len(data) // row.itemsize} of {count} vertices")
            vertices = np.frombuffer(data, row, count)
    return _cloud(vertices, uri)


def encode_ply(xyz: Float32[np.ndarray, "n 3"], rgb: UInt8[np.ndarray, "n 3"]) -> bytes:
    """The bytes of a binary PLY of coloured vertices."""
    vertices = np.empty(len(xyz), [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for column, name in zip([*xyz.T, *rgb.T], vertices.dtype.names or (), strict=True):
        vertices[name] = column
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    return "\n".join([*header, "end_header", ""]).encode() + vertices.tobytes()


def _header_lines(stream: IO[bytes], uri: str) -> list[list[str]]:
    """The words of each line between "ply" and "end_header", comments left out."""
    if stream.readline(16).strip() != b"ply":
        raise BadInput(uri, "not a PLY file")
    lines: list[list[str]] = []
    for _ in range(_MAX_HEADER_LINES):
        words = stream.readline(4096).decode("ascii", "replace").split()
        if words == ["end_header"]:
            return lines
        if words and words[0] not in ("comment", "obj_info"):
            lines.append(words)
    raise BadInput(uri, "the PLY header does not end")


def _parse_header(lines: list[list[str]], uri: str) -> tuple[str, int, dict[str, str]]:
    """Byte order, number of vertices, and name -> type of their properties."""
    order, element, count = "", "", 0
    fields: dict[str, str] = {}
    for words in lines:
        match words:
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", "vertex", number] if not element and number.isdigit():
                element, count = "vertex", int(number)
            case ["element", name, _]:
                if not element:
                    raise BadInput(uri, f"the first element of the PLY file is {name!r}, not vertex")
                element = name
            case ["property", kind, name] if element == "vertex" and kind in _TYPES:
                fields[name] = _TYPES[kind]
            case ["property", *_] if element != "vertex":
                pass
            case _:
                raise BadInput(uri, f"PLY header line {' '.join(words)[:60]!r} is not supported")
    if not order or not fields:
        raise BadInput(uri, "the PLY header has no format or no vertex property")
    if count > _MAX_VERTICES:
        raise BadInput(uri, f"claims {count} vertices; thin it to fewer than {_MAX_VERTICES}")
    return order, count, fields


def _ascii_rows(stream: IO[bytes], count: int, fields: dict[str, str], uri: str) -> _Rows:
    text = io.TextIOWrapper(stream, "ascii", errors="replace")
    table = np.zeros((0, len(fields)))
    try:
        if count:
            table = np.loadtxt(text, np.float64, max_rows=count, ndmin=2, comments=None)
    except ValueError as fault:
        raise BadInput(uri, f"vertices are not rows of {len(fields)} numbers ({fault})") from None
    if table.shape != (count, len(fields)):
        raise BadInput(uri, f"holds {table.shape[0]} rows of {table.shape[1]} numbers, not {count} of {len(fields)}")
    vertices = np.empty(count, list(fields.items()))
    with np.errstate(invalid="ignore"):  # nonsense in an integer column is nonsense still
        for column, name in zip(table.T, fields, strict=True):
            vertices[name] = column
    return vertices


def _cloud(vertices: _Rows, uri: str) -> PointCloud:
    names = vertices.dtype.names or ()
    colour = next((c for c in _COLOURS if set(c) <= set(names)), None)
    if not {"x", "y", "z"} <= set(names) or colour is None:
        raise BadInput(uri, f"vertices have {', '.join(names)}; needed are x, y, z and red, green, blue")
    xyz = np.stack([vertices[axis].astype(np.float32) for axis in "xyz"], 1)
    rgb = _bytes(np.stack([vertices[channel] for channel in colour], 1), uri)
    finite = np.isfinite(xyz).all(1)
    return PointCloud(xyz[finite], rgb[finite])


def _bytes(rgb: np.ndarray, uri: str) -> UInt8[np.ndarray, "n 3"]:
    """Colours as they are commonly written: 8 or 16 bits, or fractions from 0 to 1 or to 255."""
    if rgb.dtype.kind == "f":
        rgb = np.nan_to_num(rgb, posinf=0, neginf=0)
        return np.rint(rgb.clip(0, 255) if rgb.max(initial=0) > 1 else rgb.clip(0, 1) * 255).astype(np.uint8)
    if rgb.dtype.itemsize == 2 and rgb.dtype.kind == "u" and rgb.max(initial=0) > 255:
        rgb = np.rint(rgb / 257)
    if rgb.min(initial=0) < 0 or rgb.max(initial=0) > 255:
        raise BadInput(uri, f"colours go from {rgb.min()} to {rgb.max()}, not from 0 to 255")
    return rgb.astype(np.uint8)
