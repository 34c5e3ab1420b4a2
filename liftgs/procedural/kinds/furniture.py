"""Builders of what people sit at, lie on and put things into."""

from __future__ import annotations

from liftgs.procedural.colours import BRIGHT
from liftgs.procedural.kit import DARK, OAK, PAPER, STEEL, Kit, kind, turn

_PAINTED = ("brown", "white", "black", *BRIGHT)
_CLOTH = (*BRIGHT, "grey", "brown", "white")


@kind("chair", _PAINTED, ["wood", "plastic"])
def chair(k: Kit) -> None:
    """Seat, back with slats or a panel, four legs."""
    w, d, h, top = k.vary(0.42, 0.48), k.vary(0.42, 0.47), k.vary(0.44, 0.48), k.vary(0.88, 1.0)
    k.legs(w, d, h, 0.045)
    k.box((0, 0, h + 0.025), (w, d, 0.05))
    y = d / 2 - 0.025
    for x in (-w / 2 + 0.025, w / 2 - 0.025):
        k.box((x, y, (h + 0.05 + top) / 2), (0.045, 0.045, top - h - 0.05))
    if k.pick(0, 1):
        for z in (top - 0.05, top - 0.22):
            k.box((0, y, z), (w - 0.08, 0.035, 0.10))
    else:
        for x in (-0.11, 0.0, 0.11):
            k.box((x, y, (h + top) / 2), (0.04, 0.035, top - h - 0.08))
        k.box((0, y, top - 0.04), (w - 0.08, 0.04, 0.08))


@kind("office chair", ("black", "grey", *BRIGHT), ["fabric", "leather"])
def office_chair(k: Kit) -> None:
    """Cushions and arms on a gas column over a five-star base with castors."""
    w, h = k.vary(0.46, 0.52), k.vary(0.46, 0.50)
    for i in range(5):
        r = turn("z", 72 * i + 18)
        reach = r @ (0.26, 0, 0)
        k.box((reach[0] / 2, reach[1] / 2, 0.095), (0.28, 0.05, 0.04), DARK, rotation=r)
        k.ball((reach[0], reach[1], 0.04), 0.04, DARK)
    k.rod((0, 0, (h + 0.1) / 2), 0.03, h - 0.1, STEEL, "metal")
    k.box((0, 0, h + 0.04), (w, w, 0.09))
    k.box((0, w / 2 - 0.02, h + 0.12), (0.08, 0.04, 0.16), DARK)
    back = k.vary(0.48, 0.62)
    k.box((0, w / 2, h + 0.15 + back / 2), (w * 0.94, 0.08, back), rotation=turn("x", -6))
    for x in (-1, 1):
        k.box((x * (w / 2 + 0.03), 0.02, h + 0.12), (0.04, 0.05, 0.2), DARK)
        k.box((x * (w / 2 + 0.03), -0.02, h + 0.24), (0.06, 0.28, 0.04), DARK)


def _upholstery(k: Kit, width: float, seats: int) -> None:
    d, h, arm = k.vary(0.80, 0.90), k.vary(0.40, 0.46), k.vary(0.14, 0.2)
    k.legs(width - 0.1, d - 0.1, 0.08, 0.06, DARK, "wood")
    k.box((0, 0, 0.08 + (h - 0.2) / 2), (width, d, h - 0.2))
    inner = width - 2 * arm
    for i in range(seats):
        w = inner / seats
        x = -inner / 2 + w * (i + 0.5)
        k.box((x, -0.06, h - 0.04), (w - 0.02, d - 0.14, 0.16))
        k.box((x, d / 2 - 0.22, h + 0.2), (w - 0.03, 0.14, 0.36), rotation=turn("x", -10))
    k.box((0, d / 2 - 0.07, 0.1 + k.vary(0.32, 0.36)), (width, 0.14, 0.68))
    for x in (-1, 1):
        k.box((x * (width - arm) / 2, 0, 0.33), (arm, d, 0.5))
    k.surface(0, -0.1, h + 0.04, inner - 0.2, 0.35)


@kind("sofa", _CLOTH, ["fabric", "leather"])
def sofa(k: Kit) -> None:
    """Two or three seats between arms."""
    seats = k.pick(2, 3)
    _upholstery(k, k.vary(1.55, 1.7) if seats == 2 else k.vary(1.95, 2.2), seats)
    k.box(
        (k.vary(-0.5, 0.5), 0.0, 0.6), (0.38, 0.12, 0.3), k.other("white", "orange", "blue"), "fabric", turn("x", -25)
    )


@kind("armchair", _CLOTH, ["fabric", "leather"])
def armchair(k: Kit) -> None:
    """One wide seat between thick arms."""
    _upholstery(k, k.vary(0.84, 0.95), 1)


@kind("bed", _CLOTH, ["fabric"])
def bed(k: Kit) -> None:
    """Frame, mattress, cover in the named colour, pillows, headboard."""
    w, d = k.vary(1.0, 1.65), k.vary(1.95, 2.05)
    head = k.vary(0.85, 1.05)
    k.box((0, d / 2 - 0.03, head / 2), (w + 0.08, 0.06, head), OAK, "wood")
    k.box((0, -d / 2 + 0.03, 0.2), (w + 0.06, 0.06, 0.4), OAK, "wood")
    k.box((0, 0, 0.2), (w + 0.02, d - 0.1, 0.2), OAK, "wood")
    k.box((0, 0, 0.38), (w - 0.02, d - 0.14, 0.18), PAPER, "fabric")
    k.box((0, -0.2, 0.40), (w + 0.06, d - 0.50, 0.24))
    pillows = 2 if w > 1.3 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * w / 2
        k.ball((x, d / 2 - 0.28, 0.53), (0.3, 0.18, 0.1), PAPER, "fabric")
    k.surface(0, -0.3, 0.52, w - 0.2, d - 0.9)


@kind("table", _PAINTED, ["wood"])
def table(k: Kit) -> None:
    """A rectangular top on four legs with an apron."""
    w, d, h = k.vary(1.2, 1.7), k.vary(0.75, 0.9), k.vary(0.72, 0.76)
    k.box((0, 0, h - 0.025), (w, d, 0.05))
    k.legs(w - 0.06, d - 0.06, h - 0.05, 0.07)
    for s in (-1, 1):
        k.box((0, s * (d / 2 - 0.07), h - 0.1), (w - 0.2, 0.035, 0.1))
        k.box((s * (w / 2 - 0.07), 0, h - 0.1), (0.035, d - 0.2, 0.1))
    k.surface(0, 0, h, w - 0.1, d - 0.1)
    for x in (-w / 4, w / 4):
        k.seat(x, -d / 2 - 0.1, 180)
        k.seat(x, d / 2 + 0.1, 0)


@kind("round table", _PAINTED, ["wood"])
def round_table(k: Kit) -> None:
    """A round top on one column with a round foot."""
    r, h = k.vary(0.42, 0.55), k.vary(0.68, 0.75)
    k.rod((0, 0, h - 0.025), r, 0.05)
    k.rod((0, 0, h / 2), 0.055, h - 0.05)
    k.rod((0, 0, 0.025), r * 0.62, 0.05, top=0.8)
    k.surface(0, 0, h, r * 1.25, r * 1.25)
    for yaw, x, y in ((180, 0.0, -1.0), (0, 0.0, 1.0), (-90, 1.0, 0.0), (90, -1.0, 0.0)):
        k.seat(x * (r + 0.16), y * (r + 0.16), yaw)


@kind("desk", _PAINTED, ["wood"])
def desk(k: Kit) -> None:
    """A top over a block of drawers on one side and a panel on the other."""
    w, d, h = k.vary(1.25, 1.6), k.vary(0.66, 0.78), k.vary(0.72, 0.76)
    side = k.pick(-1, 1)
    k.box((0, 0, h - 0.025), (w, d, 0.05))
    x = side * (w / 2 - 0.23)
    k.box((x, 0.03, (h - 0.05) / 2), (0.42, d - 0.08, h - 0.05))
    drawers = k.pick(3, 4)
    for i in range(drawers):
        dz = (h - 0.1) / drawers
        z = 0.03 + dz * (i + 0.5)
        k.box((x, -d / 2 + 0.065, z), (0.38, 0.03, dz - 0.03))
        k.box((x, -d / 2 + 0.035, z), (0.14, 0.03, 0.03), STEEL, "metal")
    k.box((-side * (w / 2 - 0.03), 0, (h - 0.05) / 2), (0.05, d - 0.04, h - 0.05))
    k.box((-side * 0.2, d / 2 - 0.05, h - 0.25), (w - 0.5, 0.035, 0.4))
    k.surface(0, 0, h, w - 0.1, d - 0.1)
    k.seat(-side * 0.2, -d / 2 - 0.12, 180)


@kind("bookshelf", ("brown", "white", "black", "red", "blue", "green", "grey"), ["wood"])
def bookshelf(k: Kit) -> None:
    """Sides, back and boards, with rows of books and gaps for things."""
    w, d, boards = k.vary(0.8, 1.1), k.vary(0.30, 0.36), k.pick(4, 5)
    gap = k.vary(0.34, 0.38)
    h = boards * gap + 0.04
    for side in (-1, 1):
        k.box((side * (w / 2 - 0.02), 0, h / 2), (0.04, d, h))
    k.box((0, d / 2 - 0.015, h / 2), (w - 0.08, 0.03, h))
    for i in range(boards + 1):
        z = i * gap + 0.02
        k.box((0, 0, z), (w, d, 0.04))
        if i == boards:
            continue
        x = -w / 2 + 0.05
        end = x + (w - 0.1) * k.vary(0.25, 0.55)
        while x < end:
            thick, tall = k.vary(0.04, 0.07), k.vary(0.18, 0.27)
            k.box(
                (x + thick / 2, 0.0, z + 0.02 + tall / 2),
                (thick - 0.005, 0.2, tall),
                k.other(*BRIGHT, "white"),
                "paper",
            )
            x += thick
        if w / 2 - x > 0.25:
            k.surface((x + w / 2) / 2, -0.01, z + 0.021, w / 2 - x - 0.1, 0.2)


@kind("wardrobe", ("brown", "white", "black", "green", "blue"), ["wood"])
def wardrobe(k: Kit) -> None:
    """A tall cupboard with two doors, a cornice and a plinth."""
    w, d, h = k.vary(1.0, 1.3), k.vary(0.55, 0.62), k.vary(1.85, 2.05)
    k.box((0, 0, 0.05), (w - 0.08, d - 0.08, 0.1), DARK, "wood")
    k.box((0, 0, (h + 0.1) / 2), (w, d, h - 0.1))
    k.box((0, -0.015, h + 0.03), (w + 0.08, d + 0.07, 0.06))
    for x in (-1, 1):
        k.box((x * w / 4, -d / 2 - 0.015, h / 2 + 0.05), (w / 2 - 0.05, 0.04, h - 0.24))
        k.box((x * w / 4, -d / 2 - 0.03, h * 0.72), (w / 2 - 0.22, 0.03, h * 0.34))
        k.box((x * w / 4, -d / 2 - 0.03, h * 0.30), (w / 2 - 0.22, 0.03, h * 0.30))
        k.rod((x * 0.05, -d / 2 - 0.055, h * 0.5), 0.022, 0.24, STEEL, "metal")


@kind("nightstand", ("brown", "white", "black", "grey", "pink", "yellow"), ["wood"])
def nightstand(k: Kit) -> None:
    """A small box on legs: one drawer with a knob over an open shelf."""
    w, d, h = k.vary(0.42, 0.5), k.vary(0.38, 0.42), k.vary(0.5, 0.58)
    k.legs(w - 0.02, d - 0.02, 0.16, 0.045)
    for z in (0.16, h - 0.2, h):
        k.box((0, 0, z), (w, d, 0.04))
    for x in (-1, 1):
        k.box((x * (w / 2 - 0.018), 0, (h + 0.16) / 2), (0.036, d - 0.01, h - 0.16))
    k.box((0, d / 2 - 0.02, (h + 0.16) / 2), (w, 0.035, h - 0.16))
    k.box((0, -0.01, h - 0.1), (w - 0.09, d - 0.03, 0.15))
    k.ball((0, -d / 2 - 0.02, h - 0.1), 0.028, STEEL, "metal")
    k.surface(0, 0, h + 0.02, w - 0.06, d - 0.06)


@kind("stool", _PAINTED, ["wood", "fabric"])
def stool(k: Kit) -> None:
    """A round seat on splayed legs with a ring of rungs."""
    r, h = k.vary(0.17, 0.2), k.vary(0.46, 0.62)
    k.rod((0, 0, h - 0.04), r, 0.08)
    foot, mid = r + 0.02, r * 0.92
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        f, t = foot * 0.8, r * 0.6
        k.bar((ax * f, ay * f, 0.006), (ax * t, ay * t, h - 0.08), 0.022)
        m = mid * 0.72
        k.bar((ax * m, ay * m, h * 0.38), (bx * m, by * m, h * 0.38), 0.016)


@kind("rug", BRIGHT, ["carpet"])
def rug(k: Kit) -> None:
    """A flat rectangle with a border, a field of stripes and fringes."""
    w, d = k.vary(1.3, 1.9), k.vary(0.85, 1.2)
    r, g, b = k.main
    k.box((0, 0, 0.008), (w, d, 0.016), (r * 0.8, g * 0.8, b * 0.8))
    k.box((0, 0, 0.013), (w - 0.24, d - 0.24, 0.018), texture="stripes")
    for x in (-1, 1):
        k.box((x * (w / 2 + 0.03), 0, 0.006), (0.06, d - 0.04, 0.012), PAPER, "fabric")
