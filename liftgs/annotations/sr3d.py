"""Sr3D's CSV (Achlioptas et al. 2020): sentences made from templates, with the ids of their anchors.

Columns that are read: scan_id, target_id, utterance, stimulus_id, coarse_reference_type, reference_type, instance_type,
anchors_types, anchor_ids, and tokens and mentions_target_class where the file has them. Rows that never name the
target's class are left out; by construction there are none.

Anchors are marked where the words of their class stand as whole words; one that the words do not tell has no mention.
`Expression.relation` is the file's reference_type, e.g. "closest".

Tags: as of Nr3D, with the number of the row as `ann_id`, and `coarse_reference_type`, e.g. "horizontal".

Source: ReferIt3D `data_generation/sr3d`, `scripts/prepare_referential_data.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liftgs.annotations.nr3d import context
from liftgs.annotations.references import annotation, instance_id, sentence
from liftgs.annotations.rows import Annotation, Row

#: ReferIt3D's own tokens have spaces for these
_TO_SPACE = str.maketrans(dict.fromkeys(".?!,:;/\\-~*_=", " "))


def read(rows: Sequence[Row]) -> Iterator[Annotation]:
    """The annotations of a file that count."""
    for row in rows:
        if "mentions_target_class" not in row.fields or row.flag("mentions_target_class"):
            yield _annotation(row)


def _annotation(row: Row) -> Annotation:
    scene, name = row.scene("scan_id"), row.text("instance_type")
    target, anchor_ids = instance_id(row.object_id("target_id")), row.object_ids("anchor_ids")
    anchor_names = row.strings("anchors_types")
    if len(anchor_names) != len(anchor_ids):
        raise row.fault(f"has {len(anchor_names)} anchors_types for {len(anchor_ids)} anchor_ids")
    tokens = row.strings("tokens") if "tokens" in row.fields else _tokens(row.text("utterance"))
    said = sentence(row, tokens)
    span, *places = said.named([name, *anchor_names])
    anchors = tuple(
        said.mention([instance_id(anchor)], place)
        for anchor, place in zip(anchor_ids, places, strict=True)
        if place is not None
    )
    tags = {
        "dataset": "sr3d",
        "ann_id": str(row.number),
        "object_name": name,
        "target_words": "name" if span else "sentence",
        "coarse_reference_type": row.text("coarse_reference_type"),
    }
    mention = said.mention([target], span or said.whole)
    return annotation(scene, said, mention, anchors, tags | context(row, tokens), row.text("reference_type"))


def _tokens(utterance: str) -> list[str]:
    return utterance.lower().translate(_TO_SPACE).split()
