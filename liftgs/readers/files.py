"""A scene's folder, anywhere fsspec reaches. Knows nothing of formats; turns missing files into BadInput."""

from __future__ import annotations

import errno
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from liftgs.scene import BadInput
from liftgs.secrecy import blanked


class Folder:
    """A local or remote folder that is listed and read, never written.

    Errors of the network or of the machine pass through as they are; they say nothing about the data.
    """

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/") or uri
        # Listings are not cached: a worker that lives through a thousand scenes would keep them all.
        self._fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        self._root = path.rstrip("/") or path

    @property
    def name(self) -> str:
        """The folder's own name, fit for a WebDataset key; unique among the folders beside it."""
        return safe_name(posixpath.basename(self._root) or "scene")

    def child(self, name: str) -> Folder:
        """A folder below."""
        return Folder(self.uri_of(name))

    def uri_of(self, relative: str) -> str:
        """URI of a file or folder below."""
        return f"{self.uri.rstrip('/')}/{relative}"

    def entries(self, relative: str = "") -> dict[str, bool]:
        """Names directly in the folder (or in one below), sorted, with whether each is a folder.

        Raises:
            BadInput: no such folder, or, on a disk, no permission to list it.
        """
        path = self._path(relative) if relative else self._root
        with self._faults(self.uri_of(relative) if relative else self.uri, "list", "there is no such folder"):
            listing = self._fs.ls(path, detail=True)
        found = {}
        for entry in listing:
            entry_path = entry["name"].rstrip("/")
            if entry_path.strip("/") != path.strip(
                "/"
            ):  # object stores list a folder's own marker, files list themselves
                to_folder = bool(entry.get("islink")) and self._fs.isdir(entry["name"])
                found[posixpath.basename(entry_path)] = entry["type"] == "directory" or to_folder
        return dict(sorted(found.items()))

    def has(self, relative: str) -> bool:
        """Whether the file or folder exists."""
        return bool(self._fs.exists(self._path(relative)))

    def read(self, relative: str) -> bytes:
        """The bytes of a file.

        Raises:
            BadInput: missing, empty or unreadable.
        """
        uri = self.uri_of(relative)
        with self._faults(uri):
            data = self._fs.cat_file(self._path(relative))
        if not data:
            raise BadInput(uri, "the file is empty (0 bytes)")
        return bytes(data)

    def head(self, relative: str, size: int) -> bytes:
        """The first bytes of a file, in one request.

        Raises:
            BadInput: missing, empty or unreadable.
        """
        try:
            data = self._fs.cat_file(self._path(relative), start=0, end=size)
        except OSError:  # object stores refuse a range of an empty file; for what else it may be, see `read`
            data = b""
        return bytes(data) or self.read(relative)

    def size(self, relative: str) -> int:
        """Bytes of a file.

        Raises:
            BadInput: missing or unreadable.
        """
        with self._faults(self.uri_of(relative)):
            return int(self._fs.size(self._path(relative)))

    def part(self, relative: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a file, in one request.

        Raises:
            BadInput: missing or unreadable, or the file has no byte there or fewer of them.
        """
        with self._faults(self.uri_of(relative)):
            data = bytes(self._fs.cat_file(self._path(relative), start=start, end=stop)) if stop > start else b""
        if len(data) < stop - start:
            raise BadInput(self.uri_of(relative), f"truncated: byte {start + len(data)} is not there")
        return data

    def json(self, relative: str) -> Any:
        """The content of a JSON file.

        Raises:
            BadInput: missing, empty, not text or not JSON.
        """
        try:
            return json.loads(self.text(relative))
        except BadInput:  # is a ValueError too
            raise
        except (ValueError, RecursionError) as fault:
            raise BadInput(self.uri_of(relative), f"not valid JSON ({blanked(str(fault))})") from None

    def text(self, relative: str) -> str:
        """The content of a text file.

        Raises:
            BadInput: missing, empty or not text.
        """
        try:
            return self.read(relative).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadInput(self.uri_of(relative), "not a text file (UTF-8)") from None

    def open(self, relative: str) -> IO[bytes]:
        """The file as a stream, for files too large to hold.

        Raises:
            BadInput: missing or unreadable.
        """
        with self._faults(self.uri_of(relative)):
            return self._fs.open(self._path(relative), "rb")

    @contextmanager
    def _faults(self, uri: str, verb: str = "read", missing: str = "the file is missing") -> Iterator[None]:
        """Turns what a file itself is to blame for into BadInput."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BadInput(uri, missing) from None
        except PermissionError as fault:
            raise self._refused(uri, verb, fault) from None
        except OSError as fault:
            if fault.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise BadInput(uri, f"cannot be opened ({fault.strerror})") from None
            raise
        except ValueError as fault:  # a name with a NUL or with half of a character
            raise BadInput(uri, f"cannot be opened ({fault})") from None

    def _refused(self, uri: str, verb: str, fault: PermissionError) -> Exception:
        """A file's own permissions are its fault; a store refuses all files to whoever lacks valid credentials."""
        if isinstance(self._fs, LocalFileSystem):
            return BadInput(uri, f"no permission to {verb} it ({blanked(str(fault))})")
        return PermissionError(
            f"{uri}: no permission to {verb} it ({blanked(str(fault))}); check or renew the credentials"
        )

    def _path(self, relative: str) -> str:
        return f"{self._root.rstrip('/')}/{relative}"


def file_at(uri: str) -> tuple[Folder, str]:
    """The folder and the name of a file that stands by itself."""
    cut = uri.rfind("/") + 1
    return Folder(uri[:cut] or "."), uri[cut:]


def inside(folder: Folder, relative: str, mentioned_in: str) -> str:
    """The path of a file that an index file names, if it lies in the scene's folder.

    Raises:
        BadInput: absolute, or above the folder; foreign data does not choose what else is read from the machine.
    """
    path = posixpath.normpath(relative.replace("\\", "/"))
    if path.startswith(("/", "..")) or ":" in path or path == ".":
        raise BadInput(
            folder.uri_of(mentioned_in), f"names {relative!r}, which is not a path inside the scene's folder"
        )
    return path


def safe_name(name: str) -> str:
    """`name` with only letters, digits, "_" and "-"; different names stay different."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorted with numbers by value: "2" before "10"."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        runs = [run for run in re.split(r"([0-9]+)", name) if run]
        return [_by_value(run) if run[0] in "0123456789" else (1, 0, run) for run in runs], name

    return sorted(names, key=key)


def _by_value(digits: str) -> tuple[int, int, str]:
    """Sorts as the number does, however long; `int` refuses thousands of digits."""
    digits = digits.lstrip("0")
    return 0, len(digits), digits
