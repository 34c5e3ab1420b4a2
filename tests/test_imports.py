"""Imports run one way, so that each room can be understood, tested and used without those above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Rooms of `liftgs`, lowest first; a room may import from itself and from lower ones. Rooms of one row are strangers.
ORDER = (
    ("scene", "scaling", "secrecy", "precision"),
    ("formats", "limits"),
    ("codecs",),
    ("geometry",),
    ("chunks",),
    ("labels", "sample"),
    ("lifting", "procedural"),
    ("readers",),
    ("video",),
    ("annotations", "teachers"),
    ("render",),
    ("model",),
    ("losses", "tasks", "training"),
    ("pretraining", "finetuning"),
    ("ground",),
    ("viewer",),
    ("cli",),
)
#: The one step sideways: a sample holds labels.
ALLOWED = {("sample", "labels")}
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def read_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            # `from liftgs import labels` names a module, `from liftgs.labels import paint` a thing in one
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


#: Read before any test runs: Python 3.11's `ast.parse` fails beside a thread (left by an earlier test) that parses too.
IMPORTS = {file: frozenset(read_imports(file)) for file in sources(ROOT / "liftgs")}


def imports(file: Path) -> frozenset[str]:
    """Absolute names of all modules that a file imports, wherever in it and for whatever reason."""
    return IMPORTS[file]


def room_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("file", sources(ROOT / "liftgs"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_science_knows_neither_ray_nor_the_platform(file: Path) -> None:
    forbidden = {"ray", "liftgs_platform", "hydra", "omegaconf"}
    assert not {name for name in imports(file) if name.split(".")[0] in forbidden}


@pytest.mark.parametrize("file", sources(ROOT / "liftgs"), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_in_the_science_run_downwards(file: Path) -> None:
    room = file.relative_to(ROOT / "liftgs").parts[0].removesuffix(".py")
    if room == "__init__":
        assert not any(name.startswith("liftgs.") for name in imports(file))
        return
    assert room in LEVEL, f"liftgs/{room} has no place in the order above; give it one"
    for name in imports(file):
        if name.startswith("liftgs."):
            other = room_of(name)
            lower = LEVEL[other] < LEVEL[room] if other in LEVEL else False
            assert other == room or lower or (room, other) in ALLOWED, f"{room} must not import {name}"


def test_platform_is_no_package() -> None:
    """It would shadow Python's own `platform`."""
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("liftgs.scene", ["torch", "scipy", "PIL"]),
        ("liftgs.sample", ["torch"]),
        ("liftgs.readers", ["torch", "av", "pycolmap"]),
        ("liftgs.annotations", ["torch"]),
        ("liftgs.teachers.captions", ["torch"]),
        ("liftgs_platform.pseudolabel", ["torch", "ray"]),  # a mistake in a spec is told at once
        ("liftgs_platform.label_pool", ["torch"]),  # nor does an actor without a model wait for it
        ("liftgs_platform.label_teachers", ["torch"]),
        ("liftgs_platform.storage", ["torch", "ray"]),
        ("liftgs_platform.reader", ["torch", "ray"]),
    ],
)
def test_light_modules_stay_light(module: str, unneeded: list[str]) -> None:
    code = f"import sys, {module}; print(*[name for name in {unneeded} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
