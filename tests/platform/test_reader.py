"""Random access gives what a plain tar gives, whatever the order, the thread or the process."""

from __future__ import annotations

import pickle
import random
import tarfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import tiny_corpora
import webdataset

from liftgs.sample import decode_sample
from liftgs.scene import BadInput
from liftgs_platform import manifest, reader, storage
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import write_plan
from liftgs_platform.shards import load_index


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """6 planned chunks in 3 shards; one chunk is lost, and one shard holds nothing."""
    folder = str(tmp_path_factory.mktemp("corpus"))
    plan = tiny_corpora.plan(chunks_per_shard=2)
    lost = [
        tiny_corpora.row(plan.shards[0].chunks[1], None),
        *(tiny_corpora.row(chunk, None) for chunk in plan.shards[1].chunks),
    ]
    tiny_corpora.write(folder, plan, lost)
    return folder


@pytest.fixture(scope="module")
def plain(corpus: str) -> dict[str, dict[str, bytes]]:
    """The corpus as `tarfile` reads it."""
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path in sorted(Path(corpus, "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                key, _, name = entry.name.partition(".")
                samples[key][name] = tar.extractfile(entry).read()
    return dict(samples)


def test_equals_tarfile_and_webdataset(corpus: str, plain: dict[str, dict[str, bytes]]):
    found = CorpusReader(corpus)
    assert len(found) == 3
    assert list(found.keys) == list(plain)
    assert list(found) == list(plain.values())
    assert [found[i] for i in range(len(found))] == list(plain.values())
    assert [found.key(i) for i in range(len(found))] == list(plain)
    assert {key: found.read(key) for key in found.keys} == plain
    urls = [str(path) for path in sorted(Path(corpus, "shards").glob("*.tar"))]
    by_webdataset = {
        item["__key__"]: {name: data for name, data in item.items() if not name.startswith("__")}
        for item in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    }
    assert by_webdataset == plain


def test_counts_from_the_end_and_says_where_it_ends(corpus: str, plain: dict[str, dict[str, bytes]]):
    found = CorpusReader(corpus)
    assert found[-1] == found[2] == list(plain.values())[2]
    assert found[-3] == found[0]
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"sample {outside} of 3"):
            found[outside]


def test_some_members_cost_only_their_own_bytes(
    corpus: str, plain: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
):
    found = CorpusReader(corpus)
    monkeypatch.setattr(found, "_gap", 0)
    assert found.key(found.position("room1-001")) == "room1-001"  # the shard's index is in memory now
    read = storage.read_bytes
    asked: list[int] = []
    monkeypatch.setattr(storage, "read_bytes", lambda *place: (asked.append(place[2]), read(*place))[1])
    wanted = ["cloud.npz", "01.rgb.jpg", "00.rgb.jpg"]
    members = found.read("room1-001", wanted)
    assert members == {name: plain["room1-001"][name] for name in wanted}
    assert sum(asked) == sum(map(len, members.values()))
    asked.clear()
    found.read("room1-001")
    assert len(asked) > 5, "without a gap to bridge, members are read one by one"
    monkeypatch.setattr(found, "_gap", 256 * 1024)
    asked.clear()
    assert found.read("room1-001") == plain["room1-001"]
    assert len(asked) == 1, "across the gaps of an object store, all by one request"


def test_unknown_names_are_said(corpus: str):
    found = CorpusReader(corpus)
    with pytest.raises(KeyError, match="holds no sample 'room9-000'"):
        found.read("room9-000")
    with pytest.raises(KeyError, match=r"has no member '07\.rgb\.jpg'"):
        found.read("room0-000", ["07.rgb.jpg"])


def test_samples_decode(corpus: str):
    for i, members in enumerate(CorpusReader(corpus)):
        decode_sample(members, str(i)).check()


def test_threads_share_a_reader(corpus: str, plain: dict[str, dict[str, bytes]]):
    found, expected = CorpusReader(corpus), list(plain.values())
    order = [random.Random(0).randrange(len(found)) for _ in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found.__getitem__, order)) == [expected[i] for i in order]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_get_a_reader(corpus: str, plain: dict[str, dict[str, bytes]], method: str):
    found = CorpusReader(corpus)
    found[0]
    with ProcessPoolExecutor(1, get_context(method)) as pool:
        assert list(pool.map(found.__getitem__, range(3))) == list(plain.values())


def test_a_reader_stays_with_the_corpus_that_it_opened(tmp_path: Path):
    corpus, plan = str(tmp_path), tiny_corpora.plan()
    tiny_corpora.write(corpus, plan, [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0001")])
    found = CorpusReader(corpus)
    again = tiny_corpora.plan([tiny_corpora.chunks(retry=1)[0]], retry=1, first=3)
    write_plan(corpus, again)
    tiny_corpora.commit(corpus, again, again.shards[0])
    manifest.write(corpus)
    assert len(found) == len(pickle.loads(pickle.dumps(found))) == 6
    assert len(CorpusReader(corpus)) == 7
    assert CorpusReader(corpus).keys[-1] == "room0-000-retry1"


def test_an_unfinished_corpus_is_not_read(tmp_path: Path):
    write_plan(str(tmp_path), tiny_corpora.plan())
    with pytest.raises(FileNotFoundError, match=r"manifest\.json: no such file; is it a corpus, and has its job"):
        CorpusReader(str(tmp_path))


def test_damage_is_noticed_as_it_is_read(tmp_path: Path):
    tiny_corpora.write(str(tmp_path), tiny_corpora.plan())
    found = CorpusReader(str(tmp_path))
    tar = tmp_path / "shards/000001.tar"
    good, span = tar.read_bytes(), load_index(str(tmp_path), 1).samples["room0-002"]["00.depth.png"]
    tar.write_bytes(good[: span.offset + 5] + b"?" + good[span.offset + 6 :])
    with pytest.raises(BadInput, match=r"000001\.tar#room0-002\.00\.depth\.png: differs from what was committed"):
        found.read("room0-002")
    assert found.read("room0-002", ["cloud.npz", "meta.json"]), "what is whole can still be read"
    tar.write_bytes(good[: span.offset + 5])
    with pytest.raises(BadInput, match="differs from what was committed"):
        found.read("room0-002", ["00.depth.png"])
    tar.unlink()
    with pytest.raises(FileNotFoundError, match=r"000001\.tar: no such file"):
        found.read("room0-002")


def test_a_shard_that_was_committed_anew_is_noticed(tmp_path: Path):
    tiny_corpora.write(str(tmp_path), tiny_corpora.plan())
    found = CorpusReader(str(tmp_path))
    path = tmp_path / "shards/000001.json"
    path.write_bytes(path.read_bytes().replace(b'"sha256":"', b'"sha256":"0'))
    with pytest.raises(BadInput, match=r"000001\.json: is not the commit that manifest\.json lists"):
        found[2]


def test_merging_reads_covers_each_member_once():
    spans = {str(i): reader.Span(offset, 10, 0) for i, offset in enumerate([500, 0, 12, 30, 100])}
    assert list(reader._merge(spans, 4)) == [(0, 22, ["1", "2"]), (30, 10, ["3"]), (100, 10, ["4"]), (500, 10, ["0"])]
    assert list(reader._merge(spans, 1000)) == [(0, 510, ["1", "2", "3", "4", "0"])]
    assert list(reader._merge({}, 4)) == []
