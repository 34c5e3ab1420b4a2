"""Sweeps whose multiplier is known, to check what the statistics say of them.

The scratch curve is a saturating power law, which measured learning curves follow well (Hestness et al. 2017, Deep
Learning Scaling is Predictable, Empirically). The pretrained curve is the same one, at m times the labels. A run's
score is the curve's value plus deviations: of the run, in part due to its labels and then shared by both arms; of the
scene, which is hard for all networks; of the scene for an arm at a ratio; and of the run's own luck with the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from liftgs.scaling.arms import Arm


@dataclass(frozen=True)
class World:
    """How runs come out. Scores are shares, all deviations are standard deviations and normal.

    Attributes:
        multiplier: what the pretraining is worth, at every ratio.
        top: score with endless labels.
        bottom: score from scratch at ratio .1.
        exponent: how fast the curve saturates: what is missing to `top` falls with ratio ** -exponent.
        seed_sd: of a run, with all scenes there are.
        seed_slope: a run's deviation goes with ratio ** -seed_slope.
        label_share: of the run's variance, what is due to its labels.
        scene_sd: of scenes, for all networks.
        arm_scene_sd: of scenes, for all runs of an arm at a ratio.
        run_scene_sd: of scenes, for one run.
        scenes: evaluated.
    """

    multiplier: float = 2.0
    top: float = 0.6
    bottom: float = 0.2
    exponent: float = 0.7
    seed_sd: float = 0.015
    seed_slope: float = 0.0
    label_share: float = 0.3
    scene_sd: float = 0.2
    arm_scene_sd: float = 0.05
    run_scene_sd: float = 0.15
    scenes: int = 100

    def curve(self, ratios: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Expected scores from scratch."""
        return self.top - (self.top - self.bottom) * (ratios / 0.1) ** -self.exponent


def simulate(
    world: World,
    ratios: tuple[float, ...],
    pretrained_ratios: tuple[float, ...],
    seeds: int,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Arm, Arm]:
    """The runs of one sweep.

    Args:
        world: what is true.
        ratios: of the runs from scratch.
        pretrained_ratios: of the pretrained runs; each among `ratios`.
        seeds: of both arms.
        resamples: of the scenes.
        rng: what chance is taken from.

    Returns:
        Scratch and pretrained arm.
    """
    times = rng.multinomial(world.scenes, np.full(world.scenes, 1 / world.scenes), size=resamples)
    weights = np.vstack([np.ones(world.scenes), times]) / world.scenes
    hardness = world.scene_sd * rng.normal(size=world.scenes)
    labels = {ratio: rng.normal(size=seeds) for ratio in ratios}
    arms = []
    for own, multiplier in ((ratios, 1.0), (pretrained_ratios, world.multiplier)):
        r = np.array(own)
        shape = (len(r), seeds)
        run = np.sqrt(world.label_share) * np.stack([labels[ratio] for ratio in own])
        run += np.sqrt(1 - world.label_share) * rng.normal(size=shape)
        mean = world.curve(multiplier * r)[:, None] + world.seed_sd * r[:, None] ** -world.seed_slope * run
        scenes = hardness + world.arm_scene_sd * rng.normal(size=(len(r), 1, world.scenes))
        scenes = scenes + world.run_scene_sd * rng.normal(size=(*shape, world.scenes))
        arms.append(Arm(r, (mean[..., None] + scenes) @ weights.T))
    return arms[0], arms[1]
