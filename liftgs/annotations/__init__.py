"""Annotation files of the field -> `Expression`s by scene. Knows the files' schemas, but no scans and no tokenizers.

Read are ScanRefer's JSON, as it is or with ScanEnts3D's entities, Locate 3D's JSON, and the CSV of Nr3D (ScanEnts3D's
too) and Sr3D. What kind a file is, its columns tell. Paths and any fsspec URL will do.

- Objects: a file's object 7 is the instance 8 of the scan, since 0 means none in `Frame.instances`.
- Text: the file's tokens, joined by spaces; spans are counted while joining, never found by searching for letters.
- Target words: the entity of the target where the file has entities; else the one place where the words of the
  target's class stand as whole words; else, when there is none or more than one, the whole sentence. The tag
  `target_words` says which: "entity", "name" or "sentence".
- Facts that evaluation groups by are tags, see each reader.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from liftgs.annotations import nr3d, scanrefer, sr3d
from liftgs.annotations.rows import Annotation, Row, read_rows, read_text
from liftgs.scene import BadInput, Expression

__all__ = ["Annotation", "expressions_by_scene", "read_annotations", "read_scene_list"]

#: a column of each kind of file that the kinds below it lack
_READERS: tuple[tuple[str, Callable[[Sequence[Row]], Iterator[Annotation]]], ...] = (
    ("anchor_ids", sr3d.read),
    ("instance_type", nr3d.read),
    ("scene_id", scanrefer.read),
)


def read_annotations(uri: str, scenes: Collection[str] | None = None) -> list[Annotation]:
    """The expressions of an annotation file, in its order, without those that the field's protocols leave out.

    Args:
        uri: a .json or .csv file.
        scenes: only expressions about these, e.g. a split from `read_scene_list`.

    Raises:
        BadInput: not such a file, or a row that lacks a column, holds a value of the wrong type or names no scene that
            its data set could have. Rows are counted from 1, without the header.
    """
    rows = read_rows(uri)
    for column, read in _READERS:
        if column in rows[0].fields:
            return [annotation for annotation in read(rows) if scenes is None or annotation.scene in scenes]
    raise BadInput(
        uri,
        f"has the columns {', '.join(map(str, rows[0].fields))}; known are the files of ScanRefer, ScanEnts3D and "
        "Locate 3D (with scene_id), Nr3D (instance_type) and Sr3D (instance_type, anchor_ids)",
    )


def expressions_by_scene(uris: Iterable[str]) -> dict[str, tuple[Expression, ...]]:
    """All expressions of some files, by the scene that they are about.

    Raises:
        BadInput: as `read_annotations`.
    """
    found: defaultdict[str, list[Expression]] = defaultdict(list)
    for uri in uris:
        for annotation in read_annotations(uri):
            found[annotation.scene].append(annotation.expression)
    return {scene: tuple(expressions) for scene, expressions in found.items()}


def read_scene_list(uri: str) -> frozenset[str]:
    """The scenes of a split: a text file with a name in each line, such as ScanNet's `scannetv2_val.txt`.

    Raises:
        BadInput: missing, not text, or a line with more than a name.
    """
    lines = [line.strip() for line in read_text(uri).splitlines()]
    for number, line in enumerate(lines, 1):
        if len(line.split()) > 1:
            raise BadInput(uri, f"line {number}: {line[:80]!r} is not the name of a scene")
    return frozenset(filter(None, lines))
