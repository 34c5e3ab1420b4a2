"""A video -> a scene folder: keyframes, cameras, a sparse cloud. What `liftgs video` does.

A bare video becomes a COLMAP folder (`images/`, `sparse/0/`), its cameras found by structure from motion; `world.json`
beside the model says how scale and up were settled (`liftgs.video.world`).

A video with poses beside it, `NAME.transforms.json` for `NAME.mp4`, becomes a nerfstudio folder (`images/`,
`transforms.json`, `points3D.ply`), its points triangulated (`liftgs.video.posed`).

The result depends on the video and the configuration alone. It grows in `OUT.partial`, which is renamed to `OUT` when
it is whole: a folder that is there is finished. Started again, a conversion goes on with the keyframes, features and
matches that it has.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import fsspec
from PIL import Image

from liftgs.scene import BadInput
from liftgs.video import posed, sfm, world
from liftgs.video.decode import Shot, shots
from liftgs.video.keyframes import KeyframeConfig, choose

Progress: TypeAlias = Callable[[str], None]

_LEAST_FRAMES = 5
_LEAST_SHARE = 1 / 3
_RECORD = "video.json"


@dataclass(frozen=True)
class VideoConfig:
    """How a video becomes a scene.

    Attributes:
        keyframes: which frames are used.
        long_side_px: of the stored photos; larger frames are made smaller. The labelling job stores 512.
        median_distance_m: half of what the cameras see is nearer than this; sets the scale where nothing else does.
            2.5 m fits a room that is filmed from within.
    """

    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    long_side_px: int = 1280
    median_distance_m: float = 2.5

    def __post_init__(self) -> None:
        if self.long_side_px < 64:
            raise ValueError(f"long_side_px must be at least 64, not {self.long_side_px}")
        if not 0 < self.median_distance_m < float("inf"):
            raise ValueError(f"median_distance_m must be positive and finite, not {self.median_distance_m}")


def convert(
    video: str,
    out: str | os.PathLike[str],
    config: VideoConfig = VideoConfig(),
    progress: Progress = lambda line: None,
) -> None:
    """Make the scene folder `out` of a video; done at once if it is there already.

    Args:
        video: any fsspec URL. If it ends in `.mp4` (or another suffix), poses may be beside it in `.transforms.json`.
        out: a local folder, which must not exist unless an equal conversion made it.
        config: see there.
        progress: is told, in plain lines, how far it is.

    Raises:
        BadInput: the video or the poses cannot be used, too few keyframes could be placed, or `out` is something else.
    """
    target = Path(out)
    if "://" in str(out):
        raise BadInput(str(out), "must be a local folder; copy it to a store when it is finished")
    poses = posed.find(video)
    record = {
        "video": video,
        "size_bytes": _size(video),
        "poses_sha256": None if poses is None else poses.sha256,
        **asdict(config),
    }
    if target.exists():
        if _read(target / _RECORD) != record:
            raise BadInput(str(target), f"exists, but was not made from {video} in this way; choose another folder")
        progress(f"{target} is finished already")
        return
    work = target.with_name(f"{target.name}.partial")
    _begin(work, record)
    names = _keyframes(video, work, config, poses, progress)
    if poses is None:
        _solve(video, work, names, config, progress)
    else:
        posed.reconstruct(poses, work, names, progress)
    for scrap in ("database.db", "pairs.txt", "keyframes.json"):
        (work / scrap).unlink(missing_ok=True)
    for scrap in ("models", "pinhole"):
        shutil.rmtree(work / scrap, ignore_errors=True)
    work.rename(target)


def _size(video: str) -> int | None:
    """To tell two states of one file apart; a missing file is told about where it is read."""
    filesystem, path = fsspec.core.url_to_fs(video)
    return int(filesystem.size(path)) if filesystem.exists(path) else None


def _begin(work: Path, record: dict[str, Any]) -> None:
    """An empty folder, or the state of an equal conversion."""
    if work.exists() and _read(work / _RECORD) != record:
        if any(work.iterdir()) and not (work / _RECORD).exists():
            raise BadInput(str(work), "is in the way and no conversion has left it; remove it")
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    _write(work / _RECORD, record)


def _keyframes(
    video: str, work: Path, config: VideoConfig, poses: posed.Poses | None, progress: Progress
) -> dict[str, int]:
    """Photo name -> position in the video, of the keyframes, which are in `work/images` afterwards."""
    listed = work / "keyframes.json"
    if (names := _read(listed)) is not None:
        return names
    progress(f"choosing keyframes of {video}")
    chosen = choose(_candidates(video, poses), config.keyframes, progress)
    if len(chosen) < _LEAST_FRAMES:
        few_poses = "" if poses is None else f", or too few frames have a pose in {poses.uri}"
        raise BadInput(
            video, f"has only {len(chosen)} keyframes, not {_LEAST_FRAMES}: the camera hardly moves{few_poses}"
        )
    progress(f"{len(chosen)} keyframes")
    (work / "images").mkdir(exist_ok=True)
    names = {f"frame-{index:06d}.jpg": index for index in chosen}
    wanted = set(chosen)
    for shot in shots(video):
        if shot.index in wanted:
            photo = Image.fromarray(shot.rgb(config.long_side_px))
            photo.save(work / "images" / f"frame-{shot.index:06d}.jpg", quality=95)
        if shot.index == chosen[-1]:
            break
    _write(listed, names)
    return names


def _candidates(video: str, poses: posed.Poses | None) -> Iterator[Shot]:
    """The frames that may be keyframes: all, or those with a pose."""
    last = -1
    for shot in shots(video):
        last = shot.index
        if poses is None or shot.index in poses.frames:
            yield shot
    beyond = max(poses.frames, default=last) if poses is not None else last
    if poses is not None and beyond > last:
        raise BadInput(poses.uri, f"has a pose of frame {beyond}, but {video} has {last + 1} frames")


def _solve(video: str, work: Path, names: dict[str, int], config: VideoConfig, progress: Progress) -> None:
    """Find the cameras; make `work` a COLMAP folder."""
    model = sfm.solve(work, list(names), progress)
    placed = 0 if model is None else model.num_reg_images()
    if model is None or placed < max(_LEAST_FRAMES, len(names) * _LEAST_SHARE):
        raise BadInput(
            video,
            f"only {placed} of {len(names)} keyframes could be placed; film slowly, step sideways rather than turn on "
            "the spot, and keep things with texture in view",
        )
    progress(f"placed {placed} of {len(names)} keyframes, {model.num_points3D()} points")
    settled = world.settle(model, config.median_distance_m)
    folder = work / "sparse" / "0"
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(folder)
    _write(folder / "world.json", {"keyframes": len(names), "placed": placed, **settled})


def _read(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file of ours, if it is there and whole."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(file)
