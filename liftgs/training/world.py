"""Sums over the items of a batch that come out the same, bit for bit, on however many workers they are made.

Floating-point addition depends on its order, so the order is fixed: items are leaves of a binary tree over the places
of the batch, and every sum is made along that tree. The batch is parted into `units`, aligned subtrees of one size,
and each worker holds some that follow each other. A worker sums its units; then each sums one stretch of all units'
vectors, again along the tree, and the stretches are gathered. That is as much traffic as an all-reduce by ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


class TooManyWorkers(ValueError):
    """More workers than items in a batch."""


@dataclass(frozen=True)
class World:
    """The workers that share a batch. With more than one, torch's default process group must be set up.

    Attributes:
        rank: of this worker.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def places(self, batch_size: int) -> list[range]:
        """This worker's places in the batch, one range per unit.

        Raises:
            TooManyWorkers: for so small a batch.
        """
        width, holders = _units(batch_size, self.size)
        mine = [unit for unit, holder in enumerate(holders) if holder == self.rank]
        return [range(unit * width, min((unit + 1) * width, batch_size)) for unit in mine]

    def gather(self, value: Any) -> list[Any]:
        """What each worker gave, by rank. Small things only."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def sum(self, vector: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
        """Over all workers, in no particular order."""
        if self.size > 1:
            vector = vector.clone()
            distributed.all_reduce(vector)
        return vector

    def sum_units(self, own: Sequence[Float[Tensor, " p"]], batch_size: int) -> Float[Tensor, " p"]:
        """The sum over all units of all workers, along the tree; the same bits on every worker.

        Args:
            own: this worker's, in order; see `places`. All on one device.
            batch_size: of all workers together.
        """
        if self.size == 1:
            return tree_sum(own)
        _, holders = _units(batch_size, self.size)
        counts = [holders.count(rank) for rank in range(self.size)]
        length = len(own[0])
        stretch = -(-length // self.size)
        padded = torch.nn.functional.pad(torch.stack(list(own)), (0, stretch * self.size - length))
        sent = padded.view(len(own), self.size, stretch).transpose(0, 1).contiguous()
        received = padded.new_empty(len(holders), stretch)
        distributed.all_to_all_single(received, sent.view(-1, stretch), counts, [len(own)] * self.size)
        gathered = padded.new_empty(self.size * stretch)
        distributed.all_gather_into_tensor(gathered, tree_sum(received.unbind()))
        return gathered[:length]


#: A single worker, which has the whole batch.
ALONE = World()


def _units(batch_size: int, workers: int) -> tuple[int, list[int]]:
    """Places in a unit, and which worker holds each unit that is not empty. Where the number of workers is no power of
    two there are more units than workers, for fairer shares."""
    if workers > batch_size:
        raise TooManyWorkers(f"{workers} workers for a batch of {batch_size}; start fewer, or raise optim.batch_size")
    leaves, wanted = (1 << (number - 1).bit_length() for number in (batch_size, workers))
    width = max(1, leaves // (wanted if wanted == workers else 2 * wanted))
    while -(-batch_size // width) < workers:
        width //= 2
    units = -(-batch_size // width)
    return width, [unit * workers // units for unit in range(units)]


def tree_sum(leaves: Sequence[Float[Tensor, " p"]]) -> Float[Tensor, " p"]:
    """((a + b) + (c + d)) + ..., as if missing leaves at the end were zero."""
    rows = list(leaves)
    while len(rows) > 1:
        pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)]
        rows = pairs + rows[len(pairs) * 2 :]
    return rows[0]
