"""The picture shows what was found, from where it can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from untrained import untrained_model

from liftgs.geometry import project
from liftgs.ground import Grounding, Match, Scan
from liftgs.ground.files import phrase_colours
from liftgs.ground.picture import draw, save
from liftgs.ground.views import best_frame, overview
from liftgs.scene import Camera, Frame, PointCloud

SIZE = 64


def camera(x: float) -> Camera:
    """At (x, 0, 0), looking along +z."""
    pose = np.eye(4)
    pose[0, 3] = x
    return Camera(np.array([[40.0, 0, 32], [0, 40, 32], [0, 0, 1]]), pose, SIZE, SIZE)


def frame(name: str, x: float, depth_m: float = 3.0) -> Frame:
    grey = np.full((SIZE, SIZE, 3), 100, np.uint8)
    return Frame(name, name, camera(x), grey, np.full((SIZE, SIZE), depth_m, np.float32))


def wall() -> PointCloud:
    """A white wall 3 m before the cameras."""
    x, y = np.meshgrid(np.arange(-2, 2, 0.05), np.arange(-2, 2, 0.05))
    xyz = np.stack([x.ravel(), y.ravel(), np.full(x.size, 3.0)], axis=1).astype(np.float32)
    return PointCloud(xyz, np.full(xyz.shape, 255, np.uint8))


def grounding(scan: Scan, chosen: np.ndarray, phrases: tuple[str, ...] = ("a thing", "nothing at all")) -> Grounding:
    """The first phrase names the chosen points."""
    model = untrained_model()
    voxels = model.voxelise(scan.cloud)
    mask = np.zeros(len(voxels), bool)
    mask[voxels.of_point.numpy()[chosen]] = True
    xyz = scan.cloud.xyz[chosen]
    match = Match(phrases[0], 1, 0.5, np.flatnonzero(chosen), mask, xyz.min(axis=0), xyz.max(axis=0))
    return Grounding(scan, phrases, [match], model.encode([voxels])[0])


def test_a_mask_is_where_the_object_is_on_the_photo_and_on_the_rendering() -> None:
    scan = Scan("wall", wall(), [frame("0", 0)])
    found = grounding(scan, scan.cloud.xyz[:, 0] > 0.2)
    picture = draw(found, width=SIZE).astype(int)
    colour = phrase_colours(1)[0].astype(int)
    photo, rendered = picture[:SIZE, :SIZE], picture[:SIZE, SIZE:]
    assert picture.shape[1] == 2 * SIZE
    assert picture.shape[0] > SIZE + 2 * 20, "a line of the legend for each phrase"
    inside, outside = (slice(24, 40), slice(44, 52)), (slice(24, 40), slice(8, 20))
    assert (np.abs(photo[outside] - 100) <= 1).all()
    assert (rendered[outside] > 200).all()
    for panel, plain in ((photo, 100), (rendered, 255)):
        tinted = panel[inside].mean(axis=(0, 1))
        np.testing.assert_allclose(tinted, 0.4 * plain + 0.6 * colour, atol=14)


def test_what_hides_an_object_hides_its_mask() -> None:
    far = wall()
    near = PointCloud(far.xyz * (0.5, 0.5, 0.5) @ np.diag([1, 1, 1]), np.full_like(far.rgb, 40))
    near = near[near.xyz[:, 0] < 0]
    cloud = PointCloud(
        np.concatenate([far.xyz, near.xyz]).astype(np.float32), np.concatenate([far.rgb, near.rgb]).astype(np.uint8)
    )
    scan = Scan("walls", cloud, [frame("0", 0)])
    picture = draw(grounding(scan, cloud.xyz[:, 2] > 2), width=SIZE).astype(int)
    assert (np.abs(picture[24:40, 8:20] - 100) <= 15).all()
    assert np.abs(picture[24:40, 40:56] - 100).max() > 40


def test_the_photo_is_the_one_that_shows_the_most() -> None:
    target = np.stack([np.linspace(2.5, 3.5, 20), np.zeros(20), np.full(20, 3.0)], axis=1)
    away, partly, whole, nearer = frame("away", -5), frame("partly", 0.5), frame("whole", 3), frame("nearer", 3)
    assert best_frame([away, partly, whole], [target]).id == "whole"
    hidden = frame("hidden", 3, depth_m=1.0)
    assert best_frame([hidden, partly], [target]).id == "partly"
    assert best_frame([hidden, whole], [target]).id == "whole"
    assert best_frame([away, nearer], []).id == "away"


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(0.5, 30)] * 3),
    st.tuples(*[st.floats(-100, 100)] * 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(640, 480), (480, 640)]),
)
def test_an_overview_has_everything_in_view(
    extent: tuple[float, ...], origin: tuple[float, ...], seed: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.random((200, 3)) * extent + origin
    view, shown = overview(xyz, xyz[:3], *size)
    pixels, z = project(xyz[shown], view)
    assert (z > 0).all()
    assert (pixels >= 0).all()
    assert (pixels <= size).all()
    assert np.ptp(pixels, axis=0).max() > 0.3 * min(size), "and fills the picture"
    assert view.cam_to_world[2, 3] > xyz[shown][:, 2].mean(), "from above"


def test_a_room_is_opened_on_the_side_of_the_camera() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.random((5000, 3)) * (6.0, 5.0, 2.6)
    wanted = np.array([[5.5, 4.5, 0.5]])
    view, shown = overview(xyz, wanted, 640, 480)
    assert (view.cam_to_world[:2, 3] < 0).all(), "opposite to what is wanted"
    assert xyz[shown].min(axis=0)[:2] == pytest.approx([0.3, 0.3], abs=0.02)
    assert xyz[shown].max(axis=0) == pytest.approx([6.0, 5.0, 2.3], abs=0.02)
    low = xyz[xyz[:, 2] < 1.5]
    assert overview(low, wanted, 640, 480)[1].all(), "what is no room is shown whole"


def test_a_plain_cloud_is_drawn_and_saved(tmp_path: object) -> None:
    cloud = wall()
    level = PointCloud(cloud.xyz[:, [0, 2, 1]] * np.float32([1, 0.2, 1]), cloud.rgb)
    found = grounding(Scan("cloud.ply", level), level.xyz[:, 0] > 0)
    path = tmp_path / "new" / "picture.png"  # type: ignore[operator]
    save(found, path)
    picture = np.asarray(Image.open(path)).astype(int)
    assert picture.shape[1] == 640
    colour = phrase_colours(1)[0].astype(int)
    tint = np.abs(picture[:480] - (0.4 * 255 + 0.6 * colour)).max(axis=2) < 16
    white = (picture[:480] > 225).all(axis=2)
    assert tint.sum() > 2000
    assert white.sum() > 2000
