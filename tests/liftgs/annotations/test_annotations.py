"""Annotation files: what each schema says of an expression, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from annotation_files import LOCATE3D, NR3D, SCANREFER, SCENE, SR3D, without, write_csv, write_json

from liftgs.annotations import Annotation, expressions_by_scene, read_annotations, read_scene_list
from liftgs.annotations.rows import MAX_LIST_CHARS
from liftgs.scene import BadInput, Expression, Mention


def one_json(tmp_path: Path, row: dict[str, Any], **changes: Any) -> Annotation:
    (found,) = read_annotations(write_json(tmp_path / "file.json", [row | changes]))
    return found


def one_csv(tmp_path: Path, row: dict[str, Any], **changes: Any) -> Annotation:
    (found,) = read_annotations(write_csv(tmp_path / "file.csv", [row | changes]))
    return found


def said(expression: Expression, mention: Mention) -> str:
    words = " ".join(expression.words[slice(*mention.words)])
    assert expression.text[slice(*mention.chars)] == words
    return words


def phrases(expression: Expression) -> list[tuple[str, tuple[int, ...]]]:
    """What is said of which instances; the target first."""
    return [(said(expression, m), m.instances) for m in (expression.target, *expression.anchors)]


# ---- ScanRefer, ScanEnts3D, Locate 3D


def test_scanrefer(tmp_path: Path) -> None:
    found = one_json(tmp_path, SCANREFER)
    assert found.scene == SCENE
    expression = found.expression
    assert expression.text == "the black office chair is by the coffee table . it has wheels ."
    assert phrases(expression) == [("office chair", (8,))], "object 7 is instance 8"
    assert expression.tags == (
        "dataset=scanrefer",
        "ann_id=2",
        "object_name=office_chair",
        "target_words=name",
        "others=",
    )
    assert (expression.tag("ann_id"), expression.tag("ann")) == ("2", None)


def test_numbers_may_be_strings(tmp_path: Path) -> None:
    assert one_json(tmp_path, SCANREFER, object_id=7, ann_id=2) == one_json(tmp_path, SCANREFER)


def test_a_target_that_the_words_do_not_tell_is_the_whole_sentence(tmp_path: Path) -> None:
    for tokens in ("it is by the coffee table", "the office chair by the office chair", "the office chairs"):
        expression = one_json(tmp_path, SCANREFER, token=tokens.split()).expression
        assert phrases(expression) == [(tokens, (8,))]
        assert expression.tag("target_words") == "sentence"


def test_unique_and_multiple_can_be_told_from_the_other_referred_objects(tmp_path: Path) -> None:
    rows = [
        SCANREFER,
        SCANREFER | {"ann_id": "3"},
        SCANREFER | {"object_id": "1", "object_name": "chair"},
        SCANREFER | {"object_id": "2", "object_name": "chair"},
        SCANREFER | {"object_id": "9", "object_name": "bed", "scene_id": "scene0012_00"},
    ]
    found = read_annotations(write_json(tmp_path / "a.json", rows))
    assert [row.expression.tag("others") for row in found] == [
        "chair",
        "chair",
        "chair,office_chair",
        "chair,office_chair",
        "",
    ]


def test_locate3d(tmp_path: Path) -> None:
    found = one_json(tmp_path, LOCATE3D)
    assert found.scene == "5656608266"
    assert phrases(found.expression) == [("white moving trolley", (49,)), ("grey sofa", (6,))]
    assert found.expression.tags == (
        "dataset=locate3d",
        "ann_id=0",
        "object_name=shelf",
        "target_words=entity",
        "primary_key=1102644611063036",
        "frames_used=5280,5310",
    )


def test_an_entity_in_pieces_is_a_mention_for_each(tmp_path: Path) -> None:
    """As made by looking for a word anywhere: "towel" of "towel stand"."""
    expression = one_json(
        tmp_path,
        SCANREFER,
        token=["towel", "on", "the", "towel", "stand"],
        entities=[[[3, 0], ["7_towel"]], [[4, 3], ["2_stand"]]],
    ).expression
    assert phrases(expression) == [("towel", (8,)), ("towel", (8,)), ("towel stand", (3,))]
    assert expression.target.words == (0, 1)


def test_the_target_is_one_instance_even_if_its_words_name_more(tmp_path: Path) -> None:
    tokens = ["near", "the", "door", "the", "sofa", ".", "the", "sofa", "is", "red"]
    entities = [
        [[7], ["0_couch"]],
        [[4], ["0_couch", "16_pillow", "14_pillow", "16_pillow"]],
        [[2], ["3_door"]],
        [[5], []],
    ]
    expression = one_json(tmp_path, SCANREFER, object_id="0", token=tokens, entities=entities).expression
    assert phrases(expression) == [("sofa", (1,)), ("door", (4,)), ("sofa", (17, 15)), ("sofa", (1,))]
    assert expression.target.words == (4, 5), "the first that names it"


@pytest.mark.parametrize("entities", [[], [[[7, 8], ["12_coffee_table"]]], [[[14], ["7_office_chair"]]]])
def test_without_an_entity_of_the_target_its_name_decides(tmp_path: Path, entities: list[Any]) -> None:
    tokens = [*SCANREFER["token"], ""]
    expression = one_json(tmp_path, SCANREFER, token=tokens, entities=entities).expression
    assert phrases(expression)[0] == ("office chair", (8,))
    assert expression.tag("target_words") == "name"


def test_object_names_with_underscores_and_digits_do_not_disturb_ids(tmp_path: Path) -> None:
    entities = [[[2], ["7_2_seater_sofa"]], [[8], ["45_toaster_oven"]], [[0], ["3"]]]
    found = one_json(tmp_path, SCANREFER, entities=entities).expression
    assert sorted(mention.instances for mention in (found.target, *found.anchors)) == [(4,), (8,), (46,)]


# ---- Nr3D, Sr3D


def test_nr3d(tmp_path: Path) -> None:
    found = one_csv(tmp_path, NR3D)
    assert found.scene == SCENE
    assert found.expression.text == "the lower coffee table , left of the sofa"
    assert phrases(found.expression) == [("coffee table", (8,))]
    assert found.expression.tags == (
        "dataset=nr3d",
        "ann_id=4321",
        "object_name=coffee table",
        "target_words=name",
        "distractors=10,13",
        "difficulty=hard",
        "view=dependent",
    )


def test_nr3d_with_entities(tmp_path: Path) -> None:
    entities = "[[[1, 2, 3], ['7_coffee_table']], [(8,), ['2_sofa']]]"
    expression = one_csv(tmp_path, NR3D, entities=entities).expression
    assert phrases(expression) == [("lower coffee table", (8,)), ("sofa", (3,))]
    assert expression.tag("target_words") == "entity"


@pytest.mark.parametrize(
    ("stimulus", "difficulty", "distractors"),
    [("3-7-9-12", "hard", "10,13"), ("2-7-9", "easy", "10"), ("1-7", "easy", "")],
)
def test_hard_is_more_than_two_of_the_class(tmp_path: Path, stimulus: str, difficulty: str, distractors: str) -> None:
    for label in ("coffee_table", "x-box", "stack_of-4_chairs"):
        expression = one_csv(tmp_path, NR3D, stimulus_id=f"{SCENE}-{label}-{stimulus}").expression
        assert (expression.tag("difficulty"), expression.tag("distractors")) == (difficulty, distractors)


def test_view_words_are_whole_words(tmp_path: Path) -> None:
    views = {"upright": "independent", "leftover": "independent", "leftmost": "dependent", "across": "dependent"}
    for word, view in views.items():
        tokens = str(["the", word, "table"])
        assert one_csv(tmp_path, NR3D, tokens=tokens).expression.tag("view") == view


def test_what_the_protocols_leave_out_is_left_out(tmp_path: Path) -> None:
    rows = [
        NR3D | {"assignmentid": 1},
        NR3D | {"assignmentid": 2, "correct_guess": "False"},
        NR3D | {"assignmentid": 3, "mentions_target_class": "False"},
        NR3D | {"assignmentid": 4, "correct_guess": "TRUE"},
    ]
    found = read_annotations(write_csv(tmp_path / "nr3d.csv", rows))
    assert [row.expression.tag("ann_id") for row in found] == ["1", "4"]
    rows = [SR3D, SR3D | {"mentions_target_class": "False"}, SR3D]
    found = read_annotations(write_csv(tmp_path / "sr3d.csv", rows))
    assert [row.expression.tag("ann_id") for row in found] == ["1", "3"], "rows keep their numbers"


def test_sr3d(tmp_path: Path) -> None:
    found = one_csv(tmp_path, SR3D)
    assert found.scene == SCENE
    expression = found.expression
    assert phrases(expression) == [("table", (8,)), ("coffee table", (13,))], "not the table of the coffee table"
    assert expression.target.words == (1, 2)
    assert expression.relation == "closest"
    assert expression.tags == (
        "dataset=sr3d",
        "ann_id=1",
        "object_name=table",
        "target_words=name",
        "coarse_reference_type=horizontal",
        "distractors=10",
        "difficulty=easy",
        "view=independent",
    )


def test_sr3d_without_the_columns_that_were_added_to_it(tmp_path: Path) -> None:
    row = without(SR3D, "tokens", "dataset", "mentions_target_class")
    utterance = "Facing the front of the coffee-table, the table on its left."
    expression = one_csv(tmp_path, row, utterance=utterance).expression
    assert expression.text == "facing the front of the coffee table the table on its left"
    assert phrases(expression) == [("table", (8,)), ("coffee table", (13,))]
    assert expression.tag("view") == "dependent"


def test_sr3d_between(tmp_path: Path) -> None:
    tokens = str(["the", "table", "between", "the", "door", "and", "the", "window"])
    both = {"anchors_types": "['window', 'door']", "anchor_ids": "[3, 4]", "tokens": tokens}
    assert phrases(one_csv(tmp_path, SR3D, **both).expression) == [("table", (8,)), ("window", (4,)), ("door", (5,))]
    twins = both | {"anchors_types": "['door', 'door']"}
    assert phrases(one_csv(tmp_path, SR3D, **twins).expression) == [("table", (8,))]


# ---- files


def test_files_are_read_through_fsspec_with_a_byte_order_mark_and_line_breaks_in_cells(tmp_path: Path) -> None:
    path = Path(write_csv(tmp_path / "nr3d.csv", [NR3D | {"utterance": 'the\r\n"table", left'}, NR3D]))
    fsspec.filesystem("memory").pipe("/notes/NR3D.CSV", b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_annotations("memory://notes/NR3D.CSV")) == 2


def test_a_file_is_found_beside_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "notes.json", [SCANREFER])
    monkeypatch.chdir(tmp_path)
    assert len(read_annotations("notes.json")) == 1


def test_a_split_keeps_its_scenes(tmp_path: Path) -> None:
    other = SCANREFER | {"scene_id": "scene0012_01"}
    uri = write_json(tmp_path / "a.json", [SCANREFER, other, SCANREFER | {"ann_id": "3"}])
    (tmp_path / "val.txt").write_text("scene0012_01\r\n\n scene0707_00\n")
    scenes = read_scene_list(str(tmp_path / "val.txt"))
    assert scenes == {"scene0012_01", "scene0707_00"}
    assert [row.scene for row in read_annotations(uri, scenes)] == ["scene0012_01"]
    (tmp_path / "bad.txt").write_text("scene0012_01\nscene0707_00 scene0708_00\n")
    with pytest.raises(BadInput, match=r"bad\.txt: line 2: 'scene0707_00 scene0708_00' is not the name"):
        read_scene_list(str(tmp_path / "bad.txt"))


def test_expressions_of_several_files_come_together_by_scene(tmp_path: Path) -> None:
    files = [
        write_json(tmp_path / "a.json", [SCANREFER, SCANREFER | {"scene_id": "scene0012_01"}]),
        write_csv(tmp_path / "b.csv", [NR3D]),
    ]
    found = expressions_by_scene(files)
    assert [e.tag("dataset") for e in found[SCENE]] == ["scanrefer", "nr3d"]
    assert found.keys() == {SCENE, "scene0012_01"}


# ---- faults


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"object_id": None}, "has no object_id"),
        ({"object_id": "seven"}, "object_id holds 'seven', not a number from 0 on"),
        ({"object_id": -1}, "not a number"),
        ({"object_id": True}, "not a number"),
        ({"object_id": 7.5}, "not a number"),
        ({"object_id": "٣"}, "not a number"),  # an Arabic digit
        ({"object_id": 10**12}, "not a number"),
        ({"scene_id": ["scene0011_00"]}, "scene_id is .'scene0011_00'., neither a string nor"),
        ({"scene_id": "scene0011_0٣"}, "no scene of ScanNet"),
        ({"scene_id": ""}, "scene_id is '', which is no scene of ScanNet"),
        ({"scene_id": "scene11_00"}, "no scene of ScanNet"),
        ({"scene_id": "../scene0011_00"}, "no scene of ScanNet"),
        ({"object_name": ["chair"]}, "object_name is .'chair'., neither a string nor"),
        ({"ann_id": None}, "has no ann_id"),
        ({"token": None}, "has no token"),
        ({"token": "the chair"}, "token is 'the chair', not a list"),
        ({"token": ["the", 3]}, "token holds 3; it must be a list of strings"),
        ({"token": ["", " "]}, "says nothing"),
        ({"entities": {"7": 1}}, "not a list"),
        ({"entities": [[[0]]]}, "not a pair"),
        ({"entities": [[[0], "7_chair"]]}, "no list of names"),
        ({"entities": [[[0], ["chair"]]]}, "'chair' is not named like '48_shelf'"),
        ({"entities": [[[0], [7]]]}, "not named like"),
        ({"entities": [[[0, 14], ["7_chair"]]]}, "there are tokens 0 to 13"),
        ({"entities": [[[-1], ["7_chair"]]]}, "there are tokens 0 to 13"),
        ({"entities": [[["0"], ["7_chair"]]]}, "there are tokens 0 to 13"),
        ({"scene_dataset": "ARKitScenes", "scene_id": "40777060"}, "boxes of the annotation's own"),
        ({"scene_dataset": "Replica"}, "neither ScanNet nor"),
        ({"scene_dataset": "ScanNet++"}, "no scene of ScanNet[+][+]"),
        ({"scene_dataset": "ScanNet"}, "has no primary_key"),
    ],
)
def test_a_faulty_row_of_json_is_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    uri = write_json(tmp_path / "notes.json", [SCANREFER, SCANREFER | changes])
    with pytest.raises(BadInput, match=rf"notes\.json: row 2: .*{reason}"):
        read_annotations(uri)


@pytest.mark.parametrize(
    ("row", "changes", "reason"),
    [
        (NR3D, {"correct_guess": "yes"}, "correct_guess is 'yes', neither True nor False"),
        (NR3D, {"mentions_target_class": ""}, "neither True nor False"),
        (NR3D, {"scan_id": "scene0000"}, "no scene of ScanNet"),
        (NR3D, {"target_id": "7.0"}, "target_id holds '7.0', not a number"),
        (NR3D, {"target_id": "8"}, "about another object than scan_id and target_id"),
        (NR3D, {"stimulus_id": f"{SCENE}-table-3-7-9"}, "not scene-class-count-target-others"),
        (NR3D, {"stimulus_id": "scene0012_00-table-1-7"}, "about another object"),
        (NR3D, {"stimulus_id": f"{SCENE}-table"}, "not scene-class-count"),
        (NR3D, {"tokens": "the table"}, "tokens is 'the table', not a list of plain values"),
        (NR3D, {"tokens": "('the', 'table')"}, "not a list"),
        (NR3D, {"tokens": "['the', 1]"}, "list of strings"),
        (SR3D, {"anchor_ids": "[12, 13]"}, "1 anchors_types for 2 anchor_ids"),
        (SR3D, {"anchor_ids": "['twelve']"}, "anchor_ids holds 'twelve'"),
        (SR3D, {"anchors_types": "[12]"}, "list of strings"),
    ],
)
def test_a_faulty_row_of_csv_is_named(
    tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    uri = write_csv(tmp_path / "notes.csv", [row, row | changes])
    with pytest.raises(BadInput, match=rf"notes\.csv: row 2: .*{reason}"):
        read_annotations(uri)


@pytest.mark.parametrize("name", ["target_id", "tokens", "stimulus_id", "assignmentid", "scan_id", "correct_guess"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    uri = write_csv(tmp_path / "notes.csv", [without(NR3D, name)])
    with pytest.raises(BadInput, match=f"row 1: has no {name}$"):
        read_annotations(uri)


def test_rows_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    path = Path(write_csv(tmp_path / "notes.csv", [NR3D]))
    whole = path.read_text()
    path.write_text(whole + "4321,scene\n")
    with pytest.raises(BadInput, match="row 2: has no"):
        read_annotations(str(path))
    path.write_text(whole.rstrip() + ",more\n")
    with pytest.raises(BadInput, match="row 1: has more values"):
        read_annotations(str(path))


@pytest.mark.parametrize(
    "listed",
    [
        "[__import__('pathlib').Path('{trap}').touch()]",
        "__import__('pathlib').Path('{trap}').touch()",
        "[x for x in (open('{trap}', 'w'),)]",
        'f\'{{open("{trap}", "w")}}\'',
        "[" * 10_000,
        "-" * 40_000 + "1",
        "+".join("1" * 20_000),
        "['a'" + ", 'a'" * MAX_LIST_CHARS + "]",
        "\0",
    ],
)
def test_lists_are_never_executed_nor_bring_down_the_parser(tmp_path: Path, listed: str) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "notes.json").write_text(json.dumps([SCANREFER | {"token": listed.replace("{trap}", str(trap))}]))
    with pytest.raises(BadInput, match=r"notes\.json: row 1: token"):
        read_annotations(str(tmp_path / "notes.json"))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"", "empty"),
        ("a.json", b"[{]", "not readable JSON"),
        ("a.json", b"[" * 100_000, "not readable JSON"),
        ("a.json", b"{}", "not a JSON list"),
        ("a.json", b"[]", "holds no annotations"),
        ("a.json", b"[1]", "row 1: is 1, not a JSON object"),
        ("a.json", b'[{"question": "?"}]', "has the columns question; known are"),
        ("a.json", b"\xff\xfe", "not a text file"),
        ("a.csv", b"scan_id,target_id\n", "holds no annotations"),
        ("a.csv", b"a,b\n1,2\n", "has the columns a, b; known are"),
        ("a.csv", b"a\n" + b"x" * 200_000, "not a readable CSV"),
        ("a.txt", b"scene0000_00", r"neither a \.json nor a \.csv"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=reason) as caught:
        read_annotations(str(tmp_path / name))
    assert caught.value.uri == str(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.json: the file is missing"):
        read_annotations(str(tmp_path / "none.json"))
