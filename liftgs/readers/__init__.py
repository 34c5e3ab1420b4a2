"""Scans on disk or in object stores -> scenes. One module per format; every fault of the data is a BadInput.

Any fsspec URL works: a path, `s3://bucket/scan`, `memory://...`. Credentials and endpoints come from the environment.
Frames are read one at a time; nothing but index files and listings is held.
"""

from __future__ import annotations

import posixpath
import shlex
from concurrent.futures import ThreadPoolExecutor

from liftgs.readers.arkitscenes import ArkitScene
from liftgs.readers.ase import AseScene
from liftgs.readers.colmap import ColmapScene
from liftgs.readers.files import Folder
from liftgs.readers.folder import FolderScene
from liftgs.readers.frames import FolderBacked
from liftgs.readers.nerfstudio import NerfstudioScene
from liftgs.readers.options import DEFAULT_OPTIONS, FORMATS, ReaderOptions
from liftgs.readers.scannet import ScanNetScene
from liftgs.readers.scannetpp import ScanNetppScene
from liftgs.readers.taskonomy import TaskonomyScene
from liftgs.readers.tum import TumScene
from liftgs.scene import BadInput, Scene

__all__ = ["FORMATS", "ReaderOptions", "list_scenes", "open_scene"]

_PROCEDURAL = "procedural:"
_AT_ONCE = 16  # folders that are listed side by side
_VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
#: The most specific marker first: a nerfstudio folder often holds the COLMAP model that it was made from.
_READERS: dict[str, type[FolderBacked]] = {
    "arkitscenes": ArkitScene,
    "ase": AseScene,
    "taskonomy": TaskonomyScene,
    "scannet": ScanNetScene,
    "scannetpp": ScanNetppScene,
    "nerfstudio": NerfstudioScene,
    "tum": TumScene,
    "folder": FolderScene,
    "colmap": ColmapScene,
}
_LOOKED_FOR = (
    "lowres_wide/, lowres_depth/ and lowres_wide.traj (ARKitScenes); rgb/, depth/ and trajectory.csv (Aria Synthetic "
    "Environments); rgb/, point_info/ and depth_zbuffer/ or depth_euclidean/ (Taskonomy); "
    "transforms.json (nerfstudio); rgb.txt, depth.txt and groundtruth.txt (TUM); *.pose.txt or color/ and pose/ "
    "(folder); cameras, images and points3D, .bin or .txt, in sparse/0, sparse or the folder itself (COLMAP); a .sens "
    "file (ScanNet); iphone/ or dslr/ beside scans/ (ScanNet++)"
)


def open_scene(uri: str, options: ReaderOptions = DEFAULT_OPTIONS) -> Scene:
    """The scene at `uri`, as `list_scenes` names it. Reads listings only (none at all if `options.format` is given).

    Opening is cheap but not free on object stores: keep the scene for as long as you read from it.

    Raises:
        BadInput: there is no such folder, or no known format in it, or it is a video: first run `liftgs video`.
    """
    if _is_procedural(uri, options):
        from liftgs import procedural  # noqa: PLC0415  most sources do without it

        return procedural.open_scene(uri)
    _refuse_video(uri)
    folder = Folder(uri)
    if options.format != "auto":
        return _READERS[options.format](folder, options)
    entries = folder.entries()
    found = _detect(folder, entries)
    if found is None:
        raise BadInput(uri, f"no known scene format; looked for {_LOOKED_FOR}")
    return _READERS[found](folder, options)


def list_scenes(source: str, options: ReaderOptions = DEFAULT_OPTIONS) -> list[str]:
    """URIs of the scenes of a source, in stable order.

    A source is a scene, a folder whose sub-folders are scenes (others in it are passed over), or `procedural:`.

    Raises:
        BadInput: there is no such folder, or no scene in it.
    """
    if _is_procedural(source, options):
        from liftgs import procedural  # noqa: PLC0415  as above

        return list(procedural.list_scenes(source))
    _refuse_video(source)
    folder = Folder(source)
    entries = folder.entries()
    if _matches(folder, entries, options.format):
        return [folder.uri]
    children = [folder.child(name) for name, is_folder in entries.items() if is_folder and not name.startswith(".")]

    def is_scene(child: Folder) -> bool:
        try:
            return _matches(child, child.entries(), options.format)
        except BadInput:  # whoever opens it says why it cannot be
            return True

    with ThreadPoolExecutor(_AT_ONCE) as threads:  # it is waiting for storage, not work
        scenes = [child.uri for child, found in zip(children, threads.map(is_scene, children), strict=True) if found]
    if not scenes:
        raise BadInput(source, f"no known scene format in it or in its sub-folders; looked for {_LOOKED_FOR}")
    return scenes


def _refuse_video(uri: str) -> None:
    """Posing a video takes minutes, and readers are opened in many processes."""
    if uri.lower().endswith(_VIDEOS):
        name = posixpath.splitext(posixpath.basename(uri))[0]
        raise BadInput(
            uri, f"is a video; make a scene of it first: liftgs video {shlex.quote(uri)} {shlex.quote(name)}"
        )


def _is_procedural(uri: str, options: ReaderOptions) -> bool:
    return uri.startswith(_PROCEDURAL) or options.format == "procedural"


def _matches(folder: Folder, entries: dict[str, bool], wanted: str) -> bool:
    found = _detect(folder, entries) if wanted == "auto" else wanted if _is(wanted, folder, entries) else None
    return found is not None


def _detect(folder: Folder, entries: dict[str, bool]) -> str | None:
    return next((name for name in _READERS if _is(name, folder, entries)), None)


def _is(name: str, folder: Folder, entries: dict[str, bool]) -> bool:
    if name == "colmap":  # its files may lie deeper
        return ColmapScene.find(folder, entries) is not None
    return _READERS[name].recognises(entries)
