"""Builders of kitchen and bathroom fittings and of things on walls."""

from __future__ import annotations

from liftgs.procedural.colours import BRIGHT
from liftgs.procedural.kit import DARK, GLASS, OAK, PAPER, STEEL, Kit, kind, turn


@kind("fridge", ("white", "grey", "red", "blue", "black"), ["metal"])
def fridge(k: Kit) -> None:
    """A tall box with a freezer door over a large door, and upright handles."""
    w, d, h = k.vary(0.62, 0.7), k.vary(0.62, 0.68), k.vary(1.65, 1.85)
    split = h * k.vary(0.62, 0.7)
    k.box((0, 0.03, 0.04), (w - 0.06, d - 0.1, 0.08), DARK)
    k.box((0, 0.02, (h + 0.08) / 2), (w, d - 0.06, h - 0.08))
    for low, high in ((0.1, split - 0.015), (split + 0.015, h - 0.02)):
        k.box((0, -d / 2, (low + high) / 2), (w - 0.01, 0.07, high - low))
    x = w / 2 - 0.07
    k.rod((-x, -d / 2 - 0.06, split - 0.25), 0.02, 0.4, STEEL, "metal")
    k.rod((-x, -d / 2 - 0.06, split + 0.18), 0.02, 0.25, STEEL, "metal")


@kind("stove", ("white", "black", "grey", "red"), ["metal"])
def stove(k: Kit) -> None:
    """Four burners on top, knobs, and an oven door with a window and a bar."""
    w, d, h = k.vary(0.58, 0.64), k.vary(0.58, 0.62), k.vary(0.86, 0.9)
    k.box((0, 0, h / 2), (w, d, h))
    for x in (-1, 1):
        for y in (-1, 1):
            k.rod((x * w / 4, y * d / 4, h + 0.015), 0.095, 0.035, DARK, "metal")
            k.rod((x * w / 4, y * d / 4, h + 0.025), 0.045, 0.04, STEEL, "metal")
    k.box((0, d / 2 - 0.03, h + 0.09), (w, 0.06, 0.18))
    for i in range(5):
        k.rod((w * (i - 2) / 6, -d / 2 - 0.015, h - 0.08), 0.028, 0.04, DARK, rotation=turn("x", 90))
    k.box((0, -d / 2 - 0.015, h * 0.42), (w - 0.06, 0.04, h * 0.56))
    k.box((0, -d / 2 - 0.03, h * 0.38), (w - 0.24, 0.03, h * 0.28), DARK)
    k.bar((-w / 2 + 0.08, -d / 2 - 0.06, h * 0.64), (w / 2 - 0.08, -d / 2 - 0.06, h * 0.64), 0.018, STEEL, "metal")


@kind("sink", ("white", "grey", "brown", "blue", "green"), ["wood"])
def sink(k: Kit) -> None:
    """A cupboard with a sunken basin on top and an arched tap."""
    w, d, h = k.vary(0.8, 1.0), k.vary(0.56, 0.62), k.vary(0.84, 0.9)
    k.box((0, 0, 0.04), (w - 0.06, d - 0.08, 0.08), DARK)
    k.box((0, 0, (h - 0.04) / 2 + 0.04), (w, d, h - 0.12))
    for x in (-1, 1):
        k.box((x * w / 4, -d / 2 - 0.01, h / 2), (w / 2 - 0.04, 0.035, h - 0.22))
        k.box((x * 0.07, -d / 2 - 0.04, h * 0.62), (0.03, 0.03, 0.16), STEEL, "metal")
    bw, bd = w * 0.55, d * 0.6
    for s in (-1, 1):
        k.box((s * (w + bw) / 4, 0, h), (w / 2 - bw / 2, d, 0.06), PAPER, "ceramic")
        k.box((0, s * (d + bd) / 4, h), (bw, d / 2 - bd / 2, 0.06), PAPER, "ceramic")
    k.box((0, 0, h - 0.025), (bw, bd, 0.02), STEEL, "metal")
    y = bd / 2 + 0.04
    k.rod((0, y, h + 0.14), 0.022, 0.24, STEEL, "metal")
    k.bar((0, y, h + 0.26), (0, y - 0.2, h + 0.28), 0.02, STEEL, "metal")
    k.rod((0, y - 0.2, h + 0.24), 0.02, 0.08, STEEL, "metal")


@kind("toilet", ("white", "pink", "grey", "blue", "green"), ["ceramic"])
def toilet(k: Kit) -> None:
    """A bowl on a foot, a lid, and a tank behind with a button."""
    k.rod((0, -0.06, 0.1), (0.14, 0.2), 0.2)
    k.rod((0, -0.1, 0.28), (0.13, 0.19), 0.2, top=1.5)
    k.rod((0, -0.1, 0.40), (0.21, 0.3), 0.05)
    h = k.vary(0.36, 0.42)
    k.box((0, 0.27, 0.36 + h / 2), (0.44, 0.2, h))
    k.box((0, 0.27, 0.38 + h), (0.47, 0.23, 0.05))
    k.box((0, 0.27, 0.18), (0.24, 0.18, 0.36))
    k.rod((0, 0.27, 0.415 + h), 0.035, 0.03, STEEL, "metal")
    k.rod((0, 0.105, 0.56), (0.19, 0.25), 0.045, rotation=turn("x", 82))


@kind("bathtub", ("white", "pink", "blue", "grey", "green"), ["ceramic"])
def bathtub(k: Kit) -> None:
    """A long tub with rounded ends, a rim, water in it and a tap."""
    w, d, h = k.vary(1.55, 1.75), k.vary(0.72, 0.8), k.vary(0.52, 0.58)
    k.box((0, 0, 0.07), (w - 0.16, d - 0.16, 0.14))
    for s in (-1, 1):
        k.box((0, s * (d / 2 - 0.05), h / 2 + 0.04), (w, 0.10, h - 0.08))
        k.box((s * (w / 2 - 0.06), 0, h / 2 + 0.04), (0.12, d - 0.2, h - 0.08))
        k.bar((-w / 2, s * (d / 2 - 0.05), h), (w / 2, s * (d / 2 - 0.05), h), 0.06)
        k.bar((s * (w / 2 - 0.05), -d / 2 + 0.05, h), (s * (w / 2 - 0.05), d / 2 - 0.05, h), 0.06)
    k.box((0, 0, h * 0.55), (w - 0.22, d - 0.18, 0.03), GLASS, "ceramic")
    x = w / 2 - 0.08
    k.rod((x, 0.12, h + 0.14), 0.025, 0.2, STEEL, "metal")
    k.bar((x, 0.12, h + 0.22), (x - 0.16, 0.12, h + 0.2), 0.022, STEEL, "metal")


@kind("washing machine", ("white", "grey", "black"), ["metal"])
def washing_machine(k: Kit) -> None:
    """A cube with a round porthole, a drawer and a dial."""
    w, d, h = k.vary(0.58, 0.62), k.vary(0.52, 0.58), k.vary(0.82, 0.88)
    k.box((0, 0, h / 2), (w, d, h))
    flat = turn("x", 90)
    k.rod((0, -d / 2 - 0.015, h * 0.45), w * 0.34, 0.05, STEEL, "metal", flat)
    k.rod((0, -d / 2 - 0.03, h * 0.45), w * 0.25, 0.05, DARK, "ceramic", flat)
    k.box((-w * 0.26, -d / 2 - 0.01, h - 0.09), (w * 0.4, 0.03, 0.1), STEEL)
    k.rod((w * 0.2, -d / 2 - 0.02, h - 0.09), 0.05, 0.05, DARK, rotation=flat)
    k.surface(0, 0, h, w - 0.12, d - 0.12)


@kind("radiator", ("white", "grey", "black"), ["metal"])
def radiator(k: Kit) -> None:
    """A row of upright ribs between two pipes, on feet."""
    n, h = k.pick(9, 11, 13), k.vary(0.55, 0.65)
    for i in range(n):
        k.box(((i - (n - 1) / 2) * 0.075, 0, 0.1 + h / 2), (0.045, 0.10, h))
    w = n * 0.075
    for z in (0.16, h + 0.03):
        k.bar((-w / 2 - 0.03, 0, z), (w / 2 + 0.03, 0, z), 0.028)
    for x in (-1, 1):
        k.box((x * (w / 2 - 0.1), 0, 0.06), (0.05, 0.08, 0.12))


@kind("window", ("white",), ["wood"])
def window(k: Kit) -> None:
    """Bright panes in a frame with a cross and a sill; hangs on a wall, its foot at z = 0."""
    w, h = k.vary(1.1, 1.5), k.vary(1.15, 1.35)
    k.box((0, 0.03, h / 2), (w, 0.02, h), (0.75, 0.85, 0.95), "plain", emission=0.75)
    for s in (-1, 1):
        k.box((s * (w / 2 - 0.035), 0, h / 2), (0.07, 0.07, h))
    for z in (0.035, h - 0.035):
        k.box((0, 0, z), (w, 0.07, 0.07))
    k.box((0, 0, h * 0.62), (w - 0.1, 0.06, 0.045))
    k.box((0, 0, h / 2), (0.045, 0.06, h - 0.1))
    k.box((0, -0.05, -0.02), (w + 0.12, 0.18, 0.04))


@kind("door", ("brown", "white", "grey", "red", "green", "blue", "yellow"), ["wood"])
def door(k: Kit) -> None:
    """A leaf with panels and a handle in a frame."""
    w, h = k.vary(0.84, 0.94), k.vary(2.0, 2.08)
    k.box((0, 0.02, h / 2), (w, 0.04, h))
    for low, high in ((0.15, 0.9), (1.08, h - 0.15)):
        k.box((0, 0, (low + high) / 2), (w - 0.3, 0.035, high - low))
    for s in (-1, 1):
        k.box((s * (w / 2 + 0.035), 0, (h + 0.07) / 2), (0.07, 0.08, h + 0.07), PAPER, "painted")
    k.box((0, 0, h + 0.035), (w, 0.08, 0.07), PAPER, "painted")
    k.ball((w / 2 - 0.08, -0.03, 1.0), 0.038, STEEL, "metal")
    k.box((w / 2 - 0.08, 0, 1.0), (0.05, 0.03, 0.2), STEEL, "metal")


@kind("picture", (*BRIGHT, "black"), ["paper"])
def picture(k: Kit) -> None:
    """A painting in a frame, its foot at z = 0."""
    w = k.vary(0.55, 1.0)
    h = k.vary(0.5, 0.75)
    frame = (OAK, DARK, (0.6, 0.45, 0.12))[k.pick(0, 1, 2)]
    k.box((0, 0.012, h / 2), (w - 0.06, 0.02, h - 0.06), texture="art")
    for s in (-1, 1):
        k.box((s * (w / 2 - 0.02), 0, h / 2), (0.04, 0.045, h), frame, "wood")
        k.box((0, 0, h / 2 + s * (h / 2 - 0.02)), (w, 0.045, 0.04), frame, "wood")


@kind("clock", (*BRIGHT, "white", "black"), ["plastic"])
def clock(k: Kit) -> None:
    """A round face with a rim, twelve marks and two hands, its foot at z = 0."""
    r = k.vary(0.17, 0.22)
    flat = turn("x", 90)
    ink = PAPER if sum(k.main) < 0.6 else DARK
    k.rod((0, 0.012, r), r, 0.024, DARK if ink is PAPER else STEEL, "metal", flat)
    k.rod((0, 0, r), r * 0.92, 0.035, rotation=flat)
    for i in range(12):
        a = turn("y", 30.0 * i)
        at = a @ (0.0, 0.0, r * 0.76)
        k.box((at[0], -0.016, r + at[2]), (0.022, 0.012, 0.05), ink, rotation=a)
    for length, wide in ((r * 0.42, 0.034), (r * 0.62, 0.026)):
        a = turn("y", k.vary(0, 360))
        at = a @ (0.0, 0.0, length / 2)
        k.box((at[0], -0.022, r + at[2]), (wide, 0.012, length), ink, rotation=a)
