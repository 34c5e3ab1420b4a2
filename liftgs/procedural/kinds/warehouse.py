"""Builders of what warehouses and workshops have."""

from __future__ import annotations

from liftgs.procedural.colours import BRIGHT
from liftgs.procedural.kit import DARK, PAPER, STEEL, Kit, kind, turn


@kind("rack", ("blue", "orange", "red", "green", "yellow", "grey"), ["metal"])
def rack(k: Kit) -> None:
    """Pallet racking: four posts, beams, decks that carry goods, and crossed braces at the ends."""
    w, d, levels = k.vary(1.9, 2.4), k.vary(0.8, 0.95), k.pick(3, 4)
    gap = k.vary(0.85, 1.0)
    h = (levels - 1) * gap + 0.45
    k.legs(w, d, h, 0.09)
    for i in range(levels):
        z = 0.14 + i * gap
        for s in (-1, 1):
            k.box((0, s * (d / 2 - 0.045), z), (w - 0.18, 0.07, 0.13))
        k.box((0, 0, z + 0.045), (w - 0.18, d - 0.16, 0.04))
        k.surface(0, 0, z + 0.0655, w - 0.3, d - 0.12)
    for x in (-1, 1):
        for i in range(levels - 1):
            z = 0.25 + i * gap
            k.bar((x * (w / 2 - 0.045), -d / 2 + 0.08, z), (x * (w / 2 - 0.045), d / 2 - 0.08, z + gap * 0.8), 0.022)


@kind("pallet", ("brown", "blue"), ["wood"])
def pallet(k: Kit) -> None:
    """Deck slats over three runners over bottom slats."""
    w, d = 1.2, k.vary(0.8, 1.0)
    for i in range(3):
        k.box(((i - 1) * (w / 2 - 0.05), 0, 0.07), (0.1, d, 0.08))
        k.box((0, (i - 1) * (d / 2 - 0.06), 0.015), (w, 0.12, 0.03))
    for i in range(6):
        k.box((0, (i - 2.5) * (d - 0.11) / 5, 0.127), (w, 0.11, 0.034))
    k.surface(0, 0, 0.145, w - 0.06, d - 0.06)


@kind("crate", ("brown", "red", "blue", "green", "yellow"), ["wood"])
def crate(k: Kit) -> None:
    """A box of slats with corner posts; dark inside."""
    w, d, n = k.vary(0.55, 0.75), k.vary(0.42, 0.55), k.pick(3, 4)
    h = n * 0.14 + 0.02
    k.box((0, 0, h * 0.45), (w - 0.09, d - 0.09, h * 0.86), DARK, "wood")
    for x in (-1, 1):
        for y in (-1, 1):
            k.box((x * (w / 2 - 0.045), y * (d / 2 - 0.045), h / 2), (0.07, 0.07, h))
    for i in range(n):
        z = 0.065 + 0.14 * i
        for s in (-1, 1):
            k.box((0, s * (d / 2 - 0.015), z), (w, 0.03, 0.105))
            k.box((s * (w / 2 - 0.015), 0, z), (0.03, d - 0.06, 0.105))


@kind("barrel", (*BRIGHT, "black", "grey"), ["metal"])
def barrel(k: Kit) -> None:
    """A steel drum with rims, two hoops and bungs."""
    r, h = k.vary(0.28, 0.31), k.vary(0.82, 0.92)
    k.rod((0, 0, h / 2), r, h - 0.02)
    for z in (0.02, h * 0.34, h * 0.66, h - 0.02):
        k.rod((0, 0, z), r + 0.022, 0.04)
    for x in (-0.5, 0.5):
        k.rod((x * r, 0, h), 0.035, 0.03, STEEL, "metal")


@kind("forklift", ("orange", "yellow", "red", "blue", "green"), ["metal"])
def forklift(k: Kit) -> None:
    """Body with counterweight, cage, seat, mast, forks and wheels."""
    w = k.vary(0.95, 1.05)
    k.box((0, 0.35, 0.5), (w, 1.2, 0.5))
    k.box((0, 0.8, 0.82), (w - 0.06, 0.36, 0.3))
    k.box((0, -0.15, 0.42), (w - 0.04, 0.3, 0.3))
    for x in (-1, 1):
        for y, r in ((-0.2, 0.24), (0.72, 0.21)):
            k.rod((x * (w / 2 - 0.07), y, r), r, 0.2, DARK, "leather", turn("y", 90))
            k.rod((x * (w / 2 + 0.02), y, r), r * 0.5, 0.06, STEEL, "metal", turn("y", 90))
        k.box((x * 0.34, -0.44, 0.98), (0.11, 0.11, 1.86), STEEL, "metal")
        k.box((x * 0.22, -0.98, 0.09), (0.12, 0.95, 0.05), STEEL, "metal")
        k.box((x * (w / 2 - 0.05), -0.2, 1.22), (0.06, 0.06, 1.0))
        k.box((x * (w / 2 - 0.05), 0.8, 1.34), (0.06, 0.06, 0.8))
    k.box((0, 0.3, 1.75), (w, 1.12, 0.06))
    for z in (0.3, 1.1, 1.85):
        k.box((0, -0.44, z), (0.72, 0.06, 0.1), STEEL, "metal")
    k.box((0, -0.52, 0.36), (0.8, 0.05, 0.5))
    k.box((0, 0.28, 0.82), (0.46, 0.44, 0.14), DARK, "leather")
    k.box((0, 0.5, 1.08), (0.44, 0.12, 0.46), DARK, "leather")


@kind("step ladder", (*BRIGHT, "grey"), ["metal"])
def step_ladder(k: Kit) -> None:
    """An A of two frames: treads on the front one, struts on the back one, a platform on top."""
    h, foot = k.vary(1.3, 1.6), 0.3
    spread = h * 0.34
    for x in (-1, 1):
        k.bar((x * foot, -spread, 0.012), (x * 0.2, 0, h), 0.028)
        k.bar((x * foot, spread, 0.012), (x * 0.2, 0, h), 0.022)
    treads = 5
    for i in range(1, treads):
        f = i / treads
        k.box((0, -spread * (1 - f), h * f), (2 * (foot + (0.2 - foot) * f), 0.1, 0.035))
    for f in (0.3, 0.65):
        y = spread * (1 - f)
        k.bar((-foot * (1 - f) - 0.2 * f, y, h * f), (foot * (1 - f) + 0.2 * f, y, h * f), 0.018)
    k.box((0, 0, h + 0.02), (0.46, 0.22, 0.05))


@kind("traffic cone", ("orange", "red", "yellow", "green"), ["plastic"])
def traffic_cone(k: Kit) -> None:
    """A cone on a square foot with a white band."""
    h, r = k.vary(0.5, 0.65), k.vary(0.13, 0.16)
    k.box((0, 0, 0.02), (r * 2.6, r * 2.6, 0.04))
    k.rod((0, 0, 0.04 + h / 2), r, h, top=0.22)
    for low, high in ((0.55, 0.75),):
        bottom, top = (r * (1 - 0.78 * f) + 0.004 for f in (low, high))
        k.rod((0, 0, 0.04 + h * (low + high) / 2), bottom, h * (high - low), PAPER, "plastic", top=top / bottom)


@kind("fire extinguisher", ("red",), ["metal"])
def fire_extinguisher(k: Kit) -> None:
    """A bottle with a valve, two levers, a gauge and a hose down its side."""
    r, h = k.vary(0.085, 0.1), k.vary(0.42, 0.5)
    k.rod((0, 0, 0.02), r * 1.06, 0.04, DARK)
    k.rod((0, 0, h / 2), r, h)
    k.ball((0, 0, h), (r, r, 0.07))
    k.box((0, -r, h * 0.55), (r * 1.1, 0.02, h * 0.28), PAPER, "paper")
    k.rod((0, 0, h + 0.09), 0.032, 0.08, STEEL, "metal")
    k.box((0.05, 0, h + 0.15), (0.2, 0.034, 0.03), DARK, rotation=turn("y", -18))
    k.box((0.05, 0, h + 0.105), (0.18, 0.034, 0.026), DARK)
    k.bar((-0.02, 0, h + 0.11), (-r - 0.04, 0, h - 0.02), 0.018, DARK)
    k.bar((-r - 0.04, 0, h - 0.02), (-r - 0.045, 0, h * 0.3), 0.018, DARK)
    k.rod((-r - 0.045, 0, h * 0.22), 0.032, 0.12, DARK, top=0.5)


@kind("workbench", ("brown", "green", "blue", "red", "grey"), ["wood"])
def workbench(k: Kit) -> None:
    """A thick top on stout legs with a lower shelf, a vise, and a board of tools behind."""
    w, d, h = k.vary(1.5, 1.9), k.vary(0.65, 0.75), k.vary(0.84, 0.9)
    k.box((0, 0, h - 0.05), (w, d, 0.1))
    k.legs(w - 0.08, d - 0.06, h - 0.1, 0.1)
    k.box((0, 0, 0.22), (w - 0.1, d - 0.12, 0.05))
    k.box((0, d / 2 - 0.025, h + 0.35), (w, 0.04, 0.7))
    for i in range(6):
        x = w * (i - 2.5) / 6.6
        long = k.vary(0.18, 0.3)
        k.box((x, d / 2 - 0.06, h + 0.58 - long / 2), (0.04, 0.035, long), k.other("red", "yellow", "black"))
        k.box((x, d / 2 - 0.06, h + 0.58), (k.vary(0.08, 0.15), 0.035, 0.05), STEEL, "metal")
    x = w / 2 - 0.18
    k.box((x, -d / 2 + 0.08, h + 0.06), (0.16, 0.2, 0.12), STEEL, "metal")
    k.box((x, -d / 2 - 0.06, h + 0.05), (0.16, 0.06, 0.14), STEEL, "metal")
    k.bar((x - 0.14, -d / 2 - 0.12, h + 0.02), (x + 0.14, -d / 2 - 0.12, h + 0.02), 0.016, DARK)
    k.surface(-0.12, -0.08, h, w - 0.5, d - 0.32)
    k.surface(0, 0, 0.246, w - 0.35, d - 0.3)


@kind("toolbox", ("red", "blue", "yellow", "green", "black", "orange"), ["metal"])
def toolbox(k: Kit) -> None:
    """A chest with a ridged lid, two latches and a bar handle between posts."""
    w, d, h = k.vary(0.42, 0.5), k.vary(0.2, 0.24), k.vary(0.16, 0.2)
    k.box((0, 0, h / 2), (w, d, h))
    k.box((0, 0, h + 0.025), (w + 0.02, d + 0.02, 0.05))
    k.box((0, 0, h + 0.065), (w * 0.86, d * 0.6, 0.035))
    for s in (-1, 1):
        k.box((s * w * 0.3, -d / 2 - 0.015, h), (0.05, 0.025, 0.08), STEEL, "metal")
        k.box((s * w * 0.3, 0, h + 0.115), (0.035, 0.035, 0.09), DARK)
    k.bar((-w * 0.34, 0, h + 0.165), (w * 0.34, 0, h + 0.165), 0.02, DARK)


@kind("trolley", ("blue", "red", "green", "yellow", "grey"), ["metal"])
def trolley(k: Kit) -> None:
    """A platform on four wheels with a push bar at one end."""
    w, d, h = k.vary(0.95, 1.15), k.vary(0.58, 0.66), k.vary(0.88, 0.98)
    k.box((0, 0, 0.2), (w, d, 0.07))
    for side in (-1, 1):
        for y in (-1, 1):
            k.rod((side * (w / 2 - 0.14), y * (d / 2 - 0.08), 0.08), 0.08, 0.05, DARK, "leather", turn("x", 90))
    x = w / 2 - 0.04
    for y in (-1, 1):
        k.rod((x, y * (d / 2 - 0.05), (0.22 + h) / 2), 0.026, h - 0.22)
    for z in (h, 0.62):
        k.bar((x, -d / 2 + 0.05, z), (x, d / 2 - 0.05, z), 0.028)
    k.surface(-0.08, 0, 0.236, w - 0.3, d - 0.1)


@kind("oil can", ("red", "green", "yellow", "blue"), ["metal"])
def oil_can(k: Kit) -> None:
    """A jerrycan: flat body with an X pressed into it, three bars as a handle and a slanting spout."""
    w, d, h = k.vary(0.32, 0.36), k.vary(0.15, 0.18), k.vary(0.38, 0.44)
    k.box((0, 0, h / 2), (w, d, h))
    for s in (-1, 1):
        for tilt in (-1, 1):
            k.box((0, s * d / 2, h / 2), (w * 0.95, 0.02, 0.035), rotation=turn("y", tilt * 48))
    for y in (-0.05, 0.0, 0.05):
        k.bar((-w * 0.2, y, h + 0.055), (w * 0.22, y, h + 0.055), 0.014)
    for x in (-0.2, 0.22):
        k.box((x * w, 0, h + 0.025), (0.03, 0.13, 0.06))
    k.bar((-w * 0.34, 0, h - 0.02), (-w * 0.5, 0, h + 0.1), 0.034, DARK)
