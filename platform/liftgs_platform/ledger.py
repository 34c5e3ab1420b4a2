"""Who works on what: counts progress, and recognises a frame that kills whatever touches it. Plain; one actor holds it.

A process that dies leaves its shard open here. When the shard is begun again, the place where it stood gets a death. A
decoder that crashes, or a photo that exhausts the machine's memory, would else be retried for ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from time import monotonic

from liftgs_platform.label_stages import Tally

#: Deaths at one and the same frame, in a row, that convict it. Processes killed from outside do not die there so often.
DEATHS_TO_CONVICT = 5


#: Deaths of one shard in one pool, wherever it stood, that end the job.
DEATHS_TO_GIVE_UP = 40


@dataclass(frozen=True)
class Place:
    """A stage's position: (chunk key, frame id or "")."""

    stage: str
    chunk: str
    frame: str


@dataclass(frozen=True)
class Seen:
    """How a job has gone so far.

    Attributes:
        began: when the first process had loaded its models and began to work, on this machine's monotonic clock.
        tallies: what each stage did, of shards that have left their pool.
    """

    began: float | None
    tallies: dict[str, Tally]


class Ledger:
    """See the module."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Place | None] = {}
        self._deaths: Counter[tuple[int, Place]] = Counter()
        self._shard_deaths: Counter[tuple[str, int]] = Counter()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._began: float | None = None

    def begin(self, pool: str, shard: int) -> int:
        """A pool starts on a shard, perhaps again. Returns how often the shard died in this pool."""
        if self._began is None:
            self._began = monotonic()
        if (pool, shard) in self._open:
            self._shard_deaths[pool, shard] += 1
            place = self._open[pool, shard]
            if place is not None:
                self._deaths[shard, place] += 1
        self._open[pool, shard] = None
        return self._shard_deaths[pool, shard]

    def at(self, pool: str, shard: int, place: Place) -> int:
        """The work on a shard gets to a place. Returns how often it died there."""
        self._open[pool, shard] = place
        return self._deaths[shard, place]

    def end(self, pool: str, shard: int, tallies: dict[str, Tally]) -> None:
        """The shard has left the pool."""
        self._open.pop((pool, shard), None)
        for stage, tally in tallies.items():
            total = self._tallies[stage]
            for name, value in vars(tally).items():
                setattr(total, name, getattr(total, name) + value)

    def seen(self) -> Seen:
        """What has been done so far."""
        return Seen(self._began, dict(self._tallies))

    def deadliest(self, count: int = 3) -> list[tuple[int, Place, int]]:
        """(shard, place, deaths) of the places where most processes died."""
        return [(shard, place, deaths) for (shard, place), deaths in self._deaths.most_common(count)]
