"""The builder's bench: furniture is put together here from boxes, cylinders and balls in a frame of its own.

The frame: origin on the floor under the middle, z up, the front looks along -y, the back (which goes to a wall)
along +y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from liftgs.procedural import colours
from liftgs.procedural.room import Part, Triple

#: Colours of the secondary parts: linear albedos that stay out of the way of the named colour.
OAK: Triple = (0.30, 0.17, 0.085)
DARK: Triple = (0.035, 0.035, 0.038)
STEEL: Triple = (0.36, 0.37, 0.38)
PAPER: Triple = (0.78, 0.76, 0.70)
GLASS: Triple = (0.50, 0.62, 0.70)
SOIL: Triple = (0.05, 0.03, 0.02)
CARD: Triple = (0.42, 0.235, 0.10)


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix about a coordinate axis, right-handed."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


@dataclass(frozen=True)
class Surface:
    """A level place to put things on, in the object's frame: centre, height and extent in metres."""

    x: float
    y: float
    z: float
    width: float
    depth: float


@dataclass(frozen=True)
class Seat:
    """Where a chair belongs, and which way it is turned (degrees), in the object's frame."""

    x: float
    y: float
    yaw: float


@dataclass
class Kit:
    """What a kind's builder works with.

    Attributes:
        rng: for the variety within the kind.
        main: linear albedo of the named colour; most of what one sees of the object must have it.
        texture: look of the object's main material.
        parts: what has been built so far, object frame.
        surfaces: where clutter may stand.
        seats: where chairs may stand.
    """

    rng: np.random.Generator
    main: Triple
    texture: str
    parts: list[Part] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)

    def vary(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.rng.uniform(low, high))

    def pick(self, *options: int) -> int:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def other(self, *names: str) -> Triple:
        """A named colour for a secondary part."""
        return colours.sample(names[int(self.rng.integers(len(names)))], self.rng)

    def box(
        self,
        at: Triple,
        size: Triple,
        rgb: Triple | None = None,
        texture: str | None = None,
        rotation: np.ndarray | None = None,
        emission: float = 0.0,
    ) -> None:
        """A box: centre, full extents."""
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self._add("box", at, half, rgb, texture, rotation, 1.0, emission)

    def rod(
        self,
        at: Triple,
        radius: float | tuple[float, float],
        height: float,
        rgb: Triple | None = None,
        texture: str | None = None,
        rotation: np.ndarray | None = None,
        top: float = 1.0,
        emission: float = 0.0,
    ) -> None:
        """A cylinder or truncated cone along z: centre, bottom radius or radii, height, top over bottom radius."""
        rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
        rotation = np.eye(3) if rotation is None else rotation
        if top > 1:  # a part's taper is at most 1: build it upside down
            rx, ry, top, rotation = rx * top, ry * top, 1 / top, rotation @ turn("x", 180)
        self._add("cylinder", at, (rx, ry, height / 2), rgb, texture, rotation, top, emission)

    def bar(
        self, start: Triple, end: Triple, radius: float, rgb: Triple | None = None, texture: str | None = None
    ) -> None:
        """A round bar between two points."""
        a, b = np.asarray(start), np.asarray(end)
        length = float(np.linalg.norm(b - a))
        w = (b - a) / length
        u = np.cross((0.0, 1.0, 0.0) if abs(w[1]) < 0.9 else (1.0, 0.0, 0.0), w)
        u /= np.linalg.norm(u)
        middle = (a + b) / 2
        at = (float(middle[0]), float(middle[1]), float(middle[2]))
        self.rod(at, radius, length, rgb, texture, np.stack([u, np.cross(w, u), w], 1))

    def ball(
        self,
        at: Triple,
        radii: float | Triple,
        rgb: Triple | None = None,
        texture: str | None = None,
        rotation: np.ndarray | None = None,
        emission: float = 0.0,
    ) -> None:
        """An ellipsoid: centre, radii."""
        half = radii if isinstance(radii, tuple) else (radii, radii, radii)
        self._add("sphere", at, half, rgb, texture, rotation, 1.0, emission)

    def legs(
        self,
        width: float,
        depth: float,
        height: float,
        thick: float,
        rgb: Triple | None = None,
        texture: str | None = None,
        round_: bool = False,
        bottom: float = 0.0,
    ) -> None:
        """Four upright legs whose outer faces are `width` x `depth` apart."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                at = (sx * (width - thick) / 2, sy * (depth - thick) / 2, bottom + height / 2)
                if round_:
                    self.rod(at, thick / 2, height, rgb, texture)
                else:
                    self.box(at, (thick, thick, height), rgb, texture)

    def surface(self, x: float, y: float, z: float, width: float, depth: float) -> None:
        """Declare a place for clutter."""
        self.surfaces.append(Surface(x, y, z, width, depth))

    def seat(self, x: float, y: float, yaw: float) -> None:
        """Declare a place for a chair."""
        self.seats.append(Seat(x, y, yaw))

    def _add(
        self,
        shape: str,
        at: Triple,
        half: Triple,
        rgb: Triple | None,
        texture: str | None,
        rotation: np.ndarray | None,
        taper: float,
        emission: float,
    ) -> None:
        self.parts.append(
            Part(
                shape,  # type: ignore[arg-type]
                at,
                half,
                np.eye(3) if rotation is None else rotation,
                self.main if rgb is None else rgb,
                (self.texture if rgb is None else "plastic") if texture is None else texture,
                taper,
                emission,
                float(self.rng.random()),
            )
        )


Build = Callable[[Kit], None]


@dataclass(frozen=True)
class Kind:
    """A class of objects.

    Attributes:
        name: as in labels and expressions.
        build: puts one together in a Kit.
        colours: names it may have.
        materials: it may be made of; a wooden thing is more often brown.
    """

    name: str
    build: Build
    colours: tuple[str, ...]
    materials: tuple[str, ...]


#: All kinds by name, in the order of their declaration.
REGISTRY: dict[str, Kind] = {}


def kind(name: str, colours: Sequence[str], materials: Sequence[str]) -> Callable[[Build], Build]:
    """Declare a kind: decorates its builder."""

    def register(build: Build) -> Build:
        REGISTRY[name] = Kind(name, build, tuple(colours), tuple(materials))
        return build

    return register
