"""A sentence and the objects that it names -> an `Expression`. The part that all schemas share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from liftgs.annotations.rows import Annotation, Row
from liftgs.annotations.sentences import Sentence, Span
from liftgs.scene import Expression, Mention

_ENTITY = re.compile(r"([0-9]{1,9})(_.*)?", re.DOTALL)


def instance_id(object_id: int) -> int:
    """Our instance id of an object: files count from 0, and 0 means none in `Frame.instances`."""
    return object_id + 1


def sentence(row: Row, tokens: Sequence[str]) -> Sentence:
    """The tokens, joined.

    Raises:
        BadInput: there is no word in them.
    """
    joined = Sentence.join(tokens)
    if not joined.words:
        raise row.fault("says nothing: its tokens are empty")
    return joined


def by_name(said: Sentence, target: int, name: str) -> tuple[Mention, str]:
    """The target's mention in a file that does not tell, and how it was found; see the package."""
    (span,) = said.named([name])
    return said.mention([target], span or said.whole), "name" if span else "sentence"


def by_entities(row: Row, said: Sentence, target: int, name: str) -> tuple[Mention, tuple[Mention, ...], str]:
    """The target's mention, the others, and how the target's was found.

    A phrase in several pieces becomes a mention for each. The first in the sentence that names the target is the
    target's; what else the same words name ("sofa": the couch and its pillows) is a mention of its own over them.

    Raises:
        BadInput: an entity is not a pair of token numbers and names like "48_shelf".
    """
    mentions = []
    for words, instances in _entities(row, said):
        if target in instances:
            mentions.append(said.mention([target], words))
        others = [instance for instance in instances if instance != target]
        if others:
            mentions.append(said.mention(others, words))
    mentions.sort(key=lambda mention: mention.words)  # stable
    first = next((mention for mention in mentions if mention.instances == (target,)), None)
    if first is None:  # a few rows of ScanEnts3D lack it, one has no entity at all
        found, how = by_name(said, target, name)
        return found, tuple(mentions), how
    mentions.remove(first)
    return first, tuple(mentions), "entity"


def _entities(row: Row, said: Sentence) -> list[tuple[Span, list[int]]]:
    """(words, instances) of each piece of each entity."""
    found = []
    for entity in row.items("entities"):
        if not isinstance(entity, list | tuple) or len(entity) != 2:
            raise row.fault(f"entity {str(entity)[:80]} is not a pair of token numbers and names")
        tokens, names = entity
        if not isinstance(names, list | tuple):
            raise row.fault(f"entity {str(entity)[:80]} has no list of names")
        instances = list(dict.fromkeys(_instance(row, name) for name in names))
        found += [(words, instances) for words in _runs(row, said, tokens) if instances]
    return found


def _runs(row: Row, said: Sentence, tokens: Any) -> list[Span]:
    count = len(said.tokens)
    if not isinstance(tokens, list | tuple) or not all(type(token) is int and 0 <= token < count for token in tokens):
        raise row.fault(f"entity with the tokens {str(tokens)[:80]}, and there are tokens 0 to {count - 1}")
    return said.runs(tokens)


def _instance(row: Row, name: Any) -> int:
    match = _ENTITY.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise row.fault(f"entity {str(name)[:80]!r} is not named like '48_shelf'")
    return instance_id(int(match[1]))


def annotation(
    scene: str,
    said: Sentence,
    target: Mention,
    anchors: tuple[Mention, ...],
    tags: Mapping[str, object],
    relation: str = "",
) -> Annotation:
    """A row's annotation; tags become "name=value"."""
    facts = tuple(f"{name}={value}" for name, value in tags.items())
    return Annotation(scene, Expression(said.text, target, anchors, relation, facts))
