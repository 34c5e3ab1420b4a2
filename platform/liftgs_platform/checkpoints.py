"""Checkpoints of a training on any storage: `{run}/checkpoints/step-000500/`.

A checkpoint holds what the model saved (config.json, model.safetensors), the trainer's state (trainer.safetensors for
its tensors, trainer.json for the rest) and, written last, checkpoint.json: the cursor, and the size and SHA-256 of all
other files. It *is* the commit: a folder without it does not exist, so killing a writer at any moment leaves the
checkpoints before it. Nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import safetensors
import safetensors.torch
import torch

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput
from liftgs.training.plateau import Check
from liftgs_platform import storage

FORMAT = "liftgs-checkpoint/1"
COMMIT = "checkpoint.json"
_TENSORS, _STRUCTURE = "trainer.safetensors", "trainer.json"
_STEP = re.compile(r"step-(\d{6,})/(.+)")


@dataclass(frozen=True)
class Cursor:
    """How far a training is.

    Attributes:
        step: optimiser steps done, or skipped.
        samples_consumed: positions of the mixture that are used up: the whole state of the data.
        bad_samples: of these, how many could not be used.
        skipped_steps: steps that changed nothing, for a loss or a gradient was not finite, or all samples bad.
        seconds: that the steps took, data awaited and checks included, over all attempts, without what was lost.
        checks: steps after which the training was validated, and its scores.
        plateau: step whose check ended the training; see `liftgs.training.plateau`.
    """

    step: int = 0
    samples_consumed: int = 0
    bad_samples: int = 0
    skipped_steps: int = 0
    seconds: float = 0.0
    checks: tuple[Check, ...] = ()
    plateau: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "checks", tuple((int(step), float(score)) for step, score in self.checks))  # of JSON


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint, checked and copied to this machine.

    Attributes:
        folder: local copy; holds what the model saved.
        cursor: where to go on.
        trainer: state of the trainer.
    """

    folder: Path
    cursor: Cursor
    trainer: Any


def save(run: str, cursor: Cursor, write_model: Callable[[Path], None], trainer: Any) -> str:
    """Write and commit a checkpoint; one of the same step is replaced.

    Args:
        run: URI of the run's folder.
        cursor: where training would go on.
        write_model: saves the model into a local folder.
        trainer: tensors, numbers, strings, None, and dictionaries, lists and tuples of them.

    Returns:
        URI of the checkpoint.

    Raises:
        StorageError: it could not be written; there is no such checkpoint then.
    """
    uri = uri_of(run, cursor.step)
    storage.delete(storage.join(uri, COMMIT))
    with tempfile.TemporaryDirectory(prefix="liftgs-checkpoint-") as scratch:
        folder = Path(scratch)
        write_model(folder)
        structure, tensors = flatten(trainer)
        (folder / _STRUCTURE).write_text(json.dumps(structure))
        safetensors.torch.save_file(tensors, folder / _TENSORS)
        files = {}
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            storage.write_bytes(storage.join(uri, file.name), data)
            files[file.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    commit = {"format": FORMAT, "cursor": asdict(cursor), "files": files}
    storage.write_bytes(storage.join(uri, COMMIT), json.dumps(commit, indent=1).encode() + b"\n")
    return uri


class Writer:
    """Commits checkpoints beside the training, one after the other, and deletes those that are no longer kept.

    Use as a context: what is under way at its end is committed first.

    Raises, from `save`, `wait` and the context's end:
        StorageError: the last checkpoint could not be written.
    """

    def __init__(self, run: str, keep_last: int, keep_every: int = 0):
        """See `prune`."""
        self.run, self._kept = run, (keep_last, keep_every)
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self._committed = monotonic()
        self.commit_s = 0.0  # that the last commit took

    def __enter__(self) -> Writer:
        prune(self.run, *self._kept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    @property
    def age_s(self) -> float:
        """Since the newest checkpoint was committed, or since the beginning."""
        return monotonic() - self._committed

    def save(self, cursor: Cursor, model: Any, trainer: Any) -> None:
        """Copy the state, and return; it is written meanwhile. Waits first for the checkpoint before.

        Args:
            cursor: where training would go on.
            model: a module with `save(folder)`.
            trainer: see `checkpoints.save`.
        """
        self.wait()
        self._under_way = self._pool.submit(self._commit, cursor, copy.deepcopy(model), unflatten(*flatten(trainer)))

    def wait(self) -> None:
        """Until the last checkpoint is committed."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _commit(self, cursor: Cursor, model: Any, trainer: Any) -> None:
        began = monotonic()
        save(self.run, cursor, model.save, trainer)
        self._committed = monotonic()
        self.commit_s = self._committed - began
        prune(self.run, *self._kept)


def load(uri: str, folder: Path) -> Checkpoint:
    """Copy a committed checkpoint into a local folder, checking every byte.

    Raises:
        FileNotFoundError: there is no such checkpoint, or it was never committed.
        BadInput: a file is missing, truncated or changed; the message names it.
    """
    commit = _read_commit(storage.join(uri, COMMIT))
    for name, facts in commit["files"].items():
        (folder / name).write_bytes(_read(storage.join(uri, name), facts["size"], facts["sha256"], uri))
    try:
        tensors = safetensors.torch.load_file(folder / _TENSORS)
        state = unflatten(json.loads((folder / _STRUCTURE).read_text()), tensors)
        return Checkpoint(folder, Cursor(**commit["cursor"]), state)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise BadInput(storage.join(uri, _STRUCTURE), f"not the state of a trainer ({error!r})") from error


def cursor_of(uri: str) -> Cursor:
    """How far a committed checkpoint is; raises as `load`."""
    commit = _read_commit(storage.join(uri, COMMIT))
    try:
        return Cursor(**commit["cursor"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(storage.join(uri, COMMIT), f"holds no cursor ({error!r}){_remedy(uri)}") from error


def committed(run: str) -> dict[int, str]:
    """Steps with a committed checkpoint, in order, and their URIs."""
    names = _names(run)
    return {step: uri_of(run, step) for step in sorted(names) if COMMIT in names[step]}


def newest(run: str) -> str | None:
    """URI of the committed checkpoint with the most steps, if there is one."""
    return next(reversed(committed(run).values()), None)


def prune(run: str, keep_last: int, keep_every: int = 0) -> None:
    """Delete all checkpoints but the last few and every n-th, and what killed writers left before the newest.

    What is not committed after the newest stays: a worker may yet be writing it whose driver was killed.

    Args:
        run: URI of the run's folder.
        keep_last: how many of the newest to keep, at least 1.
        keep_every: keep those whose step is a multiple of this, too; 0 = no others.
    """
    names, steps = _names(run), list(committed(run))
    kept = set(steps[-keep_last:]) | {step for step in steps if keep_every and step % keep_every == 0}
    for step in {step for step in names if steps and step < steps[-1]} - kept:
        for name in sorted(names[step], key=lambda name: name != COMMIT):  # first of all it ceases to be committed
            storage.delete(storage.join(uri_of(run, step), name))
    _remove_empty_folders(run)


def uri_of(run: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return storage.join(run, "checkpoints", f"step-{step:06d}")


# ---- trainer state without pickle


def flatten(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Part a nested state into JSON and tensors; the inverse of `unflatten`.

    Raises:
        TypeError: something is neither a tensor nor a plain value; the message says where.
    """
    tensors: dict[str, torch.Tensor] = {}

    def visit(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[path] = value.detach().cpu().clone().contiguous()
            return {"tensor": path}
        if isinstance(value, Mapping):
            # JSON would turn the integer keys of an optimiser's state into strings, so keys are values here.
            return {"dict": [[visit(k, path), visit(v, f"{path}.{k}".lstrip("."))] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [visit(v, f"{path}.{i}".lstrip(".")) for i, v in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{path or 'the state'} is a {type(value).__name__}, which is not saved without pickle")

    return visit(state, ""), tensors


def unflatten(structure: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The state that `flatten` parted.

    Raises:
        ValueError: no such structure.
        KeyError: a tensor is missing.
    """
    if not isinstance(structure, dict):
        return structure
    match list(structure.items()):
        case [("tensor", path)]:
            return tensors[path]
        case [("dict", pairs)]:
            return {unflatten(k, tensors): unflatten(v, tensors) for k, v in pairs}
        case [("list", values)]:
            return [unflatten(value, tensors) for value in values]
        case [("tuple", values)]:
            return tuple(unflatten(value, tensors) for value in values)
    raise ValueError(f"unknown structure {sorted(structure)}")


# ---- files


def _names(run: str) -> dict[int, list[str]]:
    """Step -> names of the files of its checkpoint, committed or not."""
    folder = storage.join(run, "checkpoints")
    names: dict[int, list[str]] = {}
    for uri in storage.list_files(folder):
        match = _STEP.fullmatch(uri.removeprefix(folder).lstrip("/"))
        if match:
            names.setdefault(int(match[1]), []).append(match[2])
    return names


def _read_commit(uri: str) -> dict[str, Any]:
    try:
        commit = json.loads(storage.read_bytes(uri))
        check_format(commit["format"], FORMAT, uri)
        if not commit["files"].keys() >= {_TENSORS, _STRUCTURE} or any("/" in name for name in commit["files"]):
            raise ValueError(f"lists {sorted(commit['files'])}")
    except FileNotFoundError:
        raise FileNotFoundError(f"{uri}: no such file, so there is no checkpoint here") from None
    except NewerFormat:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(uri, f"not the commit of a checkpoint ({error!r}){_remedy(uri)}") from error
    return dict(commit)


def _read(uri: str, size: int, sha256: str, checkpoint: str) -> bytes:
    try:
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        raise BadInput(uri, f"is missing from a committed checkpoint{_remedy(checkpoint)}") from None
    if len(data) != size:
        raise BadInput(uri, f"has {len(data):,} of {size:,} bytes{_remedy(checkpoint)}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(uri, f"is not what was committed (SHA-256 differs){_remedy(checkpoint)}")
    return data


def _remedy(checkpoint: str) -> str:
    return f"; delete {checkpoint.removesuffix('/' + COMMIT)} to go on from the checkpoint before it"


def _remove_empty_folders(run: str) -> None:
    """On a disk, where deleting all files leaves a folder."""
    local = storage.local_path(storage.join(run, "checkpoints"))
    for folder in Path(local).glob("step-*") if local else ():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
