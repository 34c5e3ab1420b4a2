"""Builders of lamps, plants and the small things that stand about."""

from __future__ import annotations

import numpy as np

from liftgs.procedural.colours import BRIGHT
from liftgs.procedural.kit import CARD, DARK, OAK, PAPER, SOIL, STEEL, Kit, kind, turn


@kind("floor lamp", (*BRIGHT, "white"), ["fabric"])
def floor_lamp(k: Kit) -> None:
    """A wide glowing shade on a tall pole with a round foot."""
    h, r = k.vary(1.45, 1.65), k.vary(0.2, 0.25)
    k.rod((0, 0, 0.02), 0.16, 0.04, DARK, "metal")
    k.rod((0, 0, h / 2), 0.02, h - 0.1, DARK, "metal")
    k.rod((0, 0, h), r, 0.32, top=0.65, emission=0.45)


@kind("desk lamp", (*BRIGHT, "black", "white"), ["metal"])
def desk_lamp(k: Kit) -> None:
    """An arm in two sections from a round foot to a conical head that looks down."""
    k.rod((0, 0, 0.02), 0.1, 0.04)
    elbow = (0.0, 0.1, k.vary(0.26, 0.32))
    head = (0.0, -0.12, elbow[2] + k.vary(0.12, 0.18))
    k.bar((0, 0, 0.03), elbow, 0.02)
    k.bar(elbow, head, 0.02)
    k.ball(elbow, 0.03, STEEL, "metal")
    k.rod((0, head[1] - 0.03, head[2] - 0.02), 0.095, 0.14, rotation=turn("x", -25), top=0.35)
    k.ball((0, head[1] - 0.055, head[2] - 0.075), 0.05, (0.8, 0.75, 0.6), "plain", emission=0.9)


@kind("plant", ("green",), ["leaf"])
def plant(k: Kit) -> None:
    """Leaves fanning out of a pot."""
    r, pot, tall = k.vary(0.14, 0.18), k.vary(0.22, 0.28), k.vary(0.5, 0.85)
    k.rod((0, 0, pot / 2), r * 0.75, pot, k.other("white", "orange", "grey", "blue"), "ceramic", top=1.3)
    k.rod((0, 0, pot), r * 0.85, 0.02, SOIL, "concrete")
    n = k.pick(11, 13, 15)
    for i in range(n):
        lean = 12 + 48 * (i / n)
        rotation = turn("z", 137.5 * i) @ turn("x", lean)
        length = tall * (1.0 - 0.25 * i / n)
        at = rotation @ (0.0, 0.0, length / 2)
        k.ball((at[0], at[1], pot + at[2]), (0.075, 0.022, length / 2), rotation=rotation)


@kind("bin", (*BRIGHT, "grey", "black"), ["plastic"])
def bin_(k: Kit) -> None:
    """An open bucket, wider at the top, with a rim and dark inside."""
    r, h = k.vary(0.13, 0.16), k.vary(0.32, 0.42)
    k.rod((0, 0, h / 2), r * 0.78, h, top=1.28)
    k.rod((0, 0, h - 0.01), r * 1.07, 0.04)
    k.rod((0, 0, h + 0.006), r * 0.94, 0.012, DARK)


@kind("book", (*BRIGHT, "brown", "black"), ["paper"])
def book(k: Kit) -> None:
    """A lying book: covers in the named colour round a block of white pages, a label on the front."""
    w, d, t = k.vary(0.17, 0.21), k.vary(0.24, 0.29), k.vary(0.05, 0.075)
    k.box((0.006, 0, t / 2), (w - 0.012, d - 0.014, t - 0.024), PAPER, "paper")
    for z in (0.006, t - 0.006):
        k.box((0, 0, z), (w, d, 0.012))
    k.box((-w / 2 + 0.006, 0, t / 2), (0.012, d, t))
    k.box((0.01, d * 0.15, t), (w * 0.5, d * 0.16, 0.004), PAPER, "paper")


@kind("mug", (*BRIGHT, "white", "black"), ["ceramic"])
def mug(k: Kit) -> None:
    """A cup with coffee in it and an ear."""
    r, h = k.vary(0.05, 0.058), k.vary(0.11, 0.13)
    k.rod((0, 0, h / 2), r, h)
    k.rod((0, 0, h + 0.001), r * 0.84, 0.004, SOIL, "plain")
    for z in (h * 0.25, h * 0.78):
        k.box((r + 0.022, 0, z), (0.05, 0.026, 0.022))
    k.box((r + 0.046, 0, h * 0.515), (0.022, 0.026, h * 0.53 + 0.022))


@kind("bottle", (*BRIGHT, "black", "white", "brown"), ["plastic"])
def bottle(k: Kit) -> None:
    """Body, shoulder, neck, cap and a label."""
    r, h = k.vary(0.042, 0.052), k.vary(0.26, 0.32)
    k.rod((0, 0, h * 0.3), r, h * 0.6)
    k.rod((0, 0, h * 0.3), r * 1.03, h * 0.2, PAPER, "paper")
    k.rod((0, 0, h * 0.69), r, h * 0.18, top=0.4)
    k.rod((0, 0, h * 0.85), r * 0.4, h * 0.16)
    k.rod((0, 0, h * 0.965), r * 0.48, h * 0.07, DARK)


@kind("fruit bowl", (*BRIGHT, "white", "brown"), ["ceramic"])
def fruit_bowl(k: Kit) -> None:
    """A wide bowl on a foot, with fruit heaped in it."""
    r = k.vary(0.15, 0.19)
    k.rod((0, 0, 0.015), r * 0.45, 0.03)
    k.rod((0, 0, 0.075), r * 0.5, 0.1, top=2.0)
    for i in range(k.pick(4, 5, 6)):
        a = np.radians(72 * i + 20)
        ring = 0.0 if i == 5 else r * 0.5
        at = (ring * float(np.cos(a)), ring * float(np.sin(a)), 0.14 if ring else 0.18)
        k.ball(at, k.vary(0.036, 0.044), k.other("red", "orange", "yellow", "green"), "plastic")


@kind("laptop", ("grey", "black", "white", "blue", "pink"), ["metal"])
def laptop(k: Kit) -> None:
    """A flat base with dark keys and a lid leaning back whose screen glows."""
    w, d = k.vary(0.34, 0.4), k.vary(0.24, 0.27)
    k.box((0, 0, 0.015), (w, d, 0.03))
    k.box((0, d * 0.14, 0.031), (w * 0.84, d * 0.42, 0.006), DARK)
    lean = turn("x", -k.vary(10, 22))
    at = lean @ (0.0, 0.0, d / 2)
    k.box((at[0], d / 2 + at[1], 0.03 + at[2]), (w, 0.03, d), rotation=lean)
    face = lean @ (0.0, -0.015, d / 2)
    k.box(
        (face[0], d / 2 + face[1], 0.03 + face[2]),
        (w * 0.9, 0.006, d * 0.84),
        texture="screen",
        rotation=lean,
        emission=0.4,
    )


@kind("keyboard", ("black", "white", "grey", "blue", "red"), ["plastic"])
def keyboard(k: Kit) -> None:
    """A slab with rows of keys."""
    w, d = k.vary(0.46, 0.52), k.vary(0.17, 0.2)
    k.box((0, 0, 0.015), (w, d, 0.03))
    r, g, b = k.main
    tint = (r * 0.7, g * 0.7, b * 0.7) if r + g + b > 0.2 else (r * 3, g * 3, b * 3)
    for row in range(4):
        keys = (11, 10, 11, 5)[row]
        step = (w - 0.05) / keys
        for i in range(keys):
            wide = step - 0.011
            k.box((-w / 2 + 0.025 + step * (i + 0.5), d * (0.3 - 0.2 * row), 0.034), (wide, d * 0.15, 0.014), tint)


@kind("teddy bear", ("brown", "white", "pink", "grey", "yellow"), ["fabric"])
def teddy_bear(k: Kit) -> None:
    """Sits: belly, head with ears and snout, arms and legs."""
    k.ball((0, 0, 0.15), (0.12, 0.1, 0.14))
    k.ball((0, -0.01, 0.35), (0.105, 0.095, 0.1))
    k.ball((0, -0.1, 0.33), 0.042, PAPER, "fabric")
    k.ball((0, -0.14, 0.345), 0.014, DARK)
    for s in (-1, 1):
        k.ball((s * 0.085, 0, 0.44), 0.042)
        k.ball((s * 0.038, -0.092, 0.375), 0.014, DARK)
        k.ball((s * 0.14, -0.05, 0.2), (0.045, 0.045, 0.095), rotation=turn("y", s * 35) @ turn("x", 25))
        k.ball((s * 0.1, -0.13, 0.055), (0.055, 0.11, 0.055), rotation=turn("z", s * 20))


@kind("ball", BRIGHT, ["plastic"])
def ball(k: Kit) -> None:
    """A beach ball: the named colour with white caps and a belt."""
    r = k.vary(0.13, 0.18)
    z = r * 1.02  # the belt is a little wider than the ball
    k.ball((0, 0, z), r)
    # The caps stand out: the axis leans so far that they do not reach the floor.
    tilt = turn("z", k.vary(-180, 180)) @ turn("x", k.vary(50, 80))
    k.rod((0, 0, z), r * 1.012, 0.05, PAPER, "plastic", tilt)
    for s in (-1, 1):
        at = tilt @ (0.0, 0.0, s * r * 0.93)
        k.rod((at[0], at[1], z + at[2]), r * 0.42, r * 0.16, PAPER, "plastic", tilt)


@kind("guitar", ("brown", "red", "orange", "black", "blue"), ["wood"])
def guitar(k: Kit) -> None:
    """A body of two bouts with a hole and a bridge, a long neck and a head, leaning back on a stand."""
    lean = turn("x", -12)

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        p = lean @ (x, y, z)
        return float(p[0]), float(p[1]), float(p[2])

    flat = lean @ turn("x", 90)
    k.rod(at(0, 0, 0.24), (0.2, 0.18), 0.09, rotation=flat)
    k.rod(at(0, 0, 0.46), (0.145, 0.14), 0.09, rotation=flat)
    k.rod(at(0, -0.045, 0.38), 0.055, 0.012, DARK, rotation=flat)
    k.box(at(0, -0.05, 0.2), (0.14, 0.02, 0.03), DARK, rotation=lean)
    k.box(at(0, -0.055, 0.68), (0.05, 0.035, 0.62), OAK, "wood", lean)
    k.box(at(0, -0.05, 1.03), (0.085, 0.035, 0.15), rotation=lean)
    for x in (-0.13, 0.13):
        k.bar((x, -0.1, 0.012), (x * 0.6, 0.2, 0.3), 0.014, DARK)


@kind("suitcase", (*BRIGHT, "black", "grey"), ["plastic"])
def suitcase(k: Kit) -> None:
    """A ribbed upright case on wheels with a telescopic handle."""
    w, d, h = k.vary(0.4, 0.46), k.vary(0.23, 0.27), k.vary(0.55, 0.65)
    k.box((0, 0, 0.07 + h / 2), (w, d, h))
    for i in range(5):
        k.box(((i - 2) * w / 5.5, 0, 0.07 + h / 2), (0.035, d + 0.03, h - 0.06))
    for s in (-1, 1):
        for y in (-1, 1):
            k.ball((s * (w / 2 - 0.05), y * (d / 2 - 0.05), 0.035), 0.035, DARK)
        k.rod((s * 0.1, d / 2 - 0.05, 0.07 + h + 0.14), 0.014, 0.28, STEEL, "metal")
    k.box((0, d / 2 - 0.05, 0.07 + h + 0.29), (0.26, 0.04, 0.035), DARK)


@kind("cardboard box", ("brown",), ["cardboard"])
def cardboard_box(k: Kit) -> None:
    """A carton with tape along the top, sometimes with open flaps, and a label."""
    w, d, h = k.vary(0.34, 0.56), k.vary(0.3, 0.42), k.vary(0.24, 0.42)
    r, g, b = CARD
    f = k.vary(0.53, 0.68)
    card = (r * f, g * f, b * f)
    k.box((0, 0, h / 2), (w, d, h), card, "cardboard")
    if k.pick(0, 1):
        k.box((0, 0, h + 0.003), (w + 0.006, 0.06, 0.008), (0.62, 0.5, 0.3), "paper")
        k.box((w / 2 + 0.002, 0, h * 0.85), (0.006, 0.06, h * 0.3), (0.62, 0.5, 0.3), "paper")
    else:
        k.box((0, 0, h + 0.003), (w - 0.03, d - 0.03, 0.006), SOIL, "plain")
        for s in (-1, 1):
            k.box((0, s * (d / 2 + 0.055), h + 0.055), (w, 0.02, 0.16), card, "cardboard", turn("x", -s * 48))
            k.box((s * (w / 2 + 0.055), 0, h + 0.055), (0.02, d, 0.16), card, "cardboard", turn("y", s * 48))
    k.box((-w * 0.2, -d / 2 - 0.002, h * 0.55), (w * 0.3, 0.006, h * 0.3), PAPER, "paper")
    k.surface(0, 0, h + 0.01, w - 0.1, d - 0.1)


@kind("ceiling lamp", (*BRIGHT, "white", "black"), ["metal"])
def ceiling_lamp(k: Kit) -> None:
    """A bell-shaped shade with a bulb on a cord, its lowest point at z = 0."""
    r, h = k.vary(0.22, 0.28), k.vary(0.2, 0.26)
    k.rod((0, 0, h / 2 + 0.03), r, h, top=0.3)
    k.rod((0, 0, 0.03), r * 1.02, 0.035)
    k.ball((0, 0, 0.035), (r * 0.75, r * 0.75, 0.035), (0.9, 0.85, 0.7), "plain", emission=1.0)
    k.rod((0, 0, h + 0.2), 0.018, 0.4, DARK)
    k.rod((0, 0, h + 0.38), 0.06, 0.04, DARK)
