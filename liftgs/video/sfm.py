"""Structure from motion with pycolmap: photos -> cameras and a sparse cloud, or, where cameras are known, the cloud.

Everything random has a fixed seed. Features and matches are found on all cores: each photo and each pair is a thing of
its own, kept in a database that a restarted run goes on with. What sums over all of them, the bundle adjustment, runs
on one core, so that its result does not depend on the order in which threads finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from liftgs.scene import Camera

_SEED = 0
_MAX_FEATURES = 2048  # of a photo; COLMAP's 8192 are meant for large photos taken far apart, and matching is quadratic
_NEIGHBOURS = 8
_ANCHORS = 48
#: pinhole with one focal length and one distortion parameter: COLMAP's choice for photos of an unknown lens
_UNKNOWN_LENS = "SIMPLE_RADIAL"
_FOCAL_LENGTH = 0.85  # first guess, in longer sides of the picture; phones film at 0.7 to 0.95, COLMAP supposes 1.2

pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR.value)


def solve(work: Path, names: Sequence[str], progress: Callable[[str], None]) -> pycolmap.Reconstruction | None:
    """The cameras of the photos and the points that they see, in a world of arbitrary place, orientation and scale.

    All photos are taken to come from one camera of unknown focal length.

    Args:
        work: holds `images/`; gets `database.db`.
        names: of the photos, in the order in which they were taken.
        progress: is told what is being done.

    Returns:
        The largest model that was found, if any.
    """
    database = work / "database.db"
    _find_matches(work, work / "images", names, pycolmap.CameraMode.SINGLE, progress)
    placed = 0

    def on_pair() -> None:  # a model begins; there may be several, of which the largest is kept
        nonlocal placed
        placed = 2

    def on_image() -> None:
        nonlocal placed
        placed += 1
        if placed % 20 == 0:
            progress(f"placed {placed} of {len(names)} keyframes")

    progress("structure from motion")
    models = work / "models"
    models.mkdir(exist_ok=True)
    found = pycolmap.incremental_mapping(
        database,
        work / "images",
        models,
        _mapping_options(),
        initial_image_pair_callback=on_pair,
        next_image_callback=on_image,
    )
    return max(found.values(), key=lambda model: model.num_reg_images(), default=None)


def triangulate(
    work: Path, photos: Path, cameras: dict[str, Camera], progress: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The points that photos of known cameras see.

    Args:
        work: gets `database.db`.
        photos: their folder.
        cameras: by name of the photo, in the order in which they were taken.
        progress: as for `solve`.

    Returns:
        xyz float64 n x 3, in the unit of the poses, and rgb uint8 n x 3.
    """
    _find_matches(work, photos, list(cameras), pycolmap.CameraMode.PER_IMAGE, progress, cameras)
    progress("triangulation")
    known = pycolmap.Reconstruction()
    with pycolmap.Database.open(work / "database.db") as database:
        for image in sorted(database.read_all_images(), key=lambda image: image.image_id):
            camera = cameras[image.name]
            known.add_camera_with_trivial_rig(_colmap_camera(camera, image.camera_id))
            known.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera.world_to_cam[:3]))
    models = work / "models"
    models.mkdir(exist_ok=True)
    model = pycolmap.triangulate_points(known, work / "database.db", photos, models, options=_mapping_options())
    points = [model.points3D[i] for i in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in points], np.float64).reshape(-1, 3)
    return xyz, np.array([point.color for point in points], np.uint8).reshape(-1, 3)


def pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which photos of a video to match: neighbours, and for loops all pairs of some photos spread over the whole."""
    stride = max(1, -(-len(names) // _ANCHORS))
    for i, one in enumerate(names):
        for j in range(i + 1, len(names)):
            if j - i <= _NEIGHBOURS or (i % stride == 0 and j % stride == 0):
                yield one, names[j]


def _find_matches(
    work: Path,
    photos: Path,
    names: Sequence[str],
    mode: pycolmap.CameraMode,
    progress: Callable[[str], None],
    cameras: dict[str, Camera] | None = None,
) -> None:
    """Fill the database; what is in it already is not done again."""
    pycolmap.set_random_seed(_SEED)
    path = work / "database.db"
    lens = pycolmap.ImageReaderOptions(
        camera_model="PINHOLE" if cameras else _UNKNOWN_LENS, default_focal_length_factor=_FOCAL_LENGTH
    )
    with pycolmap.Database.open(path) as database:
        registered = database.num_images()
    if registered < len(names):  # first, in order: the threads that find features would number them as they finish
        pycolmap.import_images(path, photos, mode, names, lens)
    if cameras:
        with pycolmap.Database.open(path) as database:
            for image in database.read_all_images():
                database.update_camera(_colmap_camera(cameras[image.name], image.camera_id))
    progress(f"features of {len(names)} keyframes")
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = _MAX_FEATURES
    pycolmap.extract_features(path, photos, names, mode, lens, extraction, pycolmap.Device.cpu)
    wanted = list(pairs(names))
    (work / "pairs.txt").write_text("".join(f"{one} {two}\n" for one, two in wanted))
    progress(f"matches of {len(wanted)} pairs")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    pycolmap.match_image_pairs(
        path,
        pycolmap.FeatureMatchingOptions(),
        pycolmap.ImportedPairingOptions(match_list_path=str(work / "pairs.txt")),
        verification,
        pycolmap.Device.cpu,
    )


def _mapping_options() -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=_SEED, min_model_size=3)
    options.mapper.num_threads = 1
    options.mapper.random_seed = _SEED
    options.triangulation.random_seed = _SEED
    options.structure_less_registration_fallback = False
    return options


def _colmap_camera(camera: Camera, camera_id: int) -> pycolmap.Camera:
    K = camera.K
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    return pycolmap.Camera(
        camera_id=camera_id,
        model="PINHOLE",
        width=camera.width,
        height=camera.height,
        params=params,
        has_prior_focal_length=True,
    )
