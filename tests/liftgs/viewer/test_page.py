"""The page in a real browser, what it does when something fails, and the command that opens it."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from liftgs import cli
from liftgs.geometry import project
from liftgs.ground import EncodedScan, Grounder, Scan, encode, files, load
from liftgs.readers.ply import encode_ply
from liftgs.scene import Camera, Frame

pytest.importorskip("viser", reason="needs viser: pip install 'liftgs[viewer]'")
import viser.transforms

from liftgs.viewer.page import Page, check_address

ROOM = "procedural:apartments/000005?seed=1000000&width=128&height=128"
SIZE = {"width": 900, "height": 600}
PATIENCE_S = 60  # of a busy machine, at any one step


def wait_until(true: Callable[[], Any], what: str) -> Any:
    """The first answer that is true, within bounds."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := true()):
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return load("tiny")


@pytest.fixture(scope="module")
def known(grounder: Grounder) -> EncodedScan:
    return encode(grounder, ROOM)


@pytest.fixture
def page(grounder: Grounder, known: EncodedScan) -> Iterator[Page]:
    page = Page(grounder, known, port=0)
    yield page
    page.close()


# ---- in the browser


@pytest.fixture
def visit(page: Page) -> Iterator[Any]:
    """The page, loaded, in a Chromium that draws in software."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium, args=["--enable-unsafe-swiftshader"], timeout=1000 * PATIENCE_S
        )
        try:
            tab = browser.new_page(viewport=SIZE)
            tab.set_default_timeout(1000 * PATIENCE_S)
            tab.goto(page.url)
            tab.locator("form input").wait_for()
            tab.get_by_role("alert").locator("button").click()  # says that it draws in software
            yield tab
        finally:
            browser.close()


def scene(tab: Any) -> np.ndarray:
    """What is left of the panel."""
    clip = {"x": 0, "y": 0, "width": 560, "height": SIZE["height"]}
    return np.asarray(Image.open(io.BytesIO(tab.screenshot(clip=clip))).convert("RGB")).astype(int)


def orange(picture: np.ndarray) -> int:
    """Pixels in about the first phrase's colour."""
    return int((np.abs(picture - files.phrase_colours(1)[0].astype(int)).max(axis=2) < 50).sum())


def differing(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that are not the same to the eye."""
    return int((np.abs(one - other).max(axis=2) > 50).sum())


def settled(tab: Any) -> np.ndarray:
    """`scene`, once it stays the same for half a second."""
    pictures = [scene(tab)]

    def still() -> bool:
        time.sleep(0.5)
        pictures.append(scene(tab))
        return differing(*pictures[-2:]) == 0

    wait_until(still, "the picture stands still")
    return pictures[-1]


def test_what_is_typed_lights_up_in_the_browser(visit: Any) -> None:
    wait_until(lambda: (scene(visit).max(axis=2) > 60).sum() > 20_000, "the room is there")
    before = orange(scene(visit))
    boxes = visit.get_by_role("checkbox", name="Boxes")
    boxes.click()  # off: the browser may draw a box long after the mask, and the mask is to be seen alone first
    visit.locator("form input").press_sequentially("a rug")
    phrase = visit.get_by_text(re.compile(r"^a rug$"))
    phrase.wait_for()
    assert 0.1 < float(phrase.locator("xpath=following-sibling::span").inner_text()) < 1
    wait_until(lambda: orange(scene(visit)) > before + 2000, "the rug is orange")
    mask = settled(visit)
    boxes.click()
    wait_until(lambda: differing(scene(visit), mask) > 500, "the box is there")
    boxed = settled(visit)
    boxes.click()
    wait_until(lambda: differing(scene(visit), boxed) > 500, "the box is gone")
    assert orange(scene(visit)) > before + 1000, "the mask is still there"
    visit.locator("form input").fill("")
    visit.get_by_text("Type what to look for").wait_for()
    wait_until(lambda: orange(scene(visit)) < before + 100, "the room has its own colours again")


def test_a_click_on_a_photo_flies_to_where_it_was_taken(visit: Any, page: Page, known: EncodedScan) -> None:
    wait_until(page._server.get_clients, "the browser has told where its camera is")
    (client,) = page._server.get_clients().values()
    K = np.diag([SIZE["height"] / 2 / np.tan(client.camera.fov / 2)] * 2 + [1.0])
    K[:2, 2] = SIZE["width"] / 2, SIZE["height"] / 2
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = viser.transforms.SO3(client.camera.wxyz).as_matrix(), client.camera.position
    cameras = [frame.camera for frame in known.scan.frames]
    pictures = np.array([camera.cam_to_world[:3] @ (0, 0, 0.3, 1) for camera in cameras])
    pixels, z = project(pictures, Camera(K, pose, SIZE["width"], SIZE["height"]))
    nearest = min((i for i in range(len(z)) if pixels[i, 0] < 500), key=lambda i: z[i])
    visit.mouse.click(*pixels[nearest])
    goal = cameras[nearest].cam_to_world
    wait_until(lambda: np.allclose(client.camera.position, goal[:3, 3], atol=1e-3), "it is there")
    wait_until(lambda: client.camera.look_at @ goal[:3, 2] > goal[:3, 3] @ goal[:3, 2], "it looks ahead")
    seen = viser.transforms.SO3(client.camera.wxyz).as_matrix()
    np.testing.assert_allclose(seen[:, 2], goal[:3, 2], atol=1e-2)


# ---- without a browser


def say(page: Page, text: str) -> None:
    page._text.value = text


def panel(page: Page) -> str:
    return str(page._panel.content)


def test_what_fails_is_told_and_the_next_phrase_is_answered(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    say(page, "x" * 1000)
    wait_until(lambda: "too long" in panel(page), "the refusal is told")
    with monkeypatch.context() as broken:
        broken.setattr("liftgs.viewer.answers.ground", lambda *_: 1 / 0)
        say(page, "a lamp")
        wait_until(lambda: "That failed: division by zero" in panel(page), "the failure is told")
    say(page, "a rug")
    wait_until(lambda: re.search(r"a rug</span><span>0\.\d\d<", panel(page)), "the phrase is answered")
    with urllib.request.urlopen(page.url, timeout=PATIENCE_S) as answer:
        assert answer.status == 200


def test_gaussians_take_the_place_of_points_and_show_the_same_answers(page: Page) -> None:
    say(page, "a rug")
    wait_until(lambda: "0." in panel(page), "the phrase is answered")
    scene = page._server.scene
    wait_until(lambda: scene.get_handle_by_name("/points/-1"), "points are there")
    page._as_splats.value = True
    wait_until(lambda: scene.get_handle_by_name("/splats/-1"), "Gaussians are there")
    wait_until(lambda: scene.get_handle_by_name("/points/-1") is None, "points are gone")
    wait_until(lambda: scene.get_handle_by_name("/boxes/0/label"), "the box is drawn, after the scan")
    assert scene.get_handle_by_name("/boxes/0/label").text.startswith("a rug 0.")


def test_walls_are_hidden_from_outside_only(page: Page) -> None:
    low, high = page._points.xyz.min(axis=0), page._points.xyz.max(axis=0)
    page._make_way((low + high) / 2)
    assert all(node.visible for node in page._scan_nodes.values())
    page._make_way(np.array([*(low[:2] - 1), high[2] + 1]))
    assert {side for side, node in page._scan_nodes.items() if not node.visible} == {0, 1, 5}
    say(page, "a rug")
    wait_until(lambda: "0." in panel(page), "the phrase is answered")
    assert {side for side, node in page._scan_nodes.items() if not node.visible} == {0, 1, 5}, "still, though new"


def test_a_photo_does_not_hide_the_view_from_its_place(page: Page) -> None:
    assert page._photos is not None
    nodes = page._photos._nodes
    for frame, photo in zip(page._known.scan.frames, nodes, strict=True):
        page._make_way(frame.camera.cam_to_world[:3, 3])
        assert not photo.visible
        np.testing.assert_allclose(photo.position, frame.camera.cam_to_world[:3, 3])
    page._make_way(np.array([0.0, 0.0, 50.0]))
    assert all(photo.visible for photo in nodes)


def turned(frame: Frame, turn: np.ndarray) -> Frame:
    pose = np.eye(4)
    pose[:3] = turn @ frame.camera.cam_to_world[:3]
    camera = dataclasses.replace(frame.camera, cam_to_world=pose)
    return dataclasses.replace(frame, camera=camera)


def test_the_start_is_upright_also_where_z_is_not_up(grounder: Grounder, known: EncodedScan, page: Page) -> None:
    start = page._server.initial_camera
    assert start.position[2] > page._points.xyz[:, 2].max(), "above the room"
    np.testing.assert_array_equal(start.up, (0, 0, 1))
    y_down = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # what was z is minus y
    scan = known.scan
    cloud = dataclasses.replace(scan.cloud, xyz=(scan.cloud.xyz @ y_down.T).astype(np.float32))
    frames = [turned(frame, y_down) for frame in scan.frames]
    tilted = Page(grounder, encode(grounder, Scan("tilted", cloud, frames)), port=0)
    try:
        start = tilted._server.initial_camera
        np.testing.assert_allclose(start.position, frames[0].camera.cam_to_world[:3, 3])
        assert start.up is not None
        assert start.up[1] < -0.8, "up is where it was"
    finally:
        tilted.close()


def test_a_plain_cloud_has_a_page_without_photos(grounder: Grounder, tmp_path: Path) -> None:
    page = Page(grounder, encode(grounder, plain_cloud(tmp_path)), port=0)
    try:
        assert page._photos is None
        say(page, "a rug")
        wait_until(lambda: "a rug</span>" in panel(page), "the phrase is answered")
    finally:
        page.close()


def test_an_address_that_cannot_be_had_is_refused_at_once(grounder: Grounder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}.*in use.*another port"):
            check_address("127.0.0.1", port)
    with pytest.raises(OSError, match=r"cannot listen at 192\.0\.2\.1:0"):  # an address for documentation
        check_address("192.0.2.1", 0)


# ---- the command


def plain_cloud(folder: Path) -> str:
    rng = np.random.default_rng(0)
    path = folder / "cloud.ply"
    path.write_bytes(encode_ply(rng.random((2000, 3), np.float32), rng.integers(0, 255, (2000, 3)).astype(np.uint8)))
    return str(path)


def test_the_command_says_where_the_page_is_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    # As in a terminal: what runs in the background of a script inherits that it ignores SIGINT.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; from liftgs.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "view", plain_cloud(tmp_path), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(2 * PATIENCE_S), "said nothing"
            line = process.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert url, line
            with urllib.request.urlopen(url[0], timeout=PATIENCE_S) as answer:
                assert answer.status == 200
            os.kill(process.pid, signal.SIGINT)
            said, complaints = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, said, complaints) == (0, "", "")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def test_without_viser_the_command_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    for module in ("page", "photos"):
        monkeypatch.delitem(sys.modules, f"liftgs.viewer.{module}", raising=False)
    assert run("view", ROOM) == 1
    assert capsys.readouterr().err == "liftgs: the viewer needs viser: pip install 'liftgs[viewer]'\n"


def test_mistakes_are_told_and_nothing_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("view", "nowhere/scan.ply", "--port", "0") == 1
    assert capsys.readouterr().err == "liftgs: nowhere/scan.ply: the file is missing\n"
    assert run("view", plain_cloud(tmp_path), "--host", "192.0.2.1") == 2
    assert "cannot listen at 192.0.2.1:8080" in capsys.readouterr().err
