"""A corpus that somebody made to do harm: faults are told by name, in little memory, and nothing is written."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import bombs
import pytest
import tiny_corpora

from liftgs.scene import BadInput
from liftgs_platform import checkpoints, manifest, storage
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import read_plans
from liftgs_platform.shards import load_index
from liftgs_platform.verify import verify

TIB = 1 << 40


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    tiny_corpora.write(str(tmp_path / "corpus"), tiny_corpora.plan())
    return tmp_path / "corpus"


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytearray:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def sparse(name: str) -> bytes:
    """A member of one block, that unpacks to a tebibyte."""
    block = header(name, 512, tarfile.GNUTYPE_SPARSE)
    number = lambda value: tarfile.itn(value, 12, tarfile.GNU_FORMAT)  # noqa: E731
    block[386:410] = number(TIB - 512) + number(512)
    block[483:495] = number(TIB)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512)


def member(name: str, kind: bytes, link: str = "") -> bytes:
    return bytes(header(name, 0, kind, link))


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (sparse, "damaged or displaced"),
        (lambda name: bytes(header(name, TIB)), "not a whole tar"),
        (lambda name: member(name, tarfile.SYMTYPE, "/etc/passwd"), "damaged or displaced"),
        (lambda name: member(name, tarfile.LNKTYPE, "../../../etc/passwd"), "damaged or displaced"),
        (lambda name: member(name, tarfile.CHRTYPE), "damaged or displaced"),
        (lambda name: member(name, tarfile.FIFOTYPE), "damaged or displaced"),
        (lambda name: member("/etc/passwd", tarfile.REGTYPE), "holds /etc/passwd, which the index does not"),
        (lambda name: member("../../a.txt", tarfile.REGTYPE), r"holds \.\./\.\./a\.txt, which the index does not"),
        (lambda name: sparse("room9-000.b.txt"), "holds room9-000.b.txt, which the index does not"),
    ],
    ids=["sparse", "huge", "symlink", "hard link", "device", "pipe", "absolute", "above", "sparse and unknown"],
)
@pytest.mark.parametrize("deep", [False, True])
def test_members_that_are_no_files_are_faults(
    corpus: Path, forge: Callable[[str], bytes], said: str, deep: bool
) -> None:
    tar = corpus / "shards" / "000001.tar"
    tar.write_bytes(forge("room0-002.cloud.npz") + tar.read_bytes())
    before = sorted(corpus.parent.rglob("*"))

    def check() -> None:
        with pytest.raises(AssertionError, match=said):
            raise AssertionError([str(fault) for fault in verify(str(corpus), deep)])

    assert bombs.outcome(check) is None
    assert sorted(corpus.parent.rglob("*")) == before


def forge_span(corpus: Path, offset: int, size: int) -> None:
    path = corpus / "shards" / "000001.json"
    fields = json.loads(path.read_bytes())
    fields["samples"]["room0-002"]["cloud.npz"][:2] = offset, size
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(("offset", "size"), [(512, TIB), (TIB, 100), (TIB, TIB)])
def test_an_index_that_claims_more_than_its_tar_holds(corpus: Path, offset: int, size: int) -> None:
    forge_span(corpus, offset, size)

    def read() -> None:
        CorpusReader(str(corpus)).read("room0-002")

    fault = bombs.outcome(read)
    assert isinstance(fault, BadInput), repr(fault)
    assert fault.uri.endswith("000001.tar#room0-002.cloud.npz")


def test_a_range_ends_where_the_file_does_however_much_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")

    def read() -> None:
        assert storage.read_bytes(str(file), 4, TIB) == b"456789"
        assert storage.read_bytes(str(file), TIB, TIB) == b""

    assert bombs.outcome(read) is None


DEEP = b'{"format":' + b"[" * 200_000


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("manifest.json", manifest.read_manifest),
        ("quarantine.jsonl", manifest.read_quarantine),
        ("plan.jsonl", read_plans),
        ("shards/000001.json", lambda corpus: load_index(corpus, 1)),
        ("checkpoint.json", lambda corpus: checkpoints.load(corpus, Path())),
    ],
)
def test_json_that_is_nested_without_end(corpus: Path, path: str, read: Callable[[str], object]) -> None:
    (corpus / path).write_bytes(DEEP)
    fault = bombs.outcome(lambda: read(str(corpus)))
    assert isinstance(fault, BadInput), repr(fault)
    assert fault.uri.endswith(path)


def test_a_forged_header_is_what_it_claims_to_be() -> None:
    """Else the tests above would show nothing."""
    with tarfile.open(fileobj=io.BytesIO(sparse("a") + bytes(1024))) as tar:
        [info] = tar.getmembers()
        assert info.issparse()
        assert info.size == TIB
