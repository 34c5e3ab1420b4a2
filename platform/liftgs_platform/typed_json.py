"""Dataclasses as JSON files and back, checked: for results, where NaN is null. Knows nothing of what they mean.

Specs, with defaults, overrides and near misses, are `spec`'s business.
"""

from __future__ import annotations

import math
import typing
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar

from liftgs import codecs
from liftgs.scene import BadInput
from liftgs_platform import storage

T = TypeVar("T")

_GZIP = b"\x1f\x8b"
_MOST_BYTES = 1 << 30  # of JSON; 100 networks with 40 figures of 1,000 draws are about 80 MB


def write_json(uri: str, kind: str, value: Any) -> None:
    """A dataclass as a file, gzipped if its name ends in ".gz"; equal values are equal bytes.

    Args:
        uri: of the file.
        kind: name and version of the format.
        value: a dataclass.
    """
    data = codecs.encode_json({"format": kind, **plain(value)})
    packer = zlib.compressobj(6, wbits=31)  # 31 is gzip, without a time in its header
    storage.write_bytes(uri, packer.compress(data) + packer.flush() if uri.endswith(".gz") else data)


def read_json(uri: str, kind: str, cls: type[T]) -> T:
    """The inverse of `write_json`.

    Raises:
        FileNotFoundError: no such file.
        BadInput: it holds something else.
    """
    value = codecs.decode_json(_unpack(storage.read_bytes(uri), uri), uri)
    if not isinstance(value, dict) or value.pop("format", None) != kind:
        raise BadInput(uri, f"is no {kind} file; give one that this version wrote")
    with codecs.bad_values(uri):
        return typed(cls, value)


def plain(value: Any) -> Any:
    """Dictionaries, lists and scalars, NaN as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def typed(cls: type[T], value: Any) -> T:
    """The inverse of `plain`: parsed JSON as the dataclass that it stands for.

    Raises:
        ValueError: something in it is unknown, missing or of another type; the message says where.
    """
    return typing.cast(T, _built(cls, value, ""))


def _of(hint: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return _built(typing.cast(Any, hint), value, where)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_of(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _of(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal and value in inner:
        return value
    if hint is float and (value is None or isinstance(value, int | float)) and not isinstance(value, bool):
        return math.nan if value is None else float(value)
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    name = " or ".join(map(repr, inner)) if origin is Literal else str(getattr(hint, "__name__", hint))
    raise ValueError(f"{where} is {str(value)[:60]!r}, not {name}")


def _built(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is not an object")
    hints = typing.get_type_hints(cls)
    strange = value.keys() - hints.keys()
    missing = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING and f.name not in value]
    if strange or missing:
        raise ValueError(
            f"{where or 'it'} " + (f"lacks {missing[0]!r}" if missing else f"has {min(strange)!r}, unknown")
        )
    dot = f"{where}." if where else ""
    return cls(**{name: _of(hints[name], inner, dot + name) for name, inner in value.items()})


def _unpack(data: bytes, uri: str) -> bytes:
    """Gunzipped if it is gzip, but never to more than a sweep can be."""
    if data.startswith(_GZIP):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, _MOST_BYTES)
        except zlib.error as error:
            raise BadInput(uri, f"is not a whole gzip file ({error})") from error
        if not unpacker.eof:
            raise BadInput(uri, f"is a gzip file that is cut off, or unpacks to more than {_MOST_BYTES:,} bytes")
    return data
