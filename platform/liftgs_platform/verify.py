"""Does a corpus still hold what was committed? `verify` names every fault with its mending; `orphans` finds litter."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from liftgs.formats import UPGRADE, NewerFormat
from liftgs.sample import decode_sample, view_numbers
from liftgs.scene import BadInput
from liftgs_platform import manifest, shards, storage
from liftgs_platform.counting import count
from liftgs_platform.shard_plan import RESTORE, Plan, PlannedShard, plan_filename, read_plans
from liftgs_platform.shards import ShardIndex, index_uri, stored_views, tar_uri
from liftgs_platform.tars import Span

_BLOCK_BYTES = 8 << 20
_SHARD_FILE = re.compile(r"shards/(\d{6,})\.(tar|json)")
_RESUBMIT = "submit the job again"
_REPORT = "report.html"  # of `liftgs inspect`

#: A tar waits for its JSON a moment; one that waits so long was left by a writer that died.
ORPHANED_AFTER_S = 3600.0


@dataclass(frozen=True)
class Fault:
    """Something wrong with a corpus: where, what, and what to do about it."""

    uri: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.uri}: {self.problem}; {self.fix}"


def verify(corpus: str, deep: bool = False) -> Iterator[Fault]:
    """Check a corpus; yields faults as they are found, and nothing if there are none.

    Every tar is read once, in blocks: its hash, its members' places and checksums. Every planned view must be in
    exactly one of samples and quarantine, and every file be accounted for.

    Args:
        corpus: URI.
        deep: decode every picture and array too.

    Raises:
        FileNotFoundError: there is no corpus.
        StorageError: the storage fails.
    """
    try:
        plans = read_plans(corpus)
    except NewerFormat as error:
        yield Fault(error.uri, error.reason.removesuffix(f"; {UPGRADE}"), UPGRADE)
        return
    except BadInput as error:
        yield Fault(error.uri, error.reason.removesuffix(f"; {RESTORE}"), RESTORE)
        return
    if not plans:
        raise FileNotFoundError(f"{corpus}: no corpus here (no {plan_filename(0)})")
    files = _listing(corpus)
    yield from _check_files(corpus, plans, files)
    planned = {shard.index: (plan, shard) for plan in plans for shard in plan.shards}
    whole = [index for index in planned if f"shards/{index:06d}.json" in files and f"shards/{index:06d}.tar" in files]
    readable = []
    with ThreadPoolExecutor(4) as pool:
        for index, faults in zip(
            whole, pool.map(lambda i: _check_shard(corpus, *planned[i], deep), whole), strict=True
        ):
            yield from faults
            if not any(fault.uri == index_uri(corpus, index) for fault in faults):
                readable.append(index)
    if len(readable) == len(planned):  # else each gap has been named, and what follows from it need not be
        companions = manifest.derive(plans, shards.load_indices(corpus, planned))
        yield from _check_views(corpus, plans, companions, shards.load_indices(corpus, planned))
        yield from _check_companions(corpus, companions, files)


def orphans(corpus: str, older_than_s: float = ORPHANED_AFTER_S) -> list[str]:
    """Files that no reader will ever look at: tars without their JSON, and temporary files of killed writers.

    A resubmitted job overwrites such tars by itself. Younger files are left alone, since a running job may be about to
    commit them.

    Raises:
        FileNotFoundError: there is no corpus.
    """
    files = _listing(corpus)
    if not files.keys() & {manifest.MANIFEST, plan_filename(0)}:
        raise FileNotFoundError(f"{corpus}: no corpus here (no {plan_filename(0)})")
    names = [name for name in files if storage.TEMPORARY.fullmatch(name.rpartition("/")[2])]
    names += [name for name in files if _is_orphan_tar(name, files)]
    found = []
    for uri in sorted(storage.join(corpus, name) for name in names):
        try:
            if time.time() - storage.modified_s(uri) >= older_than_s:
                found.append(uri)
        except FileNotFoundError:  # renamed by its writer meanwhile
            continue
    return found


def _listing(corpus: str) -> dict[str, int]:
    """Names within the corpus -> bytes, without run logs."""
    prefix = storage.join(corpus, "")
    names = {uri.removeprefix(prefix): size for uri, size in storage.list_files(corpus).items()}
    return {name: size for name, size in names.items() if not name.startswith("runs/")}


def _is_orphan_tar(name: str, files: dict[str, int]) -> bool:
    match = _SHARD_FILE.fullmatch(name)
    return bool(match and match[2] == "tar" and f"shards/{match[1]}.json" not in files)


def _check_files(corpus: str, plans: Sequence[Plan], files: dict[str, int]) -> Iterator[Fault]:
    """Every file that must be is there, and no other is."""
    planned = {shard.index for plan in plans for shard in plan.shards}
    for index in sorted(planned):
        tar, commit = f"shards/{index:06d}.tar" in files, f"shards/{index:06d}.json" in files
        if not commit:
            problem = "a tar without its .json, left by a killed writer" if tar else "planned, but not committed"
            yield Fault(tar_uri(corpus, index), problem, _RESUBMIT)
        elif not tar:
            yield Fault(tar_uri(corpus, index), "committed, but the tar is gone", f"{_RESUBMIT} to label it again")
    known = {manifest.MANIFEST, manifest.QUARANTINE, manifest.CARD, _REPORT, *(plan.filename for plan in plans)}
    for name in sorted(files.keys() - known):
        match = _SHARD_FILE.fullmatch(name)
        if match and int(match[1]) in planned:
            continue
        uri = storage.join(corpus, name)
        if storage.TEMPORARY.fullmatch(name.rpartition("/")[2]):
            yield Fault(uri, "half-written file of a killed writer", "remove it with `liftgs gc --delete`")
        elif match:
            yield Fault(uri, "belongs to a shard that no plan holds", "remove it")
        else:
            yield Fault(uri, "is no part of a corpus", "move it elsewhere")


def _check_shard(corpus: str, plan: Plan, shard: PlannedShard, deep: bool) -> list[Fault]:
    """One committed shard against its plan and its tar."""
    uri = index_uri(corpus, shard.index)
    redo = f"delete {uri} and {_RESUBMIT} to label it again"
    try:
        index = shards.load_index(corpus, shard.index)
    except NewerFormat as error:
        return [Fault(uri, error.reason.removesuffix(f"; {UPGRADE}"), UPGRADE)]
    except BadInput as error:
        return [Fault(uri, error.reason.removesuffix(f"; {shards.REDO}"), redo)]
    except FileNotFoundError:
        return [Fault(uri, "gone since it was listed", "verify again")]
    if index.plan != plan.sha256:
        return [Fault(uri, f"committed under another plan than {plan.filename}", redo)]
    views = {key: len(view_numbers(members)) for key, members in index.samples.items()}
    expected = {key: len(frames) for key, frames in stored_views(shard, index.quarantine).items()}
    if views != expected:
        return [Fault(uri, f"holds other samples than were planned ({_first_difference(expected, views)})", redo)]
    return [Fault(tar_uri(corpus, index.index), problem, redo) for problem in _check_tar(corpus, index, deep)]


def _check_tar(corpus: str, index: ShardIndex, deep: bool) -> Iterator[str]:
    uri = tar_uri(corpus, index.index)
    stream = _Stream(uri)
    expected = {f"{key}.{name}": span for key, members in index.samples.items() for name, span in members.items()}
    unseen = dict(expected)
    sample: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    undecoded, there = 0, storage.size_of(uri)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as tar:
            for member in tar:
                if tar.offset > there:  # tarfile would read on to where it says it ends, be it for days
                    raise EOFError("unexpected end of data")
                span = unseen.pop(member.name, None)
                if span is None:
                    yield f"holds {member.name}, which the index does not"
                    continue
                data = _content(tar, member, span.size)
                if span != Span(member.offset_data, len(data), zlib.crc32(data)):
                    yield f"{member.name} is damaged or displaced"
                if deep:
                    key, _, name = member.name.partition(".")
                    sample[name] = data
                    if sample.keys() >= index.samples.get(key, {}).keys():
                        faults = list(_check_sample(key, sample))
                        yield from faults
                        if not faults:
                            counts.update(count([sample]))
                        undecoded += len(faults)
                        sample = {}
    except (tarfile.TarError, EOFError, ValueError) as error:
        yield f"not a whole tar ({error})"
    if unseen:
        yield f"{len(unseen)} of {len(expected)} members are missing or unreadable, the first is {next(iter(unseen))}"
    size, sha256 = stream.drain()
    if size != index.tar_size:
        yield f"{size} bytes instead of {index.tar_size}" + (", so truncated" if size < index.tar_size else "")
    elif sha256 != index.tar_sha256:
        yield f"sha256 is {sha256[:16]}..., not {index.tar_sha256[:16]}... as committed"
    elif deep and not undecoded and (difference := _first_difference(index.counts, dict(counts))):
        yield f"the index miscounts its samples ({difference})"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> bytes:
    """The bytes of a plain file of that size, else none: a link, a device or a sparse file may claim any."""
    file = tar.extractfile(member) if member.isreg() and not member.issparse() and member.size == size else None
    return file.read() if file else b""


def _check_sample(key: str, members: dict[str, bytes]) -> Iterator[str]:
    try:
        decode_sample(members, key).check()
    except BadInput as fault:
        yield f"cannot be decoded: {fault}"


def _check_views(
    corpus: str, plans: Sequence[Plan], companions: manifest.Companions, indices: Iterator[ShardIndex]
) -> Iterator[Fault]:
    """Every planned view is stored once, or is in quarantine."""
    planned = {shard.index: shard for plan in plans for shard in plan.shards}
    chunks = {chunk.key: chunk for shard in planned.values() for chunk in shard.chunks}
    stored: Counter[manifest.View] = Counter()
    for index in indices:
        for key, frames in stored_views(planned[index.index], index.quarantine).items():
            stored.update(manifest.View(chunks[key].scene, chunks[key].index, frame) for frame in frames)
    lost = {(row["scene"], row["chunk"], row["frame"]) for row in companions.quarantine}
    for view in sorted({view for shard in planned.values() for view in manifest.views_of(shard)}):
        excused = view in lost or (view.scene, view.chunk, None) in lost
        where = f"frame {view.frame} of {view.scene}, chunk {view.chunk}"
        if stored[view] > 1:
            yield Fault(corpus, f"{where} is stored {stored[view]} times", "begin a new corpus, and report this")
        elif not stored[view] and not excused:
            yield Fault(corpus, f"{where} is neither stored nor in quarantine", "begin a new corpus, and report this")


def _check_companions(corpus: str, companions: manifest.Companions, files: dict[str, int]) -> Iterator[Fault]:
    for name, data in companions.files().items():
        uri = storage.join(corpus, name)
        if name not in files:
            yield Fault(uri, "missing", f"{_RESUBMIT}: it rebuilds this file")
        elif storage.read_bytes(uri) != data:
            yield Fault(uri, "does not agree with the shards", f"delete it and {_RESUBMIT}: it rebuilds this file")


def _first_difference(expected: dict[str, int], found: dict[str, int]) -> str:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key, 0) != found.get(key, 0):
            return f"{key}: {found.get(key, 0)} instead of {expected.get(key, 0)}"
    return ""


class _Stream(io.RawIOBase):
    """A file read front to back in blocks, hashed on the way."""

    def __init__(self, uri: str):
        self._uri = uri
        self._position = 0
        self._buffer = b""
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        if not self._buffer:
            self._buffer = storage.read_bytes(self._uri, self._position, _BLOCK_BYTES)
            self._hash.update(self._buffer)
            self._position += len(self._buffer)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data  # at most a block, as a raw read may

    def drain(self) -> tuple[int, str]:
        """Read on to the end; the file's size in bytes and its sha256."""
        while self.read(_BLOCK_BYTES):
            pass
        return self._position, self._hash.hexdigest()
