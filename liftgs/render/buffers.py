"""Memory for large tensors that come and go with every view: huge pages, kept for the next view.

A fresh 800 MB tensor costs 200 ms in page faults, several times what it takes to fill it. So a block goes back to the
pool when its tensor (and every view of it) is gone, and the pool hands it out again.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
import weakref

import torch
from torch import Tensor

#: Smaller tensors come from torch's own allocator.
LEAST_BYTES = 1 << 20
#: Blocks that wait for their next use hold at most this much together.
KEEP_BYTES = 2 << 30


class Pool:
    """Hands out uninitialised float32 tensors and takes their memory back when they die. Safe between threads."""

    def __init__(self, keep_bytes: int = KEEP_BYTES):
        self.keep_bytes = keep_bytes
        self._free: list[mmap.mmap] = []
        self._lock = threading.RLock()  # a block may come back, by garbage collection, while one is handed out

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised, contiguous, 64-byte aligned float32 tensor; contents are arbitrary."""
        count = math.prod(shape)
        if count * 4 < LEAST_BYTES:
            spare = torch.empty(count + 16)
            return spare[-spare.data_ptr() % 64 // 4 :][:count].view(shape)
        block = self._take(count * 4)
        lease = (ctypes.c_char * len(block)).from_buffer(block)
        weakref.finalize(lease, self._give_back, block).atexit = False
        return torch.frombuffer(lease, dtype=torch.float32, count=count).view(shape)

    def held_bytes(self) -> int:
        """Bytes that wait for their next use."""
        with self._lock:
            return sum(map(len, self._free))

    def _take(self, size: int) -> mmap.mmap:
        with self._lock:
            fitting = [block for block in self._free if size <= len(block) <= 2 * size]
            if fitting:
                best = min(fitting, key=len)
                self._free.remove(best)
                return best
        block = mmap.mmap(-1, -(-size // (2 << 20)) * (2 << 20))
        if hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
        return block

    def _give_back(self, block: mmap.mmap) -> None:
        with self._lock:
            self._free.append(block)
            while sum(map(len, self._free)) > self.keep_bytes:
                self._free.pop(0)  # unmapped when its last reference goes


POOL = Pool()
