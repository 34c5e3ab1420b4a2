"""What a procedural room is made of: convex parts, objects built of parts, the room. Data only; draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

Shape = Literal["box", "cylinder", "sphere"]
SizeName = Literal["small", "medium", "large"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Part:
    """One convex primitive of an object, in the world frame.

    In its local frame it lies in [-1, 1]^3, and `world = rotation @ (half_size * local) + centre`.

    Attributes:
        shape: `box`; `cylinder` along local z, a truncated elliptic cone when `taper` < 1; `sphere`, an ellipsoid.
        centre: metres.
        half_size: metres; box half extents; cylinder (x radius, y radius, half height), the radii at local z = -1;
            ellipsoid radii.
        rotation: local to world.
        rgb: linear albedo in 0..1, before texture.
        texture: name of the look in `liftgs.procedural.textures.TEXTURES`.
        taper: top radius over bottom radius of a cylinder, in 0..1.
        emission: light given off, as a multiple of the albedo (lamp shades, panes, screens).
        phase: shifts the texture, so that equal parts do not look alike.
    """

    shape: Shape
    centre: Triple
    half_size: Triple
    rotation: Float64[np.ndarray, "3 3"]
    rgb: Triple
    texture: str
    taper: float = 1.0
    emission: float = 0.0
    phase: float = 0.0

    def bounds(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Tight world-aligned box (a tapered cylinder counts as untapered): lower and upper corner, metres."""
        scaled = self.rotation * np.asarray(self.half_size)
        if self.shape == "box":
            reach = np.abs(scaled).sum(1)
        elif self.shape == "sphere":
            reach = np.sqrt((scaled**2).sum(1))
        else:
            reach = np.sqrt((scaled[:, :2] ** 2).sum(1)) + np.abs(scaled[:, 2])
        centre = np.asarray(self.centre)
        return centre - reach, centre + reach


@dataclass(frozen=True, eq=False)
class Object:
    """A thing in a room.

    Attributes:
        id: >= 1, unique in the room, as in `Frame.instances`.
        kind: class name, e.g. "office chair".
        colour: name of the colour of its dominant part, one of `liftgs.procedural.colours.COLOURS`.
        material: of its dominant part, e.g. "wood".
        size: relative to other instances of the kind.
        parts: world frame.
        box_min: lower corner of the world-aligned box, metres.
        box_max: upper corner.
        support: id of the object it stands on; None for the floor or a wall.
        yaw: rotation about world z, radians; at 0 the front looks along -y.
        is_structure: whether it is a wall, the floor or the ceiling.
    """

    id: int
    kind: str
    colour: str
    material: str
    size: SizeName
    parts: tuple[Part, ...]
    box_min: Triple
    box_max: Triple
    support: int | None = None
    yaw: float = 0.0
    is_structure: bool = False

    @property
    def centre(self) -> Triple:
        """Centre of the box, metres."""
        low, high = self.box_min, self.box_max
        return ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2)


@dataclass(frozen=True)
class Light:
    """A point light.

    Attributes:
        position: metres.
        rgb: strength per channel at `reach_m`, as reflected by a white surface that faces it.
        reach_m: distance at which the strength is `rgb`; softens the falloff nearer to the light.
    """

    position: Triple
    rgb: Triple
    reach_m: float


@dataclass(frozen=True, eq=False)
class Room:
    """A furnished room.

    Attributes:
        kind: the corpus, e.g. "apartments".
        style: the kind of room within it, e.g. "bedroom".
        index: which room of the corpus.
        seed: of the corpus.
        size: extent in metres; the room spans [0, x] x [0, y] x [0, z], the floor is at z = 0.
        objects: furniture and structure.
        lights: at most three.
        ambient: light from everywhere, per channel.
    """

    kind: str
    style: str
    index: int
    seed: int
    size: Triple
    objects: tuple[Object, ...]
    lights: tuple[Light, ...]
    ambient: Triple

    def __getitem__(self, object_id: int) -> Object:
        """The object with this id."""
        return next(o for o in self.objects if o.id == object_id)
