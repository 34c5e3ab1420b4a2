"""A version too new is refused as such, and is no fault of the data."""

from __future__ import annotations

import pickle

import pytest

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput


@pytest.mark.parametrize("found", ["liftgs-shard/1", "liftgs-shard/2"])
def test_known_versions_pass(found: str) -> None:
    check_format(found, "liftgs-shard/2", "a.json")


def test_a_newer_version_is_no_fault_of_the_data_and_says_what_to_do() -> None:
    with pytest.raises(
        NewerFormat, match=r"^a\.json: liftgs-shard/10 was written by a newer liftgs .*upgrade"
    ) as caught:
        check_format("liftgs-shard/10", "liftgs-shard/9", "a.json")
    assert isinstance(caught.value, BadInput)
    assert type(pickle.loads(pickle.dumps(caught.value))) is NewerFormat  # as it comes out of a worker


@pytest.mark.parametrize("found", ["liftgs-plan/1", "liftgs-shard/0", "liftgs-shard/", "liftgs-shard/1.5", 1, None, []])
def test_anything_else_is_another_file(found: object) -> None:
    with pytest.raises(ValueError, match="not 'liftgs-shard/1'") as caught:
        check_format(found, "liftgs-shard/1", "a.json")
    assert not isinstance(caught.value, BadInput)
