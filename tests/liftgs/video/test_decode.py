"""Frames of a video: in order, upright, whole; and every way in which a file is no video."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import films
import fsspec
import numpy as np
import pytest

from liftgs.scene import BadInput
from liftgs.video.decode import shots


def corners() -> np.ndarray:
    """Red at the upper left, green at the upper right, blue below."""
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:48, :64] = (220, 30, 30)
    picture[:48, 64:] = (30, 200, 30)
    picture[48:] = (30, 30, 220)
    return picture


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    levels = range(20, 240, 20)
    video = films.write(tmp_path / "a.mp4", [np.full((64, 80, 3), level, np.uint8) for level in levels])
    found = [(shot.index, round(shot.time_s, 3), float(shot.rgb(80).mean())) for shot in shots(str(video))]
    assert [index for index, _, _ in found] == list(range(len(levels)))
    assert [time for _, time, _ in found] == [round(i / films.FPS, 3) for i in range(len(levels))]
    np.testing.assert_allclose([mean for _, _, mean in found], levels, atol=4)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_a_video_that_lies_on_its_side_is_turned_upright(tmp_path: Path, suffix: str, rotation: int) -> None:
    """As phones write portrait videos; up decides gravity and what the teachers see."""
    stored = np.rot90(corners(), -rotation // 90)  # turning it counterclockwise by `rotation` gives the corners back
    video = films.write(tmp_path / f"a.{suffix}", [np.ascontiguousarray(stored)] * 3, rotation)
    for shot in shots(str(video)):
        assert np.abs(shot.rgb(128).astype(int) - corners()).mean() < 6
        assert shot.grey(64).shape == (48, 64)


def test_pixels_become_square(tmp_path: Path) -> None:
    video = films.write(tmp_path / "a.mp4", [corners()] * 2, aspect=Fraction(4, 3))
    assert next(shots(str(video))).rgb(1000).shape == (96, 171, 3)


def test_a_video_is_read_from_an_object_store(tmp_path: Path) -> None:
    video = films.write(tmp_path / "a.mp4", [corners()] * 3)
    fsspec.filesystem("memory").pipe_file("/films/a.mp4", video.read_bytes())
    assert len(list(shots("memory://films/a.mp4"))) == 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("fast_start", [False, True])
def test_a_truncated_video_is_bad_input(tmp_path: Path, suffix: str, share: float, fast_start: bool) -> None:
    whole = films.write(tmp_path / f"whole.{suffix}", films.pan(range(0, 600, 12)))
    if fast_start and suffix == "mp4":  # with the index first the file opens, and ends early
        whole = _remuxed(whole, {"movflags": "faststart"})
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInput, match=r"truncated|damaged") as caught:
        list(shots(str(cut)))
    assert caught.value.uri == str(cut)
    assert len(list(shots(str(whole)))) == 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"\x00\x01garbage" * 500, "not a video that can be read"),
        (b"frame 1\nframe 2\n" * 100, "not a video that can be read"),
        (None, "the file is missing"),
    ],
)
def test_what_is_no_video_is_bad_input(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(said)):
        list(shots(str(path)))


def test_sound_alone_is_bad_input(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BadInput, match="holds no video, only sound"):
        list(shots(str(tmp_path / "a.mp4")))


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_does_not_open_other_files(tmp_path: Path, kind: str) -> None:
    secret = films.write(tmp_path / "secret.mp4", [corners()] * 3)
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
    }[kind]
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(BadInput, match="not a video"):
        list(shots(str(tmp_path / "list.mp4")))


def _remuxed(path: Path, options: dict[str, str]) -> Path:
    out = path.with_name(f"remuxed{path.suffix}")
    with av.open(str(path)) as source, av.open(str(out), "w", options=options) as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return out
