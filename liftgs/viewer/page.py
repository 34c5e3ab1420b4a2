"""The page: viser's widgets and scene, kept in step with what is typed. Everything that is seen is decided elsewhere."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import viser
import viser.transforms
from jaxtyping import Float
from PIL import Image

from liftgs.ground import EncodedScan, Grounder
from liftgs.ground.views import overview, walls_before
from liftgs.scene import Camera, Frame
from liftgs.viewer.answers import MAX_TOP, Answers, Finder, Highlight
from liftgs.viewer.layers import Layer, Points, Splats, points, splats
from liftgs.viewer.panel import describe, looking
from liftgs.viewer.turns import Turns

_QUIET_S = 0.3  # after the last key, before the network is asked
_FRUSTUM_M = 0.18
_THUMBNAIL_PX = 160
_FLIGHT_S, _FLIGHT_STEPS = 0.6, 24
_LINE_M = 0.012

logger = logging.getLogger(__name__)


class Page:
    """A web server with one page, which all its visitors share; runs on threads of its own until it is closed."""

    def __init__(self, grounder: Grounder, known: EncodedScan, host: str = "127.0.0.1", port: int = 8080):
        """Start serving.

        Args:
            grounder: from `liftgs.ground.load`.
            known: from `liftgs.ground.encode`.
            host: an address of this machine. Whoever reaches it sees the scan and may ask.
            port: 0 takes any that is free. viser takes the next free one if this is taken.
        """
        self._known = known
        self._find = Finder(grounder, known)
        self._points, self._splats = points(known.scan.cloud), splats(known)
        self._server = viser.ViserServer(host, port, label="LIFT-GS", verbose=False)
        self._answers = Answers()
        self._scan_nodes: dict[int, Any] = {}
        self._walls_lock = threading.Lock()
        self._hidden: frozenset[int] = frozenset()
        self._turns = Turns(self._refresh, _QUIET_S)
        self._set_view()
        self._add_widgets()
        self._add_photos()
        self._draw()
        self._server.on_client_connect(self._follow)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = self._server.get_host()
        name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"http://{name}:{self._server.get_port()}"

    def close(self) -> None:
        """Stop serving."""
        self._turns.close()
        self._server.stop()

    # ---- what is set up once

    def _set_view(self) -> None:
        xyz = self._points.xyz
        camera, shown = overview(xyz, xyz[:0], 4, 3)
        position, forward = camera.cam_to_world[:3, 3], camera.cam_to_world[:3, 2]
        start = self._server.initial_camera
        start.position = position
        start.look_at = position + forward * ((xyz[shown].mean(axis=0) - position) @ forward)
        start.up = (0.0, 0.0, 1.0)
        start.fov = _vertical_fov(camera)
        self._hidden = walls_before(xyz, position)

    def _add_widgets(self) -> None:
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)  # shared pages leave the machine
        with gui.add_form(None) as form:
            self._text = gui.add_text("Find", "", hint="Phrases, separated by commas")
        self._panel = gui.add_html(describe(self._answers))
        self._top = gui.add_slider("Answers", 1, MAX_TOP, 1, 1, hint="Most answers to a phrase")
        self._threshold = gui.add_slider("Least score", 0.0, 1.0, 0.01, 0.0)
        self._boxes = gui.add_checkbox("Boxes", True)
        self._as_splats = gui.add_checkbox("Gaussians", False, hint="As the network rebuilds the scan")
        for widget in (self._text, self._top, self._threshold, self._boxes, self._as_splats):
            widget.on_update(lambda _: self._turns())
        form.on_submit(lambda _: self._turns(wait=False))

    def _add_photos(self) -> None:
        frames = self._known.scan.frames
        if not frames:
            return
        folder = self._server.scene.add_frame("/photos", show_axes=False)
        shown = self._server.gui.add_checkbox("Photos", True, hint="Click one to stand where it was taken")
        shown.on_update(lambda _: setattr(folder, "visible", shown.value))
        for index, frame in enumerate(frames):
            camera = frame.camera
            frustum = self._server.scene.add_camera_frustum(
                f"/photos/{index}",
                _vertical_fov(camera),
                camera.width / camera.height,
                scale=_FRUSTUM_M,
                thickness=_LINE_M / 2,
                color=(235, 235, 235),
                image=_thumbnail(frame),
                wxyz=_rotation(camera).wxyz,
                position=camera.cam_to_world[:3, 3],
            )
            frustum.on_click(partial(_fly, camera))

    def _follow(self, client: viser.ClientHandle) -> None:
        client.camera.on_update(lambda camera: self._hide_walls(camera.position))

    # ---- what changes

    def _refresh(self) -> None:
        """Answer what stands in the text box. A failure is told on the page, which goes on."""
        try:
            text = self._text.value
            self._panel.content = looking(text)
            self._answers = self._find(text, self._top.value, self._threshold.value)
        except Exception as error:  # whatever it is, the next phrase may go well
            logger.exception("looking for %r", self._text.value)
            self._answers = Answers(message=f"That failed: {error}")
        self._draw()
        self._panel.content = describe(self._answers)

    def _draw(self) -> None:
        highlights = self._answers.highlights
        with self._server.atomic():
            self._draw_scan(self._splats if self._as_splats.value else self._points, highlights)
            self._draw_boxes(highlights if self._boxes.value else ())

    def _draw_scan(self, layer: Layer, highlights: Sequence[Highlight]) -> None:
        """A node for each wall, so that it can be hidden, and one for everything else."""
        rgb, wall = layer.lit(highlights)
        with self._walls_lock:
            for node in self._scan_nodes.values():
                node.remove()
            self._scan_nodes = {
                side: self._add_part(layer, side, wall == side, rgb) for side in np.unique(wall).tolist()
            }

    def _add_part(self, layer: Layer, side: int, mine: np.ndarray, rgb: np.ndarray) -> Any:
        scene, visible = self._server.scene, side not in self._hidden
        if isinstance(layer, Points):
            size = layer.size_m
            return scene.add_point_cloud(
                f"/points/{side}", layer.xyz[mine], rgb[mine], point_size=size, precision="float32", visible=visible
            )
        assert isinstance(layer, Splats)
        covars, opacities = layer.covars[mine], layer.opacities[mine, None]
        return scene.add_gaussian_splats(
            f"/splats/{side}", layer.xyz[mine], covars, rgb[mine], opacities, visible=visible
        )

    def _draw_boxes(self, highlights: Sequence[Highlight]) -> None:
        scene = self._server.scene
        scene.remove_by_name("/boxes")
        scene.add_frame("/boxes", show_axes=False)
        for index, highlight in enumerate(highlights):
            match, colour = highlight.match, highlight.colour
            edges = _edges(match.box_min, match.box_max)
            scene.add_line_segments(f"/boxes/{index}", edges, colour, thickness=_LINE_M)
            top = (*match.centre[:2], match.box_max[2])
            scene.add_label(
                f"/boxes/{index}/label", f"{match.phrase} {match.score:.2f}", position=top, anchor="bottom-center"
            )

    def _hide_walls(self, position: Float[np.ndarray, " 3"]) -> None:
        """Those between the camera and the room; the last visitor to move decides."""
        with self._walls_lock:
            self._hidden = walls_before(self._points.xyz, position)
            for side, node in self._scan_nodes.items():
                node.visible = side not in self._hidden


def _fly(camera: Camera, click: Any) -> None:
    """Move a visitor's camera to where a photo was taken, just past the thumbnail that would hide the view."""
    visitor = click.client.camera
    se3, so3 = viser.transforms.SE3, viser.transforms.SO3
    forward = camera.cam_to_world[:3, 2]
    goal = se3.from_rotation_and_translation(_rotation(camera), camera.cam_to_world[:3, 3] + 1.1 * _FRUSTUM_M * forward)
    start = se3.from_rotation_and_translation(so3(visitor.wxyz), visitor.position)
    way = (start.inverse() @ goal).log()
    for step in range(1, _FLIGHT_STEPS + 1):
        pose = start @ se3.exp(way * step / _FLIGHT_STEPS)
        with click.client.atomic():
            visitor.wxyz = pose.rotation().wxyz
            visitor.position = pose.translation()
        click.client.flush()
        time.sleep(_FLIGHT_S / _FLIGHT_STEPS)
    visitor.look_at = goal.translation() + forward  # turns about what is before it, not about the room's far side


def _rotation(camera: Camera) -> viser.transforms.SO3:
    return viser.transforms.SO3.from_matrix(camera.cam_to_world[:3, :3]).normalize()


def _vertical_fov(camera: Camera) -> float:
    return 2 * math.atan(camera.height / 2 / camera.K[1, 1])


def _thumbnail(frame: Frame) -> np.ndarray:
    image = Image.fromarray(frame.rgb)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return np.asarray(image)


def _edges(low: Float[np.ndarray, " 3"], high: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "12 2 3"]:
    """The edges of a box: pairs of corners that differ along one axis."""
    corners = list(itertools.product((0, 1), repeat=3))
    pairs = [(a, b) for a, b in itertools.combinations(corners, 2) if sum(np.abs(np.subtract(a, b))) == 1]
    return low + (high - low) * np.array(pairs, np.float64)
