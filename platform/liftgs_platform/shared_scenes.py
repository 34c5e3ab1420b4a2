"""Scenes that two corpora have in common, so that nothing is validated on what it has learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from liftgs import codecs
from liftgs.procedural import SCHEME, open_scene
from liftgs.scene import BadInput, scene_of_key
from liftgs_platform.reader import CorpusReader


def shared_scenes(held_out: CorpusReader, learned: CorpusReader, used: Sequence[int]) -> Iterator[str]:
    """Names of those that are in both, as far as scenes are known by the same URI.

    Args:
        held_out: a corpus.
        learned: another.
        used: which of its samples count.

    Raises:
        BadInput: a sample's meta.json is damaged.
    """
    first, second = ({scene_of_key(key): key for key in keys} for keys in (held_out.keys, map(learned.key, used)))
    for scene in sorted(first.keys() & second.keys()):
        if _place(held_out, first[scene]) == _place(learned, second[scene]):
            yield scene


def _place(reader: CorpusReader, key: str) -> Any:
    """Where a sample's scene is from; of a procedural room without how often and how large it is photographed."""
    at = f"{reader.corpus}#{key}"
    try:
        uri = str(codecs.decode_json(reader.read(key, ["meta.json"])["meta.json"], at)["scene_uri"])
    except (KeyError, TypeError) as fault:
        raise BadInput(at, f"has no meta.json with a scene_uri ({fault!r}); run liftgs verify") from None
    if not uri.startswith(SCHEME):
        return uri
    room = open_scene(uri)
    return room.kind, room.index, room.options.seed
