"""Builds the C++ kernels on first use and keeps them in the user's cache folder.

The library has a plain C interface and depends on neither Python nor torch, so one build (a few seconds) serves every
version of both. Its name is a hash of sources, compiler, flags and CPU: any change builds anew, machines that share a
home folder do not run each other's code, and processes that build at the same time end with the same file. Where
$LIFTGS_RENDER_TARGET fixes the compiler's target (-march=x86-64-v3), the CPU does not matter.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

SOURCES = Path(__file__).parent / "kernels"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math")
#: Tried in turn: x86 and newer Arm compilers, older Arm ones, any.
TARGETS = (("-march=native",), ("-mcpu=native",), ())


class NoKernels(RuntimeError):
    """The kernels cannot be built here; the message says why."""


@functools.cache
def load() -> ctypes.CDLL:
    """The compiled library.

    Raises:
        NoKernels: there is no C++ compiler ($CXX, c++, g++ or clang++), it fails, or `long` is short.
    """
    if ctypes.sizeof(ctypes.c_long) != 8:
        raise NoKernels("the kernels take C's `long` for 64 bits, and here it has fewer")
    compiler = find_compiler()
    if compiler is None:
        raise NoKernels("no C++ compiler found ($CXX, c++, g++ or clang++)")
    library = cache_folder() / f"render-{_identity(compiler)}.so"
    if not library.exists():
        _build(compiler, library)
    return _declare(ctypes.CDLL(str(library)))


@functools.cache
def available() -> bool:
    """Whether `load` works here. Warns, once, if not."""
    try:
        load()
    except NoKernels as error:
        warnings.warn(f"rendering in plain torch, 10 to 100 times slower, for want of kernels: {error}", stacklevel=3)
        return False
    return True


def find_compiler() -> str | None:
    """The first C++ compiler there is."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where built libraries are kept: `liftgs` under $XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liftgs"


def _identity(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    cpu = "" if _fixed_target() else _cpu()
    digest = hashlib.sha256("\0".join([version, *FLAGS, repr(_targets()), cpu]).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:20]


def _targets() -> tuple[tuple[str, ...], ...]:
    return (_fixed_target(),) if _fixed_target() else TARGETS


def _fixed_target() -> tuple[str, ...]:
    """What $LIFTGS_RENDER_TARGET names: an image is built once, for what all its machines have in common."""
    return tuple(os.environ.get("LIFTGS_RENDER_TARGET", "").split())


def _cpu() -> str:
    """What decides which instructions `native` means."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    kinds = ("flags", "Features", "CPU part", "model name")
    return "\n".join(sorted({line for line in info.read_text().splitlines() if line.startswith(kinds)}))


def _build(compiler: str, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=library.parent, suffix=".partial")
    os.close(handle)
    try:
        for target in _targets():
            command = [compiler, *FLAGS, *target, str(SOURCES / "render.cpp"), "-o", partial]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                os.replace(partial, library)
                return
        raise NoKernels(f"{' '.join(command)}: {done.stderr.strip()[:2000]}")
    finally:
        Path(partial).unlink(missing_ok=True)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    signatures = {
        "liftgs_plan": (pointer, [long, *[pointer] * 5, integer, integer, integer]),
        "liftgs_free": (None, [pointer]),
        "liftgs_blocks": (long, [pointer]),
        "liftgs_weigh": (None, [pointer, pointer, pointer, integer]),
        "liftgs_weigh_backward": (None, [*[pointer] * 9, integer]),
        "liftgs_composite": (ctypes.c_bool, [*[pointer] * 3, long, integer, pointer, long, integer]),
        "liftgs_scratch": (long, [pointer, integer, ctypes.c_bool, integer]),
        "liftgs_composite_backward": (
            None,
            [*[pointer] * 3, long, integer, pointer, long, long, pointer, long, pointer, pointer, integer],
        ),
        "liftgs_mask_sums": (None, [pointer, long, integer, integer, pointer, long, pointer, integer]),
        "liftgs_mask_slopes": (None, [pointer, long, integer, integer, pointer, long, *[pointer] * 4, integer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
