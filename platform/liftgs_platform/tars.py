"""A tar whose bytes are a function of its content, and where in it each member lies. Plain WebDataset."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

Members = Mapping[str, bytes]  # member name without the key, e.g. "00.rgb.jpg" -> its bytes

# WebDataset splits a name at its first dot into key and member, and lowers the member's letters.
_KEY = re.compile(r"[^./\\\s]+")
_MEMBER = re.compile(r"[^/\\\sA-Z.][^/\\\sA-Z]*")


class Span(NamedTuple):
    """Where a member's bytes lie in the tar, and their CRC-32, by which who reads this member alone can trust it."""

    offset: int
    size: int
    crc32: int


Spans = dict[str, dict[str, Span]]  # key -> member -> span, in the order of the tar


def build_tar(samples: Mapping[str, Members]) -> tuple[bytes, Spans]:
    """Pack samples into an uncompressed tar that `tar`, `tarfile` and `webdataset` read.

    The bytes depend on nothing but keys, names and contents: members are sorted, those of one key side by side; no
    times, owners or modes of the machine; padded to tar's usual 10,240 bytes.

    Raises:
        ValueError: a key or a member name that WebDataset would read back as another.
    """
    parts: list[bytes] = []  # joined once: a buffer that grows would take twice its size
    size = 0
    spans: Spans = {}
    for key in sorted(samples):
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot be a WebDataset key: no dots, slashes or spaces")
        spans[key] = {}
        for name in sorted(samples[key]):
            if not _MEMBER.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a WebDataset member: lower case, no slashes or spaces")
            data = samples[key][name]
            header = _header(f"{key}.{name}", len(data))
            spans[key][name] = Span(size + len(header), len(data), zlib.crc32(data))
            parts += [header, data, bytes(-len(data) % tarfile.BLOCKSIZE)]
            size += sum(map(len, parts[-3:]))
    end = 2 * tarfile.BLOCKSIZE
    parts.append(bytes(end + -(size + end) % tarfile.RECORDSIZE))
    return b"".join(parts), spans


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid = size, 0o644, 0, 0, 0
    return info.tobuf(tarfile.PAX_FORMAT)  # plain ustar, unless the name is long or not ASCII
