"""Damaged files of every format: a clear BadInput that names the scene's place, or the data; nothing else, and soon."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import fsspec
import numpy as np
import pytest
from test_sources import FORMATS

from liftgs.readers import ReaderOptions, open_scene
from liftgs.scene import BadInput

MUTATIONS = ("truncate", "flip", "garble", "zero", "swap", "drop", "text")
WORDS = (b"nan", b"-inf", b"1e308", b"-1", b"9" * 20, b"null", b"{}", b"[]", b"../../etc/passwd", b"")
_FORMAT_OF = {
    "FolderScene": "folder",
    "TumScene": "tum",
    "NerfstudioScene": "nerfstudio",
    "ColmapScene": "colmap",
    "TaskonomyScene": "taskonomy",
    "AseScene": "ase",
    "ArkitScene": "arkitscenes",
    "ScanNetScene": "scannet",
    "ScanNetppScene": "scannetpp",
}
#: Of any one damaged scene; they are of a few frames of 160x120.
MOST_SECONDS, MOST_BYTES = 20.0, 256 << 20


def mutate(files: dict[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """With one file damaged in one way."""
    name = sorted(files)[rng.integers(len(files))]
    data = bytearray(files[name])
    how = MUTATIONS[rng.integers(len(MUTATIONS))]
    at = int(rng.integers(max(1, len(data))))
    match how:
        case "truncate":
            data = data[:at]
        case "flip":
            for place in rng.integers(max(1, len(data)), size=8):
                data[place : place + 1] = bytes([data[place] ^ (1 << int(rng.integers(8)))]) if data else b""
        case "garble":
            data[at : at + 64] = rng.bytes(64)
        case "zero":
            data[at : at + 256] = bytes(min(256, len(data) - at))
        case "swap":
            data = bytearray(files[sorted(files)[rng.integers(len(files))]])
        case "drop":
            return {path: content for path, content in files.items() if path != name}
        case "text":  # what a number, a path or a list must survive
            words = [
                b"nan",
                b"-inf",
                b"1e308",
                b"-1",
                b"99999999999999999999",
                b"null",
                b"{}",
                b"[]",
                b"../../etc/passwd",
                b"",
            ]
            data[at : at + int(rng.integers(1, 12))] = words[rng.integers(len(words))]
    return {**files, name: bytes(data)}


def read_everything(uri: str, kind: str) -> None:
    """As the pipeline does: a frame's fault costs the frame, the scene's the scene."""
    with suppress(BadInput):
        scene = open_scene(uri, ReaderOptions(format=kind))
        for frame_id in itertools.islice(scene.frame_ids(), 6):
            with suppress(BadInput):
                scene.load(frame_id)
        for read in (scene.cloud, scene.labels):
            with suppress(BadInput):
                read()


def cases(count: int) -> Iterator[tuple[str, int]]:
    names = list(FORMATS)
    return ((names[number % len(names)], number) for number in range(count))


def fuzz(count: int) -> None:
    store = fsspec.filesystem("memory")
    whole = {name: files() for name, (files, _) in FORMATS.items()}
    tracemalloc.start()
    try:
        for name, seed in cases(count):
            folder = f"/fuzz/{seed}/{name}"
            for path, data in mutate(whole[name], np.random.default_rng(seed)).items():
                store.pipe_file(f"{folder}/{path}", data)
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], monotonic()
            try:
                read_everything(f"memory:/{folder}", _FORMAT_OF[FORMATS[name][1].__name__])
            except Exception as error:
                pytest.fail(f"case {seed} ({name}): {type(error).__name__}: {error}")
            assert monotonic() - start < MOST_SECONDS, f"case {seed} ({name}) takes too long"
            assert tracemalloc.get_traced_memory()[1] - before < MOST_BYTES, (
                f"case {seed} ({name}) takes too much memory"
            )
            store.rm(f"/fuzz/{seed}", recursive=True)
    finally:
        tracemalloc.stop()


def test_damaged_scenes_raise_bad_input_and_nothing_else() -> None:
    fuzz(60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_damaged_scenes_crash_nothing_and_hang_nothing() -> None:
    fuzz(2000)
