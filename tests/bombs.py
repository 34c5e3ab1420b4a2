"""Small files that would become large ones, and a process that cannot hold those."""

from __future__ import annotations

import gc
import io
import multiprocessing
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GIB = 1 << 30


def outcome(action: Callable[[], Any], megabytes: int = 400, seconds: int = 60) -> BaseException | None:
    """What an action raises in a process of its own, which may take so much more memory, and so much time."""
    context = multiprocessing.get_context("fork")
    results, sender = context.Pipe(duplex=False)

    def work() -> None:
        gc.freeze()  # the parent's garbage may wait in its finalizers for threads that are not here
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            action()
        except BaseException as error:
            sender.send(error)
        else:
            sender.send(None)

    process = context.Process(target=work)
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        if not results.poll(seconds):
            return TimeoutError(f"still busy after {seconds} s")
        raised: BaseException | None = results.recv()
        return raised
    except EOFError:
        return RuntimeError("died without a word")
    finally:
        process.kill()
        process.join()


def zeros(size: int, wbits: int = -15) -> bytes:
    """Zeros, deflated a thousandfold: one packed megabyte, again and again."""
    whole, rest = divmod(size, 1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = raw.compress(bytes(1 << 20)) + raw.flush(zlib.Z_FULL_FLUSH)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    return head + whole * megabyte + raw.compress(bytes(rest)) + raw.flush()


def png(width: int, height: int, bits: int = 1) -> bytes:
    """A whole PNG, all black, of 1, 8 or 16 bits of grey."""
    row = 1 + -(-width * bits // 8)
    size = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = zeros(row * height, 15) + struct.pack(">I", _adler_of_zeros(row * height))
    return b"\x89PNG\r\n\x1a\n" + _block(b"IHDR", size) + _block(b"IDAT", body) + _block(b"IEND", b"")


def _block(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _adler_of_zeros(size: int) -> int:
    return (size % 65521) << 16 | 1


def jpeg(width: int, height: int, scans: int = 1) -> bytes:
    """A grey JPEG, whose last scan is there many times."""
    stream = io.BytesIO()
    Image.new("L", (width, height), 128).save(stream, "JPEG", progressive=scans > 1)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + scans * data[last:-2] + data[-2:]


def claiming_jpeg(width: int, height: int) -> bytes:
    """A small one whose header says otherwise."""
    data = bytearray(jpeg(64, 48))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def npz(claimed: int, held: int, name: str = "xyz.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of one member, a .npy of float32, that claims a size and holds another."""
    header = io.BytesIO()
    shape = (max(0, claimed - 128) // 12, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = raw.compress(header.getvalue()) + raw.flush(zlib.Z_FULL_FLUSH) + zeros(held)
    entry = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, 0, len(packed), claimed, len(name), 0)
    local = b"PK\3\4" + entry + name.encode() + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + entry + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end
