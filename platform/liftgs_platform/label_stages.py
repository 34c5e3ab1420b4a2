"""The stages of labelling, without Ray: load, segment, embed, caption, commit.

Each takes a shard in the making and adds to it; images stay encoded in between, so that a draft is small and moves
cheaply. A frame that cannot be labelled becomes a quarantine row and costs only itself. What is not a frame's fault
(storage that cannot be reached, a captioner that is down, memory that runs out) is raised and ends the job.

Run in one process with `run_in_process`, in a debugger or a test; `label_pool` puts the same stages on Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from PIL import Image

from liftgs import codecs, labels, sample
from liftgs.annotations import expressions_by_scene
from liftgs.chunks import NoView, load_chunk
from liftgs.geometry import CloudConfig
from liftgs.readers import ReaderOptions, open_scene
from liftgs.sample import Members
from liftgs.scene import BadInput, Camera, Chunk, Frame, Scene
from liftgs_platform import shards
from liftgs_platform.faults import describe, frames_fault
from liftgs_platform.shard_plan import PlannedShard, QuarantineRow

#: In the order in which they run.
STAGES = ("load", "segment", "embed", "caption", "commit")


@dataclass(frozen=True)
class ViewName:
    """A frame's id within its scene, and where its photo came from."""

    id: str
    uri: str


@dataclass
class ChunkDraft:
    """A chunk in the making.

    Attributes:
        chunk: as planned.
        members: WebDataset members so far.
        views: number of each view that is still good -> its frame. Numbers are those of `members`.
    """

    chunk: Chunk
    members: Members = field(default_factory=dict)
    views: dict[int, ViewName] = field(default_factory=dict)


@dataclass
class Tally:
    """What a stage did with a shard: for progress and metrics, never stored in a corpus."""

    frames: int = 0
    seconds: float = 0.0
    masks: int = 0
    bytes: int = 0
    quarantined: int = 0


@dataclass
class ShardDraft:
    """A shard in the making: the row that travels from stage to stage.

    Attributes:
        shard: as planned.
        chunks: loaded so far.
        quarantine: what was lost so far.
        revisions: stage -> which weights made the labels; becomes part of each `meta.json`.
        tallies: stage -> what it did.
    """

    shard: PlannedShard
    chunks: list[ChunkDraft] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def lose(self, chunk: Chunk, frame: str | None, stage: str, fault: Exception, uri: str = "") -> None:
        """Note that a frame, or a whole chunk, cannot be had."""
        where, error, trace = describe(fault, uri or chunk.scene_uri)
        self.quarantine.append(
            QuarantineRow(
                uri=where,
                scene=chunk.scene,
                chunk=chunk.index,
                frame=frame,
                stage=stage,
                error=error,
                traceback=trace,
                attempt=chunk.retry,
            )
        )
        self.tallies[stage].quarantined += len(chunk.view_ids) if frame is None else 1


class Watch(Protocol):
    """Told where a stage is, before it gets there. Raises `KilledHere` where processes died too often."""

    def __call__(self, stage: str, chunk: Chunk, frame: str | None) -> None:
        """`frame` is None for work on the whole chunk."""


class KilledHere(Exception):
    """Whatever works on this frame dies: a crash in a decoder, or more memory than the machine has."""


def unwatched(stage: str, chunk: Chunk, frame: str | None) -> None:
    """A watch that sees nothing."""


class Stage(Protocol):
    """One step. Loads its models when built, and is then called for any number of shards."""

    name: str

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Add to the draft."""


@dataclass(frozen=True)
class LoadConfig:
    """What the load stage needs to know.

    Attributes:
        reader: options of the reader.
        cloud: how depth becomes a cloud.
        photo_long_side_px: larger photos are made this small.
        provenance: recorded in each `meta.json`.
        annotations: files of expressions about the scenes; see `liftgs.annotations`.
    """

    reader: ReaderOptions = field(default_factory=ReaderOptions)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    photo_long_side_px: int = 512
    provenance: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[str, ...] = ()


class Load:
    """Planned chunks -> clouds, photos, depth and cameras."""

    name = "load"

    def __init__(self, config: LoadConfig):
        self.config = config
        # Neighbouring chunks share a scene, and opening one may cost a listing or a room to build.
        self._open: Callable[[str], Scene] = lru_cache(maxsize=2)(lambda uri: open_scene(uri, config.reader))
        self._expressions = expressions_by_scene(config.annotations)

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Fill `draft.chunks`."""
        with _timed(draft, self.name) as tally:
            for chunk in draft.shard.chunks:
                try:
                    watch(self.name, chunk, None)
                    draft.chunks.append(self._load(draft, chunk))
                except NoView as faults:
                    self._lose_views(draft, chunk, faults.failures)
                except Exception as fault:
                    if not frames_fault(fault):
                        raise
                    draft.lose(chunk, None, self.name, fault)
                else:
                    tally.frames += len(draft.chunks[-1].views)
                    tally.bytes += sum(map(len, draft.chunks[-1].members.values()))

    def _load(self, draft: ShardDraft, chunk: Chunk) -> ChunkDraft:
        expressions = self._expressions.get(chunk.scene, ())
        loaded = load_chunk(self._open(chunk.scene_uri), chunk, self.config.cloud, expressions)
        self._lose_views(draft, chunk, loaded.failures)
        frames = [fitted(frame, self.config.photo_long_side_px) for frame in loaded.frames]
        members = sample.encode_chunk(replace(loaded, frames=frames), self.config.provenance)
        return ChunkDraft(chunk, members, {view: ViewName(frame.id, frame.uri) for view, frame in enumerate(frames)})

    def _lose_views(self, draft: ShardDraft, chunk: Chunk, failures: Sequence[tuple[str, BadInput]]) -> None:
        for frame_id, fault in failures:
            if frame_id in chunk.view_ids:  # others only lend points to a retried chunk
                draft.lose(chunk, frame_id, self.name, fault)


class Segment:
    """Photos -> `segments.png`."""

    name = "segment"

    def __init__(self, teacher: Callable[[np.ndarray], np.ndarray], revision: str = ""):
        """`teacher`: photo -> Semantics, as `liftgs.teachers.sam.Segment`."""
        self.teacher, self.revision = teacher, revision

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Add a segment map to every view."""
        draft.revisions[self.name] = self.revision
        for_each_view(draft, self.name, self._label, watch)

    def _label(self, members: Members, view: int, tally: Tally) -> Members:
        semantics = self.teacher(_photo(members, view))
        tally.masks += int(semantics.max(initial=0))
        return {f"{sample.view_prefix(view)}.segments.png": labels.encode_segments(semantics)}


class Embed:
    """Photos and segments -> `embeds.npy`."""

    name = "embed"

    def __init__(self, teacher: Callable[[np.ndarray, np.ndarray], np.ndarray], revision: str = ""):
        """`teacher`: (photo, Semantics) -> unit rows, as `liftgs.teachers.clip.Embed`."""
        self.teacher, self.revision = teacher, revision

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Add an embedding per segment to every view."""
        draft.revisions[self.name] = self.revision
        for_each_view(draft, self.name, self._label, watch)

    def _label(self, members: Members, view: int, tally: Tally) -> Members:
        embeds = self.teacher(_photo(members, view), _semantics(members, view))
        tally.masks += len(embeds)
        return {f"{sample.view_prefix(view)}.embeds.npy": labels.encode_embeds(embeds)}


class Caption:
    """Photos, segments and embeddings -> `captions.json`. A shard's frames are asked about together."""

    name = "caption"

    def __init__(self, captioner: Any, revision: str = ""):
        """`captioner`: a `liftgs.teachers.captions.Captioner`, or None to leave the corpus without captions."""
        self.captioner, self.revision = captioner, revision

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Add a caption per segment to every view."""
        if self.captioner is None:
            return
        draft.revisions[self.name] = self.revision
        with _timed(draft, self.name) as tally:
            for chunk in draft.chunks:
                for view, answer in self._ask(chunk, draft, watch):
                    if isinstance(answer, Exception):
                        lost = chunk.views.pop(view)
                        draft.lose(chunk.chunk, lost.id, self.name, answer, lost.uri)
                        continue
                    tally.frames += 1
                    tally.masks += len(answer)
                    chunk.members[f"{sample.view_prefix(view)}.captions.json"] = labels.encode_captions(answer)

    def _ask(self, chunk: ChunkDraft, draft: ShardDraft, watch: Watch) -> list[tuple[int, list[str] | Exception]]:
        views = list(chunk.views)
        try:
            watch(self.name, chunk.chunk, None)
            frames = [
                (_photo(chunk.members, v), _semantics(chunk.members, v), _embeds(chunk.members, v)) for v in views
            ]
            return list(zip(views, self.captioner.caption_frames(frames), strict=True))
        except Exception as fault:
            if not frames_fault(fault):
                raise
            return [(view, fault) for view in views]


class Commit:
    """The finished draft -> the corpus."""

    name = "commit"

    def __init__(self, corpus: str, plans: Mapping[int, str]):
        """`corpus`: its URI. `plans`: which retry (0 = none) -> sha256 of its plan."""
        self.corpus, self.plans = corpus, plans

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        """Publish the shard, whole or not at all."""
        with _timed(draft, self.name) as tally:
            samples = {chunk.chunk.key: finished(chunk, draft.revisions) for chunk in draft.chunks if chunk.views}
            plan = self.plans[draft.shard.chunks[0].retry]
            index = shards.commit(self.corpus, plan, draft.shard, samples, draft.quarantine)
            tally.frames += index.counts["views"]
            tally.masks += index.counts["segments"]
            tally.bytes += index.tar_size


def finished(chunk: ChunkDraft, revisions: Mapping[str, str]) -> Members:
    """A chunk's members as they are stored: good views only, without gaps, and the teachers' revisions noted."""
    members = sample.keep_views(chunk.members, chunk.views)
    meta = codecs.decode_json(members["meta.json"], "meta.json")
    members["meta.json"] = codecs.encode_json(meta | {"teachers": dict(revisions)})
    return members


def for_each_view(
    draft: ShardDraft, stage: str, label: Callable[[Members, int, Tally], Members], watch: Watch = unwatched
) -> None:
    """Add what `label` makes of each view; a view for which it fails goes to quarantine."""
    with _timed(draft, stage) as tally:
        for chunk in draft.chunks:
            for view, name in list(chunk.views.items()):
                try:
                    watch(stage, chunk.chunk, name.id)
                    added = label(chunk.members, view, tally)
                except Exception as fault:
                    if not frames_fault(fault):
                        raise
                    del chunk.views[view]
                    draft.lose(chunk.chunk, name.id, stage, fault, name.uri)
                    continue
                tally.frames += 1
                tally.bytes += sum(map(len, added.values()))
                chunk.members |= added


def fitted(frame: Frame, long_side_px: int) -> Frame:
    """The frame with its photo no larger than `long_side_px`; depth is kept as it is, since it may differ in size."""
    height, width = frame.rgb.shape[:2]
    scale = long_side_px / max(height, width)
    if scale >= 1:
        return frame
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    photo = Image.fromarray(frame.rgb).resize((new_width, new_height), Image.Resampling.LANCZOS)
    camera: Camera = frame.camera.resized(new_width, new_height)
    return replace(frame, rgb=np.asarray(photo), camera=camera, jpeg=None, instances=None)


def run_in_process(stages: Sequence[Stage], planned: Iterable[PlannedShard]) -> Iterable[ShardDraft]:
    """All stages on one shard after the other, here and now."""
    for shard in planned:
        draft = ShardDraft(shard)
        for stage in stages:
            stage(draft)
        yield draft


@contextmanager
def _timed(draft: ShardDraft, stage: str) -> Iterator[Tally]:
    tally = draft.tallies.setdefault(stage, Tally())
    started = perf_counter()
    yield tally
    tally.seconds += perf_counter() - started


def _member(members: Members, view: int, suffix: str) -> tuple[bytes, str]:
    name = f"{sample.view_prefix(view)}.{suffix}"
    return members[name], name


def _photo(members: Members, view: int) -> np.ndarray:
    return sample.decode_photo(*_member(members, view, "rgb.jpg"))


def _semantics(members: Members, view: int) -> np.ndarray:
    return labels.decode_segments(*_member(members, view, "segments.png"))


def _embeds(members: Members, view: int) -> np.ndarray:
    return labels.decode_embeds(*_member(members, view, "embeds.npy"))
