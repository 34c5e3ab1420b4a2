"""Rows of JSON and CSV files, with a check of every value that is taken from them. Knows no schema."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from liftgs import codecs
from liftgs.readers.files import file_at
from liftgs.scene import BadInput, Expression

_T = TypeVar("_T")

#: Characters of a list in a CSV cell: Python's parser is only safe from deep nesting where texts are short. The longest
#: description of ScanRefer has about 1,500.
MAX_LIST_CHARS = 50_000

#: data set -> what its scenes are called
_SCENES = {"ScanNet": re.compile(r"scene[0-9]{4}_[0-9]{2}"), "ScanNet++": re.compile(r"[0-9a-f]{10}")}


@dataclass(frozen=True)
class Annotation:
    """A row of an annotation file.

    Attributes:
        scene: its name, as `Scene.name` of the scan.
        expression: what is said.
    """

    scene: str
    expression: Expression


@dataclass(frozen=True)
class Row:
    """A row, with access to its values by name and type.

    Every method raises BadInput, naming file and row, for a value that is missing or not what it should be.

    Attributes:
        uri: of the file.
        number: counted from 1, without the header.
        fields: values by column; all are strings in a CSV file.
    """

    uri: str
    number: int
    fields: Mapping[str, Any]

    def fault(self, reason: str) -> BadInput:
        """The error to raise about this row."""
        return BadInput(self.uri, f"row {self.number}: {reason}")

    def text(self, name: str) -> str:
        """A string; a whole number is taken as written."""
        value = self._get(name)
        if not isinstance(value, str | int):
            raise self.fault(f"{name} is {_short(value)}, neither a string nor a number")
        return str(value)

    def object_id(self, name: str) -> int:
        """A number from 0 on, also if written as a string."""
        return self._number(name, self._get(name))

    def flag(self, name: str) -> bool:
        """True or False."""
        value = str(self._get(name)).strip().lower()
        if value not in ("true", "false"):
            raise self.fault(f"{name} is {_short(value)}, neither True nor False")
        return value == "true"

    def strings(self, name: str) -> list[str]:
        """A list of strings."""
        return self._items(name, lambda item: isinstance(item, str), "strings")

    def object_ids(self, name: str) -> list[int]:
        """A list of numbers from 0 on."""
        return [self._number(name, item) for item in self.items(name)]

    def items(self, name: str) -> list[Any]:
        """A list of anything. In CSV files it is written as Python writes it; nothing in it is executed."""
        value = self._get(name)
        if isinstance(value, str):
            value = self._parse(name, value)
        if not isinstance(value, list):
            raise self.fault(f"{name} is {_short(value)}, not a list")
        return value

    def scene(self, name: str, dataset: str = "ScanNet") -> str:
        """The name of a scene of a data set, "ScanNet" or "ScanNet++"."""
        value = self._get(name)
        if not isinstance(value, str) or not _SCENES[dataset].fullmatch(value):
            raise self.fault(f"{name} is {_short(value)}, which is no scene of {dataset}")
        return value

    def _get(self, name: str) -> Any:
        value = self.fields.get(name)
        if value is None:  # also what `csv` gives for a row that is too short
            raise self.fault(f"has no {name}")
        return value

    def _number(self, name: str, value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
            return value
        raise self.fault(f"{name} holds {_short(value)}, not a number from 0 on")

    def _items(self, name: str, fits: Callable[[Any], bool], what: str) -> list[Any]:
        values = self.items(name)
        for value in values:
            if not fits(value):
                raise self.fault(f"{name} holds {_short(value)}; it must be a list of {what}")
        return values

    def _parse(self, name: str, text: str) -> Any:
        if len(text) > MAX_LIST_CHARS:
            raise self.fault(f"{name} has {len(text)} characters; lists of more than {MAX_LIST_CHARS} are not read")
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise self.fault(f"{name} is {_short(text)}, not a list of plain values") from None


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}..."


def read_text(uri: str) -> str:
    """A text file.

    Raises:
        BadInput: missing, empty or not text.
    """
    folder, name = file_at(uri)
    return folder.text(name)


def read_rows(uri: str) -> list[Row]:
    """The rows of a JSON list of objects, or of a CSV file with a header.

    Raises:
        BadInput: not such a file, or one without rows.
    """
    text = read_text(uri)
    if uri.lower().endswith(".json"):
        rows = _json_rows(text, uri)
    elif uri.lower().endswith(".csv"):
        rows = _csv_rows(text, uri)
    else:
        raise BadInput(uri, "is neither a .json nor a .csv file")
    if not rows:
        raise BadInput(uri, "holds no annotations")
    return rows


def _json_rows(text: str, uri: str) -> list[Row]:
    parsed = codecs.decode_json(text.encode(), uri)
    if not isinstance(parsed, list):
        raise BadInput(uri, "is not a JSON list of annotations")
    rows = [Row(uri, number, fields) for number, fields in enumerate(parsed, 1)]
    for row in rows:
        if not isinstance(row.fields, dict):
            raise row.fault(f"is {_short(row.fields)}, not a JSON object")
    return rows


def _csv_rows(text: str, uri: str) -> list[Row]:
    try:
        rows = [Row(uri, number, fields) for number, fields in enumerate(csv.DictReader(io.StringIO(text, "")), 1)]
    except csv.Error as error:
        raise BadInput(uri, f"not a readable CSV file ({error})") from None
    for row in rows:
        if None in row.fields:
            raise row.fault("has more values than the header has columns")
    return rows
