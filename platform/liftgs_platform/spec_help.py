"""What a person reads about a spec: every key with type, default and meaning, taken from the dataclasses themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import re
import tokenize
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from time import sleep
from typing import Any, Literal, TypeVar, Union

import yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """One line of `--help`: a dotted key, its type as written, its default and what it means."""

    name: str
    type: str
    default: str
    doc: str

    @property
    def of_entry(self) -> bool:
        """Whether it belongs to the entries of a mapping or list, of which there may be any number."""
        return ".NAME." in self.name or "[]." in self.name


def keys(cls: type, prefix: str = "") -> Iterator[Key]:
    """All keys of a spec in the order of its fields, nested ones dotted."""
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    for f in fields(cls):
        hint, name = hints[f.name], f"{prefix}{f.name}"
        if is_dataclass(hint):
            yield from keys(typing.cast(type, hint), f"{name}.")
            continue
        yield Key(name, _type_name(hint), show(default_of(f)), docs.get(f.name, ""))
        args = typing.get_args(hint)
        if typing.get_origin(hint) is dict and is_dataclass(args[1]):
            yield from keys(typing.cast(type, args[1]), f"{name}.NAME.")
        if typing.get_origin(hint) is tuple and is_dataclass(args[0]):
            yield from keys(typing.cast(type, args[0]), f"{name}[].")


def field_docs(cls: type) -> dict[str, str]:
    """What the source says of each field: in the docstring's "Attributes:", beside it, or in comments above it."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            docs |= _comments(base) | _attributes(inspect.getdoc(base) or "")
    return docs


def _attributes(docstring: str) -> dict[str, str]:
    """`Attributes:` entries of a Google-style docstring."""
    _, _, block = docstring.partition("Attributes:\n")
    docs: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    (\w+)(?: \([^)]*\))?: (.*)", line)
        if entry:
            name = entry[1]
            docs[name] = entry[2].strip()
        elif name and line.strip():
            docs[name] += " " + line.strip()
    return docs


def _undisturbed(parse: Callable[[], T]) -> T:
    """Again if it fails, as in Python 3.11 if other threads parse too (github.com/python/cpython/issues/106905)."""
    for _ in range(20):
        with suppress(SystemError):
            return parse()
        sleep(0.05)
    return parse()


def _comments(cls: type) -> dict[str, str]:
    """Comments at the fields of a class, from its source."""
    try:
        source = inspect.cleandoc("\n" + _undisturbed(lambda: inspect.getsource(cls)))
    except OSError:
        return {}
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("#: ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    docs = {}
    body = typing.cast(ast.ClassDef, _undisturbed(lambda: ast.parse(source)).body[0]).body
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, comments.pop(line))
            line -= 1
        beside = [comments[n] for n in range(node.lineno, (node.end_lineno or node.lineno) + 1) if n in comments]
        below, line = [], (node.end_lineno or node.lineno) + 1
        # a trailing comment that goes on, indented, under itself
        while beside and line in comments and lines[line - 1].index("#") > 8:
            below.append(comments.pop(line))
            line += 1
        text = " ".join(above + beside + below)
        if text:
            docs[node.target.id] = text
    return docs


def default_of(f: dataclasses.Field[Any]) -> Any:
    """The value of a field that nobody sets; "(required)" where it must be set."""
    if f.default is not dataclasses.MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else "(required)"


def show(value: Any) -> str:
    """A value as YAML would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else json.dumps(value, default=str)


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(str(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return "|".join("null" if a is type(None) else _type_name(a) for a in typing.get_args(hint))
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(hint))


def groups(file: Path) -> list[str]:
    """Config groups beside a job: folders that hold YAML files."""
    return sorted(p.name for p in file.resolve().parent.iterdir() if p.is_dir() and any(p.glob("*.yaml")))


def group_choices(file: Path) -> dict[str, dict[str, str]]:
    """Config groups that a job's `defaults` choose from: {"scale": {"laptop": first comment line of its file, ...}}."""
    entries = (yaml.safe_load(file.read_text()) or {}).get("defaults", [])
    chosen = {group for entry in entries if isinstance(entry, dict) for group in entry}
    found: dict[str, dict[str, str]] = {}
    for group in (group for group in groups(file) if group in chosen):
        for option in sorted((file.resolve().parent / group).glob("*.yaml")):
            found.setdefault(group, {})[option.stem] = next(iter(purpose(option)), "")
    return found


def purpose(file: Path) -> list[str]:
    """The comment block at the head of a YAML file, without its first line if that is a `#!` or a `# @package`."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("#!", "# @")):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return lines
