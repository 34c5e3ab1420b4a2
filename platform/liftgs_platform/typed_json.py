"""Dataclasses as JSON and back, checked: for results, where NaN is null. Knows nothing of what they mean.

Specs, with defaults, overrides and near misses, are `spec`'s business.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")


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
