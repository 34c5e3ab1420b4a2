"""Every kind of object; importing this package declares them in `liftgs.procedural.kit.REGISTRY`."""

from liftgs.procedural.kinds import clutter, furniture, household, office, warehouse
from liftgs.procedural.kit import REGISTRY

__all__ = ["KINDS", "REGISTRY", "STRUCTURE_KINDS", "clutter", "furniture", "household", "office", "warehouse"]

#: Kinds of furniture and objects, in a stable order.
KINDS: tuple[str, ...] = tuple(REGISTRY)

#: Kinds of the shell of the room.
STRUCTURE_KINDS: tuple[str, ...] = ("floor", "ceiling", "wall")
