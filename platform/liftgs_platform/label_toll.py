"""How much of a source may be lost before its labelling ends: scenes that cannot be opened, frames in quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from liftgs_platform import shards
from liftgs_platform.job import JobFailed
from liftgs_platform.label_plan import frames_of
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow

#: This many frames may always be lost: rates mean nothing for a handful.
FEW_FRAMES = 20
#: Likewise of scenes that cannot be opened.
FEW_SCENES = 2


def check_scenes(source: str, max_rate: float, opened: int, lost: Sequence[QuarantineRow]) -> None:
    """See that there is something to label, and that not too many scenes cannot even be opened.

    Raises:
        JobFailed: there is nothing, or there are.
    """
    if opened and len(lost) <= max(FEW_SCENES, max_rate * (opened + len(lost))):
        return
    reasons = Counter(row["error"] for row in lost).most_common(3)
    worst = "; ".join(f"{count}x {error}" for error, count in reasons) or "they have no frames"
    raise JobFailed(
        f"{len(lost)} of {opened + len(lost)} scenes of {source} cannot be labelled, and max_quarantine_rate is "
        f"{max_rate:g}; mostly {worst}"
    )


class Toll:
    """Counts the frames of a plan that are lost, and ends the job when they are too many."""

    def __init__(self, corpus: str, max_rate: float, plans: Sequence[Plan], todo: Sequence[PlannedShard]):
        """Starts with what earlier runs of the last plan lost. Shards in `todo` are still to be counted, even one that
        the processes of a killed run commit at this moment.
        """
        self.max_rate, self.planned = max_rate, frames_of(plans[0].shards)
        newest = {shard.index: shard for shard in plans[-1].shards}
        self.views = {(c.scene, c.index): len(c.view_ids) for shard in newest.values() for c in shard.chunks}
        self.lost = 0
        self.reasons: Counter[tuple[str, str]] = Counter()
        for index in committed(corpus, newest.keys() - {shard.index for shard in todo}):
            self.add(index.quarantine)

    def add(self, rows: Iterable[QuarantineRow]) -> int:
        """Count a shard's losses, in frames.

        Raises:
            JobFailed: there are more than `max_quarantine_rate` allows.
        """
        before = self.lost
        for row in rows:
            frames = 1 if row["frame"] is not None else self.views.get((row["scene"], row["chunk"] or 0), 1)
            self.lost += frames
            self.reasons[row["stage"], row["error"]] += frames
        if self.lost > max(FEW_FRAMES, self.max_rate * self.planned) or self.lost >= self.planned > 0:
            raise JobFailed(
                f"{self.lost} of {self.planned} frames cannot be labelled, and max_quarantine_rate is "
                f"{self.max_rate:g}; mostly {self.worst()}. What is committed "
                "stays: mend the source and submit with retry=true, or allow more"
            )
        return self.lost - before

    def worst(self, count: int = 3) -> str:
        """The most frequent reasons, in a line."""
        return "; ".join(f"{n}x {stage}: {error}" for (stage, error), n in self.reasons.most_common(count))


def committed(corpus: str, wanted: Collection[int] | None = None) -> Iterator[shards.ShardIndex]:
    """Indices of committed shards."""
    numbers = shards.committed_indices(corpus)
    return shards.load_indices(corpus, (n for n in numbers if wanted is None or n in wanted))
