"""The driver that test_elastic.py kills: pretrains on Ray as a submitted job would, slowly, and notes what was seen.

Usage: python elastic_driver.py SPEC TRACE SECONDS_PER_STEP, with RAY_ADDRESS set. SPEC is a job file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from liftgs.pretraining.items import Item
from liftgs.training.world import World
from liftgs_platform import pretrain
from liftgs_platform import spec as specs
from liftgs_platform.job import Job
from liftgs_platform.pretrain import Pretraining, Spec


@dataclass(frozen=True)
class Traced(Pretraining):
    """Steps take at least so long, and leave a file for each place of the batch with the key of the sample there."""

    trace: str = ""
    seconds: float = 0.0

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Any:
        """A `Trainer` with that done before each step."""
        learner: Any = super().learner(device, checkpoint, world)
        step = learner.step

        def traced(items: Sequence[Item | None]) -> dict[str, float]:
            time.sleep(self.seconds)
            places = [place for unit in world.places(self.batch_size) for place in unit]
            for place, item in zip(places, items, strict=True):
                (Path(self.trace) / f"{learner.steps_done:04d}-{place}").write_text(item.key if item else "")
            return dict(step(items))

        learner.step = traced
        return learner


def main(file: str, trace: str, seconds: str) -> None:
    """Run the job."""
    import elastic_driver

    ray.cloudpickle.register_pickle_by_value(elastic_driver)
    spec = specs.build(Spec, yaml.safe_load(Path(file).read_text()), file)
    pretrain.Pretraining = lambda spec: elastic_driver.Traced(spec, trace, float(seconds))  # type: ignore[assignment,misc]
    pretrain.run(spec, Job(Path(file)))


if __name__ == "__main__":
    main(*sys.argv[1:])
