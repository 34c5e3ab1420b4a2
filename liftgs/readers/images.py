"""Encoded photos and depth maps -> arrays, refusing whatever cannot be trusted. Knows nothing of cameras."""

from __future__ import annotations

import io
import re

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, ImageFile

from liftgs import limits
from liftgs.scene import BadInput

# Pillow's default, stated because everything below relies on it: a truncated image is an error, not a grey rest.
ImageFile.LOAD_TRUNCATED_IMAGES = False

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8"
_GREY_16 = "I(;16[A-Z]*)?"  # how versions of Pillow name the mode


def decode_photo(data: bytes, uri: str) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """A JPEG or PNG photo.

    Grey and palette images become RGB, an alpha channel is dropped. The orientation tag is ignored: intrinsics speak of
    the pixels as stored.

    Returns:
        The pixels, and `data` itself if it is an RGB JPEG (then the pixels are exactly its decoding).

    Raises:
        BadInput: empty, truncated, corrupt, not an image, too large, or 16 bits per channel.
    """
    image = _open(data, uri)
    if _bits_per_channel(data, image) != 8:
        raise BadInput(uri, "the photo has 16 bits per channel; convert it to 8-bit JPEG or PNG")
    _load(image, data, uri)
    jpeg = data if image.format == "JPEG" and image.mode == "RGB" else None
    return np.array(image.convert("RGB")), jpeg


def decode_depth(data: bytes, uri: str, units_per_m: float) -> Float32[np.ndarray, "h w"]:
    """A 16-bit grey PNG of z-depth.

    Args:
        data: the file.
        uri: for messages.
        units_per_m: pixel value of one metre.

    Returns:
        Metres; 0 where invalid, that is where the file holds 0 or 65535 (sensors' "no return" and saturation).

    Raises:
        BadInput: empty, truncated, corrupt, not an image, too large, or not 16-bit grey.
    """
    image = _open(data, uri)
    if image.format != "PNG" or not re.fullmatch(_GREY_16, image.mode):
        raise BadInput(uri, f"depth must be a 16-bit grey PNG, not a {image.format} of mode {image.mode}")
    _load(image, data, uri)
    raw = np.array(image).astype(np.float32)
    raw[raw == 65535] = 0
    return raw / np.float32(units_per_m)


def decode_ids(data: bytes, uri: str) -> UInt16[np.ndarray, "h w"]:
    """An 8- or 16-bit grey PNG whose pixels are numbers (ids, levels), not light.

    Raises:
        BadInput: empty, truncated, corrupt, not an image, too large, or not such a PNG.
    """
    image = _open(data, uri)
    if image.format != "PNG" or not re.fullmatch(f"L|{_GREY_16}", image.mode):
        raise BadInput(uri, f"must be an 8- or 16-bit grey PNG, not a {image.format} of mode {image.mode}")
    _load(image, data, uri)
    return np.array(image).astype(np.uint16)


def image_size(data: bytes, uri: str) -> tuple[int, int]:
    """(width, height) from the header alone.

    Raises:
        BadInput: not a JPEG or PNG.
    """
    return _open(data, uri).size


def _open(data: bytes, uri: str) -> Image.Image:
    if not data:
        raise BadInput(uri, "the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError:
        raise BadInput(uri, f"the image has more than {limits.MAX_PIXELS / 1e6:g} million pixels") from None
    except Exception as fault:  # decoders raise half a dozen types on foreign bytes
        if data.startswith((_PNG_MAGIC, _JPEG_MAGIC)):
            raise BadInput(uri, "truncated or corrupt image (its header cannot be read)") from fault
        raise BadInput(uri, "not a JPEG or PNG image") from fault
    limits.check_picture(image.width, image.height, data, uri)
    return image


def _load(image: Image.Image, data: bytes, uri: str) -> None:
    """Decode fully; PNG checksums as well, which decoding alone skips."""
    try:
        if image.format == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
    except MemoryError:
        raise
    except Exception as fault:  # see _open
        raise BadInput(uri, f"truncated or corrupt image ({fault})") from fault


def _bits_per_channel(data: bytes, image: Image.Image) -> int:
    """Pillow opens 16-bit RGB as mode RGB, so look at the PNG header itself; palette and 1-bit images count as 8."""
    if image.format == "PNG":
        return 16 if data[24] == 16 else 8
    return 8
