"""What readers keep in arrays says what the files say, and big corpora are never held as objects."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_corpora

from liftgs.scene import BadInput, scene_of_key
from liftgs_platform import manifest, reader, shards
from liftgs_platform.contents import PackedIndex, read_contents
from liftgs_platform.mixture import CorpusSpec, content_hash, share_of
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import canonical_json


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Twelve chunks of four scenes in six shards, of which the second holds nothing."""
    plan = tiny_corpora.plan(tiny_corpora.chunks(scenes=4))
    lost = [tiny_corpora.row(chunk, None) for chunk in plan.shards[1].chunks]
    tiny_corpora.write(str(tmp_path), plan, [*lost, tiny_corpora.row(plan.shards[2].chunks[0], "frame-0002")])
    return str(tmp_path)


def test_columns_are_the_rows_of_the_manifest(corpus: str) -> None:
    rows, contents = manifest.read_manifest(corpus)["shards"], read_contents(corpus)
    assert contents.shards.tolist() == [row["shard"] for row in rows] == list(range(6))
    assert contents.samples.tolist() == [row["counts"]["samples"] for row in rows] == [2, 0, 2, 2, 2, 2]
    assert [row.tobytes().hex() for row in contents.sha256] == [row["sha256"] for row in rows]
    assert {**contents.head, "shards": rows} == manifest.read_manifest(corpus)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"size": ', '"sizes": '), ('"samples": 2', '"samples": "2"'), ('"sha256": "', '"sha256": "00'), ("shards", "s")],
)
def test_a_damaged_list_of_shards_is_named(corpus: str, right: str, wrong: str) -> None:
    path = Path(corpus, "manifest.json")
    path.write_text(path.read_text().replace(right, wrong))
    with pytest.raises(BadInput, match=r"manifest\.json: .*submit the job again to rebuild it"):
        CorpusReader(corpus)


def test_a_packed_index_says_what_the_index_says(corpus: str) -> None:
    names: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number in (1, 2, 3):
        index = shards.load_index(corpus, number)
        packed = PackedIndex(index, names)
        assert packed.keys == tuple(index.samples)
        assert [packed.spans(place) for place in range(len(packed.keys))] == list(index.samples.values())
    assert len(names) == 2, "a sample of two photos, and one of one: each list of names is held once"


def test_keys_are_found_though_their_hashes_collide(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_hash", lambda key: int(key.startswith("room1")))
    found = CorpusReader(corpus)
    assert [found.position(key) for key in found.keys] == list(range(10))
    with pytest.raises(KeyError, match="holds no sample 'room9-000'"):
        found.position("room9-000")


def test_a_reader_remembers_so_many_samples_and_no_more(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_REMEMBERED_SAMPLES", 4)
    found = CorpusReader(corpus)
    for _ in range(2):
        assert len(list(found)) == 10
    assert found._index.cache_info().currsize == 2
    assert found._index.cache_info().misses == 10, "in order, each index is read once per pass"


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_hash_of_a_corpus_is_that_of_its_lists_in_json(corpus: str, share: float) -> None:
    """Runs that were begun compare it with what they noted; so it must never change."""
    found = CorpusReader(corpus)
    kept = share_of(found, CorpusSpec(corpus, share=share))
    content: list[object] = [row["sha256"] for row in json.loads(Path(corpus, "manifest.json").read_text())["shards"]]
    keys = [found.key(position) for position in kept]
    if share < 1:
        content.append(keys)
        assert len({scene_of_key(key) for key in keys}) == 2
        assert keys == [key for key in found.keys if scene_of_key(key) in {scene_of_key(key) for key in keys}], (
            "whole scenes"
        )
    assert content_hash(found, kept) == hashlib.sha256(canonical_json(content)).hexdigest()


@pytest.mark.parametrize("index", [0, 7, 999, 1000, 12345])
@pytest.mark.parametrize("retry", [0, 2])
def test_a_sample_is_of_its_scene_however_many_chunks_that_has(index: int, retry: int) -> None:
    chunk = replace(tiny_corpora.chunks(scenes=1)[0], scene="scene0000-00", index=index, retry=retry)
    assert scene_of_key(chunk.key) == "scene0000-00"
