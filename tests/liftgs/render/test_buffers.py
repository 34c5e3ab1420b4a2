"""The pool of large tensors."""

from __future__ import annotations

import gc

import torch

from liftgs.render.buffers import LEAST_BYTES, Pool

COUNT = LEAST_BYTES // 4


def test_memory_comes_back_only_after_the_last_view() -> None:
    pool = Pool()
    tensor = pool.empty(2, COUNT)
    address, view = tensor.data_ptr(), tensor[1, :5]
    view.fill_(7)
    del tensor
    gc.collect()
    assert pool.held_bytes() == 0
    other = pool.empty(2, COUNT)
    assert other.data_ptr() != address
    other.zero_()
    assert (view == 7).all()
    del view
    gc.collect()
    assert pool.empty(2, COUNT).data_ptr() == address


def test_it_keeps_no_more_than_it_may() -> None:
    pool = Pool(keep_bytes=3 * 4 * COUNT)
    tensors = [pool.empty(COUNT) for _ in range(5)]
    assert pool.held_bytes() == 0
    del tensors
    gc.collect()
    assert 0 < pool.held_bytes() <= 3 * 4 * COUNT


def test_small_tensors_are_aligned_too() -> None:
    pool = Pool()
    for shape in ((3,), (5, 7), (0, 4)):
        tensor = pool.empty(*shape)
        assert tensor.shape == shape
        assert tensor.dtype == torch.float32
        assert tensor.data_ptr() % 64 == 0
    assert pool.held_bytes() == 0
