"""Exceptions in the words of a quarantine row: the same on every machine, in every run."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

from liftgs.scene import BadInput
from liftgs.secrecy import blanked
from liftgs.teachers.captions import CaptionerUnavailable, CaptionRefused

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_FRAMES = 12


def frames_fault(fault: Exception) -> bool:
    """Whether a frame is to blame, so that losing it is the answer; else the machine is, and the job must end."""
    if isinstance(fault, OSError | MemoryError | CaptionerUnavailable):
        return False
    return not _raised_by_torch(fault, "OutOfMemoryError", "AcceleratorError")


def device_is_broken(fault: BaseException) -> bool:
    """Whether this process can no longer use its accelerator (an illegal access, a failed assertion on the device)."""
    cause: BaseException | None = fault
    while cause is not None:  # a captioner wraps what its engine raises
        if _raised_by_torch(cause, "AcceleratorError") and not _raised_by_torch(cause, "OutOfMemoryError"):
            return True
        cause = cause.__cause__
    return False


def describe(fault: BaseException, uri: str) -> tuple[str, str, str]:
    """(where, what is wrong, traceback) of an exception, without anything that differs between runs or machines.

    Args:
        fault: as caught.
        uri: where it happened, unless the exception knows better.
    """
    if isinstance(fault, CaptionRefused):
        where, error = uri, str(fault)  # its own uri is the model's
    elif isinstance(fault, BadInput):
        where, error = fault.uri, fault.reason
    elif isinstance(fault, MemoryError):
        where, error = uri, f"no memory is left ({fault}); give its pool fewer actors, or larger nodes"
    else:
        where, error = uri, f"{type(fault).__name__}: {fault}".removesuffix(": ")
    return blanked(where), _told(error), _told(_trace(fault))


def _told(text: str) -> str:
    """Without what differs between runs, and without what nobody may read."""
    return blanked(_ADDRESS.sub("0x...", text))


def _trace(fault: BaseException) -> str:
    """The last calls, with file names relative to wherever their package is installed."""
    lines = [
        f"{_short(call.filename)}:{call.lineno} in {call.name}: {call.line}"
        for call in traceback.extract_tb(fault.__traceback__)[-_FRAMES:]
    ]
    if fault.__cause__ is not None:
        lines.append(f"caused by {type(fault.__cause__).__name__}: {fault.__cause__}")
    return "\n".join(lines)


def _short(filename: str) -> str:
    path = Path(filename)
    roots = [root for root in map(Path, filter(None, sys.path)) if path.is_relative_to(root)]
    return path.relative_to(max(roots, key=lambda root: len(root.parts))).as_posix() if roots else path.name


def _raised_by_torch(fault: BaseException, *names: str) -> bool:
    """By name, since most processes never import torch."""
    return any(kind.__name__ in names and kind.__module__.startswith("torch") for kind in type(fault).__mro__)
