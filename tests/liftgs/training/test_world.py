"""Sums are the same on any number of workers: real processes, real collectives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from liftgs.training.world import TooManyWorkers, World, tree_sum

LENGTH = 1003


def leaves(batch_size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch_size)
    scales = 10.0 ** torch.randint(-4, 5, (batch_size, 1), generator=generator)
    return list(torch.randn(batch_size, LENGTH, generator=generator) * scales)


def unit_sums(world: World, batch_size: int) -> list[torch.Tensor]:
    items = leaves(batch_size)
    return [tree_sum([items[place] for place in places]) for places in world.places(batch_size)]


def work(rank: int, size: int, batch_sizes: list[int], folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    world = World(rank, size)
    for batch_size in batch_sizes:
        total = world.sum_units(unit_sums(world, batch_size), batch_size)
        torch.save(total, f"{folder}/{size}-{batch_size}-{rank}.pt")
    assert world.gather(rank * 10) == [10 * other for other in range(size)]
    distributed.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_are_the_same_bits_on_any_number_of_workers(size: int, tmp_path: Path) -> None:
    batch_sizes = [4, 5, 8, 13, 32]
    multiprocessing.spawn(work, (size, batch_sizes, str(tmp_path)), nprocs=size)
    for batch_size in batch_sizes:
        alone = World().sum_units(unit_sums(World(), batch_size), batch_size)
        torch.testing.assert_close(alone, torch.stack(leaves(batch_size)).double().sum(0).float(), rtol=1e-3, atol=1e-2)
        assert not torch.equal(alone, torch.stack(leaves(batch_size)).sum(0)), "the order of sums does not matter here"
        for rank in range(size):
            assert torch.equal(torch.load(tmp_path / f"{size}-{batch_size}-{rank}.pt"), alone)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 8, 32, 33])
def test_every_place_is_one_workers(batch_size: int) -> None:
    for size in range(1, min(batch_size, 9) + 1):
        shares = [[place for unit in World(rank, size).places(batch_size) for place in unit] for rank in range(size)]
        assert [place for share in shares for place in share] == list(range(batch_size))
        assert all(shares), "a worker has nothing to do"
    with pytest.raises(TooManyWorkers, match=f"{batch_size + 1} workers for a batch of {batch_size}"):
        World(0, batch_size + 1).places(batch_size)
