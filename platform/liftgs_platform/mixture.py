"""Which sample comes when: several corpora mixed by weights, in an order that is a pure function of their contents.

A position counts the samples drawn since the run began. What stands at a position depends on the seed, the weights and
the manifests of the corpora, never on who reads it or when; so the whole data state of a run is one number, the
positions it has consumed, and any reader can start anywhere.
"""

from __future__ import annotations

import hashlib
import math
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, compress

import numpy as np

from liftgs.sample import Sample, decode_sample
from liftgs.scene import BadInput, scene_of_key
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import canonical_json

#: Positions after which the shares of the corpora are exact; a weight below 1 in this many still gets one position.
BLOCK = 10_000


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus to train on.

    Attributes:
        uri: a folder or s3://bucket/name that a labelling job has finished.
        weight: samples drawn from it, relative to the other corpora's weights, whatever its size.
        share: of its scenes that are used: the first so many of a random order, so smaller shares lie in larger ones.
        share_seed: of that order.
    """

    uri: str
    weight: float = 1.0
    share: float = 1.0
    share_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight must be positive, not {self.weight}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")


@dataclass(frozen=True)
class Draw:
    """What stands at a position.

    Attributes:
        position: samples drawn before it, over all corpora.
        corpus: which corpus.
        index: which of its samples.
        epoch: how often each of its samples was drawn before.
    """

    position: int
    corpus: int
    index: int
    epoch: int


class Order:
    """Position -> draw, in constant time and memory.

    Within a corpus each epoch is a permutation of its samples. Corpora take turns in random patterns of `BLOCK`
    positions that hold each as often as its weight says.
    """

    def __init__(self, sizes: Sequence[int], hashes: Sequence[str], weights: Sequence[float], seed: int):
        """Args:
        sizes: samples of each corpus, at least one.
        hashes: of each corpus' content; hexadecimal.
        weights: of each corpus, positive.
        seed: of the run.
        """
        self.sizes, self.seed = tuple(sizes), seed
        self._hashes = [int(digest, 16) for digest in hashes]
        self._counts = apportion(weights, BLOCK)
        self._permutation = lru_cache(2 * len(sizes))(self._shuffle_epoch)
        self._pattern = lru_cache(2)(self._shuffle_block)

    def __getitem__(self, position: int) -> Draw:
        """The draw at a position, from 0 on without end."""
        block, offset = divmod(position, BLOCK)
        corpora, turns = self._pattern(block)
        corpus = int(corpora[offset])
        turn = block * self._counts[corpus] + int(turns[offset])
        epoch, place = divmod(turn, self.sizes[corpus])
        return Draw(position, corpus, int(self._permutation(corpus, epoch)[place]), epoch)

    def _shuffle_epoch(self, corpus: int, epoch: int) -> np.ndarray:
        return _permutation(self.sizes[corpus], [self.seed, epoch, self._hashes[corpus]])

    def _shuffle_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The corpus at each of a block's positions, and how many of its draws in this block came before."""
        corpora = np.repeat(np.arange(len(self.sizes)), self._counts)
        corpora = corpora[_permutation(BLOCK, [self.seed, block, *self._hashes])]
        turns = np.empty(BLOCK, np.int64)
        for corpus in range(len(self.sizes)):
            mine = corpora == corpus
            turns[mine] = np.arange(mine.sum())
        return corpora, turns


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """Whole shares of `total` in proportion to the weights, by largest remainders; nobody gets none."""
    exact = np.array(weights, np.float64) / np.sum(weights) * total
    shares = np.maximum(np.floor(exact), 1).astype(int)
    by_remainder = np.argsort(-(exact - shares), kind="stable")
    shares[by_remainder[: max(0, total - shares.sum())]] += 1
    shares[shares.argmax()] -= max(0, shares.sum() - total)
    return [int(share) for share in shares]


def _permutation(size: int, key: Sequence[int]) -> np.ndarray:
    """NumPy promises these raw numbers for all its versions, which it does not of `Generator.permutation`."""
    raw = np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(size)
    return np.argsort(raw, kind="stable").astype(np.uint32 if size < 2**32 else np.int64)


class Mixture:
    """The samples of several corpora by position, with their raw bytes kept in memory up to a limit.

    Attributes:
        readers: of the corpora.
        kept: which samples of each are used.
        order: of those.
        hashes: of what is used of each corpus; they decide the order.

    Raises:
        FileNotFoundError: a corpus is not there, or its job has not finished.
        BadInput: a manifest is damaged, or a corpus is empty.
    """

    def __init__(self, corpora: Sequence[CorpusSpec], seed: int, cache_bytes: int = 0):
        self.readers = [CorpusReader(corpus.uri) for corpus in corpora]
        for reader in self.readers:
            if not len(reader):
                raise BadInput(reader.corpus, "holds no sample")
        self.kept = [share_of(reader, corpus) for reader, corpus in zip(self.readers, corpora, strict=True)]
        self.hashes = tuple(content_hash(*used) for used in zip(self.readers, self.kept, strict=True))
        self.order = Order([*map(len, self.kept)], self.hashes, [corpus.weight for corpus in corpora], seed)
        self._room = cache_bytes
        self._cache: dict[tuple[int, int], dict[str, bytes]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Samples that are used, of all corpora."""
        return sum(map(len, self.kept))

    def epochs(self, positions: int) -> float:
        """How often an average sample has been drawn after so many positions."""
        return positions / len(self)

    def key(self, draw: Draw) -> str:
        """The WebDataset key of a draw's sample."""
        return self.readers[draw.corpus].key(self.kept[draw.corpus][draw.index])

    def uri(self, draw: Draw) -> str:
        """What to call a draw's sample in messages."""
        return f"{self.readers[draw.corpus].corpus}#{self.key(draw)}"

    def sample(self, draw: Draw) -> Sample:
        """A draw's sample, undecoded as yet. Safe in threads.

        Raises:
            BadInput: its shard is damaged.
        """
        place = (draw.corpus, draw.index)
        members = self._cache.get(place)
        if members is None:
            members = self.readers[draw.corpus][self.kept[draw.corpus][draw.index]]
            self._keep(place, members)
        return decode_sample(members, self.uri(draw))

    def _keep(self, place: tuple[int, int], members: dict[str, bytes]) -> None:
        # What is in stays in: an epoch visits every sample once, so throwing out the oldest would help nobody.
        size = sum(map(len, members.values()))
        with self._lock:
            if size <= self._room and place not in self._cache:
                self._cache[place] = members
                self._room -= size


def share_of(reader: CorpusReader, spec: CorpusSpec) -> Sequence[int]:
    """Positions of the samples of a corpus that are used, in order; whole scenes, at least one."""
    if spec.share == 1:
        return range(len(reader))
    numbers: dict[str, int] = {}
    scenes = np.fromiter((numbers.setdefault(scene_of_key(key), len(numbers)) for key in reader.keys), np.int32)
    ranked = sorted(numbers, key=lambda scene: hashlib.sha256(f"{spec.share_seed}:{scene}".encode()).digest())
    used = [numbers[scene] for scene in ranked[: math.ceil(spec.share * len(ranked) - 1e-9)]]
    return array("q", np.flatnonzero(np.isin(scenes, used)).tobytes())


def content_hash(reader: CorpusReader, kept: Sequence[int] | None = None) -> str:
    """What is in a corpus and in which order, wherever it lies; and which of its samples are used, if not all.

    The hash of a list in JSON: the shards' hashes and, where not all is used, the list of keys. It is never held whole.
    """
    shards = reader.contents.sha256
    items: Iterable[Iterable[bytes]] = ([canonical_json(row.tobytes().hex()).rstrip()] for row in shards)
    if kept is not None and len(kept) < len(reader):
        used = np.zeros(len(reader), bool)
        used[np.asarray(kept)] = True
        keys = ([canonical_json(key).rstrip()] for key in compress(reader.keys, used))
        items = chain(items, [_json_list(keys)])
    digest = hashlib.sha256()
    for piece in _json_list(items):
        digest.update(piece)
    digest.update(b"\n")
    return digest.hexdigest()


def _json_list(items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """A list in JSON, in pieces, of items in pieces."""
    separator = b"["
    for item in items:
        yield separator
        yield from item
        separator = b","
    yield b"]" if separator == b"," else b"[]"
