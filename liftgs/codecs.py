"""Arrays, photos and JSON as bytes, for what is stored. Knows file formats, but not what the values mean.

Every encoder gives the same bytes for the same values: no times, no names of machines. Every decoder raises BadInput,
naming the `uri` it is given, for anything but a whole file of its kind, and unpickles nothing.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy.lib import format as npy
from PIL import Image

from liftgs import limits
from liftgs.scene import BadInput

#: what Pillow raises for broken files, beside its own error
_IMAGE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@contextmanager
def bad_values(uri: str) -> Iterator[None]:
    """Turn the errors of using a decoded thing that is not what it should be into BadInput, which names the file."""
    try:
        yield
    except BadInput:
        raise
    except KeyError as error:
        raise BadInput(uri, f"{error} is missing") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(uri, str(error)) from error


@contextmanager
def _picture(data: bytes, uri: str, *formats: str) -> Iterator[Image.Image]:
    """A picture whose header is read and within bounds; what goes wrong with it becomes BadInput."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            limits.check_picture(image.width, image.height, data, uri)
            yield image
    except BadInput:
        raise
    except _IMAGE_ERRORS as error:
        raise BadInput(uri, f"not a readable {' or '.join(formats)} ({error}); {len(data)} bytes") from error


def encode_png16(image: UInt16[np.ndarray, "h w"]) -> bytes:
    """A 16-bit grey PNG."""
    buffer = io.BytesIO()
    # PNG's filters leave runs and noise, in which a search for repeats finds little: for depth it takes 4 to 9 times as
    # long as run lengths and saves 1 % (rendered) to 13 % (Kinect); segments get smaller without it.
    Image.fromarray(image).save(buffer, "PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def decode_png16(data: bytes, uri: str) -> UInt16[np.ndarray, "h w"]:
    """The inverse of `encode_png16`."""
    with _picture(data, uri, "PNG") as image:
        mode = image.mode
        pixels = np.asarray(image)
    if not mode.startswith("I;16") or pixels.ndim != 2:
        raise BadInput(uri, f"PNG of mode {mode}, not 16-bit grey")
    return pixels.astype(np.uint16)


def encode_png(rgb: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """RGB, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def encode_jpeg(rgb: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A JPEG of quality 95 with full-resolution colour (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes, uri: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels as stored; an orientation in the metadata is not applied."""
    with _picture(data, uri, "JPEG") as image:
        return np.array(image.convert("RGB"))


def is_plain_jpeg(data: bytes, width: int, height: int) -> bool:
    """Whether any reader sees this JPEG the same way: RGB, of this size, without an orientation to apply."""
    orientation = 0x0112  # EXIF tag; 1 = upright
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return (
                image.mode == "RGB" and image.size == (width, height) and image.getexif().get(orientation, 1) in (0, 1)
            )
    except _IMAGE_ERRORS:
        return False


def image_size(data: bytes, uri: str) -> tuple[int, int]:
    """(height, width) of a JPEG or PNG, from its header alone."""
    with _picture(data, uri, "JPEG", "PNG") as image:
        return image.height, image.width


def encode_npy(array: np.ndarray) -> bytes:
    """A .npy file in C order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def decode_npy(data: bytes, uri: str) -> np.ndarray:
    """The inverse of `encode_npy`; the array is writable."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # the parser of a damaged header raises nearly anything
        raise BadInput(uri, f"not a readable .npy file ({error}); {len(data)} bytes") from error
    values = data[stream.tell() :]
    if dtype.hasobject or len(values) != math.prod(shape) * dtype.itemsize:  # before anything of that size is made
        raise BadInput(uri, f".npy file of {dtype} {shape} holds {len(values)} bytes of values")
    with bad_values(uri):  # negative sizes, dtypes without size
        return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran_order else "C").copy()


def encode_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A compressed .npz, as `np.load` reads it; members in the order given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, wherever it is written
            archive.writestr(info, encode_npy(array), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def decode_npz(data: bytes, uri: str) -> dict[str, np.ndarray]:
    """The inverse of `encode_npz`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = limits.read_archive(archive, uri)
    except BadInput:
        raise
    except Exception as error:  # a damaged zip raises nearly anything
        raise BadInput(uri, f"not a readable .npz file ({error}); {len(data)} bytes") from error
    return {name.removesuffix(".npy"): decode_npy(member, f"{uri}:{name}") for name, member in members.items()}


def encode_json(value: Any) -> bytes:
    """JSON with sorted keys. ASCII only, so that any string survives; floats keep every bit.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False).encode("ascii")


def decode_json(data: bytes, uri: str) -> Any:
    """The inverse of `encode_json`, save that tuples return as lists."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(uri, f"not readable JSON ({error}); {len(data)} bytes") from error
