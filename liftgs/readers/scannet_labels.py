"""ScanNet's table of the annotators' words: `scannetv2-labels.combined.tsv`. Knows no scans.

`Instance.kind` of a ScanNet scene is such a word ("raw_category"); benchmarks score coarser classes, which this maps it
to: `id` (ScanNet200) or `nyu40id` (ScanNet20). ScanNet200 needs the table of 2022 or later.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

from liftgs.readers.files import file_at
from liftgs.scene import BadInput

_COLUMNS = ("raw_category", "category", "id", "nyu40id")


@dataclass(frozen=True)
class ScanNetLabel:
    """What one word stands for.

    Attributes:
        id: ScanNet's own class number.
        nyu40id: the class of NYU's 40; 0 where the table gives none.
        category: the class' name.
    """

    id: int
    nyu40id: int
    category: str


def read_label_table(uri: str) -> dict[str, ScanNetLabel]:
    """raw_category -> label. Of words that are there twice the last row counts, as in ScanNet's own scripts.

    Raises:
        BadInput: missing, without the columns, or with a row that does not fit them, naming its line.
    """
    folder, name = file_at(uri)
    text = folder.text(name)
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise BadInput(uri, f"has no column {', '.join(missing)}; it should be scannetv2-labels.combined.tsv")
    table = {}
    for row in rows:
        try:
            word, category, number, nyu40 = (row[column] for column in _COLUMNS)
            table[word] = ScanNetLabel(int(number), int(nyu40.strip() or 0), category)
        except (AttributeError, TypeError, ValueError):  # of a row that ends early, the rest is None
            raise BadInput(
                uri, f"line {rows.line_num}: needs {', '.join(_COLUMNS)}; the last two are numbers"
            ) from None
    return table
