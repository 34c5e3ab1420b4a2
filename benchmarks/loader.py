"""Reading a shuffled epoch for training, against plain `webdataset` and `mosaicml-streaming`, on the same samples.

Ours reads the exact permutation that a training has, through `Loader`, and checks every member against its CRC-32; it
can start anywhere. `webdataset` shuffles shards, and a buffer of a hundred samples; `mosaicml-streaming` (where it is
installed) has an order and a format of its own, on local disk. One process each; files are in the page cache. Once only
the bytes of all members are wanted, and once what a pretraining step gets: the cloud, and two photos with their labels,
decoded, moved and voxelised by the same function.

Then `tiny` pretrains on these rooms, and the share of a step that waits for data is read from the run's own log.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import webdataset as wds

from benchmarks._processes import in_child
from benchmarks.common import Row, interleaved_seconds, main, most_row, rate_row
from benchmarks.shards import EMBED_WIDTH, SAMPLES_PER_SHARD, make_contents, write_ours
from benchmarks.sparse_unet import KEEP_FREED_MEMORY
from liftgs.model.liftgs import LiftGSConfig
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import ObjectiveConfig
from liftgs.sample import Members, Sample, decode_sample
from liftgs.training.trainer import OptimConfig
from liftgs_platform import manifest, training_log
from liftgs_platform.loader import Loader
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.training import LoopConfig, train

REPEATS = 3
STEPS, WARM_UP = 40, 10
ITEM = ItemConfig(views=2, image_px=128, same_query=0.85)
VOXEL_SIZE_M = LiftGSConfig.named("tiny").voxel_size_m


def measure() -> Iterator[Row]:
    """Rates, then the share of waiting."""
    contents = make_contents()
    samples = {key: members for _, packed in contents for key, members in packed.items()}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "ours")
        write_ours(contents, corpus)
        manifest.write(str(corpus))
        readers: dict[str, Callable[[bool], Iterable[Any]]] = {
            "ours": lambda decode: read_ours(corpus, len(samples), decode),
            "webdataset, shuffled": lambda decode: read_webdataset(corpus, decode),
        }
        if importlib.util.find_spec("streaming"):
            write_streaming(samples, Path(folder, "streaming"))
            readers["mosaicml-streaming"] = lambda decode: read_streaming(Path(folder, "streaming"), decode)
        else:
            print("not measured, for want of it: mosaicml-streaming", file=sys.stderr)
        for case, decode in (("an epoch in random order, bytes", False), ("an epoch in random order, items", True)):
            calls = [partial(count, read, decode, len(samples)) for read in readers.values()]
            ours, *peers = (len(samples) / seconds for seconds in interleaved_seconds(REPEATS, *calls))
            for name, peer in zip(list(readers)[1:], peers, strict=True):
                yield rate_row(case, ours, peer, name, "samples/s")
        os.environ |= KEEP_FREED_MEMORY  # the child's allocator reads it when it starts
        share = in_child(wait_share, str(corpus), str(Path(folder, "run")))
        yield most_row("share of a step of `tiny` that waits for data", 100 * share, 2.0, "%")


def count(read: Callable[[bool], Iterable[Any]], decode: bool, expected: int) -> None:
    """Read all."""
    found = sum(1 for _ in read(decode))
    if found != expected:
        raise RuntimeError(f"{found} samples and not {expected}")


def item(sample: Sample, key: str) -> Item:
    """What a step gets."""
    return make_item(sample, ITEM, VOXEL_SIZE_M, key, seed=0, epoch=0)


def read_ours(corpus: Path, samples: int, decode: bool) -> Iterable[Any]:
    """The first epoch."""
    mixture = Mixture([CorpusSpec(str(corpus))], seed=0)

    def make(sample: Sample, key: str, epoch: int) -> Any:
        return item(sample, key) if decode else sample.members

    with Loader(mixture, make, SAMPLES_PER_SHARD) as loader:
        for batch in loader.batches(0, samples // SAMPLES_PER_SHARD):
            yield from batch


def read_webdataset(corpus: Path, decode: bool) -> Iterable[Any]:
    """Shards in random order, through a buffer."""
    tars = sorted(map(str, corpus.glob("shards/*.tar")))
    for sample in wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(100):
        yield item_of(sample, sample["__key__"]) if decode else sample


def write_streaming(samples: Mapping[str, Members], folder: Path) -> None:
    """A column per member."""
    from streaming import MDSWriter

    columns = {"key": "str"} | dict.fromkeys(next(iter(samples.values())), "bytes")
    with MDSWriter(out=str(folder), columns=columns, size_limit=1 << 24) as writer:
        for key, members in samples.items():
            writer.write({"key": key, **{name: bytes(data) for name, data in members.items()}})


def read_streaming(folder: Path, decode: bool) -> Iterable[Any]:
    """Its own shuffle."""
    from streaming import StreamingDataset

    for sample in StreamingDataset(local=str(folder), shuffle=True, batch_size=SAMPLES_PER_SHARD):
        yield item_of(sample, sample["key"]) if decode else sample


def item_of(sample: Mapping[str, Any], key: str) -> Item:
    """The peers' samples are the same members, and something of their own."""
    members = {name: data for name, data in sample.items() if "." in name}
    return item(decode_sample(members, key), key)


def wait_share(corpus: str, run: str) -> float:
    """Median over steps, without the first."""
    torch.set_num_threads(2)
    spec = Spec(
        run,
        corpora=(CorpusSpec(corpus),),
        item=ITEM,
        objective=ObjectiveConfig(match_px=64),
        optim=OptimConfig(steps=STEPS, batch_size=1, lr=1e-3),
        loop=LoopConfig(panel_every=0),
    )
    assert LiftGSConfig.named("tiny").embed_dim == EMBED_WIDTH
    train(Pretraining(spec), run, spec.loop)
    rows = [row for row in training_log.read(run) if row.get("step", 0) > WARM_UP and "wait_share" in row]
    return statistics.median(row["wait_share"] for row in rows)


if __name__ == "__main__":
    main(measure, "Reading for training, against webdataset and mosaicml-streaming")
