"""ScanRefer's JSON (Chen et al. 2020), with or without the entities of ScanEnts3D, and Locate 3D's, which looks alike.

A list of objects with scene_id, object_id (a string in ScanRefer, a number in Locate 3D), object_name, ann_id, token
and, save in plain ScanRefer, entities: pairs of token numbers and names of objects, [[10, 11], ["5_sofa"]]. Locate 3D
adds scene_dataset and primary_key, and frames_used for ScanNet++.

Tags: `dataset` ("scanrefer" or "locate3d"), `ann_id`, `object_name`, `target_words`; for ScanRefer `others`, the names
of the other objects that the file refers to in the scene, from which its unique and multiple are told: an expression is
unique if no other referred object is of the target's class; for Locate 3D `primary_key`, and `frames_used`, the frames
that the annotator saw and within which the target is unique.

Objects of ARKitScenes in Locate 3D are boxes of each row's own, not instances of a scan, so its files are refused.

Source: ScanRefer `README.md` and `lib/dataset.py`; Locate 3D `locate3d_data/README.md`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from liftgs.annotations.references import annotation, by_entities, by_name, instance_id, sentence
from liftgs.annotations.rows import Annotation, Row


def read(rows: Sequence[Row]) -> Iterator[Annotation]:
    """The annotations of a file, one per row."""
    referred: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for row in rows:
        referred[row.text("scene_id")][row.object_id("object_id")] = row.text("object_name")
    for row in rows:
        yield _annotation(row, referred[row.text("scene_id")])


def _annotation(row: Row, referred: Mapping[int, str]) -> Annotation:
    scene = row.scene("scene_id", _dataset(row))
    target, name = row.object_id("object_id"), row.text("object_name")
    said = sentence(row, row.strings("token"))
    if "entities" in row.fields:
        mention, anchors, how = by_entities(row, said, instance_id(target), name)
    else:
        mention, how = by_name(said, instance_id(target), name)
        anchors = ()
    tags = {"dataset": "scanrefer", "ann_id": row.text("ann_id"), "object_name": name, "target_words": how}
    if "scene_dataset" in row.fields:
        tags |= {"dataset": "locate3d", "primary_key": row.text("primary_key")}
        if "frames_used" in row.fields:
            tags["frames_used"] = ",".join(map(str, row.object_ids("frames_used")))
    else:
        tags["others"] = ",".join(sorted({other for number, other in referred.items() if number != target}))
    return annotation(scene, said, mention, anchors, tags)


def _dataset(row: Row) -> str:
    dataset = row.text("scene_dataset") if "scene_dataset" in row.fields else "ScanNet"
    if dataset == "ARKitScenes":
        raise row.fault(
            "is about ARKitScenes, where objects are boxes of the annotation's own and not instances of a scan; "
            "take the files of ScanNet and ScanNet++ instead"
        )
    if dataset not in ("ScanNet", "ScanNet++"):
        raise row.fault(f"scene_dataset is {dataset[:80]!r}, neither ScanNet nor ScanNet++")
    return dataset
