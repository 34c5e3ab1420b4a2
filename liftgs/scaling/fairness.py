"""When a multiplier must not be believed, in plain sentences.

Pretrained networks start ahead. With too few finetuning steps, scratch has not caught up where it could: its curve is
low, flat or falling, and read backwards it makes any pretraining look like many times the labels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from liftgs.scaling.arms import Arm
from liftgs.scaling.compare import compare
from liftgs.scaling.curve import isotonic
from liftgs.scaling.estimate import DRAWS, LEVEL, from_draws
from liftgs.scaling.resample import resample


def warnings(
    scratch: Arm,
    pretrained: Arm,
    scratch_plateau: Bool[np.ndarray, "ratios seeds"],
    pretrained_plateau: Bool[np.ndarray, "other seeds1"],
    same_compute: Arm | None = None,
    name: str = "pretraining",
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> list[str]:
    """What stands against the multipliers of these arms; empty if nothing does.

    Args:
        scratch: the runs that make the scratch curve.
        pretrained: the runs that are read against it.
        scratch_plateau: whether each run of `scratch` stopped because it no longer improved; of missing runs, anything.
        pretrained_plateau: the same of `pretrained`.
        same_compute: runs from scratch with as many steps as pretraining and finetuning have together, if there are.
        name: of the pretraining.
        draws: of the bootstrap.
        seed: of the bootstrap.
        level: of its intervals; a fall or a lead counts if its interval is clear of 0.

    Raises:
        ValueError: a plateau table of another shape than its arm's runs, or arms of different resamples.
    """
    sound = sound_up_to(scratch, scratch_plateau)
    ends = f" that end beyond ratio {sound:g}" if sound > 0 else ""
    so = f"so its curve is too low there and multipliers{ends} are too large"
    found = _unfinished("scratch", scratch, scratch_plateau, so)
    found += _unfinished(name, pretrained, pretrained_plateau, "so its multipliers may be too small")
    found += _shape(scratch, resample(scratch, pretrained, draws, seed)[0], level)
    if same_compute is not None:
        found += _compute(scratch, pretrained, same_compute, name, draws, seed, level)
    return found


def sound_up_to(scratch: Arm, plateau: Bool[np.ndarray, "ratios seeds"]) -> float:
    """Up to which ratio the scratch curve rests on finished runs.

    A multiplier m at ratio r that ends at or before it, r m <= this ratio, is not too large for unfinished runs: they
    make the curve too low beyond it; up to it they make the cubic's slope there too small, which leaves the curve, if
    anything, too high. A level that is pooled with one of unfinished runs, as it was above it, counts with those.

    Args:
        scratch: the runs that make the curve.
        plateau: as in `warnings`.

    Returns:
        A ratio of `scratch`; inf if all runs finished, 0 if not even the least ratio is sound.
    """
    short = _short("scratch", scratch, plateau) > 0
    if not short.any():
        return float("inf")
    pooled = isotonic(scratch.means[None], scratch.seeds)[0] < scratch.means - 1e-12
    last = int(short.argmax()) - 1
    while last >= 0 and pooled[last]:
        last -= 1
    return float(scratch.ratios[last]) if last >= 0 else 0.0


def _short(name: str, arm: Arm, plateau: Bool[np.ndarray, "ratios seeds"]) -> Int[np.ndarray, " ratios"]:
    """How many runs of each ratio did not finish."""
    if plateau.shape != arm.ran.shape:
        raise ValueError(f"{name}: plateaus of shape {plateau.shape} for runs of shape {arm.ran.shape}")
    count: Int[np.ndarray, " ratios"] = (arm.ran & ~plateau).sum(axis=1)
    return count


def _unfinished(name: str, arm: Arm, plateau: Bool[np.ndarray, "ratios seeds"], so: str) -> list[str]:
    short = _short(name, arm, plateau)
    where = [
        f"{count} of {runs} at ratio {ratio:g}"
        for ratio, count, runs in zip(arm.ratios, short, arm.seeds, strict=True)
        if count
    ]
    if not where:
        return []
    return [f"Runs of {name} ended before any plateau was seen ({', '.join(where)}), {so}; give finetuning more steps."]


def _shape(scratch: Arm, drawn: Float[np.ndarray, "draws ratios"], level: float) -> list[str]:
    """The scratch curve before it is made monotone: where more labels did harm, or no measurable good."""
    found = []
    for i in range(len(scratch.ratios) - 1):
        between = f"from ratio {scratch.ratios[i]:g} to {scratch.ratios[i + 1]:g}"
        rise = from_draws(float(scratch.means[i + 1] - scratch.means[i]), drawn[:, i + 1] - drawn[:, i], level)
        if rise.high < 0:
            found.append(
                f"Scratch falls {between}, beyond what seeds and scenes explain: more labels do not hurt a network at "
                "its plateau, so it is under-trained there."
            )
        elif rise.low <= 0 or rise.value <= 0:
            found.append(
                f"Scratch does not measurably rise {between}: multipliers that end there say little. More seeds or "
                "scenes would tell a saturated curve from an under-trained one."
            )
    if np.isnan(drawn).any():
        found.append("Only one seed at every ratio: nothing is known of how far chance moves these figures.")
    return found


def _compute(
    scratch: Arm, pretrained: Arm, same_compute: Arm, name: str, draws: int, seed: int, level: float
) -> list[str]:
    found = []
    for ratio in same_compute.ratios.tolist():
        if pretrained.has(ratio):
            ahead = compare(pretrained, same_compute, [ratio], draws, seed, level).difference
            gain = f"what {name} gains over scratch with the same finetuning steps"
            if ahead.low > 0:
                found.append(
                    f"At ratio {ratio:g}, scratch with more compute scores higher: {gain} is compute, not data."
                )
            elif ahead.value >= 0:
                found.append(f"At ratio {ratio:g}, scratch with more compute scores no lower: {gain} may be compute.")
        if scratch.has(ratio) and compare(scratch, same_compute, [ratio], draws, seed, level).difference.low > 0:
            found.append(
                f"At ratio {ratio:g}, scratch scores higher with more steps, so the scratch curve is under-trained and "
                "multipliers are too large."
            )
    return found
