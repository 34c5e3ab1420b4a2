"""Where the photos were taken: small pictures in the scene that one can fly to. Knows nothing of phrases."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import viser
import viser.transforms
from jaxtyping import Float, UInt8
from PIL import Image

from liftgs.scene import Camera, Frame

_FRUSTUM_M, _LINE_PX = 0.18, 1.5
_ROOM_M = 0.5  # a photo hangs up to this far before its camera
_COLOUR = (235, 235, 235)
_THUMBNAIL_PX = 160
_FLIGHT_S, _FLIGHT_STEPS = 0.6, 24


class Photos:
    """Each photo at its camera; a click flies there."""

    def __init__(self, server: viser.ViserServer, frames: Sequence[Frame]):
        """Add them to a page, with a box that hides them all."""
        self._places = np.array([frame.camera.cam_to_world[:3, 3] for frame in frames])
        photos = server.scene.add_frame("/photos", show_axes=False)
        shown = server.gui.add_checkbox("Photos", True, hint="Click one to stand where it was taken")
        shown.on_update(lambda _: setattr(photos, "visible", shown.value))
        self._nodes = [self._add(server, index, frame) for index, frame in enumerate(frames)]

    def make_way(self, position: Float[np.ndarray, " 3"]) -> None:
        """Hide those that a camera at some place stands in: it would see nothing else."""
        distance = np.linalg.norm(self._places - position, axis=1)
        for node, visible in zip(self._nodes, (distance > _ROOM_M).tolist(), strict=True):
            node.visible = visible

    @staticmethod
    def _add(server: viser.ViserServer, index: int, frame: Frame) -> viser.CameraFrustumHandle:
        camera = frame.camera
        photo = server.scene.add_camera_frustum(
            f"/photos/{index}",
            vertical_fov(camera),
            camera.width / camera.height,
            scale=_FRUSTUM_M,
            thickness=_LINE_PX,
            thickness_units="screen",
            color=_COLOUR,
            image=_thumbnail(frame),
            wxyz=_rotation(camera).wxyz,
            position=camera.cam_to_world[:3, 3],
        )
        photo.on_click(partial(_fly, camera))
        return photo


def vertical_fov(camera: Camera) -> float:
    """Radians."""
    return 2 * math.atan(camera.height / 2 / camera.K[1, 1])


def _fly(camera: Camera, click: Any) -> None:
    """Move a visitor's camera to where a photo was taken, and see what it sees."""
    visitor = click.client.camera
    se3, so3 = viser.transforms.SE3, viser.transforms.SO3
    place = camera.cam_to_world[:3, 3]
    start, start_fov = se3.from_rotation_and_translation(so3(visitor.wxyz), visitor.position), visitor.fov
    way = (start.inverse() @ se3.from_rotation_and_translation(_rotation(camera), place)).log()
    for share in np.linspace(0, 1, _FLIGHT_STEPS + 1)[1:]:
        pose = start @ se3.exp(way * share)
        with click.client.atomic():
            visitor.wxyz = pose.rotation().wxyz
            visitor.position = pose.translation()
            visitor.fov = start_fov + share * (vertical_fov(camera) - start_fov)
        click.client.flush()
        time.sleep(_FLIGHT_S / _FLIGHT_STEPS)
    visitor.look_at = place + camera.cam_to_world[:3, 2]  # turns about what is near, not about the room's far side


def _rotation(camera: Camera) -> viser.transforms.SO3:
    return viser.transforms.SO3.from_matrix(camera.cam_to_world[:3, :3]).normalize()


def _thumbnail(frame: Frame) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(frame.rgb)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return np.asarray(image)
