"""Builders of what offices have."""

from __future__ import annotations

from liftgs.procedural.colours import BRIGHT
from liftgs.procedural.kit import DARK, GLASS, PAPER, STEEL, Kit, kind, turn


@kind("monitor", ("black", "blue", "grey", "white"), ["plastic"])
def monitor(k: Kit) -> None:
    """A wide screen with a bezel on a column and a foot."""
    w, h = k.vary(0.52, 0.66), k.vary(0.32, 0.38)
    z = 0.16 + h / 2
    k.box((0, 0, 0.0125), (0.24, 0.19, 0.025), DARK)
    k.box((0, 0.04, 0.13), (0.06, 0.04, 0.22), DARK)
    k.box((0, 0, z), (w, 0.045, h), DARK)
    k.box((0, -0.022, z + 0.005), (w - 0.045, 0.008, h - 0.05), texture="screen", emission=0.5)
    k.box((0, 0.022, z), (w - 0.06, 0.02, h - 0.06))


@kind("printer", ("white", "grey", "black", "blue"), ["plastic"])
def printer(k: Kit) -> None:
    """A block with a sloping paper tray behind, a slot with paper in front and a panel."""
    w, d, h = k.vary(0.44, 0.52), k.vary(0.36, 0.42), k.vary(0.24, 0.32)

    k.box((0, 0, h / 2), (w, d, h))
    k.box((0, 0, h + 0.02), (w * 0.86, d * 0.7, 0.05))
    k.box((0, d / 2 - 0.02, h + 0.1), (w * 0.62, 0.035, 0.26), rotation=turn("x", -20))
    k.box((0, d / 2 - 0.05, h + 0.11), (w * 0.5, 0.012, 0.24), PAPER, "paper", turn("x", -20))
    k.box((0, -d / 2 - 0.002, h * 0.45), (w * 0.7, 0.02, h * 0.3), DARK)
    k.box((0, -d / 2 - 0.07, h * 0.38), (w * 0.56, 0.16, 0.02), PAPER, "paper")
    k.box((w * 0.3, -d / 2 + 0.06, h + 0.05), (0.13, 0.08, 0.02), (0.05, 0.3, 0.5), "plain", emission=0.5)


@kind("water cooler", ("white", "grey", "black", "blue"), ["plastic"])
def water_cooler(k: Kit) -> None:
    """A narrow stand with two taps and a drip tray, a bottle upside down on top."""
    w, h = k.vary(0.32, 0.36), k.vary(0.95, 1.05)
    k.box((0, 0, h / 2), (w, w, h))
    k.box((0, -w / 2 - 0.005, h * 0.72), (w * 0.7, 0.02, h * 0.22), DARK)
    k.box((0, -w / 2 - 0.05, h * 0.62), (w * 0.66, 0.1, 0.03), STEEL)
    for x, rgb in ((-0.06, (0.5, 0.02, 0.02)), (0.06, (0.02, 0.1, 0.5))):
        k.box((x, -w / 2 - 0.04, h * 0.76), (0.035, 0.06, 0.05), rgb)
    k.rod((0, 0, h + 0.035), 0.06, 0.07, GLASS, "ceramic", top=2.2)
    k.rod((0, 0, h + 0.2), 0.132, 0.26, (0.25, 0.45, 0.62), "ceramic")
    k.rod((0, 0, h + 0.2), 0.137, 0.04, (0.2, 0.4, 0.6), "ceramic")
    k.rod((0, 0, h + 0.345), 0.132, 0.03, (0.25, 0.45, 0.62), "ceramic", top=0.8)


@kind("whiteboard", ("white", "green", "black"), ["plastic"])
def whiteboard(k: Kit) -> None:
    """A large board in a metal frame on an inverted-T stand with a pen tray."""
    w, h, low = k.vary(1.2, 1.6), k.vary(0.85, 1.0), k.vary(0.72, 0.82)
    k.box((0, 0, low + h / 2), (w, 0.035, h))
    for s in (-1, 1):
        k.box((0, 0, low + h / 2 + s * h / 2), (w + 0.04, 0.05, 0.045), STEEL, "metal")
        x = s * (w / 2 + 0.01)
        k.box((x, 0, (low + h) / 2), (0.045, 0.05, low + h), STEEL, "metal")
        k.box((x, 0, 0.04), (0.05, 0.5, 0.045), DARK)
    k.box((0, -0.06, low - 0.02), (w * 0.5, 0.1, 0.03), STEEL, "metal")
    ink = DARK if sum(k.main) > 1 else PAPER
    for i in range(5):
        rgb = (ink, k.other("red"), k.other("blue"))[k.pick(0, 0, 1, 2)]
        long = k.vary(0.2, 0.55) * w * 0.7
        k.box((-w * 0.4 + long / 2, -0.019, low + h * (0.85 - 0.15 * i)), (long, 0.004, 0.026), rgb, "plain")
    k.box((w * 0.25, -0.019, low + h * 0.35), (w * 0.22, 0.004, h * 0.3), k.other(*BRIGHT), "plain")


@kind("filing cabinet", ("grey", "black", "white", "green", "blue", "red"), ["metal"])
def filing_cabinet(k: Kit) -> None:
    """A narrow tower of drawers with handles and label holders."""
    w, d, n = k.vary(0.44, 0.5), k.vary(0.5, 0.6), k.pick(3, 4)
    dz = k.vary(0.3, 0.34)
    h = n * dz + 0.06
    k.box((0, 0, h / 2), (w, d, h))
    for i in range(n):
        z = 0.04 + dz * (i + 0.5)
        k.box((0, -d / 2 - 0.012, z), (w - 0.05, 0.035, dz - 0.035))
        k.box((0, -d / 2 - 0.045, z), (0.18, 0.035, 0.035), STEEL, "metal")
        k.box((0, -d / 2 - 0.03, z + 0.085), (0.12, 0.012, 0.05), PAPER, "paper")
    k.surface(0, 0, h, w - 0.08, d - 0.1)


@kind("locker", (*BRIGHT, "grey"), ["metal"])
def locker(k: Kit) -> None:
    """Two or three narrow full-height doors with vents and locks."""
    n, d, h = k.pick(2, 3), k.vary(0.45, 0.5), k.vary(1.75, 1.9)
    step = k.vary(0.3, 0.36)
    w = n * step + 0.04
    k.legs(w, d, 0.12, 0.05, DARK)
    k.box((0, 0, 0.12 + (h - 0.12) / 2), (w, d, h - 0.12))
    for i in range(n):
        x = (i - (n - 1) / 2) * step
        k.box((x, -d / 2 - 0.01, 0.12 + (h - 0.12) / 2), (step - 0.035, 0.03, h - 0.2))
        for j in range(4):
            k.box((x, -d / 2 - 0.024, h - 0.22 - 0.06 * j), (step * 0.55, 0.012, 0.026), DARK)
            k.box((x, -d / 2 - 0.024, 0.3 + 0.06 * j), (step * 0.55, 0.012, 0.026), DARK)
        k.box((x + step * 0.3, -d / 2 - 0.04, h * 0.52), (0.035, 0.04, 0.12), STEEL, "metal")
