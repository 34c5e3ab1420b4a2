"""The order of samples is a function of corpora, weights and seed, and of nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_corpora
from hypothesis import given, settings
from hypothesis import strategies as st

from liftgs.scene import BadInput
from liftgs_platform.mixture import BLOCK, CorpusSpec, Draw, Mixture, Order, apportion
from liftgs_platform.reader import CorpusReader
from liftgs_platform.spec import SpecError, build, plain

SIZES, HASHES, WEIGHTS = (5, 17), ("ab12", "34cd"), (1.0, 3.0)

#: corpus, index and epoch of the first draws with seed 7: runs that were begun must go on with any later version
GOLDEN = [(0, 4, 0), (1, 0, 0), (1, 16, 0), (0, 3, 0), (0, 1, 0), (1, 15, 0), (1, 4, 0), (1, 2, 0)]


def order(seed: int = 0, hashes: tuple[str, ...] = HASHES, weights: tuple[float, ...] = WEIGHTS) -> Order:
    return Order(SIZES, hashes, weights, seed)


def test_what_stands_at_a_position_does_not_depend_on_where_reading_began() -> None:
    straight = [order()[position] for position in range(300)]
    places = np.random.default_rng(0).permutation(300)
    same = order()
    jumping = {int(place): same[int(place)] for place in places}
    assert [jumping[place] for place in range(300)] == straight


def test_the_order_is_the_same_on_every_machine_and_numpy() -> None:
    assert [(d.corpus, d.index, d.epoch) for d in map(order(seed=7).__getitem__, range(8))] == GOLDEN


@pytest.mark.parametrize("changed", [order(seed=1), order(hashes=("ab12", "34ce")), order(weights=(1.0, 4.0))])
def test_seed_contents_and_weights_each_change_the_order(changed: Order) -> None:
    assert [changed[p] for p in range(100)] != [order()[p] for p in range(100)]


def test_an_epoch_of_a_corpus_visits_each_of_its_samples_once() -> None:
    seen: dict[tuple[int, int], list[int]] = {}
    same = order()
    for position in range(400):
        draw = same[position]
        seen.setdefault((draw.corpus, draw.epoch), []).append(draw.index)
    for corpus, size in enumerate(SIZES):
        epochs = [indices for (of, _), indices in seen.items() if of == corpus]
        assert len(epochs) > 3
        assert all(sorted(indices) == list(range(size)) for indices in epochs[:-1])
        assert epochs[0] != epochs[1], "another order in each epoch"


def test_epochs_go_on_across_blocks() -> None:
    same = order()
    indices = [draw.index for p in range(BLOCK - 40, BLOCK + 40) if (draw := same[p]).corpus == 0]
    epochs = Counter(same[p].epoch for p in range(BLOCK - 40, BLOCK + 40) if same[p].corpus == 0)
    assert len(indices) > 10
    assert all(count == SIZES[0] for count in list(epochs.values())[1:-1])


def test_shares_are_exact_in_every_block() -> None:
    same = order()
    for block in (0, 3):
        counts = Counter(same[p].corpus for p in range(block * BLOCK, (block + 1) * BLOCK))
        assert counts == {0: BLOCK // 4, 1: 3 * BLOCK // 4}


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12))
@settings(deadline=None)
def test_shares_add_up_and_nobody_gets_none(weights: list[float]) -> None:
    shares = apportion(weights, 1000)
    assert sum(shares) == 1000
    assert min(shares) >= 1
    exact = np.array(weights) / sum(weights) * 1000
    assert np.abs(shares - exact).max() <= len(weights)


def test_a_mixture_gives_the_samples_of_its_corpora(tmp_path: Path) -> None:
    for name, scenes in (("a", 1), ("b", 2)):
        tiny_corpora.write(str(tmp_path / name), tiny_corpora.plan(tiny_corpora.chunks(scenes)))
    corpora = [CorpusSpec(str(tmp_path / "a")), CorpusSpec(str(tmp_path / "b"), 2.0)]
    mixture = Mixture(corpora, seed=0)
    assert len(mixture) == 9
    draw = mixture.order[4]
    reader = CorpusReader(corpora[draw.corpus].uri)
    assert mixture.key(draw) == reader.key(draw.index)
    assert mixture.sample(draw).members == reader[draw.index]
    assert mixture.uri(draw) == f"{corpora[draw.corpus].uri}#{mixture.key(draw)}"


def test_a_corpus_counts_by_what_is_in_it_not_by_where_it_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        tiny_corpora.write(str(tmp_path / name), tiny_corpora.plan())
    tiny_corpora.write(str(tmp_path / "other"), tiny_corpora.plan(tiny_corpora.chunks(3)))
    here, there, other = (Mixture([CorpusSpec(str(tmp_path / name))], 0) for name in ("here", "there", "other"))
    assert here.hashes == there.hashes != other.hashes
    assert [here.order[p] for p in range(50)] == [there.order[p] for p in range(50)]


def test_samples_stay_in_memory_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_corpora.write(str(tmp_path / "c"), tiny_corpora.plan())
    reads: list[int] = []
    read = CorpusReader.__getitem__
    monkeypatch.setattr(CorpusReader, "__getitem__", lambda self, i: reads.append(i) or read(self, i))
    corpora = [CorpusSpec(str(tmp_path / "c"))]
    two = 2 * max(sum(map(len, CorpusReader(corpora[0].uri)[i].values())) for i in range(6)) + 100
    for cache_bytes, expected in ((0, 12), (two, 10), (2**20, 6)):
        mixture = Mixture(corpora, 0, cache_bytes)
        reads.clear()
        for _ in range(2):
            for index in range(6):
                mixture.sample(Draw(0, 0, index, 0))
        assert len(reads) == expected


def test_corpora_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        Mixture([CorpusSpec(str(tmp_path / "missing"))], 0)
    chunk = tiny_corpora.chunks(1, 1)
    tiny_corpora.write(str(tmp_path / "empty"), tiny_corpora.plan(chunk), [tiny_corpora.row(chunk[0], None)])
    with pytest.raises(BadInput, match="no sample"):
        Mixture([CorpusSpec(str(tmp_path / "empty"))], 0)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(SpecError, match="weight must be positive"):
        build(CorpusSpec, plain(CorpusSpec("c")) | {"weight": weight}, "job.yaml")
