"""The driver that test_chaos.py kills: labels SOURCE into CORPUS with quick teachers, as a submitted job would.

Usage: python chaos_driver.py SOURCE CORPUS SECONDS_PER_FRAME, with RAY_ADDRESS set.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
import tiny

from liftgs.chunks import ChunkingConfig
from liftgs_platform import pseudolabel
from liftgs_platform.job import Job
from liftgs_platform.label_scale import PoolSpec, ScaleSpec
from liftgs_platform.pseudolabel import Spec


def spec_of(source: str, corpus: str) -> Spec:
    """Four actors, which Ray spreads over the nodes, so that each has work to lose; any node has room for two."""
    half = PoolSpec(num_cpus=0.5)
    pools = {"load": half, "segment": PoolSpec(min=2, max=2, num_cpus=0.5), "embed+caption+commit": half}
    return Spec(source, corpus, chunking=ChunkingConfig(frames_per_chunk=2), chunks_per_shard=1, scale=ScaleSpec(pools))


def use_one_revision() -> None:
    """Name the code the same all along, though somebody may edit it while a test runs."""
    pseudolabel.code_revision = lambda: "chaos"  # type: ignore[assignment]


def main(source: str, corpus: str, seconds: str) -> None:
    ray.cloudpickle.register_pickle_by_value(tiny)
    use_one_revision()
    original = pseudolabel.factories
    pseudolabel.factories = lambda spec, plans: tiny.with_quick_teachers(original(spec, plans), float(seconds))
    pseudolabel.run(spec_of(source, corpus), Job(Path("jobs/pseudolabel.yaml")))


if __name__ == "__main__":
    main(*sys.argv[1:])
