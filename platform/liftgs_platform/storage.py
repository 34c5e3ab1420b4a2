"""Bytes in, bytes out, wherever they are: a bare path, file://, s3://, memory://. Knows nothing of corpora.

URIs are `str` everywhere (`pathlib` would turn `s3://a` into `s3:/a`). A write is whole or it did not happen. What the
network does to us for a moment is retried here; what is left fails with one sentence that names the URI.

S3 is configured by the environment alone (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, profiles,
instance roles, ...), so that credentials reach no spec, log or manifest; they are also blanked out of error messages.
Safe in threads and in forked processes: fsspec keeps one file system per process and drops it at a fork.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import fsspec

from liftgs.secrecy import blanked

Bytes = bytes | bytearray | memoryview
T = TypeVar("T")

#: Pauses between the attempts at one operation on an object store, seconds; each is drawn from [half, whole]. With the
#: attempts themselves they outlast a gateway that is away for a minute.
RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, *[16.0] * 6)

#: Before pauses of so many seconds it is said why there is one.
_TOLD_FROM_S = 4.0

#: Name pattern of what a killed local writer may leave behind. Never read by anything; `gc` removes it.
TEMPORARY = re.compile(r"^\..+\.tmp$")

#: What a store's answer means for whoever reads it, by its code.
_REMEDIES = {
    "ExpiredToken": "renew the credentials where the job and its workers find them, and submit it again",
    "InvalidAccessKeyId": "see that AWS_ACCESS_KEY_ID is one of this store",
    "SignatureDoesNotMatch": "see that AWS_SECRET_ACCESS_KEY belongs to AWS_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
}

_LOG = logging.getLogger(__name__)
_USER = r"[^/:@\s]+:[^@\s]*@"  # key:secret@; a secret may hold slashes
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class StorageError(OSError):
    """An operation failed for good: one sentence with the URI and the cause. (A missing file: FileNotFoundError.)"""


def read_bytes(uri: str, start: int = 0, size: int | None = None) -> bytes:
    """The bytes of a file, or `size` of them from `start`; fewer where the file ends.

    Raises:
        FileNotFoundError: no such file, object or bucket.
        StorageError: anything else.
    """
    return _do("read", uri, lambda store, path: store.read(path, start, size))


def write_bytes(uri: str, data: Bytes) -> None:
    """Create or replace a file. A reader, and whoever looks after a kill, sees the old bytes or the new ones, whole.

    Locally: a temporary file in the same folder, flushed to the disk, then renamed. On S3: one PUT; from 100 MiB on, a
    multipart upload, which appears when it is complete (a killed one holds space until the bucket's
    `AbortIncompleteMultipartUpload` rule takes it).

    Raises:
        StorageError: the disk is full, access is denied, the store cannot be reached, ...
    """
    _do("write", uri, lambda store, path: store.write(path, data))


def exists(uri: str) -> bool:
    """Whether there is a file (not a folder) at `uri`."""
    try:
        size_of(uri)
    except FileNotFoundError:
        return False
    return True


def size_of(uri: str) -> int:
    """Size in bytes. Raises FileNotFoundError, also for a folder."""
    return _do("look up", uri, lambda store, path: store.info(path)[0])


def modified_s(uri: str) -> float:
    """When the file was last written, as a Unix time. Raises FileNotFoundError."""
    return _do("look up", uri, lambda store, path: store.info(path)[1])


def list_files(folder: str) -> dict[str, int]:
    """URIs of all files below a folder, at any depth, sorted, each with its size in bytes; empty if there is no folder.

    Raises:
        FileNotFoundError: the bucket itself does not exist.
    """
    base = folder.rstrip("/") or "/"
    found = _do("list", base, lambda store, path: store.list(path))
    return {join(base, name): found[name] for name in sorted(found)}


def delete(uri: str) -> None:
    """Remove a file; nothing happens if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        _do("delete", uri, lambda store, path: store.delete(path))


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`."""
    return "/".join([uri.rstrip("/") if uri.strip("/") else "", *parts])


def name_of(uri: str) -> str:
    """Its last part, as people call a run or a corpus; metrics too, since a URI may hold what others must not see."""
    return uri.rstrip("/").rpartition("/")[2]


def absolute(uri: str) -> str:
    """The same place whatever the working folder: bare paths become absolute (`~` too), other URIs stay."""
    return uri if _SCHEME.match(uri) else os.path.abspath(os.path.expanduser(uri))


def local_path(uri: str) -> str | None:
    """The path of a local URI (bare or file://), or None for another kind of store."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return os.path.abspath(os.path.expanduser(uri))
    return os.path.abspath(uri[scheme.end() :]) if scheme[1].lower() in ("file", "local") else None


# --- stores --------------------------------------------------------------------------------------------------------


class _Store(Protocol):
    """What a kind of storage must be able to do. Paths are the store's own, without the scheme."""

    retried: bool

    def read(self, path: str, start: int, size: int | None) -> bytes: ...
    def write(self, path: str, data: Bytes) -> None: ...
    def info(self, path: str) -> tuple[int, float]: ...  # size in bytes, Unix time of the last write
    def list(self, path: str) -> dict[str, int]: ...  # names relative to `path`
    def delete(self, path: str) -> None: ...


class _Disk:
    retried = False

    def read(self, path: str, start: int, size: int | None) -> bytes:
        with open(path, "rb", buffering=0) as file:
            if start:
                file.seek(start)
            if size is None:
                return file.read()
            # Python makes room for all that is asked for, and a forged index may ask for more than there is memory.
            there = os.fstat(file.fileno()).st_size
            return _read_exactly(file, size if size <= there else max(0, there - start))

    def write(self, path: str, data: Bytes) -> None:
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "xb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(folder)

    def info(self, path: str) -> tuple[int, float]:
        if os.path.isdir(path):
            raise FileNotFoundError(errno.ENOENT, "is a folder", path)
        status = os.stat(path)
        return status.st_size, status.st_mtime

    def list(self, path: str) -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(path, onerror=_unless_missing):
            for name in names:
                file = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):  # another process may delete as we walk
                    found[os.path.relpath(file, path)] = os.stat(file).st_size
        return found

    def delete(self, path: str) -> None:
        os.unlink(path)


class _Objects:
    """Any fsspec file system that is not the local disk. Nothing is cached: other processes write too."""

    retried = True

    def __init__(self, protocol: str):
        self.protocol = protocol
        self.fs: Any = fsspec.filesystem(protocol, use_listings_cache=False, **_options(protocol))
        if protocol in ("s3", "s3a"):
            self.fs.retries = 1  # s3fs would multiply its own retries with ours

    def read(self, path: str, start: int, size: int | None) -> bytes:
        if size == 0:
            return b""
        if start == 0 and size is None:
            # One GET of one version of the object; s3fs would read a big one in parts, and mix versions.
            whole = {"max_concurrency": 1} if self.protocol in ("s3", "s3a") else {}
            return bytes(self.fs.cat_file(path, **whole))
        try:
            return bytes(self.fs.cat_file(path, start=start, end=None if size is None else start + size))
        except OSError as error:
            if _status(error) == 416:  # the range lies beyond the end
                return b""
            raise

    def write(self, path: str, data: Bytes) -> None:
        if self.protocol == "memory":
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(path, bytes(data))

    def info(self, path: str) -> tuple[int, float]:
        found = self.fs.info(path)
        if found["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "is a folder", path)
        written = found.get("LastModified") or found.get("created") or found.get("mtime") or 0.0
        return int(found["size"]), float(written.timestamp() if hasattr(written, "timestamp") else written)

    def list(self, path: str) -> dict[str, int]:
        try:
            found = self.fs.find(path, detail=True)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise
            return {}
        prefix = path.strip("/") + "/"
        names = {name.lstrip("/"): info for name, info in found.items()}
        return {name.removeprefix(prefix): int(info["size"]) for name, info in names.items() if name.startswith(prefix)}

    def delete(self, path: str) -> None:
        self.fs.rm_file(path)


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("s3", "s3a"):
        return {}
    # Checksums beyond S3's old ones are unknown to many S3 servers, so they are asked for only where the user says so.
    checksums = {
        option: os.environ.get(f"AWS_{option.upper()}", "when_required")
        for option in ("request_checksum_calculation", "response_checksum_validation")
    }
    retries = {
        "mode": "standard",
        "total_max_attempts": 3,
    }  # of each request, a part of an upload, say; ours come on top
    return {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": retries, **checksums}}


def _store(uri: str) -> tuple[_Store, str]:
    if not uri:
        raise StorageError("empty storage URI; give a path or an s3:// URI")
    scheme = _SCHEME.match(uri)
    path = local_path(uri)
    if path is not None:
        return _Disk(), path
    assert scheme is not None
    rest = uri[scheme.end() :]
    if re.match(_USER, rest):
        raise StorageError(
            f"{scheme[0]}***@{rest.partition('@')[2]}: a storage URI must not hold credentials; put them into the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and take them out of the URI"
        )
    try:
        return _Objects(scheme[1].lower()), rest
    except (ValueError, ImportError) as error:
        raise StorageError(f"{uri}: cannot use {scheme[0]} storage: {error}") from None


# --- failures ------------------------------------------------------------------------------------------------------


def _do(verb: str, uri: str, operation: Callable[[_Store, str], T]) -> T:
    """Run `operation`, again while it fails in a way that may pass, and explain what is left."""
    store, path = _store(uri)
    pauses = RETRY_PAUSES_S if store.retried else ()
    for attempt, pause_s in enumerate((*pauses, None), start=1):
        try:
            return operation(store, path)
        except Exception as error:
            explained = _explain(verb, uri, error, attempt)
            if pause_s is not None and _may_pass(error):
                if pause_s >= _TOLD_FROM_S:
                    _LOG.warning("%s; trying again", explained)
                time.sleep(pause_s * random.uniform(0.5, 1.0))
                continue
        # Outside the handler and without a cause: its text could hold what we blanked out, and tracebacks are stored.
        raise explained from None
    raise AssertionError("unreachable")


def _explain(verb: str, uri: str, error: Exception, attempts: int) -> Exception:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    cause = blanked(" ".join(said.split())) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        why = "no such bucket" if _code(error) == "NoSuchBucket" else "no such file"
        return FileNotFoundError(f"{uri}: {why}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = os.path.dirname(local_path(uri) or uri)
        return StorageError(
            f"cannot write {uri}: the disk at {place} is full; free space there or choose another output"
        )
    if type(error).__name__ == "NoCredentialsError":
        cause = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif _code(error) in _REMEDIES:
        cause = f"{cause.rstrip('.')}; {_REMEDIES[_code(error)]}"
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    return StorageError(f"cannot {verb} {uri}{tried}: {cause}")


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: time-outs, dropped or refused connections, answers 429 and 5xx."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status == 429
    if isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.ETIMEDOUT, errno.EBUSY, errno.EREMOTEIO):
        return True
    return any(
        f"{kind.__module__}.{kind.__name__}"
        in (
            "botocore.exceptions.ConnectionError",
            "botocore.exceptions.HTTPClientError",
            "botocore.exceptions.IncompleteReadError",
            "aiohttp.client_exceptions.ClientConnectionError",
            "aiohttp.client_exceptions.ClientPayloadError",
        )
        for kind in type(error).__mro__
    )


def _response(error: BaseException) -> dict[str, Any]:
    """The S3 answer behind an error, which s3fs keeps as its cause; empty for any other error."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def _status(error: BaseException) -> int | None:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status is not None else None


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _read_exactly(file: Any, size: int) -> bytes:
    """Up to `size` bytes; a raw read may give fewer than there are."""
    data = file.read(size)
    if len(data) == size:
        return bytes(data)
    parts = [data]
    while data and size > sum(map(len, parts)):
        data = file.read(size - sum(map(len, parts)))
        parts.append(data)
    return b"".join(parts)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _sync_folder(folder: str) -> None:
    """Make the rename itself survive a power cut, so that a commit never outlives what it commits."""
    with contextlib.suppress(OSError):  # some network file systems refuse; they order renames themselves
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
