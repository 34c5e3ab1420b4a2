"""Reads a mixture ahead of the training, in threads, in order; and counts what cannot be used."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from liftgs.sample import Sample
from liftgs.scene import BadInput, NothingToLearn
from liftgs_platform.mixture import Draw, Mixture

T = TypeVar("T")

#: So many bad samples are always forgiven: rates mean nothing for a handful.
FEW_SAMPLES = 20


class TooManyBadSamples(RuntimeError):
    """The corpora are damaged beyond the stated rate. Trying again would not help."""


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A position that was read: its item, or why there is none.

    Attributes:
        draw: what stood there.
        item: what was made of it; None if it is bad.
        bad: what is wrong with it.
    """

    draw: Draw
    item: T | None
    bad: BadInput | None = None


class Loader(Generic[T]):
    """Reads ahead in threads, and gives batches in order. Use as a context.

    A bad sample leaves a hole in its batch. Nobody moves up, so what comes after does not depend on it.
    """

    def __init__(
        self,
        mixture: Mixture,
        make: Callable[[Sample, str, Draw], T],
        batch_size: int,
        threads: int = 1,
        ahead: int = 2,
        initializer: Callable[[], Any] | None = None,
        places: Sequence[int] | None = None,
    ):
        """Args:
        mixture: what to read.
        make: sample, key, what stood there -> item; pure; may raise BadInput.
        batch_size: positions in a batch, of all workers together.
        threads: that read and make items.
        ahead: batches that may be ready or in the making.
        initializer: is called once in each thread.
        places: of a batch that are read here; all by default.
        """
        self.mixture, self.make, self.batch_size, self.ahead = mixture, make, batch_size, ahead
        self.places = range(batch_size) if places is None else places
        self._pool = ThreadPoolExecutor(threads, "loader", initializer)

    def __enter__(self) -> Loader[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def load(self, position: int) -> Loaded[T]:
        """What stands at a position."""
        draw = self.mixture.order[position]
        try:
            sample = self.mixture.sample(draw)
            return Loaded(draw, self.make(sample, self.mixture.key(draw), draw))
        except BadInput as bad:
            return Loaded(draw, None, bad)
        except FileNotFoundError as missing:  # told to all workers, as bad samples are, or they would wait for this one
            return Loaded(draw, None, BadInput(self.mixture.uri(draw), f"its shard is missing: {missing}"))

    def batches(self, start: int, stop: int) -> Iterator[list[Loaded[T]]]:
        """Our places in the batches number `start` to `stop` - 1; number n begins at position n * batch_size."""
        waiting: deque[list[Future[Loaded[T]]]] = deque()
        wanted = iter(range(start, stop))
        while True:
            while len(waiting) < max(1, self.ahead) and (number := next(wanted, None)) is not None:
                first = number * self.batch_size
                waiting.append([self._pool.submit(self.load, first + place) for place in self.places])
            if not waiting:
                return
            yield [future.result() for future in waiting.popleft()]


class BadSamples:
    """Counts samples that could not be used, and stops the run when they are too many.

    Of those that hold nothing to learn there may be any number, as long as some do; the first of them is told.
    """

    def __init__(self, max_rate: float, count: int = 0):
        """`count`: of those before the run was resumed."""
        self.max_rate, self.count = max_rate, count
        self._reasons: Counter[str] = Counter()
        self._told: set[tuple[int, int]] = set()
        self._idle = 0

    def add(self, bad: Iterable[Loaded[Any]], positions: int) -> list[BadInput]:
        """Count those of a batch.

        Args:
            bad: all of them, whichever worker met them, in order.
            positions: used up so far, with this batch.

        Returns:
            Those that are met for the first time since this process began.

        Raises:
            TooManyBadSamples: there are more than `max_rate` of all positions so far, and more than `FEW_SAMPLES`.
        """
        news: list[BadInput] = []
        for one in bad:
            if one.bad is None:
                continue
            if isinstance(one.bad, NothingToLearn):
                self._idle += 1
                news += [one.bad] if self._idle == 1 else []
                if self._idle == positions > FEW_SAMPLES:
                    raise TooManyBadSamples(f"none of the first {positions} samples is of use; the last: {one.bad}")
                continue
            self.count += 1
            self._reasons[one.bad.reason] += 1
            if (one.draw.corpus, one.draw.index) not in self._told:
                self._told.add((one.draw.corpus, one.draw.index))
                news.append(one.bad)
        if self.count > max(FEW_SAMPLES, self.max_rate * positions):
            reason, times = self._reasons.most_common(1)[0] if self._reasons else ("", 0)
            last = f"; the last is {news[-1]}" if news else ""
            raise TooManyBadSamples(
                f"{self.count} of {positions} samples cannot be used, and max_bad_rate is {self.max_rate:g}; "
                f"mostly ({times} x): {reason}{last}"
            )
        return news
