"""How many actors label, and what each reserves: which stages share a process, and what the cluster has room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from liftgs_platform.label_stages import STAGES


@dataclass(frozen=True)
class PoolSpec:
    """A pool of actors that run one or several stages.

    Attributes:
        min: fewest actors.
        max: most actors; null = as many as the cluster's CPUs (or GPUs, if `num_gpus` > 0) allow, kept from the start.
        num_cpus: CPUs that one actor reserves.
        num_gpus: GPUs that one actor reserves, e.g. 0.5 to share one; 0 = the stage runs on the CPU.
        threads: of one actor's computation. Labels from a CPU are the same, bit by bit, for equal `threads`.
    """

    min: int = 1
    max: int | None = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.min < 1 or (self.max is not None and self.max < self.min) or self.threads < 1:
            raise ValueError(f"need 1 <= min <= max and threads >= 1, not min={self.min}, max={self.max}")
        if self.num_cpus < 0 or self.num_gpus < 0:
            raise ValueError("num_cpus and num_gpus must not be negative")


@dataclass(frozen=True)
class ScaleSpec:
    """Where the stages run; see `jobs/scale/`.

    Attributes:
        pools: stages -> their pool. A name joins the stages that share one process with "+": "embed+caption". Together
            the names are load, segment, embed, caption, commit, in this order. Empty: a pool of one actor for each.
    """

    pools: dict[str, PoolSpec] = field(default_factory=dict)

    @property
    def layout(self) -> dict[str, PoolSpec]:
        """The pools, with the default filled in."""
        return self.pools or {stage: PoolSpec() for stage in STAGES}

    def __post_init__(self) -> None:
        named = [stage for name in self.pools for stage in name.split("+")]
        if self.pools and named != list(STAGES):
            raise ValueError(
                f"pools must name {', '.join(STAGES)} in this order, once each; they are {', '.join(named)}"
            )


def build_pools(
    scale: ScaleSpec, caption_python: str, build: Mapping[str, Any], resources: Mapping[str, float]
) -> list[Any]:
    """The pools; those of no stated size get as many actors as the cluster has room for.

    Args:
        scale: which there are.
        caption_python: interpreter of a pool for captions alone; "" = as all others.
        build: stage -> what makes it in an actor; stages without are left out.
        resources: of the cluster.
    """
    from liftgs_platform.label_pool import Pool  # noqa: PLC0415

    pools = []
    for name, pool in scale.layout.items():
        least, most = pool.min, pool.max
        if most is None:
            kind, each = ("GPU", pool.num_gpus) if pool.num_gpus > 0 else ("CPU", pool.num_cpus)
            least = most = max(pool.min, int(resources.get(kind, 0) / each) if each else pool.min)
        stages = {stage: build[stage] for stage in name.split("+") if stage in build}
        if not stages:
            continue
        python = caption_python if name == "caption" else ""
        pools.append(Pool(name, stages, least, most, pool.num_cpus, pool.num_gpus, pool.threads, python))
    return pools


def shortage(pools: Iterable[Any], resources: Mapping[str, float]) -> str:
    """What the smallest pools reserve and the cluster has not, or "". Ray would wait for it without a word."""
    needed = {"CPU": sum(p.min * p.num_cpus for p in pools), "GPU": sum(p.min * p.num_gpus for p in pools)}
    return ", ".join(
        f"the pools reserve {number:g} {kind}s and the cluster has {resources.get(kind, 0):g}"
        for kind, number in needed.items()
        if number > resources.get(kind, 0) + 1e-6
    )
