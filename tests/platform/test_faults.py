"""Who is to blame for an exception: a frame, the machine, or the device of one process."""

from __future__ import annotations

import torch

from liftgs.teachers.captions import CaptionerUnavailable
from liftgs_platform.faults import device_is_broken, frames_fault


def wrapped(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise CaptionerUnavailable("vLLM with caption.model=m") from error
    except CaptionerUnavailable as outer:
        return outer


def test_a_broken_device_is_known_also_where_a_captioner_tells_of_it() -> None:
    broken = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert device_is_broken(broken)
    assert device_is_broken(wrapped(broken))
    assert not device_is_broken(wrapped(torch.OutOfMemoryError("no memory")))
    assert not device_is_broken(wrapped(ValueError("a prompt")))
    assert not frames_fault(wrapped(ValueError("a prompt")))
