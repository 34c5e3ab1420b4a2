"""What a manifest and the indexes of its shards say, in arrays: ten million samples are too many for an object each."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.manifest import MANIFEST, REBUILD, read_manifest
from liftgs_platform.shards import ShardIndex
from liftgs_platform.tars import Span

_ROW = {"shard", "size", "sha256", "counts"}


@dataclass(frozen=True, eq=False)
class Contents:
    """A manifest, with its shards as columns. Pickles small.

    Attributes:
        head: manifest.json without its list of shards.
        shards: their numbers.
        samples: how many each holds, which may be none.
        sha256: of their tars.
    """

    head: dict[str, Any]
    shards: Int64[np.ndarray, " n"]
    samples: Int64[np.ndarray, " n"]
    sha256: UInt8[np.ndarray, "n 32"]

    @cached_property
    def ends(self) -> Int64[np.ndarray, " n"]:
        """Of each shard, the position after its last sample."""
        return np.cumsum(self.samples)


def read_contents(corpus: str) -> Contents:
    """The manifest of a corpus. Its rows go into columns as they are parsed, so no more than the text is ever held.

    Raises:
        FileNotFoundError: there is no corpus, or its job has not finished.
        BadInput: the file is damaged.
    """
    shards, samples, sha256 = array("q"), array("q"), bytearray()

    def take_row(found: dict[str, Any]) -> dict[str, Any] | None:
        if found.keys() != _ROW:
            return found
        shards.append(found["shard"])
        samples.append(found["counts"]["samples"])
        sha256.extend(bytes.fromhex(found["sha256"]))
        return None

    head = read_manifest(corpus, take_row)
    listed = head.pop("shards", [{}])
    if any(row is not None for row in listed) or len(sha256) != 32 * len(shards):
        raise BadInput(storage.join(corpus, MANIFEST), f"its list of shards is damaged; {REBUILD}")
    numbers, counts = np.frombuffer(shards, np.int64), np.frombuffer(samples, np.int64)
    return Contents(head, numbers, counts, np.frombuffer(sha256, np.uint8).reshape(-1, 32))


class PackedIndex:
    """Where the members of a shard's samples lie, in a tenth of the memory of a `ShardIndex`.

    Attributes:
        keys: of the samples, in order.
    """

    def __init__(self, index: ShardIndex, names: dict[tuple[str, ...], tuple[str, ...]]):
        """`names`: of samples' members, as met so far; most samples have the same."""
        self.keys = tuple(index.samples)
        self._names = [names.setdefault(found, found) for found in map(tuple, index.samples.values())]
        spans = [span for members in index.samples.values() for span in members.values()]
        self._spans = np.array(spans, np.int64).reshape(-1, 3)
        self._starts = np.cumsum([0, *map(len, self._names)])

    def spans(self, place: int) -> Mapping[str, Span]:
        """Of the sample at a place within the shard: member -> where it lies."""
        rows = self._spans[self._starts[place] : self._starts[place + 1]].tolist()
        return {name: Span(*row) for name, row in zip(self._names[place], rows, strict=True)}
