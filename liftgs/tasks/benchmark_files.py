"""ScanNet's files of instance predictions and of their ground truth. Knows no scores.

A folder holds `<scene>.txt`, one prediction a line: the path of its mask, label id, confidence. Masks are text files
below, one integer per vertex of `<scene>_vh_clean_2.ply`, in its order; all but 0 are in the mask. Ground truth is one
file per scene with an integer per vertex, 1000 x label id + number of the instance.

Source: https://kaldir.vc.in.tum.de/scannet_benchmark/documentation and `evaluate_semantic_instance.py`.
"""

from __future__ import annotations

import math

import fsspec
import numpy as np
from jaxtyping import Bool, Int

from liftgs.readers.files import Folder, file_at, inside
from liftgs.scene import BadInput
from liftgs.tasks.instances import VOID, ScoredMasks
from liftgs.tasks.scannet_classes import BenchmarkClasses

_MASKS = "predicted_masks"
#: Longest line of a mask: a 64-bit number and a line break of two bytes.
_MAX_LINE_BYTES = 22
_MAX_LIST_BYTES = 1 << 24


def write_predictions(folder: str, scene: str, predictions: ScoredMasks, classes: BenchmarkClasses) -> None:
    """Write a scene's predictions.

    Every prediction gets a mask file of its own, also where several share a mask: evaluators know a prediction by the
    path of its mask, and would keep one of those that share it. The list of predictions is written last.

    Args:
        folder: a path or any fsspec URL; made if need be.
        scene: e.g. "scene0011_00".
        predictions: masks over the vertices of the scene's mesh, labels in `classes`.
        classes: of the benchmark.

    Raises:
        ValueError: a label that is no class, a score that is not finite, or a scene's name with a space or slash,
            which the format cannot hold.
    """
    if not scene or any(character in "/\\" or character.isspace() for character in scene):
        raise ValueError(f"{scene!r} cannot be a scene's name in this format: it has a slash or a space, or is empty")
    if not np.isin(predictions.label, np.arange(len(classes))).all():
        raise ValueError(f"labels must be 0 to {len(classes) - 1}, the places of the benchmark's classes")
    if not np.isfinite(predictions.score).all():
        raise ValueError("scores must be finite")
    filesystem, root = fsspec.core.url_to_fs(folder)
    filesystem.makedirs(f"{root}/{_MASKS}", exist_ok=True)
    lines = []
    for number, (row, label, score) in enumerate(
        zip(predictions.row, predictions.label, predictions.score.tolist(), strict=True)
    ):
        path = f"{_MASKS}/{scene}_{number:03d}.txt"
        filesystem.pipe_file(f"{root}/{path}", _mask_text(predictions.masks[row]))
        lines.append(f"{path} {classes.ids[label]} {score!r}\n")
    filesystem.pipe_file(f"{root}/{scene}.txt", "".join(lines).encode())


def read_predictions(folder: str, scene: str, points: int, classes: BenchmarkClasses) -> ScoredMasks:
    """Read a scene's predictions, in the order of the file.

    Args:
        folder: a path or any fsspec URL.
        scene: its name.
        points: vertices of the scene's mesh; every mask must have as many.
        classes: of the benchmark.

    Raises:
        BadInput: a missing file, a line that is not as above, a label that the benchmark does not evaluate, a mask
            that is named twice, lies outside the folder or has another length.
    """
    files, name = Folder(folder), f"{scene}.txt"
    uri = files.uri_of(name)
    entries: dict[str, tuple[int, float]] = {}
    for number, line in enumerate(_lines(files, name), 1):
        if not line.strip():
            continue
        path, label, score = _entry(line, f"line {number}", uri)
        if label not in classes.ids:
            reason = f"label {label} is none of the {len(classes)} evaluated classes; drop the line, as evaluators do"
            raise BadInput(uri, f"line {number}: {reason}")
        path = inside(files, path, name)
        if path in entries:
            raise BadInput(uri, f"line {number}: {path} was named before; evaluators would keep one of the two")
        entries[path] = label, score
    masks = [_integers(files, path, points) != 0 for path in entries]
    labels = np.array([label for label, _ in entries.values()], np.int64)
    scores = np.array([score for _, score in entries.values()], np.float64)
    return ScoredMasks(
        np.array(masks, bool).reshape(-1, points), np.arange(len(entries)), classes.index(labels), scores
    )


def read_ground_truth(uri: str, classes: BenchmarkClasses) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Read a scene's ground truth.

    Returns:
        What `overlap` takes: the class of each vertex, `VOID` for what is not evaluated, and its instance's id.

    Raises:
        BadInput: missing, or lines that are not one integer each.
    """
    folder, name = file_at(uri)
    ids = _parse(folder.read(name), uri)
    labels = classes.index(ids // 1000)
    return labels, np.where(labels == VOID, 0, ids)


def _mask_text(mask: Bool[np.ndarray, " n"]) -> bytes:
    text = np.full((len(mask), 2), ord("\n"), np.uint8)
    text[:, 0] = ord("0") + mask
    return text.tobytes()


def _lines(files: Folder, name: str) -> list[str]:
    """Of a file that may be empty: a scene in which nothing was found."""
    with files.open(name) as file:
        data = file.read(_MAX_LIST_BYTES + 1)
    if len(data) > _MAX_LIST_BYTES:
        raise BadInput(files.uri_of(name), f"is larger than {_MAX_LIST_BYTES:,} bytes, so no list of predictions")
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        raise BadInput(files.uri_of(name), "not a text file (UTF-8)") from None


def _entry(line: str, where: str, uri: str) -> tuple[str, int, float]:
    """Path, label id and confidence."""
    try:
        path, label, score = line.split()
        entry = path, int(label), float(score)
    except ValueError:
        entry = "", 0, math.nan
    if not math.isfinite(entry[2]):
        raise BadInput(uri, f"{where} is not 'path label confidence': {line[:80]!r}")
    return entry


def _integers(files: Folder, path: str, count: int) -> Int[np.ndarray, " n"]:
    uri = files.uri_of(path)
    with files.open(path) as file:
        data = file.read(count * _MAX_LINE_BYTES + 1)
    values = _parse(data, uri)
    if len(values) != count:
        more = " or more" if len(values) > count else ""  # the rest of a long file was not read
        raise BadInput(uri, f"has {len(values):,}{more} lines, not one for each of the {count:,} vertices")
    return values


def _parse(data: bytes, uri: str) -> Int[np.ndarray, " n"]:
    """One integer a line."""
    tokens = data.split()
    try:
        # A file holds few different numbers, however long it is.
        value_of = {token: int(token) for token in set(tokens)}
        return np.array([value_of[token] for token in tokens], np.int64)
    except (ValueError, OverflowError):
        raise BadInput(uri, "is not one integer a line") from None
