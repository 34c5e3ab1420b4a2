"""`depth.bin`, the depth maps of ScanNet++'s iPhone videos, in both encodings; one map is held at a time.

Maps are 192x256 z-depth of the photos' field of view. Older files are one raw deflate stream of float32 metres; newer
ones are, per map, its length (4 bytes, little-endian) and 16-bit millimetres in an LZ4 block, or float32 metres in a
raw deflate stream of their own.

Source: scannetpp, iphone/prepare_iphone_data.py
"""

from __future__ import annotations

import struct
import zlib
from functools import cached_property
from typing import IO

import lz4.block
import numpy as np
from jaxtyping import Float32

from liftgs.readers.files import Folder
from liftgs.readers.records import Records
from liftgs.scene import BadInput

HEIGHT, WIDTH = 192, 256
_FLOAT_BYTES = 4 * HEIGHT * WIDTH
_SHORT_BYTES = 2 * HEIGHT * WIDTH
_LENGTH = struct.Struct("<I")
_MAX_LENGTH = 2 * _FLOAT_BYTES
_READ_BYTES = 1 << 20


class DepthFile:
    """One file. For one thread."""

    def __init__(self, folder: Folder, path: str):
        self.uri = folder.uri_of(path)
        self._folder = folder
        self._path = path

    def read(self, number: int) -> Float32[np.ndarray, "h w"]:
        """A depth map in metres, 0 = invalid.

        In a file that is one stream, maps are found by reading on: ascending numbers read it once, a lower one than the
        last starts again.

        Raises:
            BadInput: neither encoding, truncated, or corrupt.
        """
        if self._records is not None:
            depth = _decode(self._records.read(number)[_LENGTH.size :])
            if depth is None:
                raise BadInput(self.uri, f"depth map {number}: corrupt, neither LZ4 nor deflate")
        else:
            depth = self._read_on(number)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))

    @cached_property
    def _records(self) -> Records | None:
        """The chain of maps, if the file is one; tells by decoding the first."""
        records = Records(self._folder, self._path, 0, _LENGTH.size, _body_bytes, "depth map")
        try:
            return records if _decode(records.read(0)[_LENGTH.size :]) is not None else None
        except BadInput:
            self._folder.size(self._path)  # a missing file is told as such
            return None

    def _read_on(self, number: int) -> Float32[np.ndarray, "h w"]:
        if self._stream is None or number < self._stream.position:
            self._stream = _FloatStream(self._folder.open(self._path))
        try:
            while True:
                at, data = self._stream.position, self._stream.next()
                if at == number:
                    return np.frombuffer(data, "<f4").reshape(HEIGHT, WIDTH)
        except (EOFError, zlib.error) as fault:
            at, self._stream = self._stream.position, None
            if at == 0:
                raise BadInput(self.uri, f"not a depth.bin in either encoding ({fault})") from None
            raise BadInput(self.uri, f"depth map {number} is not there: the file ends in map {at} ({fault})") from None

    _stream: _FloatStream | None = None


class _FloatStream:
    """The maps of one deflate stream, one after the other."""

    def __init__(self, file: IO[bytes]):
        self.position = 0
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def next(self) -> bytes:
        data = bytearray()
        pending = self._inflate.unconsumed_tail
        while len(data) < _FLOAT_BYTES:
            pending = pending or self._file.read(_READ_BYTES)
            piece = self._inflate.decompress(pending, _FLOAT_BYTES - len(data))
            if not piece and not pending:
                raise EOFError("truncated")
            data += piece
            pending = self._inflate.unconsumed_tail
            if self._inflate.eof and len(data) < _FLOAT_BYTES:
                raise EOFError("the stream ends")
        self.position += 1
        return bytes(data)


def _body_bytes(header: bytes) -> int:
    (length,) = _LENGTH.unpack(header)
    if not 0 < length <= _MAX_LENGTH:
        raise ValueError(f"corrupt: {length} bytes for {WIDTH}x{HEIGHT} pixels")
    return int(length)


def _decode(data: bytes) -> Float32[np.ndarray, "h w"] | None:
    """Metres, or None if the bytes are neither of the two codecs'."""
    try:
        raw = lz4.block.decompress(data, uncompressed_size=_SHORT_BYTES)
        if len(raw) == _SHORT_BYTES:
            millimetres = np.frombuffer(raw, "<u2").reshape(HEIGHT, WIDTH)
            return np.where(millimetres == 65535, 0, millimetres).astype(np.float32) / np.float32(1000)
    except lz4.block.LZ4BlockError:
        pass
    try:
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _FLOAT_BYTES + 1)
    except zlib.error:
        return None
    return np.frombuffer(raw, "<f4").reshape(HEIGHT, WIDTH) if len(raw) == _FLOAT_BYTES else None
