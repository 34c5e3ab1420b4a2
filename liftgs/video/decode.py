"""The frames of a video file, one at a time, upright and with square pixels. Knows nothing of poses.

A phone stores a portrait video lying on its side with a display matrix that says so; some cameras store pixels that are
not square. Both are undone here, so that one focal length fits and up in the picture is up in the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import fsspec
import numpy as np
from jaxtyping import UInt8

from liftgs.limits import CONTAINERS, MAX_PIXELS
from liftgs.scene import BadInput


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame, decoded but not yet converted.

    Attributes:
        index: position in the video, from 0.
        time_s: since the first frame.
    """

    index: int
    time_s: float
    _picture: av.VideoFrame
    _pixel_aspect: Fraction

    def rgb(self, long_side_px: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture, upright, made smaller (never larger) so that its longer side has at most `long_side_px`."""
        return self._upright("rgb24", long_side_px)

    def grey(self, long_side_px: int) -> UInt8[np.ndarray, "h w"]:
        """The same in grey."""
        return self._upright("gray", long_side_px)

    def _upright(self, pixel_format: str, long_side_px: int) -> np.ndarray:
        width, height = float(self._picture.width * self._pixel_aspect), float(self._picture.height)
        scale = min(1.0, long_side_px / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = self._picture.reformat(*size, format=pixel_format, interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, round(self._picture.rotation / 90)))


def shots(uri: str) -> Iterator[Shot]:
    """The frames of the video at `uri` (any fsspec URL) in order; one is held at a time.

    Raises:
        BadInput: missing, empty, not a video, damaged, cut short, or with frames of several sizes; on the way, for what
            the file's header does not tell.
    """
    with _opened(uri) as container:
        if not container.streams.video:
            raise BadInput(uri, "holds no video, only sound or data")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        context = stream.codec_context
        size = (context.width, context.height)
        if context.width * context.height > MAX_PIXELS:
            raise BadInput(uri, f"a frame has {_px(size)} pixels, more than {MAX_PIXELS / 1e6:g} million")
        context.options = {"max_pixels": str(MAX_PIXELS)}  # later ones may be of another size
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        start_s, end_s, index = 0.0, 0.0, -1
        for index, picture in enumerate(container.decode(stream)):
            time_s = index / float(stream.average_rate or 30) if picture.time is None else picture.time
            start_s = time_s if index == 0 else start_s
            if picture.is_corrupt:
                raise BadInput(uri, f"frame {index} (at {time_s - start_s:.2f} s) is damaged")
            if (picture.width, picture.height) != size:
                raise BadInput(uri, f"frame {index} is {_px((picture.width, picture.height))}, the first {_px(size)}")
            end_s = time_s - start_s
            yield Shot(index, end_s, picture, aspect)
        if index < 0:
            raise BadInput(uri, "holds no frame")
        promised_s = _duration_s(container, stream)
        # Sound may outlast the pictures a little, and the last frame's own duration is not counted.
        if end_s + 0.5 < 0.95 * promised_s:
            raise BadInput(uri, f"truncated: pictures end at {end_s:.1f} s of {promised_s:.1f} s")


@contextmanager
def _opened(uri: str) -> Iterator[av.container.InputContainer]:
    """The file, open in FFmpeg; whatever FFmpeg says against its content becomes BadInput."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    try:
        if filesystem.size(path) == 0:
            raise BadInput(uri, "the file is empty (0 bytes)")
        stream = filesystem.open(path, "rb")
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(uri, "the file is missing") from None
    with stream:
        try:
            with av.open(stream, options={"format_whitelist": CONTAINERS}) as container:
                yield container
        except av.error.FFmpegError as fault:
            raise BadInput(uri, f"not a video that can be read, or a damaged one ({fault.strerror})") from fault


def _duration_s(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """What the file's header promises; 0 if nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return 0.0 if container.duration is None else container.duration / av.time_base


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
