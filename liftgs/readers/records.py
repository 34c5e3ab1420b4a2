"""Files that are a chain of records, each of which says how long it is: found by seeking, held one at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from liftgs.readers.files import Folder
from liftgs.scene import BadInput


class Records:
    """Random access to the records of a chain.

    Only the headers before a record are read to find it, each in one request and once; what is kept is one number per
    record. So memory does not grow with the file, and what is broken costs the records from there on, no others.
    """

    def __init__(
        self, folder: Folder, path: str, first: int, header_bytes: int, body_bytes: Callable[[bytes], int], what: str
    ):
        """Name the chain; nothing is read before a record is asked for.

        Args:
            folder: that holds the file.
            path: of the file.
            first: where the first record begins.
            header_bytes: length of a record's header.
            body_bytes: header -> length of what follows it; a ValueError says why it cannot be right.
            what: a record's name in messages, e.g. "frame".
        """
        self._folder = folder
        self._path = path
        self._header_bytes = header_bytes
        self._body_bytes = body_bytes
        self._what = what
        self._starts = [first]

    def read(self, number: int) -> bytes:
        """Header and body of a record.

        Raises:
            BadInput: the file ends before the record does, or a length on the way to it cannot be right.
        """
        while len(self._starts) <= number + 1:
            self._starts.append(self._end_of(len(self._starts) - 1, wanted=number))
        return self._folder.part(self._path, self._starts[number], self._starts[number + 1])

    @cached_property
    def _size(self) -> int:
        return self._folder.size(self._path)

    def _end_of(self, number: int, wanted: int) -> int:
        start = self._starts[number]
        body = start + self._header_bytes
        if body > self._size:
            raise self._fault(number, wanted, f"truncated: the file ends at byte {self._size}")
        try:
            length = self._body_bytes(self._folder.part(self._path, start, body))
        except BadInput:
            raise
        except ValueError as fault:
            raise self._fault(number, wanted, str(fault)) from None
        if body + length > self._size:
            reason = f"truncated or corrupt: it would end at byte {body + length}, but the file has {self._size}"
            raise self._fault(number, wanted, reason)
        return body + length

    def _fault(self, number: int, wanted: int, reason: str) -> BadInput:
        unreachable = "" if number == wanted else f"{self._what} {wanted} cannot be reached; "
        return BadInput(self._folder.uri_of(self._path), f"{unreachable}{self._what} {number}: {reason}")
