"""Writes are whole, what passes is retried, and an error names the place and never a secret."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from liftgs_platform import storage
from liftgs_platform.storage import StorageError


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}[request.param]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRY_PAUSES_S", (0.01, 0.01, 0.01))


def test_what_is_written_is_read(folder: str):
    uri = storage.join(folder, "a", "b.bin")
    for data in (b"first", b"", bytes(range(256)) * 1000, bytearray(b"second"), memoryview(b"third")):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.size_of(uri) == len(data)
        assert storage.exists(uri)


def test_ranges_end_where_the_file_does(folder: str):
    uri = storage.join(folder, "digits")
    storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri, 3, 4) == b"3456"
    assert storage.read_bytes(uri, 3) == b"3456789"
    assert storage.read_bytes(uri, 8, 100) == b"89"
    assert storage.read_bytes(uri, 10, 5) == b""
    assert storage.read_bytes(uri, 99, 5) == b""
    assert storage.read_bytes(uri, 0, 0) == b""


def test_listings_are_fresh_sorted_and_deep(folder: str):
    assert storage.list_files(folder + "/none") == {}
    for name, size in (("b/2", 2), ("a", 1), ("b/c/3", 3)):
        storage.write_bytes(storage.join(folder, name), bytes(size))
        assert storage.join(folder, name) in storage.list_files(folder)
    listed = storage.list_files(folder + "/")
    assert list(listed.items()) == [(f"{folder}/a", 1), (f"{folder}/b/2", 2), (f"{folder}/b/c/3", 3)]
    assert list(storage.list_files(f"{folder}/b")) == [f"{folder}/b/2", f"{folder}/b/c/3"]
    assert storage.list_files(f"{folder}/a/nothing") == {}


def test_deleting_twice_is_as_good_as_once(folder: str):
    uri = storage.join(folder, "x")
    storage.write_bytes(uri, b"x")
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    assert storage.list_files(folder) == {}


@pytest.mark.parametrize("ask", [storage.read_bytes, storage.size_of, storage.modified_s])
def test_a_missing_file_is_named(folder: str, ask: Callable[[str], object]):
    uri = storage.join(folder, "gone.tar")
    with pytest.raises(FileNotFoundError, match=f"^{uri}: no such file$"):
        ask(uri)


def test_a_folder_is_not_a_file(folder: str):
    storage.write_bytes(storage.join(folder, "a", "b"), b"x")
    assert not storage.exists(storage.join(folder, "a"))


def test_uris():
    assert storage.join("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"
    assert storage.join("/", "a") == "/a"
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"
    assert storage.absolute("a") == f"{os.getcwd()}/a"
    assert storage.absolute("~/a") == os.path.expanduser("~/a")
    assert storage.local_path("file:///a/b") == "/a/b"
    assert storage.local_path("s3://a/b") is None
    with pytest.raises(StorageError, match="empty storage URI"):
        storage.read_bytes("")
    with pytest.raises(StorageError, match="q3://a/b: cannot use q3:// storage"):
        storage.read_bytes("q3://a/b")


def test_new_files_obey_the_umask(tmp_path: Path):
    code = f"from liftgs_platform import storage; storage.write_bytes({str(tmp_path / 'x')!r}, b'x')"
    subprocess.run([sys.executable, "-c", code], umask=0o027, check=True)
    assert oct((tmp_path / "x").stat().st_mode & 0o777) == "0o640"


# --- writes that fail ----------------------------------------------------------------------------------------------


def test_a_write_that_fails_midway_leaves_the_old_file_and_no_litter(tmp_path: Path):
    storage.write_bytes(str(tmp_path / "x"), b"old")
    code = (
        "import resource, signal; from liftgs_platform import storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"storage.write_bytes({str(tmp_path / 'x')!r}, bytes(1_000_000))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"StorageError: cannot write {tmp_path / 'x'}: {os.strerror(errno.EFBIG)}" in ran.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk to fill: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_called_by_its_name(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        storage.write_bytes(str(disk / "old"), bytes(100_000))
        with pytest.raises(StorageError, match=f"cannot write {disk}/new: the disk at {disk} is full; free space"):
            storage.write_bytes(str(disk / "new"), bytes(1_000_000))
        with pytest.raises(StorageError, match=f"the disk at {disk} is full"):
            storage.write_bytes(str(disk / "old"), bytes(1_000_000))
        assert {path.name: path.stat().st_size for path in disk.iterdir()} == {"old": 100_000}
        storage.write_bytes(str(disk / "new"), bytes(100_000))


def test_readers_see_the_old_bytes_or_the_new_ones(tmp_path: Path):
    uri = str(tmp_path / "x")
    versions = [bytes([number]) * 300_000 for number in range(2)]
    storage.write_bytes(uri, versions[0])
    stop = threading.Event()
    writer = threading.Thread(
        target=lambda: [storage.write_bytes(uri, versions[i % 2]) for i in range(60)] and stop.set()
    )
    writer.start()
    seen = set()
    while not stop.is_set():
        seen.add(storage.read_bytes(uri))
    writer.join()
    assert seen <= set(versions)


def test_what_is_in_the_way_is_said(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/file/x: "):
        storage.write_bytes(f"{tmp_path}/file/x", b"x")


# --- object stores that fail ---------------------------------------------------------------------------------------


class Flaky(MemoryFileSystem):
    """A store that fails as often as it is told, then works."""

    protocol = "flaky"
    cachable = False
    failures: list[Exception] = []  # noqa: RUF012 - shared on purpose
    calls = 0

    def cat_file(self, path: str, *args: object, **kwargs: object) -> bytes:
        type(self).calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return b"at last"


@pytest.fixture
def flaky(no_pauses: None) -> type[Flaky]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.failures, Flaky.calls = [], 0
    return Flaky


@pytest.mark.parametrize(
    "failure",
    [ConnectionResetError("reset"), TimeoutError("slow"), OSError(errno.EBUSY, "Please reduce your request rate")],
)
def test_what_passes_is_retried(flaky: type[Flaky], failure: Exception):
    flaky.failures = [failure] * 3
    assert storage.read_bytes("flaky://x/y") == b"at last"
    assert flaky.calls == 4


def test_retries_end_with_an_error_that_says_so(flaky: type[Flaky]):
    flaky.failures = [ConnectionResetError("reset by peer")] * 99
    with pytest.raises(StorageError, match="cannot read flaky://x/y after 4 attempts: reset by peer"):
        storage.read_bytes("flaky://x/y")
    assert flaky.calls == 4


@pytest.mark.parametrize(
    "failure", [FileNotFoundError("x"), PermissionError("no"), OSError(errno.EINVAL, "bad"), KeyError("bug")]
)
def test_what_stays_is_not_retried(flaky: type[Flaky], failure: Exception):
    flaky.failures = [failure] * 99
    with pytest.raises(OSError, match="flaky://x/y"):
        storage.read_bytes("flaky://x/y")
    assert flaky.calls == 1


class Answers(BaseHTTPRequestHandler):
    """An S3 server that gives the scripted answers, then the last one for ever."""

    script: list[tuple[int, str, str]] = []  # noqa: RUF012 - status, code, message
    seen = 0

    def do_GET(self) -> None:
        cls = type(self)
        cls.seen += 1
        status, code, message = cls.script.pop(0) if len(cls.script) > 1 else cls.script[0]
        body = b"bytes" if status == 200 else f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *args: object) -> None:
        pass


KEY, SECRET, TOKEN = "AKIDENTIFIER12345678", "very/secret+key/0123456789", "session-token-0123456789"


@contextmanager
def s3_client(endpoint: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new S3 client of the given server; fsspec would keep the one of an earlier test."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
    }.items():
        patch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, no_pauses: None) -> Iterator[type[Answers]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Answers.seen = 0
    with s3_client(f"http://127.0.0.1:{server.server_port}", monkeypatch):
        yield Answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (502, "BadGateway"), (429, "TooMany")]
)
def test_s3_answers_of_a_moment_are_retried(answers: type[Answers], status: int, code: str):
    answers.script = [(status, code, "not now")] * 3 + [(200, "", "")]
    assert storage.read_bytes("s3://bucket/key") == b"bytes"


def test_s3_that_stays_broken_is_given_up(answers: type[Answers]):
    answers.script = [(500, "InternalError", "We encountered an internal error")]
    with pytest.raises(StorageError, match=r"after 4 attempts: We encountered an internal error$"):
        storage.read_bytes("s3://bucket/key")
    assert 4 <= answers.seen <= 12


def test_s3_refusals_are_not_retried_and_do_not_tell_secrets(answers: type[Answers]):
    answers.script = [(403, "AccessDenied", f"{KEY} signed with {SECRET} and {TOKEN} may not")]
    for attempt in (lambda: storage.read_bytes("s3://bucket/key"), lambda: storage.write_bytes("s3://bucket/key", b"")):
        answers.seen = 0
        with pytest.raises(StorageError) as caught:
            attempt()
        assert str(caught.value).endswith("s3://bucket/key: *** signed with *** and *** may not")
        assert caught.value.__suppress_context__, "a traceback must not show the cause, which holds them"
        assert answers.seen == 1


@pytest.mark.parametrize(("code", "words"), [("NoSuchKey", "no such file"), ("NoSuchBucket", "no such bucket")])
def test_s3_says_whether_object_or_bucket_is_missing(answers: type[Answers], code: str, words: str):
    answers.script = [(404, code, "gone")]
    with pytest.raises(FileNotFoundError, match=f"^s3://bucket/key: {words}$"):
        storage.read_bytes("s3://bucket/key")


def test_s3_that_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch, no_pauses: None):
    with s3_client("http://127.0.0.1:9", monkeypatch), pytest.raises(StorageError) as caught:
        storage.write_bytes("s3://bucket/key", b"x")
    assert "cannot write s3://bucket/key after 4 attempts: Could not connect to the endpoint" in str(caught.value)


def test_s3_without_credentials_says_which_to_set(
    answers: type[Answers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="s3://bucket/key: no credentials; set AWS_ACCESS_KEY_ID"):
        storage.read_bytes("s3://bucket/key")


def test_credentials_in_a_uri_are_refused_without_repeating_them():
    with pytest.raises(StorageError, match="must not hold credentials") as caught:
        storage.read_bytes(f"s3://{KEY}:{SECRET}@bucket/key")
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "bucket/key" in str(caught.value)


def _read_in_child(answer: multiprocessing.SimpleQueue) -> None:
    answer.put(storage.read_bytes("s3://bucket/key"))


def test_a_forked_process_has_a_client_of_its_own(answers: type[Answers]):
    answers.script = [(200, "", "")]
    assert storage.read_bytes("s3://bucket/key") == b"bytes"
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(answer,))
    child.start()
    child.join(30)
    assert child.exitcode == 0, "the child hangs on its parent's event loop"
    assert answer.get() == b"bytes"
