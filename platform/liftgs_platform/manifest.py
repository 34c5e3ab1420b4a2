"""What makes committed shards a corpus: `manifest.json`, `quarantine.jsonl`, and the data card `README.md`.

All three are pure functions of the plans and the shards' JSON, so they are the same bytes however often they are
written, and may be rebuilt at any time. The manifest is written last: a corpus with one is complete, and what it lists
never changes; a retry only adds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput
from liftgs_platform import shards, storage
from liftgs_platform.card import card
from liftgs_platform.counting import NAMES
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow, canonical_json, read_plans
from liftgs_platform.shards import ShardIndex

FORMAT = "liftgs-corpus/1"
MANIFEST, QUARANTINE, CARD = "manifest.json", "quarantine.jsonl", "README.md"
REBUILD = "submit the job again to rebuild it"


class View(NamedTuple):
    """A planned view: one frame of one chunk."""

    scene: str
    chunk: int
    frame: str


@dataclass(frozen=True)
class Companions:
    """The derived files of a corpus.

    Attributes:
        manifest: content of manifest.json.
        quarantine: content of quarantine.jsonl.
    """

    manifest: dict[str, Any]
    quarantine: tuple[QuarantineRow, ...]

    def files(self) -> dict[str, bytes]:
        """Name -> bytes, the manifest last."""
        return {
            QUARANTINE: b"".join(map(canonical_json, self.quarantine)),
            CARD: card(self.manifest).encode(),
            MANIFEST: json.dumps(self.manifest, sort_keys=True, indent=1).encode("ascii") + b"\n",
        }


def derive(plans: Sequence[Plan], indices: Iterable[ShardIndex]) -> Companions:
    """Everything about a corpus that follows from its plans and the commits of its shards.

    Args:
        plans: the first plan and those of the retries, in order.
        indices: of all committed shards, in order; read once.
    """
    planned = {shard.index: shard for plan in plans for shard in plan.shards}
    totals: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
    listed: list[dict[str, Any]] = []
    lost: dict[int, tuple[QuarantineRow, ...]] = {}
    for index in indices:
        lost[index.index] = index.quarantine
        totals.update(index.counts)
        listed.append(
            {"shard": index.index, "size": index.tar_size, "sha256": index.tar_sha256, "counts": index.counts}
        )
    rows = _outstanding(plans, planned, lost)
    views = {view for shard in planned.values() for view in views_of(shard)}
    manifest = {
        "format": FORMAT,
        "spec": plans[0].spec,
        "spec_hash": plans[0].spec_hash,
        "plans": [{"file": p.filename, "sha256": p.sha256, "provenance": p.provenance} for p in plans],
        "planned": {"shards": len(planned), "views": len(views)},
        "counts": dict(totals),
        "quarantine": {"rows": len(rows), "by_stage": dict(Counter(row["stage"] for row in rows))},
        "shards": listed,
    }
    return Companions(manifest, rows)


def write(corpus: str) -> Companions:
    """Derive and write the three files of a corpus whose shards are all committed.

    Raises:
        ValueError: nothing is planned, or a planned shard is not committed.
    """
    plans = read_plans(corpus)
    if not plans:
        raise ValueError(f"{corpus}: holds no plan.jsonl, so no corpus was begun here")
    planned = [shard.index for plan in plans for shard in plan.shards]
    missing = sorted(set(planned) - set(shards.committed_indices(corpus)))
    if missing:
        raise ValueError(
            f"{corpus}: {len(missing)} of {len(planned)} planned shards are not committed, the first is "
            f"{missing[0]:06d}; submit the job again"
        )
    companions = derive(plans, shards.load_indices(corpus, planned))
    for name, data in companions.files().items():
        storage.write_bytes(storage.join(corpus, name), data)
    return companions


def is_current(corpus: str, plans: Sequence[Plan]) -> bool:
    """Whether the manifest is there and covers all of these plans."""
    try:
        listed = read_manifest(corpus)["plans"]
    except NewerFormat:
        raise
    except (FileNotFoundError, BadInput):
        return False
    return [plan["sha256"] for plan in listed] == [plan.sha256 for plan in plans]


def read_manifest(corpus: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """The manifest.

    Args:
        corpus: its URI.
        object_hook: gets each object in it, innermost first, and gives what stands in its place, as for `json.loads`.

    Raises:
        FileNotFoundError: there is no corpus, or its job has not finished.
        BadInput: the file is damaged.
    """
    uri = storage.join(corpus, MANIFEST)
    try:
        manifest = json.loads(storage.read_bytes(uri), object_hook=object_hook)
        check_format(manifest["format"], FORMAT, uri)
    except FileNotFoundError:
        raise FileNotFoundError(f"{uri}: no such file; is it a corpus, and has its job finished?") from None
    except NewerFormat:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise BadInput(uri, f"not a manifest ({error!r}); {REBUILD}") from error
    return dict(manifest)


def read_quarantine(corpus: str) -> list[QuarantineRow]:
    """What of a finished corpus is still missing, and why.

    Raises:
        FileNotFoundError: there is no corpus, or its job has not finished.
        BadInput: the file is damaged.
    """
    uri = storage.join(corpus, QUARANTINE)
    try:
        return [json.loads(line) for line in storage.read_bytes(uri).splitlines()]
    except (ValueError, RecursionError) as error:
        raise BadInput(uri, f"not JSON lines ({error}); {REBUILD}") from error


def views_of(shard: PlannedShard) -> list[View]:
    """All views that a shard is to hold."""
    return [View(chunk.scene, chunk.index, frame) for chunk in shard.chunks for frame in chunk.view_ids]


def views_lost(row: QuarantineRow, shard: PlannedShard) -> set[View]:
    """The planned views that a row of this shard's quarantine stands for."""
    of_chunk = {view for view in views_of(shard) if (view.scene, view.chunk) == (row["scene"], row["chunk"])}
    return of_chunk if row["frame"] is None else {view for view in of_chunk if view.frame == row["frame"]}


def _outstanding(
    plans: Sequence[Plan], planned: dict[int, PlannedShard], lost: dict[int, tuple[QuarantineRow, ...]]
) -> tuple[QuarantineRow, ...]:
    """Rows that no later retry took over: what came of those is told by the retry's own shard or plan."""
    rows: list[QuarantineRow] = []
    taken_over: set[View] = set()
    for index in sorted(lost, reverse=True):
        # A committed retry has either stored each of its views, or says itself why not.
        rows += [row for row in lost[index] if not views_lost(row, planned[index]) <= taken_over]
        taken_over.update(views_of(planned[index]))
    replanned: set[str] = set()
    for plan in reversed(plans):
        rows += [row for row in plan.quarantine if row["scene"] not in replanned]
        replanned.update(row["scene"] for row in plan.quarantine)
        replanned.update(chunk.scene_uri for shard in plan.shards for chunk in shard.chunks)
    return tuple(sorted(rows, key=_place))


def _place(row: QuarantineRow) -> tuple[str, int, str, str]:
    return row["scene"], -1 if row["chunk"] is None else row["chunk"], row["frame"] or "", row["stage"]
