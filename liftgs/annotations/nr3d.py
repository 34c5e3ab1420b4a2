"""Nr3D's CSV (Achlioptas et al. 2020), with or without the entities of ScanEnts3D.

Columns that are read: assignmentid, stimulus_id, correct_guess, scan_id, instance_type, target_id, tokens (a Python
list, spell-checked), mentions_target_class, and entities where there are any (as in ScanRefer's JSON).

Left out, as in the protocols of BUTD-DETR and UniVLG: rows whose listener picked another object (correct_guess), and
rows that never name the target's class (mentions_target_class).

Tags: `dataset` ("nr3d"), `ann_id` (assignmentid), `object_name`, `target_words`; `distractors`, the other instances of
the target's class, as ids of ours; `difficulty`, "hard" with more than one of these; `view`, "dependent" if some word
speaks of a point of view.

Source: ReferIt3D `scripts/prepare_referential_data.py`, `analysis/utterances.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from liftgs.annotations.references import annotation, by_entities, by_name, instance_id, sentence
from liftgs.annotations.rows import Annotation, Row

_VIEW_WORDS = frozenset(
    ("front", "behind", "back", "right", "left", "facing", "leftmost", "rightmost", "looking", "across")
)
#: scene, class, objects of that class, target, the other ones
_STIMULUS = re.compile(r"([^-]+)-(.+?)-([0-9]{1,9})-([0-9]{1,9})((?:-[0-9]{1,9})*)")


def read(rows: Sequence[Row]) -> Iterator[Annotation]:
    """The annotations of a file that count."""
    for row in rows:
        if row.flag("mentions_target_class") and row.flag("correct_guess"):
            yield _annotation(row)


def _annotation(row: Row) -> Annotation:
    scene = row.scene("scan_id")
    target, name = instance_id(row.object_id("target_id")), row.text("instance_type")
    tokens = row.strings("tokens")
    said = sentence(row, tokens)
    if "entities" in row.fields:
        mention, anchors, how = by_entities(row, said, target, name)
    else:
        mention, how = by_name(said, target, name)
        anchors = ()
    tags = {"dataset": "nr3d", "ann_id": row.text("assignmentid"), "object_name": name, "target_words": how}
    return annotation(scene, said, mention, anchors, tags | context(row, tokens))


def context(row: Row, tokens: Sequence[str]) -> dict[str, str]:
    """The tags that Nr3D and Sr3D share.

    Raises:
        BadInput: stimulus_id is not what it should be, or is about another object than the row.
    """
    stimulus = row.text("stimulus_id")
    match = _STIMULUS.fullmatch(stimulus)
    others = [int(other) for other in match[5].split("-")[1:]] if match else []
    if match is None or int(match[3]) != 1 + len(others):
        raise row.fault(f"stimulus_id {stimulus[:80]!r} is not scene-class-count-target-others, with count - 1 others")
    if (match[1], int(match[4])) != (row.text("scan_id"), row.object_id("target_id")):
        raise row.fault(f"stimulus_id {stimulus[:80]!r} is about another object than scan_id and target_id")
    return {
        "distractors": ",".join(str(instance_id(other)) for other in others),
        "difficulty": "hard" if len(others) > 1 else "easy",
        "view": "independent" if _VIEW_WORDS.isdisjoint(tokens) else "dependent",
    }
