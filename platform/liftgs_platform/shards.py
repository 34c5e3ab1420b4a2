"""The shard: unit of work, of commit and of retry. A tar of samples, and beside it the JSON that is its commit.

`shards/{i:06d}.json` is written after `shards/{i:06d}.tar`, whole. A tar without it does not exist. So whatever is
killed whenever, a reader never sees part of a shard, and a second commit of the same shard is harmless.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.counting import Counts, count
from liftgs_platform.shard_plan import PlannedShard, QuarantineRow, canonical_json
from liftgs_platform.tars import Members, Span, Spans, build_tar

FORMAT = "liftgs-shard/1"
REDO = "delete it and submit the job again"
_COMMIT_NAME = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True)
class ShardIndex:
    """The content of a shard's JSON.

    Attributes:
        index: the shard's number.
        plan: sha256 of the plan file that ordered it.
        tar_size: bytes.
        tar_sha256: of the whole tar.
        samples: where each member of each sample lies in the tar.
        counts: samples, views, segments, captions, points, ...
        quarantine: what the plan wanted in this shard and could not be had.
    """

    index: int
    plan: str
    tar_size: int
    tar_sha256: str
    samples: Spans
    counts: Counts
    quarantine: tuple[QuarantineRow, ...]

    def encode(self) -> bytes:
        """The bytes of the JSON file."""
        return canonical_json(
            {
                "format": FORMAT,
                "shard": self.index,
                "plan": self.plan,
                "tar": {"size": self.tar_size, "sha256": self.tar_sha256},
                "samples": self.samples,
                "counts": self.counts,
                "quarantine": self.quarantine,
            }
        )

    @classmethod
    def decode(cls, data: bytes, uri: str) -> ShardIndex:
        """What `encode` wrote; `uri` is for messages. Raises BadInput on anything else."""
        try:
            fields: dict[str, Any] = json.loads(data)
            check_format(fields["format"], FORMAT, uri)
            samples = {
                key: {name: Span(*map(int, span)) for name, span in members.items()}
                for key, members in fields["samples"].items()
            }
            tar = fields["tar"]
            rows = tuple(fields["quarantine"])
            return cls(fields["shard"], fields["plan"], tar["size"], tar["sha256"], samples, fields["counts"], rows)
        except NewerFormat:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(uri, f"not a shard index ({error!r}); {REDO}") from error


def tar_uri(corpus: str, index: int) -> str:
    """Where shard `index` is."""
    return storage.join(corpus, "shards", f"{index:06d}.tar")


def index_uri(corpus: str, index: int) -> str:
    """Where the commit of shard `index` is."""
    return storage.join(corpus, "shards", f"{index:06d}.json")


def commit(
    corpus: str,
    plan_sha256: str,
    shard: PlannedShard,
    samples: Mapping[str, Members],
    quarantine: Sequence[QuarantineRow],
) -> ShardIndex:
    """Publish a shard: its tar, then its JSON. Labels and losses become visible together, or neither does.

    A shard that is already committed is left as it is, even if this labelling differs in its bits (as on a GPU it may).

    Args:
        corpus: URI of the corpus.
        plan_sha256: `Plan.sha256` of the plan that ordered the shard.
        shard: what the plan wants in it.
        samples: `Chunk.key` -> members, for the chunks of which something could be had.
        quarantine: rows for the views that could not be had, or for whole chunks. Rows about other frames of a window
            (they only lend points to a retried chunk) are left out: those views are not owed by this shard.

    Raises:
        ValueError: a planned view is neither in the samples nor in quarantine, or in both; or the corpus holds this
            shard under another plan.
        StorageError: it could not be written.
    """
    rows = _owed(shard, quarantine)
    _check_accounts(shard, samples, rows)
    done = _already_committed(corpus, shard.index)
    if done is not None:
        if done.plan != plan_sha256:
            uri = index_uri(corpus, shard.index)
            raise ValueError(f"{uri}: committed under another plan; choose another output, or delete this corpus first")
        return done
    tar, spans = build_tar(samples)
    sha256 = hashlib.sha256(tar).hexdigest()
    index = ShardIndex(shard.index, plan_sha256, len(tar), sha256, spans, count(samples.values()), rows)
    storage.write_bytes(tar_uri(corpus, shard.index), tar)
    storage.write_bytes(index_uri(corpus, shard.index), index.encode())
    return index


def committed_indices(corpus: str) -> list[int]:
    """Numbers of the committed shards, by one listing. A commit whose tar has gone counts for nothing, so is redone."""
    folder = storage.join(corpus, "shards")
    files = {uri.rpartition("/")[2] for uri in storage.list_files(folder)}
    matches = filter(None, map(_COMMIT_NAME.fullmatch, files))
    return sorted(int(match[1]) for match in matches if f"{match[1]}.tar" in files)


def load_index(corpus: str, index: int) -> ShardIndex:
    """The commit of one shard.

    Raises:
        FileNotFoundError: it is not committed.
        BadInput: the file is damaged.
    """
    uri = index_uri(corpus, index)
    loaded = ShardIndex.decode(storage.read_bytes(uri), uri)
    if loaded.index != index:
        raise BadInput(uri, f"is the index of shard {loaded.index}; {REDO}")
    return loaded


def load_indices(corpus: str, indices: Iterable[int]) -> Iterator[ShardIndex]:
    """`load_index` for many shards, in the order asked for; a few side by side, never all in memory."""
    numbers = iter(indices)
    with ThreadPoolExecutor(16) as pool:
        while batch := list(islice(numbers, 64)):
            yield from pool.map(lambda index: load_index(corpus, index), batch)


def stored_views(shard: PlannedShard, quarantine: Iterable[QuarantineRow]) -> dict[str, tuple[str, ...]]:
    """Sample key -> frame ids of its views 00, 01, ..., for the chunks of a shard that have any."""
    lost = {(row["scene"], row["chunk"], row["frame"]) for row in quarantine}
    stored = {}
    for chunk in shard.chunks:
        views = tuple(view for view in chunk.view_ids if (chunk.scene, chunk.index, view) not in lost)
        if views and (chunk.scene, chunk.index, None) not in lost:
            stored[chunk.key] = views
    return stored


def _already_committed(corpus: str, index: int) -> ShardIndex | None:
    try:
        done = load_index(corpus, index)
        return done if storage.size_of(tar_uri(corpus, index)) == done.tar_size else None
    except NewerFormat:
        raise
    except (FileNotFoundError, BadInput):
        return None  # absent or damaged: commit it (again)


def _owed(shard: PlannedShard, quarantine: Sequence[QuarantineRow]) -> tuple[QuarantineRow, ...]:
    owed = {(chunk.scene, chunk.index, view) for chunk in shard.chunks for view in (*chunk.view_ids, None)}
    rows = [row for row in quarantine if (row["scene"], row["chunk"], row["frame"]) in owed]
    return tuple(sorted(rows, key=lambda row: (row["scene"], row["chunk"], row["frame"] or "", row["stage"])))


def _check_accounts(shard: PlannedShard, samples: Mapping[str, Members], rows: Iterable[QuarantineRow]) -> None:
    expected = stored_views(shard, rows)
    for key in sorted(samples.keys() | expected.keys()):
        views = tuple(json.loads(samples[key]["meta.json"])["views"]) if key in samples else ()
        if not views or views != expected.get(key, ()):
            raise ValueError(
                f"shard {shard.index}, sample {key} holds the views {views}, but plan and quarantine leave "
                f"{expected.get(key, ())}: each planned view belongs in exactly one of sample and quarantine"
            )
