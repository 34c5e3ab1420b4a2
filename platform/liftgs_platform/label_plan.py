"""What a labelling job has to do: the first plan, what of it is missing, and the plan of a retry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from liftgs.chunks import ChunkingConfig, plan_chunks
from liftgs.codecs import bad_values
from liftgs.readers import ReaderOptions, list_scenes, open_scene
from liftgs.scene import BadInput, Chunk
from liftgs_platform.faults import describe
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow, group_chunks
from liftgs_platform.shards import ShardIndex, stored_views
from liftgs_platform.spec import digest

#: Scenes that are opened side by side while planning; it is waiting for storage, not work.
_AT_ONCE = 16


@dataclass(frozen=True)
class Planner:
    """Plans scenes the same way for a first run and for its retries."""

    reader: ReaderOptions
    chunking: ChunkingConfig
    chunks_per_shard: int
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def first(self, source: str) -> Plan:
        """All chunks of all scenes of a source. A scene that cannot be opened is in the plan's quarantine.

        Raises:
            BadInput: no scene in the source.
            ValueError: two scenes of one name.
        """
        chunks, lost = self._scenes(list_scenes(source, self.reader), retry=0)
        return self._plan(group_chunks(chunks, self.chunks_per_shard), lost)

    def retry(self, plans: Sequence[Plan], indices: Iterable[ShardIndex]) -> Plan | None:
        """What was planned so far, and is neither stored nor waiting for its first try; None if there is nothing."""
        number = len(plans)
        missing = missing_views(plans, indices)
        again = [replace(chunk, view_ids=views, retry=number) for chunk, views in missing]
        chunks, lost = self._scenes(unplanned_scenes(plans), retry=number)
        if not (again or chunks or lost):
            return None
        first = 1 + max((shard.index for plan in plans for shard in plan.shards), default=-1)
        grouped = group_chunks(again + chunks, self.chunks_per_shard, first)
        return self._plan(grouped, lost, number)

    def _plan(self, planned: tuple[PlannedShard, ...], lost: Sequence[QuarantineRow], retry: int = 0) -> Plan:
        return Plan(self.spec, digest(self.spec), planned, self.provenance, tuple(lost), retry)

    def _scenes(self, uris: Sequence[str], retry: int) -> tuple[list[Chunk], list[QuarantineRow]]:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            planned = list(threads.map(self._scene, uris))
        chunks: list[Chunk] = []
        lost: list[QuarantineRow] = []
        for uri, result in zip(uris, planned, strict=True):
            if isinstance(result, BadInput):
                where, error, trace = describe(result, uri)
                lost.append(
                    QuarantineRow(
                        uri=where,
                        scene=uri,
                        chunk=None,
                        frame=None,
                        stage="plan",
                        error=error,
                        traceback=trace,
                        attempt=retry,
                    )
                )
            else:
                chunks += [replace(chunk, retry=retry) for chunk in result]
        return chunks, lost

    def _scene(self, uri: str) -> list[Chunk] | BadInput:
        try:
            with bad_values(uri):
                return plan_chunks(open_scene(uri, self.reader), self.chunking)
        except BadInput as fault:
            return fault


def frames_of(planned: Iterable[PlannedShard]) -> int:
    """How many frames shards are to hold."""
    return sum(len(chunk.view_ids) for shard in planned for chunk in shard.chunks)


def missing_views(plans: Sequence[Plan], indices: Iterable[ShardIndex]) -> list[tuple[Chunk, tuple[str, ...]]]:
    """Chunks as first planned, each with those of its views that committed shards were to hold and do not."""
    planned = {shard.index: shard for plan in plans for shard in plan.shards}
    first: dict[tuple[str, int], Chunk] = {}
    for shard in planned.values():
        for chunk in shard.chunks:
            first.setdefault((chunk.scene, chunk.index), chunk)
    wanted: dict[tuple[str, int], set[str]] = {}
    stored: dict[tuple[str, int], set[str]] = {}
    for index in indices:
        shard = planned[index.index]
        kept = stored_views(shard, index.quarantine)
        for chunk in shard.chunks:
            place = chunk.scene, chunk.index
            wanted.setdefault(place, set()).update(chunk.view_ids)
            stored.setdefault(place, set()).update(kept.get(chunk.key, ()))
    missing = []
    for place, chunk in first.items():
        left = wanted.get(place, set()) - stored.get(place, set())
        views = tuple(view for view in chunk.view_ids if view in left)
        if views:
            missing.append((chunk, views))
    return missing


def unplanned_scenes(plans: Sequence[Plan]) -> list[str]:
    """URIs of scenes that could not be planned, not even by the last retry."""
    planned = {chunk.scene_uri for plan in plans for shard in plan.shards for chunk in shard.chunks}
    failed = dict.fromkeys(row["scene"] for plan in plans for row in plan.quarantine)
    return [uri for uri in failed if uri not in planned]
