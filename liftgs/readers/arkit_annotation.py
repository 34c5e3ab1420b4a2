"""ARKitScenes' annotated boxes: `<video>_3dod_annotation.json`.

{"data": [{"label": "tv_monitor", "segments": {"obbAligned": {"centroid": [3 numbers], "axesLengths": [3],
"normalizedAxes": [9]}}}, ...], "skipped": false, ...}, in the world of the mesh and of the poses. `normalizedAxes` are
the box's own axes, one after the other; lengths are whole, not half.

Source: apple/ARKitScenes, threedod/README.md and threedod/benchmark_scripts/utils/{tenFpsDataLoader,box_utils}.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from liftgs.readers.boxes import OrientedBox
from liftgs.readers.files import Folder
from liftgs.scene import BadInput


def read_annotation(folder: Folder, path: str) -> list[tuple[str, OrientedBox]] | None:
    """Class name ("tv monitor") and box of each thing; None if the annotators skipped the video.

    Raises:
        BadInput: missing, or not such a file.
    """
    parsed = folder.json(path)
    try:
        if parsed.get("skipped"):
            return None
        return [_thing(entry) for entry in parsed["data"]]
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as fault:
        raise BadInput(folder.uri_of(path), f"not a 3DOD annotation ({type(fault).__name__}: {fault})") from None


def _thing(entry: dict[str, Any]) -> tuple[str, OrientedBox]:
    box = entry["segments"]["obbAligned"]
    centre = np.array(box["centroid"], np.float64).reshape(3)
    lengths = np.array(box["axesLengths"], np.float64).reshape(3)
    axes = np.array(box["normalizedAxes"], np.float64).reshape(3, 3)
    if not (np.isfinite(centre).all() and np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError(f"a box at {centre.tolist()} has lengths {lengths.tolist()}")
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-2):
        raise ValueError(f"axes {axes.tolist()} are not orthonormal")
    return str(entry["label"]).replace("_", " "), OrientedBox(centre, axes, lengths)
