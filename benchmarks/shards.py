"""Writing and reading shards, against plain `webdataset` and plain `tarfile`, on the same samples.

Writing: `shards.commit` makes the tar, its sha256, the CRC-32 and place of every member and the counts, and writes tar
and JSON so that a kill or a power cut leaves all or nothing. The peers write the same members into a tar and nothing
else. All of them flush to the disk (fsync), or one would time the page cache.

Reading: a pass in order, and all samples in random order. `CorpusReader` checks each member's CRC-32; the peers check
nothing. `tarfile` gets open files and an index of their members, made before the clock starts. `webdataset` has no
random access: there a sample is reached by reading its shard up to it. Files are in the page cache, so this is what
the code costs, not the disk.

Memory is by how much resident memory grows at most, each in a fresh process with its modules loaded. Samples come into
being as they are written: the peers pass them on one by one. `shards.commit` takes a shard's samples together and makes
the whole tar, since it commits all or nothing by one PUT whose hash it knows; a shard's size bounds what it takes.

Samples are six labelled 512x512 views of a room; four make a shard, as in the labelling job.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import count, islice
from pathlib import Path

import numpy as np
import webdataset as wds

from benchmarks import _rooms
from benchmarks._processes import in_child, peak_growth_bytes
from benchmarks.common import Row, cost_row, interleaved_seconds, main, rate_row
from liftgs.scene import Chunk
from liftgs_platform import manifest, shards
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import Plan, PlannedShard, group_chunks, write_plan
from liftgs_platform.spec import digest
from liftgs_platform.tars import Members

ROOMS = 4
SHARDS = 8
SAMPLES_PER_SHARD = 4
EMBED_WIDTH = 128
REPEATS = 5

Samples = Mapping[str, Members]
Contents = Sequence[tuple[PlannedShard, Samples]]


def measure() -> Iterator[Row]:
    """Rates, then memory."""
    contents = make_contents()
    megabytes = sum(len(data) for _, samples in contents for m in samples.values() for data in m.values()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        yield from write_rates(contents, Path(folder), megabytes)
        for name, write in WRITERS.items():
            write(contents, Path(folder, name))
        yield from read_rates(Path(folder), len(contents) * SAMPLES_PER_SHARD)
        yield from memory(contents, Path(folder))


def make_contents() -> Contents:
    """What each shard is to hold. A few rooms under many names; to a tar, bytes are bytes."""
    rooms = [_rooms.load_room(index) for index in range(ROOMS)]
    packed = [_rooms.members(room, EMBED_WIDTH) for room in rooms]
    chunks: list[Chunk] = []
    samples: dict[str, Members] = {}
    for number in range(SHARDS * SAMPLES_PER_SHARD):
        chunk = replace(rooms[number % ROOMS].chunk, scene=f"room-{number:06d}")
        chunks.append(chunk)
        samples[chunk.key] = packed[number % ROOMS]
    planned = group_chunks(chunks, SAMPLES_PER_SHARD)
    return [(shard, {chunk.key: samples[chunk.key] for chunk in shard.chunks}) for shard in planned]


# ---- writers: contents and a new folder -> files


def write_ours(contents: Contents, folder: Path) -> None:
    """A finished corpus."""
    plan = Plan({}, digest({}), tuple(shard for shard, _ in contents), {})
    write_plan(str(folder), plan)
    for shard, samples in contents:
        shards.commit(str(folder), plan.sha256, shard, dict(samples), [])


def write_webdataset(contents: Contents, folder: Path) -> None:
    """`webdataset.TarWriter`."""
    folder.mkdir()
    for shard, samples in contents:
        with open(folder / f"{shard.index:06d}.tar", "wb") as file:
            with wds.TarWriter(file, encoder=False) as sink:
                for key, members in samples.items():
                    sink.write({"__key__": key, **members})
            _to_disk(file)


def write_tarfile(contents: Contents, folder: Path) -> None:
    """`tarfile.TarFile.addfile`."""
    folder.mkdir()
    for shard, samples in contents:
        with open(folder / f"{shard.index:06d}.tar", "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                for key, members in samples.items():
                    for name, data in members.items():
                        info = tarfile.TarInfo(f"{key}.{name}")
                        info.size = len(data)
                        tar.addfile(info, BytesIO(data))
            _to_disk(file)


def _to_disk(file: object) -> None:
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]


WRITERS: dict[str, Callable[[Contents, Path], None]] = {
    "ours": write_ours,
    "webdataset": write_webdataset,
    "tarfile": write_tarfile,
}


def write_rates(contents: Contents, folder: Path, megabytes: float) -> Iterator[Row]:
    """MB/s of the members written."""
    numbers = count()

    def writing(write: Callable[[Contents, Path], None]) -> Callable[[], None]:
        return lambda: write(contents, folder / f"try{next(numbers)}")

    ours, webdataset, tar = interleaved_seconds(REPEATS, *map(writing, WRITERS.values()))
    yield rate_row("write shards", megabytes / ours, megabytes / webdataset, "webdataset.TarWriter", "MB/s")
    yield rate_row("write shards", megabytes / ours, megabytes / tar, "tarfile", "MB/s")


# ---- readers: a folder -> a function that reads it all


def open_in_order(name: str, folder: Path) -> Callable[[], object]:
    """Reads every sample, shard by shard."""
    tars = sorted(map(str, folder.glob("**/*.tar")))
    if name == "ours":
        reader = CorpusReader(str(folder))
        return lambda: _consume(iter(reader))
    if name == "webdataset":
        return lambda: _consume(wds.WebDataset(tars, shardshuffle=False))

    def read() -> None:
        for path in tars:
            with tarfile.open(path) as tar:
                _consume(_read(tar, member) for member in tar)

    return read


def open_random(name: str, folder: Path) -> Callable[[], object]:
    """Reads every sample once, in a random order."""
    tars = sorted(map(str, folder.glob("**/*.tar")))
    order = np.random.default_rng(0).permutation(len(tars) * SAMPLES_PER_SHARD).tolist()
    if name == "ours":
        reader = CorpusReader(str(folder))
        return lambda: _consume(reader[i] for i in order)
    places = [divmod(i, SAMPLES_PER_SHARD) for i in order]
    if name == "webdataset":
        return lambda: _consume(
            next(islice(wds.WebDataset(tars[shard], shardshuffle=False), position, None)) for shard, position in places
        )
    opened = [tarfile.open(path) for path in tars]  # noqa: SIM115  open as long as they are read
    index = [_members_by_sample(tar) for tar in opened]
    return lambda: _consume(
        {member.name: _read(opened[shard], member) for member in index[shard][position]} for shard, position in places
    )


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is no folder
    return file.read()


def _members_by_sample(tar: tarfile.TarFile) -> list[list[tarfile.TarInfo]]:
    samples: dict[str, list[tarfile.TarInfo]] = {}
    for member in tar.getmembers():
        samples.setdefault(member.name.partition(".")[0], []).append(member)
    return list(samples.values())


def _consume(samples: object) -> None:
    for _ in samples:  # type: ignore[attr-defined]
        pass


def read_rates(folder: Path, samples: int) -> Iterator[Row]:
    """Samples/s."""
    manifest.write(str(folder / "ours"))
    for case, open_ in (("read in order", open_in_order), ("read in random order", open_random)):
        calls = [open_(name, folder / name) for name in WRITERS]
        ours, webdataset, tar = interleaved_seconds(REPEATS, *calls)
        note = ", scanning" if open_ is open_random else ""
        yield rate_row(case, samples / ours, samples / webdataset, f"webdataset{note}", "samples/s")
        note = ", indexed" if open_ is open_random else ""
        yield rate_row(case, samples / ours, samples / tar, f"tarfile{note}", "samples/s")


# ---- memory


def memory(contents: Contents, folder: Path) -> Iterator[Row]:
    """MB, each in a process of its own."""
    writes = {name: in_child(write_growth, name, contents, folder / f"memory-{name}") / 1e6 for name in WRITERS}
    size = max(file.stat().st_size for file in folder.glob("ours/shards/*.tar")) / 1e6
    case = f"memory to write shards of {size:.1f} MB"
    yield cost_row(case, writes["ours"], writes["webdataset"], "webdataset.TarWriter", "MB")
    yield cost_row(case, writes["ours"], writes["tarfile"], "tarfile", "MB")
    reads = {name: in_child(read_growth, name, folder / name) / 1e6 for name in WRITERS}
    yield cost_row("memory to read in random order", reads["ours"], reads["webdataset"], "webdataset, scanning", "MB")
    yield cost_row("memory to read in random order", reads["ours"], reads["tarfile"], "tarfile, indexed", "MB")


def write_growth(name: str, contents: Contents, folder: Path) -> int:
    """Bytes."""
    fresh = [(shard, _Fresh(samples)) for shard, samples in contents]
    return peak_growth_bytes(lambda: WRITERS[name](fresh, folder))


class _Fresh(Mapping[str, Members]):
    """Samples of which each is made when it is asked for."""

    def __init__(self, samples: Samples):
        self._samples = samples

    def __getitem__(self, key: str) -> Members:
        return {name: bytes(bytearray(data)) for name, data in self._samples[key].items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)


def read_growth(name: str, folder: Path) -> int:
    """Bytes."""

    def work() -> None:
        open_random(name, folder)()

    return peak_growth_bytes(work)


if __name__ == "__main__":
    main(measure, "shards against plain webdataset and tarfile")
