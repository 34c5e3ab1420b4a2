from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from liftgs_platform import spec
from liftgs_platform.spec import SpecError


@dataclass(frozen=True)
class Pool:
    min: int = 1  # fewest actors
    num_cpus: float = 1.0


@dataclass(frozen=True)
class Scale:
    pools: dict[str, Pool] = field(default_factory=dict)


@dataclass(frozen=True)
class Teacher:
    """Of tests.

    Attributes:
        checkpoint: a path
            or a URL.
        mode: what to do.
    """

    checkpoint: str = "tiny"
    points: int | None = None
    mode: Literal["keep", "blur"] = "keep"
    size: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        if self.points == 13:
            raise ValueError("points must not be 13")


@dataclass(frozen=True)
class Job:
    source: str
    # how many,
    # and so on
    count: int = 1
    flag: bool = False
    teacher: Teacher = field(default_factory=Teacher)
    scale: Scale = field(default_factory=Scale, metadata=spec.WHERE_ONLY)


HEAD = """\
#!/usr/bin/env -S python -m liftgs_platform.job
# Purpose of the job.
defaults:
  - teachers: tiny
  - scale: laptop
  - _self_

"""


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    (tmp_path / "scale").mkdir()
    (tmp_path / "teachers").mkdir()
    (tmp_path / "job.yaml").write_text(HEAD + "source: here\n")
    (tmp_path / "scale" / "laptop.yaml").write_text("# small\npools:\n  load: {min: 2}\n")
    (tmp_path / "scale" / "cluster.yaml").write_text(
        "# @package _global_\n# large\ndefaults:\n  - override /teachers: paper\nscale:\n  pools:\n    load: {min: 9}\n"
    )
    (tmp_path / "scale" / "wrong.yaml").write_text("pools:\n  load: {minn: 2}\n")
    (tmp_path / "teachers" / "tiny.yaml").write_text("# @package _global_\nteacher: {checkpoint: tiny}\n")
    (tmp_path / "teachers" / "paper.yaml").write_text("# @package _global_\nteacher: {checkpoint: sam_vit_h}\n")
    return tmp_path


def load(jobs: Path, *overrides: str, file: str = "job.yaml") -> Job:
    return spec.load(jobs / file, overrides, Job)


def message(jobs: Path, *overrides: str, file: str = "job.yaml") -> str:
    with pytest.raises(SpecError) as caught:
        load(jobs, *overrides, file=file)
    text = str(caught.value)
    assert "\n" not in text, "one line for the person"
    return text


def test_file_groups_and_overrides_become_one_frozen_dataclass(jobs: Path) -> None:
    assert load(jobs) == Job("here", scale=Scale({"load": Pool(2)}))
    changed = load(jobs, "count=3", "teacher.points=4", "teacher.mode=blur", "teacher.size=[3,4]", "flag=true")
    assert changed == Job("here", 3, True, Teacher("tiny", 4, "blur", (3, 4)), Scale({"load": Pool(2)}))


def test_scale_brings_its_teachers_and_the_command_line_has_the_last_word(jobs: Path) -> None:
    assert load(jobs, "scale=cluster").teacher.checkpoint == "sam_vit_h"
    assert load(jobs, "scale=cluster", "teachers=tiny").teacher.checkpoint == "tiny"
    assert load(jobs, "scale=cluster", "scale.pools.load.min=5").scale.pools["load"].min == 5


@pytest.mark.parametrize(
    "text",
    ["procedural:apartments?scenes=24&views=6", "s3://bucket/a,b", "it's here", "a b", "{x", "true", "12", r"c:\d"],
)
def test_text_needs_no_quotes(jobs: Path, text: str) -> None:
    assert load(jobs, f"source={text}").source == text


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sorce=x", ["sorce", "'source'"]),
        ("teacher.pints=3", ["teacher.pints", "'teacher.points'"]),
        ("points=3", ["points", "'teacher.points'"]),
        ("scal=laptop", ["scal", "'scale'"]),
        ("scale=clusterr", ["clusterr", "'cluster'"]),
        ("count=x", ["count=x", "integer"]),
        ("flag=maybe", ["flag=maybe", "bool"]),
        ("teacher.points=1.5", ["teacher.points", "integer"]),
        ("teacher.mode=blurr", ["teacher.mode", "'blur'"]),
        ("teacher.size=[1,2,3]", ["teacher.size", "2 values"]),
        ("teacher.points=13", ["teacher", "must not be 13"]),
        ("count", ["key=value"]),
        ("count==3", ["count==3", "quote"]),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told_with_the_nearest_match(
    jobs: Path, override: str, told: list[str]
) -> None:
    text = message(jobs, override)
    assert all(part in text for part in told), text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sorce: here", ["sorce", "'source'"]),
        ("source: here\ncount: many", ["count", "'many'", "integer"]),
        ("source: here\nteacher: {mode: blurr}", ["teacher.mode", "'blur'"]),
        ("source: here\nteacher: {pints: 3}", ["teacher.pints", "'teacher.points'"]),
        ("count: 2", ["'source' has no value"]),
        ("source: [", ["not YAML", "line"]),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(jobs: Path, content: str, told: list[str]) -> None:
    (jobs / "bad.yaml").write_text(HEAD + content + "\n")
    text = message(jobs, file="bad.yaml")
    assert all(part in text for part in [*told, "bad.yaml"]), text


def test_what_is_wrong_in_a_group_is_told_with_the_groups_file(jobs: Path) -> None:
    assert "scale/wrong.yaml: unknown key 'scale.pools.load.minn'" in message(jobs, "scale=wrong")


def test_identity_leaves_out_where_a_job_runs(jobs: Path) -> None:
    laptop, larger = load(jobs), load(jobs, "scale.pools.load.min=7")
    assert spec.identity(laptop) == spec.identity(larger)
    assert spec.digest(spec.identity(laptop)) == spec.digest(spec.identity(larger))
    other = load(jobs, "teacher.points=4", "count=2")
    assert spec.differences(spec.identity(laptop), spec.identity(other)) == [
        "count: 1 -> 2",
        "teacher.points: null -> 4",
    ]


def test_help_says_of_every_key_its_type_default_and_meaning(jobs: Path) -> None:
    from liftgs_platform import spec_help

    keys = {key.name: key for key in spec_help.keys(Job)}
    assert keys["source"].default == "(required)"
    assert keys["count"] == spec_help.Key("count", "int", "1", "how many, and so on")
    assert keys["teacher.checkpoint"].doc == "a path or a URL."
    assert keys["teacher.mode"].type == "keep|blur"
    assert keys["teacher.points"].type == "int|null"
    assert keys["scale.pools.NAME.min"].doc == "fewest actors"
    assert spec_help.group_choices(jobs / "job.yaml")["scale"] == {"cluster": "large", "laptop": "small", "wrong": ""}
    assert spec_help.purpose(jobs / "job.yaml") == ["Purpose of the job."]


# ---- identities that older code wrote


@dataclass(frozen=True)
class Grown:
    source: str  # never had a default
    pools: dict[str, Pool] = field(default_factory=dict)
    teachers: tuple[Teacher, ...] = ()
    best: Teacher | None = None
    size: tuple[int, int] = (1, 2)
    output: str = field(default="here", metadata=spec.WHERE_ONLY)


def test_fields_that_older_code_did_not_know_take_their_defaults_at_any_depth() -> None:
    old = {
        "source": "scans",
        "pools": {"a": {"min": 3}},
        "teachers": [{"checkpoint": "b", "size": [5, 6]}],
        "best": {"mode": "blur"},
        "gone": 7,
    }
    default = {"checkpoint": "tiny", "points": None, "mode": "keep", "size": [1, 2]}
    assert spec.completed(old, Grown) == {
        "source": "scans",
        "pools": {"a": {"min": 3, "num_cpus": 1.0}},
        "teachers": [default | {"checkpoint": "b", "size": [5, 6]}],
        "best": default | {"mode": "blur"},
        "size": [1, 2],
        "gone": 7,
    }
    assert spec.completed({}, Grown).keys() == {"pools", "teachers", "best", "size"}, "what has no default stays out"


@dataclass(frozen=True)
class Later:
    source: str
    table: str = field(default="", metadata=spec.ADDED)


def test_a_field_that_was_added_counts_where_it_is_set() -> None:
    @dataclass(frozen=True)
    class Before:
        source: str

    before = spec.identity(Before("scans"))
    assert spec.identity(Later("scans")) == before == spec.completed(before, Later)
    assert spec.identity(Later("scans", "labels.tsv")) == {"source": "scans", "table": "labels.tsv"}


def test_a_whole_identity_is_as_it_was() -> None:
    whole = spec.identity(Grown("scans", {"a": Pool(2)}, (Teacher(),), Teacher("b"), (3, 4)))
    assert spec.completed(whole, Grown) == whole
    other = {"pools": {"0": "a hash"}, "teachers": {"0": {"content": "a hash"}}, "best": None}
    assert {**spec.completed(other, Grown), "size": 0} == {**other, "size": 0}, "another shape than the spec's stays"


def test_a_default_is_not_taken_for_what_was_asked_otherwise() -> None:
    old = spec.completed({"source": "scans"}, Grown)
    assert spec.differences(old, spec.identity(Grown("scans"))) == []
    assert spec.differences(old, spec.identity(Grown("scans", size=(3, 4)))) == ["size: [1, 2] -> [3, 4]"]
