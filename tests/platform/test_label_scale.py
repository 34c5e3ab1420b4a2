"""The pools of a labelling job, and what a cluster lacks for them."""

from __future__ import annotations

from liftgs_platform.label_scale import PoolSpec, ScaleSpec, build_pools, shortage
from liftgs_platform.label_stages import STAGES

BUILD = dict.fromkeys(STAGES, lambda before: None)


def test_pools_that_the_cluster_has_no_room_for_are_told() -> None:
    scale = ScaleSpec(
        {
            "load": PoolSpec(num_cpus=0.2),
            "segment": PoolSpec(min=2, max=2, num_cpus=0.3),
            "embed+caption": PoolSpec(num_cpus=0.3),
            "commit": PoolSpec(num_cpus=0.2),
        }
    )
    pools = build_pools(scale, "", BUILD, {"CPU": 1.0})
    assert [(pool.name, pool.min, pool.max) for pool in pools][1] == ("segment", 2, 2)
    assert shortage(pools, {"CPU": 2.0}) == ""
    assert shortage(pools, {"CPU": 1.0}) == "the pools reserve 1.3 CPUs and the cluster has 1"


def test_pools_without_a_size_fill_the_cluster() -> None:
    scale = ScaleSpec({"load+segment+embed+caption+commit": PoolSpec(1, None, 2.0)})
    (pool,) = build_pools(scale, "", BUILD, {"CPU": 9.0})
    assert (pool.min, pool.max) == (4, 4)


def test_a_pool_for_captions_alone_has_its_own_interpreter() -> None:
    pools = {pool.name: pool.python for pool in build_pools(ScaleSpec(), "/envs/vllm/bin/python", BUILD, {"CPU": 9.0})}
    assert pools == dict.fromkeys(STAGES, "") | {"caption": "/envs/vllm/bin/python"}
