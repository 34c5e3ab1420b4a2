"""Statistics over all workers' rows: against PyTorch's batch norm, in float64, on all rows at once.

Workers are threads here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from liftgs.model.norm import BatchNorm, batch_norms, uncounted


class Sums:
    """Sums of what the threads bring, round by round."""

    def __init__(self, workers: int):
        self.barrier, self.brought = threading.Barrier(workers, timeout=20), [torch.empty(0)] * workers

    def of(self, worker: int, vector: Tensor) -> Tensor:
        self.brought[worker] = vector
        self.barrier.wait()
        total = torch.stack(self.brought).sum(0)
        self.barrier.wait()
        return total


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), BatchNorm(4, eps=1e-3, momentum=0.1), nn.Tanh(), nn.Linear(4, 2), BatchNorm(2, momentum=0.1)
    )


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum()


def data(rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 3, generator=generator) * 3 + 50, torch.randn(n, 2, generator=generator)) for n in rows
    ]  # far from zero: a variance as the difference of two squares in float32 would be wrong by a tenth


def test_workers_normalise_and_learn_as_one_that_has_all_rows() -> None:
    parts = data([5, 1, 9])
    alone = nn.Sequential(
        *(nn.BatchNorm1d(m.num_features, m.eps, m.momentum) if isinstance(m, BatchNorm) else m for m in network())
    )
    alone.double()
    rows, targets = (torch.cat(values).double() for values in zip(*parts, strict=True))
    rows.requires_grad_()
    loss(alone(rows), targets).backward()

    sums = Sums(4)
    copies = [network() for _ in range(4)]  # not in the threads: they share the random generator

    def work(worker: int) -> tuple[nn.Sequential, Tensor]:
        mine = copies[worker]
        for norm in batch_norms(mine):
            norm.sum_over_workers = lambda vector: sums.of(worker, vector)
        if worker == 3:  # has nothing, and takes part
            with uncounted(mine):
                (mine(torch.full((1, 3), 7.0)).sum() * 0).backward()
            return mine, torch.empty(0, 3)
        own = parts[worker][0].clone().requires_grad_()
        loss(mine(own), parts[worker][1]).backward()
        assert own.grad is not None
        return mine, own.grad

    with ThreadPoolExecutor(4) as pool:
        networks, gradients = zip(*pool.map(work, range(4)), strict=True)
    assert rows.grad is not None
    torch.testing.assert_close(torch.cat(gradients), rows.grad.float(), rtol=1e-3, atol=1e-4)
    for name, parameter in alone.named_parameters():
        total = sum(dict(one.named_parameters())[name].grad for one in networks)
        torch.testing.assert_close(
            total, parameter.grad.float(), rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    for one in networks:
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(
                dict(one.named_buffers())[name], buffer.to(dict(one.named_buffers())[name].dtype), rtol=1e-4, atol=1e-4
            )


def test_without_others_and_in_evaluation_it_is_torchs_own() -> None:
    rows = data([6])[0][0]
    ours, theirs = BatchNorm(3, momentum=0.3), nn.BatchNorm1d(3, momentum=0.3)
    assert torch.equal(ours(rows), theirs(rows))
    ours.sum_over_workers = lambda vector: vector * 2
    assert torch.equal(ours.eval()(rows), theirs.eval()(rows))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_a_row_that_is_alone_is_its_own_mean() -> None:
    """As the one coarse voxel of a close-up: torch refuses, and so would every restart at this sample."""
    norm = BatchNorm(3)
    row = torch.randn(1, 3, requires_grad=True)
    result = norm(row)
    assert torch.equal(result, norm.bias.expand(1, 3))
    result.sum().backward()
    assert row.grad is not None
    assert torch.isfinite(row.grad).all()
    torch.testing.assert_close(norm.running_mean, 0.1 * row[0].detach())
