"""The embedded corpus: seeded rooms, rendered with exact depth, instance ids, poses and referring expressions.

`ProceduralScene("apartments", 3).load("000000")` is a photo of the fourth apartment. Everything is a pure function of
(corpus, index, seed, views, size).
"""

from liftgs.procedural.colours import COLOURS
from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.kinds import KINDS, STRUCTURE_KINDS
from liftgs.procedural.room import Object, Part, Room
from liftgs.procedural.source import SCHEME, ProceduralScene, SourceOptions, list_scenes, open_scene

__all__ = [
    "COLOURS",
    "CORPORA",
    "KINDS",
    "SCHEME",
    "STRUCTURE_KINDS",
    "Object",
    "Part",
    "ProceduralScene",
    "Room",
    "SourceOptions",
    "build_room",
    "list_scenes",
    "open_scene",
]
