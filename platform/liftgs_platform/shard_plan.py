"""Which chunks go into which shard: decided once, written to the corpus, then never changed.

`plan.jsonl` opens with a header line (format, identity of the job, number of shards), then holds one line per shard. A
retry appends a plan of its own, `plan-retry{k}.jsonl`, written before it runs, so that a killed retry goes on as it
began. No clock time, host, output path or scale setting is in any of them: equal specs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput, Chunk
from liftgs_platform import storage

FORMAT = "liftgs-plan/1"
RESTORE = "restore the file or begin a new corpus"


class QuarantineRow(TypedDict):
    """What was asked for and could not be had. `frame` is None for a whole chunk; `chunk` too, for a whole scene."""

    uri: str
    scene: str
    chunk: int | None
    frame: str | None
    stage: str
    error: str
    traceback: str
    attempt: int  # 0, or which retry this is; never how often a process tried


@dataclass(frozen=True)
class PlannedShard:
    """What shard `index` is to hold."""

    index: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Plan:
    """One planning of a corpus: the first, or that of retry `retry`.

    Attributes:
        spec: the identity of the job: everything that decides what the corpus holds, and nothing else. JSON values.
        spec_hash: of `spec`, as `liftgs_platform.spec.digest` makes it.
        provenance: who labels: revisions of teachers and code, JSON values; shown in the manifest and the data card.
        shards: numbered on from those of the earlier plans.
        quarantine: scenes that could not be planned.
        retry: 0, or which retry this is.

    Raises:
        ValueError: two chunks of one key, or shards out of order.
    """

    spec: Mapping[str, Any]
    spec_hash: str
    shards: tuple[PlannedShard, ...]
    provenance: Mapping[str, Any]
    quarantine: tuple[QuarantineRow, ...] = ()
    retry: int = 0

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for key in (chunk.key for shard in self.shards for chunk in shard.chunks):
            if key in seen:
                raise ValueError(f"two chunks have the key {key}: scene names must be unique within a source")
            seen.add(key)
        indices = [shard.index for shard in self.shards]
        if indices and indices != list(range(indices[0], indices[0] + len(indices))):
            raise ValueError(f"shard numbers do not follow each other: {indices[:20]}")

    @cached_property
    def sha256(self) -> str:
        """Identity of the plan: of its file's bytes."""
        return hashlib.sha256(self.encode()).hexdigest()

    @property
    def filename(self) -> str:
        """Its name in the corpus."""
        return plan_filename(self.retry)

    def encode(self) -> bytes:
        """The bytes of the plan file."""
        header = {
            "format": FORMAT,
            "retry": self.retry,
            "spec": self.spec,
            "spec_hash": self.spec_hash,
            "provenance": self.provenance,
            "shards": len(self.shards),
            "quarantine": self.quarantine,
        }
        lines = [
            {"shard": shard.index, "chunks": [_chunk_json(chunk) for chunk in shard.chunks]} for shard in self.shards
        ]
        return b"".join(canonical_json(line) for line in [header, *lines])

    @classmethod
    def decode(cls, data: bytes, uri: str) -> Plan:
        """The plan that `encode` wrote; `uri` is for messages. Raises BadInput on anything else."""
        try:
            header, *lines = map(json.loads, data.decode().splitlines())
            check_format(header["format"], FORMAT, uri)
            if len(lines) != header["shards"]:
                raise ValueError(f"holds {len(lines)} of {header['shards']} shards")
            shards = tuple(PlannedShard(line["shard"], tuple(map(_chunk, line["chunks"]))) for line in lines)
            plan = cls(
                header["spec"],
                header["spec_hash"],
                shards,
                header["provenance"],
                tuple(header["quarantine"]),
                header["retry"],
            )
        except NewerFormat:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(uri, f"not a plan ({error!r}); {RESTORE}") from error
        if plan.encode() != data:
            raise BadInput(uri, f"the plan was changed by hand; {RESTORE}")
        return plan


def plan_filename(retry: int) -> str:
    """`plan.jsonl`, or `plan-retry{k}.jsonl`."""
    return f"plan-retry{retry}.jsonl" if retry else "plan.jsonl"


def write_plan(corpus: str, plan: Plan) -> None:
    """Write a plan into its corpus, once; writing the same plan again does nothing.

    Raises:
        ValueError: the corpus already has another plan in that place.
    """
    uri = storage.join(corpus, plan.filename)
    if storage.exists(uri):
        if storage.read_bytes(uri) != plan.encode():
            raise ValueError(f"{uri}: holds another plan; choose another output, or delete this corpus first")
        return
    storage.write_bytes(uri, plan.encode())


def read_plans(corpus: str) -> list[Plan]:
    """The plan of a corpus and those of its retries, in order; empty where no job has planned yet.

    Raises:
        BadInput: a plan file is damaged.
    """
    plans: list[Plan] = []
    while True:
        uri = storage.join(corpus, plan_filename(len(plans)))
        try:
            plans.append(Plan.decode(storage.read_bytes(uri), uri))
        except FileNotFoundError:
            return plans


def canonical_json(value: Any) -> bytes:
    """One line of JSON whose bytes depend on the value alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def group_chunks(chunks: Sequence[Chunk], chunks_per_shard: int, first: int = 0) -> tuple[PlannedShard, ...]:
    """Chunks in order, `chunks_per_shard` to a shard, numbered from `first`."""
    starts = range(0, len(chunks), chunks_per_shard)
    return tuple(PlannedShard(first + i, tuple(chunks[s : s + chunks_per_shard])) for i, s in enumerate(starts))


def _chunk_json(chunk: Chunk) -> dict[str, Any]:
    return {
        "scene_uri": chunk.scene_uri,
        "scene": chunk.scene,
        "index": chunk.index,
        "frame_ids": chunk.frame_ids,
        "view_ids": chunk.view_ids,
        "retry": chunk.retry,
    }


def _chunk(fields: Mapping[str, Any]) -> Chunk:
    return Chunk(
        fields["scene_uri"],
        fields["scene"],
        fields["index"],
        tuple(fields["frame_ids"]),
        tuple(fields["view_ids"]),
        fields["retry"],
    )
