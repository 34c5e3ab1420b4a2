"""Random access to a corpus, by the offsets in its shards' JSON. Any storage; nothing is unpacked."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.manifest import read_manifest
from liftgs_platform.shards import ShardIndex, index_uri, load_index, load_indices, tar_uri
from liftgs_platform.tars import Span

#: Members this close in the tar are fetched by one read: on an object store a request costs more than these bytes.
_GAP_BYTES = {True: 4096, False: 256 * 1024}  # by whether the storage is the local disk

#: Shard indexes kept in memory; one takes some tens of kB.
_CACHED_INDEXES = 4096


class CorpusReader:
    """The samples of a finished corpus, in the order of its shards, each as its members' bytes.

    `reader[i]` costs one ranged read, whatever the size of the shard. Every member is checked against its CRC-32 as it
    is read. Safe in threads and forks: it holds no open file. It pickles small, for workers, with its manifest, so that
    all see the same corpus though a retry adds to it meanwhile.

    Attributes:
        corpus: its URI.
        manifest: content of manifest.json.

    Raises:
        FileNotFoundError: there is no corpus, or its job has not finished.
        BadInput: the manifest is damaged.
    """

    def __init__(self, corpus: str, manifest: dict[str, Any] | None = None):
        """Open a corpus; `manifest` spares reading it again."""
        self.corpus = storage.absolute(corpus)
        self.manifest = manifest if manifest is not None else read_manifest(corpus)
        self._shards = [row for row in self.manifest["shards"] if row["counts"]["samples"]]
        self._ends = list(accumulate(row["counts"]["samples"] for row in self._shards))
        self._gap = _GAP_BYTES[storage.local_path(self.corpus) is not None]
        self._index = lru_cache(_CACHED_INDEXES)(self._load_index)

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusReader, (self.corpus, self.manifest)

    def __len__(self) -> int:
        """Number of samples."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> dict[str, bytes]:
        """All members of sample `i`."""
        index, key = self._locate(i)
        return self._read(index, key, index.samples[key])

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        """All samples, shard by shard."""
        return (self[i] for i in range(len(self)))

    def key(self, i: int) -> str:
        """The WebDataset key of sample `i`."""
        return self._locate(i)[1]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All keys, in order. Reads the index of every shard, once."""
        rows = {row["shard"]: row for row in self._shards}
        loaded = load_indices(self.corpus, rows)
        return tuple(key for index in loaded for key in self._checked(index, rows[index.index]).samples)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.keys)}

    def read(self, key: str, members: Collection[str] | None = None) -> dict[str, bytes]:
        """Members of one sample, all or those named.

        Raises:
            KeyError: no such sample, or no such member in it.
            BadInput: the tar is not what was committed: overwritten, truncated or damaged.
            FileNotFoundError: it is gone.
        """
        if key not in self._positions:
            raise KeyError(f"{self.corpus} holds no sample {key!r}")
        index, _ = self._locate(self._positions[key])
        spans = index.samples[key]
        if members is not None:
            unknown = set(members) - spans.keys()
            if unknown:
                raise KeyError(f"{self.corpus}#{key} has no member {sorted(unknown)[0]!r}, only {sorted(spans)}")
            spans = {name: spans[name] for name in spans if name in members}
        return self._read(index, key, spans)

    def _locate(self, i: int) -> tuple[ShardIndex, str]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)} in {self.corpus}")
        i %= len(self)
        place = bisect_right(self._ends, i)
        index = self._index(place)
        return index, list(index.samples)[i - self._ends[place]]  # the difference counts from the shard's end

    def _load_index(self, place: int) -> ShardIndex:
        row = self._shards[place]
        return self._checked(load_index(self.corpus, row["shard"]), row)

    def _checked(self, index: ShardIndex, row: Mapping[str, Any]) -> ShardIndex:
        if index.tar_sha256 != row["sha256"] or len(index.samples) != row["counts"]["samples"]:
            raise BadInput(index_uri(self.corpus, index.index), "is not the commit that manifest.json lists")
        return index

    def _read(self, index: ShardIndex, key: str, spans: Mapping[str, Span]) -> dict[str, bytes]:
        uri = tar_uri(self.corpus, index.index)
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
