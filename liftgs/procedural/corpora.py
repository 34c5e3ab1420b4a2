"""The recipes of the three corpora: what stands in an apartment, an office and a warehouse, and how it is lit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from liftgs.procedural import colours
from liftgs.procedural.layout import Layout, Placed
from liftgs.procedural.room import Light, Object, Part, Room, Triple


def build_room(kind: str, index: int, seed: int) -> Room:
    """Furnish a room: a pure function of its arguments.

    Args:
        kind: one of `CORPORA`.
        index: which room of the corpus.
        seed: of the corpus.

    Raises:
        KeyError: there is no such corpus.
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    return _RECIPES[kind](rng, index, seed)


# ---------------------------------------------------------------------------------------------------- the shell


def _shell(
    size: Triple,
    wall: tuple[Triple, str],
    floor: tuple[Triple, str],
    ceiling: tuple[Triple, str],
    rng: np.random.Generator,
) -> list[Object]:
    """Floor, ceiling and four walls, ids 1 to 6; each a slab outside of the room."""
    x, y, z = size
    t = 0.1
    accent = wall
    if rng.random() < 0.35:  # one wall in a colour of its own
        tint = np.asarray(colours.PALETTE[colours.BRIGHT[int(rng.integers(len(colours.BRIGHT)))]])
        mixed = 0.25 * tint + 0.5 * np.asarray(wall[0])
        accent = ((float(mixed[0]), float(mixed[1]), float(mixed[2])), wall[1])
    slabs: list[tuple[str, Triple, Triple, tuple[Triple, str]]] = [
        ("floor", (x / 2, y / 2, -t / 2), (x + 2 * t, y + 2 * t, t), floor),
        ("ceiling", (x / 2, y / 2, z + t / 2), (x + 2 * t, y + 2 * t, t), ceiling),
        ("wall", (x / 2, y + t / 2, z / 2), (x + 2 * t, t, z), accent),
        ("wall", (-t / 2, y / 2, z / 2), (t, y, z), wall),
        ("wall", (x / 2, -t / 2, z / 2), (x + 2 * t, t, z), wall),
        ("wall", (x + t / 2, y / 2, z / 2), (t, y, z), wall),
    ]
    shell = []
    for number, (name, centre, extent, (rgb, texture)) in enumerate(slabs, 1):
        half = (extent[0] / 2, extent[1] / 2, extent[2] / 2)
        part = Part("box", centre, half, np.eye(3), rgb, texture, phase=float(rng.random()))
        low, high = part.bounds()
        shell.append(
            Object(
                number,
                name,
                colours.nearest(rgb),
                texture,
                "medium",
                (part,),
                (float(low[0]), float(low[1]), float(low[2])),
                (float(high[0]), float(high[1]), float(high[2])),
                is_structure=True,
            )
        )
    return shell


def _accents(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(rng.permutation(colours.BRIGHT)[:4].tolist())


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


# ---------------------------------------------------------------------------------------- groups of furniture


def _door(layout: Layout) -> None:
    placed = layout.against_wall(layout.draft("door", size="medium"))
    if placed is None:
        return
    low, high = placed.object.box_min, placed.object.box_max
    x, y, _ = layout.size
    layout.keep_clear.append(
        (
            low[0] - (0.7 if high[0] > x - 0.05 else 0.05),
            low[1] - (0.7 if high[1] > y - 0.05 else 0.05),
            high[0] + (0.7 if low[0] < 0.05 else 0.05),
            high[1] + (0.7 if low[1] < 0.05 else 0.05),
        )
    )


def _windows(layout: Layout, count: int, height: float) -> list[Placed]:
    found = [layout.against_wall(layout.draft("window", size="medium"), height=height) for _ in range(count)]
    return [w for w in found if w]


def _hang(layout: Layout, kinds: Sequence[str], low: float, high: float) -> None:
    for kind in kinds:
        layout.against_wall(layout.draft(kind), height=_uniform(layout.rng, low, high), clearance_m=0.06)


def _walls(layout: Layout, kinds: Sequence[str]) -> list[Placed]:
    found = [layout.against_wall(layout.draft(kind)) for kind in kinds]
    return [p for p in found if p]


def _floor(layout: Layout, kinds: Sequence[str], clearance_m: float = 0.25) -> list[Placed]:
    found = [layout.on_floor(layout.draft(kind), clearance_m) for kind in kinds]
    return [p for p in found if p]


def _chairs(layout: Layout, base: Placed, kind: str, keep: float, same: float = 0.6) -> None:
    """Chairs at the seats of a table or desk, mostly of one colour."""
    first = layout.draft(kind)
    for seat in base.draft.seats:
        if layout.chance(keep):
            colour = first.colour if layout.chance(same) else None
            layout.at_seat(layout.draft(kind, colour), base, seat)


def _clutter(layout: Layout, base: Placed, kinds: Sequence[str], low: int, high: int) -> None:
    """Between `low` and `high` small things on every surface of an object."""
    for surface in base.draft.surfaces:
        for _ in range(int(layout.rng.integers(low, high + 1))):
            layout.on_top(layout.draft(_choice(layout.rng, kinds)), base, surface)


def _workplace(layout: Layout, desk: Placed) -> None:
    """What stands on a desk: a monitor with a keyboard before it, or a laptop, a lamp, and odds and ends."""
    (surface,) = desk.draft.surfaces
    side = -1 if desk.draft.seats[0].x < 0 else 1
    if layout.chance(0.65):
        layout.on_top(layout.draft("monitor"), desk, surface, 0.0, (side * 0.35, 0.7))
        layout.on_top(layout.draft("keyboard"), desk, surface, _uniform(layout.rng, -6, 6), (side * 0.35, -0.8))
    else:
        layout.on_top(layout.draft("laptop"), desk, surface, _uniform(layout.rng, -15, 15), (side * 0.4, -0.1))
    if layout.chance(0.6):
        layout.on_top(layout.draft("desk lamp"), desk, surface, _uniform(layout.rng, -40, 40), (-side * 0.95, 0.7))
    _clutter(layout, desk, ("mug", "book", "bottle", "book", "mug"), 1, 3)


_SHELF_THINGS = ("mug", "bottle", "book", "ball", "fruit bowl", "teddy bear")
_TABLE_THINGS = ("mug", "mug", "bottle", "book", "fruit bowl", "laptop", "book")


# -------------------------------------------------------------------------------------------------- apartments


def _living(layout: Layout) -> None:
    sofas = _walls(layout, ["sofa"])
    _walls(layout, ["bookshelf"])
    table = layout.on_floor(layout.draft(_choice(layout.rng, ("round table", "table"))), 0.45)
    if table:
        _chairs(layout, table, _choice(layout.rng, ("chair", "chair", "stool")), 0.75)
        _clutter(layout, table, _TABLE_THINGS, 2, 4)
    _walls(layout, ["armchair", "radiator", "bookshelf", "guitar", "plant"])
    for sofa in sofas:
        _clutter(layout, sofa, ("teddy bear", "book"), 0, 1)
    _walls(layout, ["floor lamp", "plant", "floor lamp"][: int(layout.rng.integers(1, 4))])
    _floor(layout, ["rug", "ball"], 0.04)


def _bedroom(layout: Layout) -> None:
    beds = _walls(layout, ["bed"])
    for bed in beds:
        _clutter(layout, bed, ("teddy bear", "book", "laptop"), 0, 2)
        wall = {0: 0, 90: 1, 180: 2, -90: 3}[round(np.degrees(bed.object.yaw))]
        middle = bed.object.centre[wall % 2]
        half = (bed.object.box_max[wall % 2] - bed.object.box_min[wall % 2]) / 2
        for side in (-1, 1):
            stand = layout.draft("nightstand")
            placed = layout.at_wall(stand, wall, middle + side * (half + float(stand.high[0]) + 0.04))
            if placed:
                _clutter(layout, placed, ("desk lamp", "book", "mug", "book"), 1, 2)
    _walls(layout, ["wardrobe"])
    for desk in _walls(layout, ["desk"]):
        _chairs(layout, desk, _choice(layout.rng, ("chair", "office chair")), 1.0)
        _workplace(layout, desk)
    _walls(
        layout, ["radiator", "suitcase", "floor lamp", "guitar", "plant", "armchair"][: int(layout.rng.integers(3, 7))]
    )
    _floor(layout, ["rug", "ball", "suitcase"], 0.04)


def _kitchen(layout: Layout) -> None:
    walls = tuple(layout.rng.permutation(4)[:2].tolist())
    for kind in ("fridge", "stove", "sink"):
        layout.against_wall(layout.draft(kind), walls)
    for machine in _walls(layout, ["washing machine"] if layout.chance(0.5) else []):
        _clutter(layout, machine, ("bottle", "fruit bowl", "book"), 1, 2)
    table = layout.on_floor(layout.draft(_choice(layout.rng, ("table", "round table"))), 0.45)
    if table:
        _chairs(layout, table, _choice(layout.rng, ("chair", "stool")), 0.9)
        _clutter(layout, table, ("mug", "fruit bowl", "bottle", "mug", "book"), 3, 5)
    _walls(layout, ["radiator", "bin", "plant", "stool", "cardboard box"])
    _floor(layout, ["bin", "stool"])


def _bathroom(layout: Layout) -> None:
    _walls(layout, ["bathtub", "toilet", "sink"])
    for machine in _walls(layout, ["washing machine"]):
        _clutter(layout, machine, ("bottle", "mug", "bottle"), 1, 3)
    for stool in _walls(layout, ["radiator", "bin", "nightstand", "stool", "plant"]):
        _clutter(layout, stool, ("bottle", "mug", "book"), 0, 2)
    _floor(layout, ["rug", "stool"], 0.04)


def _apartment(rng: np.random.Generator, index: int, seed: int) -> Room:
    style, furnish = (("living room", _living), ("bedroom", _bedroom), ("kitchen", _kitchen), ("bathroom", _bathroom))[
        int(rng.choice(4, p=(0.32, 0.32, 0.21, 0.15)))
    ]
    small = 0.75 if style == "bathroom" else 1.0
    size = (_uniform(rng, 4.0, 5.6) * small, _uniform(rng, 3.8, 5.0) * small, _uniform(rng, 2.45, 2.7))
    pale = ((0.72, 0.68, 0.58), (0.62, 0.68, 0.70), (0.70, 0.60, 0.54), (0.60, 0.68, 0.56), (0.75, 0.73, 0.70))
    wall = (pale[int(rng.integers(len(pale)))], "plaster")
    floor: tuple[Triple, str] = ((0.30, 0.17, 0.085), "planks")
    if style in ("kitchen", "bathroom"):
        floor = (((0.55, 0.53, 0.50), (0.30, 0.36, 0.40), (0.45, 0.30, 0.22))[int(rng.integers(3))], "tiles")
    elif rng.random() < 0.3:
        floor = ((0.42, 0.37, 0.30), "carpet")
    if style == "bathroom":
        wall = (wall[0], "tiles")
    shell = _shell(size, wall, floor, ((0.80, 0.79, 0.77), "plaster"), rng)
    layout = Layout(size, rng, _accents(rng), len(shell) + 1)
    _door(layout)
    windows = _windows(layout, int(rng.integers(1, 3)), _uniform(rng, 0.9, 1.0))
    furnish(layout)
    _hang(layout, ["picture", "picture", "clock", "picture"][: int(rng.integers(2, 5))], 1.25, 1.55)
    lamp = _pendant(layout, (size[0] / 2, size[1] / 2))
    warm = np.array((1.04, 1.0, 0.92)) * _uniform(rng, 0.50, 0.62)
    lights = [_light(lamp, warm, max(size[0], size[1]) / 2)]
    lights += [_window_light(w, size, np.array((0.96, 1.0, 1.05)) * _uniform(rng, 0.42, 0.58)) for w in windows[:2]]
    ambient = _uniform(rng, 0.27, 0.34)
    return _finish("apartments", style, index, seed, size, shell, layout, lights, (ambient, ambient, ambient * 0.97))


def _pendant(layout: Layout, xy: tuple[float, float]) -> Triple:
    """A lamp under the ceiling; where its light comes from."""
    draft = layout.draft("ceiling lamp")
    z = layout.size[2] - float(draft.high[2]) - 0.002
    layout.place(draft, (xy[0], xy[1], z), 0.0)
    return xy[0], xy[1], z - 0.1


def _light(position: Triple, rgb: np.ndarray, reach_m: float) -> Light:
    return Light(position, (float(rgb[0]), float(rgb[1]), float(rgb[2])), reach_m)


def _window_light(window: Placed, size: Triple, rgb: np.ndarray) -> Light:
    """Daylight, as if from a point a little inside of the window."""
    centre = np.asarray(window.object.centre)
    inward = np.array([size[0] / 2, size[1] / 2, centre[2]]) - centre
    at = centre + 0.35 * inward / np.linalg.norm(inward)
    return _light((float(at[0]), float(at[1]), float(at[2]) + 0.3), rgb, 2.2)


def _finish(
    kind: str,
    style: str,
    index: int,
    seed: int,
    size: Triple,
    shell: list[Object],
    layout: Layout,
    lights: Sequence[Light],
    ambient: Triple,
) -> Room:
    objects = (*shell, *(p.object for p in layout.placed))
    return Room(kind, style, index, seed, size, objects, tuple(lights[:3]), ambient)


# ----------------------------------------------------------------------------------------------------- offices


def _desks(layout: Layout, count: int) -> None:
    for _ in range(count):
        draft = layout.draft("desk")
        desk = layout.against_wall(draft, clearance_m=0.1) if layout.chance(0.5) else layout.on_floor(draft, 0.6)
        if desk:
            _chairs(layout, desk, "office chair", 0.95)
            _workplace(layout, desk)


def _meeting(layout: Layout) -> None:
    for _ in range(2):
        table = layout.on_floor(layout.draft("table", size="large"), 0.7)
        if table:
            _chairs(layout, table, _choice(layout.rng, ("office chair", "chair")), 0.9, 0.8)
            _clutter(layout, table, ("laptop", "mug", "laptop", "bottle", "book"), 3, 6)
    _floor(layout, ["whiteboard"], 0.15)


def _lounge(layout: Layout) -> None:
    _walls(layout, ["sofa", "armchair", "armchair"])
    table = layout.on_floor(layout.draft("round table"), 0.5)
    if table:
        _chairs(layout, table, "chair", 0.8)
        _clutter(layout, table, ("mug", "laptop", "fruit bowl", "book"), 2, 4)


def _office(rng: np.random.Generator, index: int, seed: int) -> Room:
    style = _choice(rng, ("open-plan office", "open-plan office", "meeting room", "lounge"))
    size = (_uniform(rng, 4.8, 6.8), _uniform(rng, 4.4, 5.8), _uniform(rng, 2.8, 3.2))
    carpet = ((0.10, 0.13, 0.18), (0.17, 0.17, 0.17), (0.10, 0.15, 0.13), (0.20, 0.15, 0.13))[int(rng.integers(4))]
    wall: Triple = ((0.74, 0.75, 0.76), (0.66, 0.70, 0.74), (0.75, 0.74, 0.70))[int(rng.integers(3))]
    shell = _shell(size, (wall, "plaster"), (carpet, "carpet"), ((0.80, 0.81, 0.81), "tiles"), rng)
    layout = Layout(size, rng, _accents(rng), len(shell) + 1)
    _door(layout)
    windows = _windows(layout, int(rng.integers(1, 4)), 0.95)
    if style == "meeting room":
        _meeting(layout)
        _desks(layout, 1)
    elif style == "lounge":
        _lounge(layout)
        _desks(layout, 2)
    else:
        _desks(layout, int(rng.integers(3, 6)))
        _floor(layout, ["whiteboard"] if layout.chance(0.6) else [], 0.15)
    tall = ["filing cabinet", "bookshelf", "water cooler", "locker", "filing cabinet", "plant", "bookshelf"]
    for shelf in _walls(layout, rng.permutation(tall)[: int(rng.integers(4, 7))].tolist()):
        if shelf.object.kind == "filing cabinet":
            _clutter(layout, shelf, ("printer", "book", "plant", "cardboard box"), 1, 1)
        elif shelf.object.kind == "bookshelf":
            _clutter(layout, shelf, _SHELF_THINGS, 0, 1)
    for table in _walls(layout, ["table"] if layout.chance(0.35) else []):
        _clutter(layout, table, ("printer", "mug", "book", "cardboard box", "printer"), 2, 3)
    small = ["radiator", "fire extinguisher", "plant", "bin", "floor lamp", "suitcase", "cardboard box"]
    _walls(layout, rng.permutation(small)[: int(rng.integers(3, 6))].tolist())
    _floor(layout, ["bin", "plant", "cardboard box"][: int(rng.integers(1, 4))], 0.15)
    _hang(layout, ["clock", "picture", "picture"][: int(rng.integers(1, 4))], 1.35, 1.7)
    strength = np.array((0.97, 1.0, 1.03)) * _uniform(rng, 0.42, 0.50)
    lights = [_light((size[0] * f, size[1] / 2, size[2] - 0.15), strength, size[1] / 2) for f in (0.25, 0.75)]
    lights += [_window_light(w, size, np.array((0.96, 1.0, 1.05)) * 0.35) for w in windows[:1]]
    ambient = _uniform(rng, 0.32, 0.38)
    return _finish("offices", style, index, seed, size, shell, layout, lights, (ambient, ambient, ambient * 1.02))


# -------------------------------------------------------------------------------------------------- warehouses


def _stack(layout: Layout, base: Placed, kinds: Sequence[str], tries: int) -> None:
    """Goods on a deck or pallet, squarely, and more on top of cartons."""
    for surface in base.draft.surfaces:
        for _ in range(tries):
            draft = layout.draft(_choice(layout.rng, kinds))
            yaw = float(layout.rng.choice([0, 90, 180, -90])) + _uniform(layout.rng, -4, 4)
            placed = layout.on_top(draft, base, surface, yaw)
            if placed and placed.draft.surfaces and layout.chance(0.35):
                layout.on_top(layout.draft("cardboard box", size="small"), placed, placed.draft.surfaces[0], 0.0)


def _racks(layout: Layout, count: int) -> None:
    first = layout.draft("rack", size="medium")
    for i in range(count):
        draft = layout.draft("rack", first.colour if layout.chance(0.6) else None, size="medium")
        rack = layout.against_wall(draft, clearance_m=0.15) if i < 2 else layout.on_floor(draft, 1.0, (0, 90, 180, 270))
        if rack:
            _stack(layout, rack, ("cardboard box", "cardboard box", "crate", "toolbox", "oil can", "barrel"), 4)


def _warehouse(rng: np.random.Generator, index: int, seed: int) -> Room:
    style = _choice(rng, ("storage hall", "storage hall", "workshop"))
    if style == "workshop":
        size = (_uniform(rng, 6.5, 8.5), _uniform(rng, 5.5, 7.5), _uniform(rng, 3.6, 4.4))
    else:
        size = (_uniform(rng, 8.5, 11.5), _uniform(rng, 7.0, 9.5), _uniform(rng, 4.6, 5.8))
    look = _choice(rng, ("bricks", "corrugated", "concrete"))
    wall: Triple = {
        "bricks": (0.34, 0.20, 0.15),
        "corrugated": (0.38, 0.42, 0.46),
        "concrete": (0.44, 0.43, 0.41),
    }[look]
    shell = _shell(size, (wall, look), ((0.27, 0.27, 0.26), "concrete"), ((0.30, 0.31, 0.33), "corrugated"), rng)
    layout = Layout(size, rng, _accents(rng), len(shell) + 1)
    _door(layout)
    windows = _windows(layout, int(rng.integers(1, 3)), size[2] * 0.5)
    if style == "workshop":
        for bench in _walls(layout, ["workbench", "workbench", "workbench"][: int(rng.integers(2, 4))]):
            _clutter(
                layout, bench, ("toolbox", "mug", "oil can", "bottle", "laptop", "desk lamp", "cardboard box"), 2, 4
            )
        _racks(layout, 1)
        _walls(layout, ["locker", "stool"])
        _floor(layout, ["stool", "trolley"], 0.4)
    else:
        _racks(layout, int(rng.integers(3, 6)))
        _floor(layout, ["forklift"], 0.7)
        for bench in _walls(layout, ["workbench"] if layout.chance(0.4) else []):
            _clutter(layout, bench, ("toolbox", "oil can", "bottle"), 2, 3)
    for pallet in _floor(layout, ["pallet"] * int(rng.integers(1, 4)), 0.6):
        _stack(layout, pallet, ("cardboard box", "crate", "barrel", "cardboard box"), 4)
    for trolley in _floor(layout, ["trolley"] if layout.chance(0.7) else [], 0.5):
        _stack(layout, trolley, ("cardboard box", "crate", "toolbox"), 2)
    walls = [
        "barrel",
        "barrel",
        "fire extinguisher",
        "step ladder",
        "crate",
        "bin",
        "locker",
        "pallet",
        "filing cabinet",
        "oil can",
    ]
    _walls(layout, rng.permutation(walls)[: int(rng.integers(5, 8))].tolist())
    floor = [
        "barrel",
        "traffic cone",
        "traffic cone",
        "step ladder",
        "crate",
        "cardboard box",
        "toolbox",
        "oil can",
        "crate",
    ]
    _floor(layout, rng.permutation(floor)[: int(rng.integers(5, 8))].tolist(), 0.3)
    _hang(layout, ["clock"] if layout.chance(0.4) else [], 1.7, 2.1)
    tone = np.array(((1.0, 1.0, 0.94), (0.95, 1.0, 1.03))[int(rng.integers(2))]) * _uniform(rng, 0.52, 0.64)
    reach = size[2]
    lamps = [_pendant(layout, (size[0] * f, size[1] / 2)) for f in (0.28, 0.72)]
    lights = [_light(lamp, tone, reach) for lamp in lamps]
    lights += [_window_light(w, size, np.array((0.96, 1.0, 1.05)) * 0.3) for w in windows[:1]]
    ambient = _uniform(rng, 0.24, 0.31)
    return _finish("warehouses", style, index, seed, size, shell, layout, lights, (ambient, ambient, ambient))


_RECIPES: dict[str, Callable[[np.random.Generator, int, int], Room]] = {
    "apartments": _apartment,
    "offices": _office,
    "warehouses": _warehouse,
}

#: Names of the corpora.
CORPORA: tuple[str, ...] = tuple(_RECIPES)
