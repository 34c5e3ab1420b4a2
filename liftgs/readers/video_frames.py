"""Single frames of a video, by their number. Needs PyAV (the extra `sfm`); knows nothing of cameras."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from liftgs.limits import CONTAINERS, MAX_PIXELS
from liftgs.readers.files import Folder
from liftgs.scene import BadInput

#: no codec here shows a frame later than this many others that are stored behind it
_REORDERED = 16


class VideoFrames:
    """Random access to a video's frames, in the order in which they are shown.

    The packets' time stamps are read once, without decoding any, so that numbers are right at any frame rate. A frame
    is decoded from the key frame before it, or from the frame asked for last if that is nearer: asking in ascending
    order decodes nothing twice. One picture is held at a time. For one thread.
    """

    def __init__(self, folder: Folder, path: str):
        self.uri = folder.uri_of(path)
        self._folder = folder
        self._path = path
        self._decoding: Iterator[Any] = iter(())
        self._at: int | None = None  # time stamp of the picture that was decoded last

    def __len__(self) -> int:
        """The number of frames.

        Raises:
            BadInput: not a video.
        """
        return len(self._times)

    def read(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """One picture.

        Raises:
            BadInput: the video has no such frame, or it cannot be decoded.
        """
        if number >= len(self):
            raise BadInput(self.uri, f"there is no frame {number}; the video has {len(self)} (it may be truncated)")
        wanted = self._times[number]
        before = bisect_right(self._key_times, wanted) - 1
        if before < 0:
            raise BadInput(self.uri, f"frame {number}: no key frame comes before it, so it cannot be decoded")
        key = self._key_times[before]
        try:
            if self._at is None or not key <= self._at < wanted:
                self._container.seek(key, stream=self._stream)
                self._decoding = self._container.decode(self._stream)
            for picture in self._decoding:
                self._at = picture.pts
                if picture.pts == wanted and not picture.is_corrupt:
                    return np.asarray(picture.to_ndarray(format="rgb24"))
                if picture.pts >= wanted:
                    break
        except _av().FFmpegError as fault:
            self._at = None
            raise BadInput(self.uri, f"frame {number} cannot be decoded ({fault})") from None
        self._at = None
        raise BadInput(self.uri, f"frame {number} cannot be decoded: the video is damaged there")

    @cached_property
    def _container(self) -> Any:
        av = _av()
        try:
            container = av.open(self._folder.open(self._path), options={"format_whitelist": CONTAINERS})
        except av.FFmpegError as fault:
            raise BadInput(self.uri, f"not a video, or its header is damaged ({fault})") from None
        if not container.streams.video:
            raise BadInput(self.uri, "has no video stream")
        codec = container.streams.video[0].codec_context
        if not 0 < codec.width * codec.height <= MAX_PIXELS:
            raise BadInput(self.uri, f"has pictures of {codec.width}x{codec.height} pixels")
        codec.options = {"max_pixels": str(MAX_PIXELS)}  # later ones may be of another size
        return container

    @property
    def _stream(self) -> Any:
        return self._container.streams.video[0]

    @cached_property
    def _packets(self) -> tuple[list[int], list[int]]:
        """Time stamps of all packets and of those that hold key frames."""
        times, key_times = [], []
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        key_times.append(packet.pts)
        except _av().FFmpegError:
            pass  # truncated: the frames before the cut are good, and those behind it are not there
        return _in_order(times), sorted(key_times)

    @property
    def _times(self) -> list[int]:
        return self._packets[0]

    @property
    def _key_times(self) -> list[int]:
        return self._packets[1]


def _in_order(times: list[int]) -> list[int]:
    """Sorted, without what follows a gap near the end.

    Frames are stored in another order than they are shown in; where a file was cut, a late one may be there without
    those before it, and would go by the number of one of them.
    """
    times = sorted(times)
    if len(times) > 2:
        steps = np.diff(times)
        late = np.flatnonzero(steps[-_REORDERED:] > 1.5 * np.median(steps))
        if len(late):
            return times[: max(0, len(steps) - _REORDERED) + int(late[0]) + 1]
    return times


def _av() -> Any:
    try:
        import av  # noqa: PLC0415  an extra, and heavy
    except ImportError:
        raise ImportError("videos need PyAV; install it with: pip install 'liftgs[sfm]'") from None
    return av
