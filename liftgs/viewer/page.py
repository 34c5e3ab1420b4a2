"""The page: viser's widgets and scene, kept in step with what is typed. What is to be seen is decided elsewhere."""

from __future__ import annotations

import errno
import io
import itertools
import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import viser
from jaxtyping import Float

from liftgs.ground import EncodedScan, Grounder
from liftgs.ground.views import overview, walls_before
from liftgs.viewer.answers import MAX_TOP, Answers, Finder, Highlight
from liftgs.viewer.layers import Layer, Points, Splats, points, splats
from liftgs.viewer.panel import describe, looking
from liftgs.viewer.photos import Photos, vertical_fov
from liftgs.viewer.turns import Turns

_QUIET_S = 0.3  # after the last key, before the network is asked
_LINE_PX = 2.5
_ROOMIER = 1.03  # so that the room does not touch the edges of the page
_Z = np.array([0.0, 0.0, 1.0])
_UPRIGHT = 0.5  # cosine of 60 degrees: photos may look up or down, all of them together less so
_NEAREST_M = 0.5

logger = logging.getLogger(__name__)


class Page:
    """A web server with one page, which all its visitors share; runs on threads of its own until it is closed."""

    def __init__(self, grounder: Grounder, known: EncodedScan, host: str = "127.0.0.1", port: int = 8080):
        """Start serving.

        Args:
            grounder: from `liftgs.ground.load`.
            known: from `liftgs.ground.encode`.
            host: an address of this machine. Whoever reaches it sees the scan and may ask.
            port: 0 takes any that is free.

        Raises:
            OSError: cannot listen there; says why.
        """
        check_address(host, port)
        self._known = known
        self._find = Finder(grounder, known)
        self._points, self._splats = points(known, grounder.model.config.voxel_size_m), splats(known)
        with redirect_stdout(io.StringIO()):  # viser prints tables of its own
            self._server = viser.ViserServer(host, port, label="LIFT-GS", verbose=False)
        self._corners = np.stack([self._points.xyz.min(axis=0), self._points.xyz.max(axis=0)])
        self._answers = Answers()
        self._scan_nodes: dict[int, Any] = {}
        self._walls_lock = threading.RLock()
        self._hidden: frozenset[int] = frozenset()
        self._turns = Turns(self._refresh, _QUIET_S)
        self._add_widgets()
        self._photos = Photos(self._server, known.scan.frames) if known.scan.frames else None
        self._set_view()
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
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    # ---- what is set up once

    def _set_view(self) -> None:
        """Start above a corner; where z is not up, at the first photo, which somebody held upright."""
        xyz, frames, start = self._points.xyz, self._known.scan.frames, self._server.initial_camera
        up = -np.mean([frame.camera.cam_to_world[:3, 1] for frame in frames], axis=0) if frames else _Z
        if up @ _Z < _UPRIGHT * np.linalg.norm(up):
            start.up, camera, shown = up, frames[0].camera, np.ones(len(xyz), bool)
        else:
            start.up, (camera, shown) = _Z, overview(xyz, xyz[:0], 4, 3)
        position, forward = camera.cam_to_world[:3, 3], camera.cam_to_world[:3, 2]
        distance = max((xyz[shown].mean(axis=0) - position) @ forward, _NEAREST_M)
        start.position, start.look_at = position, position + distance * forward
        start.fov = _ROOMIER * vertical_fov(camera)
        self._make_way(position)

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

    def _follow(self, client: viser.ClientHandle) -> None:
        def moved(_: viser.CameraHandle) -> None:  # told by many threads, of which the last need not be the newest
            with self._walls_lock:
                self._make_way(client.camera.position)

        client.camera.on_update(moved)

    # ---- what changes

    def _refresh(self) -> None:
        """Answer what stands in the text box. A failure is told on the page, which goes on."""
        text = self._text.value
        try:
            self._panel.content = looking(text)
            self._answers = self._find(text, self._top.value, self._threshold.value)
            self._draw()
            self._panel.content = describe(self._answers)
        except Exception as error:  # whatever it is, the next phrase may go well
            logger.exception("looking for %r", text)
            self._panel.content = describe(Answers(message=f"That failed: {error}"))

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
            return scene.add_point_cloud(
                f"/points/{side}",
                layer.xyz[mine],
                rgb[mine],
                point_size=layer.size_m,
                point_shape="circle",
                point_shading="flat",
                precision="float32",
                visible=visible,
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
            scene.add_line_segments(f"/boxes/{index}", edges, colour, thickness=_LINE_PX, thickness_units="screen")
            top = (*match.centre[:2], match.box_max[2])
            scene.add_label(
                f"/boxes/{index}/label", f"{match.phrase} {match.score:.2f}", position=top, anchor="bottom-center"
            )

    def _make_way(self, position: Float[np.ndarray, " 3"]) -> None:
        """Hide what is between a camera and the room; the last visitor to move decides."""
        with self._walls_lock:
            if self._photos is not None:
                self._photos.make_way(position)
            self._hidden = walls_before(self._corners, position)
            for side, node in self._scan_nodes.items():
                node.visible = side not in self._hidden


def check_address(host: str, port: int) -> None:
    """Whether a server may listen there. viser itself would try other ports in silence, or wait for ever.

    Raises:
        OSError: it may not; says why and what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = (error.strerror or "").partition(" (")[0]
        remedy = "; choose another port, or 0 for any" if error.errno == errno.EADDRINUSE else ""
        raise OSError(f"cannot listen at {host}:{port}: {why}{remedy}") from None


def _edges(low: Float[np.ndarray, " 3"], high: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "12 2 3"]:
    """The edges of a box: pairs of corners that differ along one axis."""
    corners = list(itertools.product((0, 1), repeat=3))
    pairs = [(a, b) for a, b in itertools.combinations(corners, 2) if sum(np.abs(np.subtract(a, b))) == 1]
    return low + (high - low) * np.array(pairs, np.float64)
