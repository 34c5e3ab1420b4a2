"""Does a corpus of many chunks cost what its size says? Plan, commits, resumption, manifest, verification and loader.

Each step does its work on 10,000 and on 100,000 tiny chunks, in a process of its own; the peer is ten times what the
smaller corpus took, so a ratio below 1 is worse than linear. Time is the processor's, of all threads and of the kernel,
so that other work on the machine counts little. Memory is by how much the process grew at most.

Scenes are TUM sequences of lists alone: planning reads no photo. A sample is two photos and a cloud of some bytes each,
four make a shard. Files are flushed as in a job, but in a folder of memory (/dev/shm) where there is one. "resume"
finds nothing missing, "loader" reads a shuffled epoch, "share" begins one on a tenth of the scenes.

Then a corpus of ten million chunks is opened: a manifest and 100,000 indexes of 100 samples as a job would have written
them, 24 members to a sample. Its tars are links to one, since their bytes are the same but for the keys, which nobody
reads there. Opening is reading the manifest; the first sample takes a permutation of ten million on top.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._processes import in_child, peak_growth_bytes
from benchmarks.common import Row, cost_row, most_row, plain_row, report
from liftgs import codecs
from liftgs.chunks import ChunkingConfig
from liftgs.readers import ReaderOptions
from liftgs_platform import manifest, pseudolabel, shards
from liftgs_platform.label_toll import Toll
from liftgs_platform.loader import Loader
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.shard_plan import read_plans, write_plan
from liftgs_platform.tars import Members, build_tar
from liftgs_platform.verify import verify

SIZES = (10_000, 100_000)
CHUNKS_PER_SCENE = 10
FRAMES_PER_CHUNK = 2
CHUNKS_PER_SHARD = 4

LARGE = 10_000_000
LARGE_SHARDS = 100_000
LARGE_VIEWS = 4
RANDOM_READS = 2_000
MOST_LARGE_MB = 1000.0

CLOUD = codecs.encode_npz({"xyz": np.zeros((4, 3), np.float32), "rgb": np.zeros((4, 3), np.uint8)})


@dataclass(frozen=True)
class Cost:
    """What a step took."""

    seconds: float
    megabytes: float


def measure(large: int) -> Iterator[Row]:
    """Two rows per step, then those of the large corpus."""
    small, big = SIZES
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        for name in STEPS:
            least, ours = (cost(name, size, folder) for size in SIZES)
            case, peer = f"{name}, {big:,} chunks", f"{big // small} x that of {small:,}"
            yield cost_row(case, ours.seconds, big / small * least.seconds, peer, "CPU s")
            yield cost_row(case, ours.megabytes, big / small * least.megabytes, peer, "MB")
    with tempfile.TemporaryDirectory() as folder:
        write_large(Path(folder), large)
        yield from in_child(open_large, folder, large)


def memory_folder() -> str | None:
    """Where a flush costs nothing, if there is such a place and it has room."""
    shm = "/dev/shm"
    return shm if os.path.isdir(shm) and shutil.disk_usage(shm).free > 4e9 else None


def cost(name: str, size: int, folder: str) -> Cost:
    """Of a step, in a process of its own."""
    spec = spec_of(Path(folder), size)
    if name == "plan":
        write_source(Path(spec.source), size)
    return in_child(cost_here, name, spec)


def cost_here(name: str, spec: Spec) -> Cost:
    """Of a step in this process."""
    step, seconds = STEPS[name], 0.0

    def work() -> None:
        nonlocal seconds
        began = time.process_time()
        step(spec)
        seconds = time.process_time() - began

    return Cost(megabytes=peak_growth_bytes(work) / 1e6, seconds=seconds)


# ---- many tiny chunks


def spec_of(folder: Path, size: int) -> Spec:
    """Of a labelling job."""
    return Spec(
        str(folder / f"scans{size}"),
        str(folder / f"corpus{size}"),
        reader=ReaderOptions(format="tum"),
        chunking=ChunkingConfig(frames_per_chunk=FRAMES_PER_CHUNK),
        chunks_per_shard=CHUNKS_PER_SHARD,
    )


def write_source(folder: Path, size: int) -> None:
    """Sequences without photos."""
    stamps = [f"{frame}.000000" for frame in range(CHUNKS_PER_SCENE * FRAMES_PER_CHUNK)]
    lists = {
        "rgb.txt": "".join(f"{stamp} rgb/{stamp}.png\n" for stamp in stamps),
        "depth.txt": "".join(f"{stamp} depth/{stamp}.png\n" for stamp in stamps),
        "groundtruth.txt": "".join(f"{stamp} 0 0 0 0 0 0 1\n" for stamp in stamps),
    }
    for scene in range(size // CHUNKS_PER_SCENE):
        place = folder / f"scene{scene:06d}"
        place.mkdir(parents=True)
        for name, text in lists.items():
            (place / name).write_text(text)


def plan(spec: Spec) -> None:
    """List the scenes, cut them, write the plan."""
    write_plan(spec.output, pseudolabel.open_plans(spec)[-1])


def commit(spec: Spec) -> None:
    """All shards, one after the other."""
    (planned,) = read_plans(spec.output)
    for shard in planned.shards:
        samples = {chunk.key: sample(chunk.view_ids) for chunk in shard.chunks}
        shards.commit(spec.output, planned.sha256, shard, samples, [])


def sample(view_ids: tuple[str, ...]) -> Members:
    """As small as a sample can be."""
    photos = {f"{number:02d}.rgb.jpg": b"photo" for number in range(len(view_ids))}
    return {"meta.json": codecs.encode_json({"views": view_ids}), "cloud.npz": CLOUD, **photos}


def resume(spec: Spec) -> None:
    """What a job that is submitted again does first: find that nothing is missing."""
    plans = pseudolabel.open_plans(spec)
    missing = pseudolabel.missing_shards(spec, plans)
    toll = Toll(spec.output, spec.max_quarantine_rate, plans, missing)
    if missing or toll.lost:
        raise RuntimeError(f"{len(missing)} shards are missing, {toll.lost} frames are lost")


def write_manifest(spec: Spec) -> None:
    """And its companions."""
    manifest.write(spec.output)


def verify_all(spec: Spec) -> None:
    """As `liftgs verify`."""
    faults = list(verify(spec.output))
    if faults:
        raise RuntimeError(str(faults[0]))


def load(spec: Spec) -> None:
    """An epoch in random order."""
    mixture = Mixture([CorpusSpec(spec.output)], seed=0)
    with Loader(mixture, lambda sample, key, epoch: key, batch_size=8, threads=1) as loader:
        read = sum(one.bad is None for batch in loader.batches(0, len(mixture) // 8) for one in batch)
    if read != len(mixture):
        raise RuntimeError(f"read {read} of {len(mixture)}")


def load_share(spec: Spec) -> None:
    """The start of a training on a tenth of the scenes: which samples are those?"""
    mixture = Mixture([CorpusSpec(spec.output, share=0.1)], seed=0)
    mixture.sample(mixture.order[0])


#: In this order: each builds on what those before left.
STEPS: Mapping[str, Callable[[Spec], None]] = {
    "plan": plan,
    "commit": commit,
    "resume": resume,
    "manifest": write_manifest,
    "verify": verify_all,
    "loader": load,
    "share": load_share,
}


# ---- very many


def write_large(corpus: Path, size: int) -> None:
    """A finished corpus, or what a reader sees of one."""
    each = size // LARGE_SHARDS
    tar, spans = build_tar({f"room000000-{number:03d}": large_sample() for number in range(each)})
    (corpus / "shards").mkdir()
    (corpus / "one.tar").write_bytes(tar)
    counts = {"samples": each, "views": each * LARGE_VIEWS}
    digest = "0" * 64
    index = shards.ShardIndex(0, digest, len(tar), digest, spans, counts, ()).encode().decode()
    rows = []
    for shard in range(LARGE_SHARDS):
        sha256 = f"{shard:064x}"
        text = index.replace("room000000-", f"room{shard:06d}-")
        text = text.replace('"shard":0,', f'"shard":{shard},').replace(f'"sha256":"{digest}"', f'"sha256":"{sha256}"')
        (corpus / "shards" / f"{shard:06d}.json").write_text(text)
        (corpus / "shards" / f"{shard:06d}.tar").symlink_to(corpus / "one.tar")
        rows.append({"shard": shard, "size": len(tar), "sha256": sha256, "counts": counts})
    whole = {"format": manifest.FORMAT, "counts": {"samples": size}, "plans": [], "spec": {}, "shards": rows}
    (corpus / manifest.MANIFEST).write_text(json.dumps(whole, sort_keys=True, indent=1))


def large_sample() -> Members:
    """With as many members as one of a labelled corpus has."""
    kinds = ("rgb.jpg", "depth.png", "camera.json", "segments.png", "embeds.npy")
    views = {f"{view:02d}.{kind}": b"bytes" for view in range(LARGE_VIEWS) for kind in kinds}
    extra = {"instances.npz": b"bytes", "expressions.json": b"[]"}
    return {"meta.json": b"{}", "cloud.npz": CLOUD, **views, **extra}


def open_large(folder: str, size: int) -> list[Row]:
    """Until the first sample, and some more in random order."""
    seconds: dict[str, float] = {}

    def work() -> None:
        began = time.process_time()
        mixture = Mixture([CorpusSpec(folder)], seed=0)
        seconds["open"] = time.process_time() - began
        mixture.sample(mixture.order[0])
        seconds["first"] = time.process_time() - began
        for position in range(1, 1 + RANDOM_READS):
            mixture.sample(mixture.order[position])
        seconds["more"] = time.process_time() - began - seconds["first"]

    megabytes = peak_growth_bytes(work) / 1e6
    text = os.path.getsize(Path(folder, manifest.MANIFEST)) / 1e6
    case = f"{size:,} chunks in {LARGE_SHARDS:,} shards"
    return [
        plain_row(f"{case}: manifest.json", text, "MB"),
        plain_row(f"{case}: open", seconds["open"], "CPU s"),
        plain_row(f"{case}: open, to the first sample", seconds["first"], "CPU s"),
        plain_row(f"{case}: samples in random order", RANDOM_READS / seconds["more"], "samples/CPU s"),
        most_row(f"{case}: memory", megabytes, MOST_LARGE_MB, "MB"),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Corpora of many chunks")
    parser.add_argument("--json", action="store_true", help="one object {'rows': [...]} instead of a table")
    parser.add_argument("--large", type=int, default=LARGE, help="chunks of the corpus that is only opened")
    arguments = parser.parse_args()
    report(measure(arguments.large), parser.description or "", arguments.json)


if __name__ == "__main__":
    main()
