"""Typed specs: dataclasses on one side, YAML and command-line overrides on the other, Hydra in between.

Knows nothing of any job. A spec is a plain dataclass (frozen or not, nested, with `Literal` choices); what a person
writes wrong is refused in one line that names the key, its nearest match and the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from liftgs.secrecy import what_is_secret
from liftgs_platform.shard_plan import canonical_json
from liftgs_platform.spec_help import default_of, groups, keys, show

T = TypeVar("T")

#: `field(metadata=WHERE_ONLY)`: the field says where or how fast a job runs, not what it makes. It is left out of the
#: spec's identity, so that a corpus begun on a laptop may be finished on a cluster.
WHERE_ONLY: Mapping[str, Any] = {"identity": False}
#: `field(metadata=ADDED)`: the field came after corpora and runs had been made. It is part of the identity only where
#: it is set, so that those keep theirs.
ADDED: Mapping[str, Any] = {"identity": "if set"}


class SpecError(ValueError):
    """A spec that cannot be used. The message is one line for the person who wrote it."""


def load(file: Path, overrides: Sequence[str], cls: type[T]) -> T:
    """Compose a YAML file, its config groups and overrides into a typed spec.

    Args:
        file: the job; its folder holds the groups (`scale/laptop.yaml` is chosen by `scale=laptop`).
        overrides: Hydra overrides, `key=value`. A value meant for a text field may hold any character, unquoted.
        cls: dataclass of the result.

    Raises:
        SpecError: unknown key, wrong type, unknown choice, missing value, or YAML that does not parse.
    """
    config = _compose(file, overrides, cls)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SpecError(f"{file}: '{missing[0]}' has no value; set it in the file or give {missing[0]}=... ")
    try:
        return typing.cast(T, build(cls, OmegaConf.to_container(config, resolve=True), str(file)))
    except OmegaConfBaseException as error:
        raise SpecError(_explain(error, file, overrides, cls)) from None


def _compose(file: Path, overrides: Sequence[str], cls: type) -> Any:
    """The file, its groups and the overrides, still as Hydra's config."""
    mirror = _mirror(cls)
    read_yaml(file)
    store = ConfigStore.instance()
    store.store(name="_liftgs_schema", node=mirror)
    store.store(name="_liftgs_job", node={"defaults": ["_liftgs_schema", file.stem, "_self_"]})
    quoted = [_quote(text, cls, file) for text in overrides]
    try:
        with initialize_config_dir(str(file.resolve().parent), version_base="1.3"):
            return compose("_liftgs_job", overrides=quoted)
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecError(_explain(error, file, overrides, cls)) from None


def defaults(file: Path, cls: type) -> dict[str, str]:
    """What a job does when nobody overrides anything: dotted key -> value as YAML would write it, where there is one.

    Raises:
        SpecError: as `load`.
    """
    config = _compose(file, [], cls)
    missing = OmegaConf.missing_keys(config)
    names = [key.name for key in keys(cls) if not key.of_entry and key.name not in missing]
    values = {name: OmegaConf.select(config, name) for name in names}
    return {
        name: show(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
        for name, value in values.items()
    }


def build(cls: Any, value: Any, file: str, key: str = "") -> Any:
    """Turn plain containers, already of the right types, into `cls`; `Literal` choices are checked here.

    Raises:
        SpecError: a value outside its choices, or one that the dataclass itself refuses.
    """
    if value is None:
        return None
    if is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        values = {
            f.name: build(hints[f.name], value[f.name], file, f"{key}.{f.name}".lstrip("."))
            for f in fields(cls)
            if f.init
        }
        try:
            return typing.cast(Any, cls)(**values)
        except ValueError as error:
            raise SpecError(f"{file}: {key + ': ' if key else ''}{error}") from error
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin is Literal and value not in args:
        raise SpecError(f"{file}: {key}={value}: {_nearest(str(value), [str(a) for a in args], 'one of')}")
    if origin in (Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        return build(inner[0], value, file, key) if len(inner) == 1 else value
    return _build_container(origin, args, value, file, key)


def _build_container(origin: Any, args: tuple[Any, ...], value: Any, file: str, key: str) -> Any:
    if origin is list:
        return [build(args[0], v, file, f"{key}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        return {k: build(args[1], v, file, f"{key}.{k}") for k, v in value.items()}
    if origin is not tuple:
        return value
    inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(inner) != len(value):
        raise SpecError(f"{file}: {key}={list(value)}: needs {len(inner)} values, not {len(value)}")
    return tuple(build(t, v, file, f"{key}[{i}]") for i, (t, v) in enumerate(zip(inner, value, strict=True)))


def plain(spec: Any) -> Any:
    """The spec as dictionaries, lists and scalars, for YAML and JSON."""
    if is_dataclass(spec) and not isinstance(spec, type):
        return {f.name: plain(getattr(spec, f.name)) for f in fields(spec)}
    if isinstance(spec, Mapping):
        return {str(k): plain(v) for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return [plain(v) for v in spec]
    return str(spec) if isinstance(spec, Path) else spec


def identity(spec: Any) -> dict[str, Any]:
    """What decides the bytes of the result: the spec without its `WHERE_ONLY` fields, and without those of its `ADDED`
    ones that are not set, at any depth."""
    return typing.cast(dict[str, Any], _reduced(spec))


def _reduced(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in _of_identity(value) if f.metadata != ADDED or getattr(value, f.name) != default_of(f))
        return {f.name: _reduced(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(k): _reduced(v) for k, v in value.items()}
    return [_reduced(v) for v in value] if isinstance(value, list | tuple) else plain(value)


def _of_identity(cls: Any) -> list[dataclasses.Field[Any]]:
    return [f for f in fields(cls) if f.metadata.get("identity", True)]


def completed(identity: Any, cls: Any) -> Any:
    """A stored identity in the terms of today's spec: fields that its code did not know yet take their defaults.

    So what an older version began goes on. What has no default, or another shape than the spec, stays as it is.

    Args:
        identity: of a `cls`, or a part of one, as JSON gives it back.
        cls: the spec's dataclass, or the type of that part.
    """
    if is_dataclass(cls) and isinstance(identity, Mapping):
        hints = typing.get_type_hints(cls)
        unknown = (f for f in _of_identity(cls) if f.name not in identity and f.metadata != ADDED)
        new = {f.name: _reduced(default_of(f)) for f in unknown if _has_default(f)}
        return {k: completed(v, hints.get(k)) for k, v in identity.items()} | new
    inner = [arg for arg in typing.get_args(cls) if arg not in (type(None), Ellipsis)]
    origin = typing.get_origin(cls)
    if origin in (Union, types.UnionType) and len(inner) == 1:
        return completed(identity, inner[0])
    if origin in (list, tuple) and isinstance(identity, list) and len(inner) == 1:
        return [completed(value, inner[0]) for value in identity]
    if origin is dict and isinstance(identity, Mapping):
        return {k: completed(v, inner[1]) for k, v in identity.items()}
    return identity


def _has_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def refuse_secrets(spec: Any) -> None:
    """A spec is written down with what it makes, so secrets belong into the environment.

    Raises:
        SpecError: names the key, never the value.
    """
    for key, value in _flat(plain(spec)):
        found = what_is_secret(str(value))
        if found:
            raise SpecError(f"{key} holds {found}, and specs are written down; leave it to the environment")


def digest(identity: Mapping[str, Any]) -> str:
    """Hash of an identity, the same on every machine; a corpus' plan records it as `spec_hash`."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two identities differ, as "segment.points_per_side: 32 -> 16"; empty when they are equal."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{key}: {show(before.get(key, 'absent'))} -> {show(after.get(key, 'absent'))}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, MISSING) != after.get(key, MISSING)
    ]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _mirror(hint: Any) -> Any:
    """A type that OmegaConf accepts: a frozen dataclass thawed (else read-only), a `Literal` as its base type."""
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        made = []
        for f in fields(hint):
            default = default_of(f) if _has_default(f) else MISSING
            inner = _mirror(hints[f.name])
            made.append((f.name, inner, field(default_factory=partial(_mirrored, default, inner))))
        return dataclasses.make_dataclass(typing.cast(type, hint).__name__, made)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return type(args[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(a if a is type(None) else _mirror(a) for a in args)]  # noqa: UP007
    if origin in (list, dict, tuple):
        return origin[tuple(a if a is Ellipsis else _mirror(a) for a in args)]
    return hint


def _mirrored(value: Any, hint: Any) -> Any:
    """A default value in terms of mirror types."""
    if is_dataclass(hint) and is_dataclass(value):
        hints = typing.get_type_hints(hint)
        return typing.cast(Any, hint)(
            **{f.name: _mirrored(getattr(value, f.name), hints[f.name]) for f in fields(value)}
        )
    if isinstance(value, dict):
        return {k: _mirrored(v, typing.get_args(hint)[1]) for k, v in value.items()}
    if isinstance(value, list | tuple):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        inner = inner if len(inner) == len(value) else inner[:1] * len(value)
        return [_mirrored(v, t) for v, t in zip(value, inner, strict=True)]
    return value


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys of a YAML file as they stand.

    Raises:
        SpecError: no such file, not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SpecError(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        raise SpecError(f"{file}:{where} not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{file}: a job is a mapping of keys to values")
    return content


def _quote(text: str, cls: type, file: Path) -> str:
    """Quote the value of a text field, so that Hydra's grammar leaves its `=`, `,` and `?` alone."""
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"command line: '{text}' is not of the form key=value ({file} --help lists the keys)")
    if value in ("", "null") or value[0] in "'\"" or "${" in value or not _is_text(cls, key.lstrip("+~")):
        return text
    if (file.parent / key).is_dir() and (file.parent / key / f"{value}.yaml").exists():
        return text
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def _is_text(hint: Any, key: str) -> bool:
    for part in key.split("."):
        if is_dataclass(hint):
            hint = typing.get_type_hints(hint).get(part)
        elif typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]
        else:
            return False
    return (
        hint is str
        or (
            typing.get_origin(hint) in (Union, types.UnionType, Literal)
            and {type(a) for a in typing.get_args(hint)} <= {str}
        )
        or hint == (str | None)
    )


def _explain(error: Exception, file: Path, overrides: Sequence[str], cls: type) -> str:  # noqa: PLR0911
    """One line for a person, from what Hydra and OmegaConf raised."""
    text = str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    known = [key.name for key in keys(cls) if not key.of_entry] + groups(file)
    if isinstance(error, OverrideParseException):
        return f"command line: cannot read '{error.override}' as key=value; quote the value if it holds special signs"
    override = re.search(r"(?:Could not override|Error merging override|argument) '?([^'\n]+)'?", text)
    if override:
        name = override[1].partition("=")[0].lstrip("+~")
        inner = re.match(r"Key '([^']+)' not in '([^']+)'", str(cause))
        if inner and name in known:
            return f"command line: {name}: a {inner[2]} has no key '{inner[1]}' ({file} --help lists all)"
        if "Could not override" in text or "is not in struct" in text or "not in '" in text:
            return f"command line: unknown key '{name}'; {_nearest_key(name, known)} ({file} --help lists all)"
        detail = str(cause).splitlines()[0] if cause else "quote the value"
        return f"command line: {override[1].strip()}: {_plain_words(detail)}"
    choice = re.search(r"Could not find '([^']+)'", text)
    if choice:
        group, _, name = choice[1].rpartition("/")
        options = sorted(p.stem for p in (file.parent / group).glob("*.yaml")) if group else []
        return f"{file}: no {group or 'config'} is called '{name}'; {_nearest(name, options, 'there are')}"
    where = re.search(r"In '([^']+)'", text)
    source = file.parent / f"{where[1]}.yaml" if where and where[1] != file.stem else file
    full_key = re.search(r"full_key: (\S+)", text)
    name = full_key[1] if full_key else ""
    if "not in '" in text or "not in struct" in text:
        return f"{source}: unknown key '{name}'; {_nearest_key(name, known)} ({file} --help lists all)"
    lines = [line for line in text.splitlines() if line and not line.startswith(("In '", " "))]
    return f"{source}: {name + ': ' if name else ''}{_plain_words(lines[0] if lines else text)}"


def _plain_words(detail: str) -> str:
    found = re.match(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", detail)
    return f"'{found[1]}' is not of type {found[2].lower()}" if found else detail


def _nearest(name: str, options: Sequence[str], otherwise: str) -> str:
    """ "did you mean 'x'?", or all options where none is near."""
    near = difflib.get_close_matches(name, options, n=1)
    return f"did you mean '{near[0]}'?" if near else f"{otherwise} {', '.join(options)}"


def _nearest_key(name: str, known: Sequence[str]) -> str:
    """As `_nearest`; a right last part counts most, since `points_per_side` means `segment.points_per_side`."""
    near = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
    near = near or difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else "nothing is near it"
