"""Random access to a corpus, by the offsets in its shards' JSON. Any storage; nothing is unpacked."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int64

from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.contents import Contents, PackedIndex, read_contents
from liftgs_platform.shards import ShardIndex, index_uri, load_index, load_indices, tar_uri
from liftgs_platform.tars import Span

#: Members this close in the tar are fetched by one read: on an object store a request costs more than these bytes.
_GAP_BYTES = {True: 4096, False: 256 * 1024}  # by whether the storage is the local disk

#: Samples of which a reader remembers where their members lie; with twenty members, one takes about 600 bytes.
_REMEMBERED_SAMPLES = 1 << 17


class CorpusReader:
    """The samples of a finished corpus, in the order of its shards, each as its members' bytes.

    `reader[i]` costs one ranged read, whatever the size of the shard, and the read of the shard's index where that is
    not remembered. Every member is checked against its CRC-32 as it is read. Memory is bounded, but for 50 bytes per
    shard. Safe in threads and forks: it holds no open file. It pickles small, for workers, with its manifest, so that
    all see the same corpus though a retry adds to it meanwhile.

    Attributes:
        corpus: its URI.
        contents: what its manifest lists.

    Raises:
        FileNotFoundError: there is no corpus, or its job has not finished.
        BadInput: the manifest is damaged.
    """

    def __init__(self, corpus: str, contents: Contents | None = None):
        """Open a corpus; `contents` spares reading its manifest again."""
        self.corpus = storage.absolute(corpus)
        self.contents = contents if contents is not None else read_contents(corpus)
        self._gap = _GAP_BYTES[storage.local_path(self.corpus) is not None]
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        shards = max(1, _REMEMBERED_SAMPLES * len(self.contents.shards) // max(1, len(self)))
        self._index = lru_cache(shards)(self._load_index)

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusReader, (self.corpus, self.contents)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.contents.ends[-1]) if len(self.contents.ends) else 0

    def __getitem__(self, i: int) -> dict[str, bytes]:
        """All members of sample `i`."""
        shard, place = self._locate(i)
        index = self._index(shard)
        return self._read(shard, index.keys[place], index.spans(place))

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        """All samples, shard by shard."""
        return (self[i] for i in range(len(self)))

    def key(self, i: int) -> str:
        """The WebDataset key of sample `i`."""
        shard, place = self._locate(i)
        return self._index(shard).keys[place]

    @property
    def keys(self) -> Sequence[str]:
        """All keys, in order; never held together. Going through them reads the index of every shard."""
        return _Keys(self)

    def read(self, key: str, members: Collection[str] | None = None) -> dict[str, bytes]:
        """Members of one sample, all or those named. The first call goes through all keys.

        Raises:
            KeyError: no such sample, or no such member in it.
            BadInput: the tar is not what was committed: overwritten, truncated or damaged.
            FileNotFoundError: it is gone.
        """
        shard, place = self._locate(self.position(key))
        spans = self._index(shard).spans(place)
        if members is not None:
            unknown = set(members) - spans.keys()
            if unknown:
                raise KeyError(f"{self.corpus}#{key} has no member {sorted(unknown)[0]!r}, only {sorted(spans)}")
            spans = {name: spans[name] for name in spans if name in members}
        return self._read(shard, key, spans)

    def position(self, key: str) -> int:
        """Which sample has a key. The first call goes through all keys.

        Raises:
            KeyError: none has.
        """
        hashes, positions = self._by_hash
        low, high = (np.searchsorted(hashes, _hash(key), side) for side in ("left", "right"))
        for position in positions[low:high].tolist():
            if self.key(position) == key:
                return int(position)
        raise KeyError(f"{self.corpus} holds no sample {key!r}")

    @cached_property
    def _by_hash(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Hashes of all keys, ascending, and whose they are."""
        hashes = np.fromiter(map(_hash, self.keys), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _locate(self, i: int) -> tuple[int, int]:
        """Which row of the manifest, and which sample of that shard."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)} in {self.corpus}")
        i %= len(self)
        row = int(np.searchsorted(self.contents.ends, i, "right"))
        return row, i - int(self.contents.ends[row] - self.contents.samples[row])

    def _load_index(self, row: int) -> PackedIndex:
        return PackedIndex(self._checked(row, load_index(self.corpus, int(self.contents.shards[row]))), self._names)

    def _checked(self, row: int, index: ShardIndex) -> ShardIndex:
        contents = self.contents
        if index.tar_sha256 != contents.sha256[row].tobytes().hex() or len(index.samples) != contents.samples[row]:
            raise BadInput(index_uri(self.corpus, index.index), "is not the commit that manifest.json lists")
        return index

    def indices(self) -> Iterator[ShardIndex]:
        """The indexes of all shards that hold samples, in order; a few are read side by side, and none is kept."""
        rows = np.flatnonzero(self.contents.samples)
        loaded = load_indices(self.corpus, self.contents.shards[rows].tolist())
        for row, index in zip(rows.tolist(), loaded, strict=True):
            yield self._checked(row, index)

    def _read(self, row: int, key: str, spans: Mapping[str, Span]) -> dict[str, bytes]:
        uri = tar_uri(self.corpus, int(self.contents.shards[row]))
        found: dict[str, bytes] = {}
        for start, size, group in _merge(spans, self._gap):
            data = storage.read_bytes(uri, start, size)
            for name in group:
                span = spans[name]
                member = data[span.offset - start : span.offset - start + span.size]
                if len(member) != span.size or zlib.crc32(member) != span.crc32:
                    raise BadInput(
                        f"{uri}#{key}.{name}",
                        "differs from what was committed; `liftgs verify` says what else does, and how to mend it",
                    )
                found[name] = member
        return found


class _Keys(Sequence[str]):
    """See `CorpusReader.keys`."""

    def __init__(self, reader: CorpusReader):
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, i: Any) -> Any:
        return self._reader.key(i)

    def __iter__(self) -> Iterator[str]:
        for index in self._reader.indices():
            yield from index.samples


def _hash(key: str) -> int:
    """63 bits, so never negative."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _merge(spans: Mapping[str, Span], gap: int) -> Iterator[tuple[int, int, list[str]]]:
    """Spans joined to reads: (start, size, members), with holes of at most `gap` bytes."""
    group: list[str] = []
    start = end = 0
    for name, span in sorted(spans.items(), key=lambda item: item[1].offset):
        if group and span.offset > end + gap:
            yield start, end - start, group
            group = []
        if not group:
            start = span.offset
        group.append(name)
        end = span.offset + span.size
    if group:
        yield start, end - start, group
