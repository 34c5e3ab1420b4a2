"""Reading ahead changes nothing but the waiting, and a bad sample costs nothing but its own place."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
import tiny_corpora

from liftgs.sample import Sample
from liftgs.scene import BadInput, NothingToLearn
from liftgs_platform.loader import FEW_SAMPLES, BadSamples, Loaded, Loader, TooManyBadSamples
from liftgs_platform.mixture import CorpusSpec, Draw, Mixture


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    tiny_corpora.write(str(tmp_path / "c"), tiny_corpora.plan())
    return Mixture([CorpusSpec(str(tmp_path / "c"))], seed=0)


def name(sample: Sample, key: str, draw: Draw) -> str:
    return f"{key}@{draw.epoch}"


def slowly(sample: Sample, key: str, draw: Draw) -> str:
    time.sleep(random.random() / 200)
    return name(sample, key, draw)


def refuse_one(sample: Sample, key: str, draw: Draw) -> str:
    if key == "room1-001":
        raise BadInput(sample.uri, "truncated")
    return name(sample, key, draw)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3), (4, 1)])
def test_batches_come_in_order_from_any_number_of_threads(mixture: Mixture, threads: int, ahead: int) -> None:
    expected = [name(mixture.sample(d), mixture.key(d), d) for d in map(mixture.order.__getitem__, range(20))]
    with Loader(mixture, slowly, 2, threads, ahead) as loader:
        batches = list(loader.batches(0, 10))
    assert [one.item for batch in batches for one in batch] == expected
    assert all(len(batch) == 2 for batch in batches)


def test_a_resumed_reader_goes_on_with_the_same_batches(mixture: Mixture) -> None:
    with Loader(mixture, name, 3) as loader:
        assert list(loader.batches(0, 9))[4:] == list(loader.batches(4, 9))


def test_a_bad_sample_leaves_a_hole_and_moves_nobody(mixture: Mixture) -> None:
    with Loader(mixture, name, 2) as whole, Loader(mixture, refuse_one, 2) as holed:
        pairs = zip(whole.batches(0, 9), holed.batches(0, 9), strict=True)
        places = [(one, other) for batch, others in pairs for one, other in zip(batch, others, strict=True)]
    bad = [other for _, other in places if other.bad is not None]
    assert len(bad) == 3, "once in each of three epochs"
    assert all("room1-001" in str(other.bad) and other.item is None for other in bad)
    assert all(one.item == other.item for one, other in places if other.bad is None)


def test_a_damaged_shard_is_a_bad_sample_too(mixture: Mixture) -> None:
    tar = Path(mixture.readers[0].corpus) / "shards" / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with Loader(mixture, name, 6) as loader:
        (batch,) = loader.batches(0, 1)
    bad = [one.bad for one in batch if one.bad is not None]
    assert 0 < len(bad) <= 2
    assert "000000.tar" in str(bad[0])


def test_a_missing_shard_is_a_bad_sample_too(mixture: Mixture) -> None:
    """One worker's node may lack it; the others hear of bad samples, and would wait for one that raises."""
    (Path(mixture.readers[0].corpus) / "shards" / "000000.tar").unlink()
    with Loader(mixture, name, 6) as loader:
        (batch,) = loader.batches(0, 1)
    bad = [one.bad for one in batch if one.bad is not None]
    assert 0 < len(bad) <= 2
    assert "its shard is missing" in str(bad[0])
    assert "000000.tar" in str(bad[0])


def test_a_bug_is_no_bad_sample(mixture: Mixture) -> None:
    def fail(sample: Sample, key: str, draw: Draw) -> str:
        raise KeyError("a bug")

    with Loader(mixture, fail, 1) as loader, pytest.raises(KeyError, match="a bug"):
        next(loader.batches(0, 1))


def test_no_more_is_read_ahead_than_stated(mixture: Mixture) -> None:
    made: list[str] = []
    lock = threading.Lock()

    def count(sample: Sample, key: str, draw: Draw) -> str:
        with lock:
            made.append(key)
        return key

    with Loader(mixture, count, 2, threads=2, ahead=3) as loader:
        batches = loader.batches(0, 50)
        next(batches)
        time.sleep(0.2)
        assert len(made) == 6


def test_only_our_places_of_a_batch_are_read(mixture: Mixture) -> None:
    with (
        Loader(mixture, lambda sample, key, draw: key, 4, places=[1, 2]) as ours,
        Loader(mixture, lambda sample, key, draw: key, 4) as everyones,
    ):
        for mine, all_ in zip(ours.batches(2, 6), everyones.batches(2, 6), strict=True):
            assert [one.item for one in mine] == [one.item for one in all_][1:3]


def test_bad_samples_are_told_once_and_stop_the_run_past_the_rate() -> None:
    def batch(start: int, bad: int) -> list[Loaded[str]]:
        return [
            Loaded(
                Draw(start + i, 0, i, 0), None if i < bad else "item", BadInput(f"c#{i}", "torn") if i < bad else None
            )
            for i in range(100)
        ]

    toll = BadSamples(max_rate=0.25)
    assert [str(fault) for fault in toll.add(batch(0, 2), 100)] == ["c#0: torn", "c#1: torn"]
    assert toll.add(batch(100, 2), 200) == [], "the same samples, in the next epoch"
    assert toll.count == 4
    toll.add(batch(200, FEW_SAMPLES - 4), 300)
    with pytest.raises(TooManyBadSamples, match=r"120 of 400 samples .* max_bad_rate is 0.25; mostly \(120 x\): torn"):
        toll.add(batch(300, 100), 400)


def test_a_handful_of_bad_samples_is_forgiven_and_counts_survive_a_resumption() -> None:
    bad = [Loaded(Draw(0, 0, 0, 0), None, BadInput("c#0", "torn"))]
    toll = BadSamples(max_rate=0.0, count=FEW_SAMPLES - 1)
    toll.add(bad, 1)
    with pytest.raises(TooManyBadSamples):
        toll.add(bad, 1)


def test_samples_that_hold_nothing_to_learn_are_no_fault_unless_all_are_such() -> None:
    draw = Draw(0, 0, 0, 0)
    idle = [Loaded(draw, None, NothingToLearn("c#0", "holds no expression"))] * FEW_SAMPLES
    toll = BadSamples(max_rate=0.0)
    assert [str(told) for told in toll.add(idle, 2 * FEW_SAMPLES)] == ["c#0: holds no expression"]
    assert toll.add(idle, 4 * FEW_SAMPLES) == []
    assert toll.count == 0
    with pytest.raises(
        TooManyBadSamples, match=f"none of the first {FEW_SAMPLES + 1} samples is of use; .*no expression"
    ):
        BadSamples(max_rate=0.0).add([*idle, idle[0]], FEW_SAMPLES + 1)
