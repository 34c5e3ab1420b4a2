"""Ray for the tests of the platform: one cluster for all of them, and one with a dashboard where jobs are submitted."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import ROOT, RayCluster, free_port, start_cluster


@pytest.fixture(scope="session")
def ray_settings() -> Iterator[None]:
    """Token authentication on, as Ray has it by default, with a token of our own; and a place for its files."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,  # short: sockets
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()  # where `Cluster` notes its address
        # Jobs are executable YAML whose first line asks for `python`.
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("OMP_NUM_THREADS", "1")
        # Workers that wait for a job without an environment of its own, which ours are not, cost seconds to start.
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # an actor more for each job
        # With Ray's own 15 its workers starve beside another process of `pytest -n`, and beside a test that polls.
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(ROOT)
        reset_auth_token_state()  # Ray reads the token once per process, perhaps before this
        yield
    reset_auth_token_state()


@pytest.fixture(scope="session")
def ray_cluster(ray_settings: None) -> Iterator[RayCluster]:
    """The cluster of most tests."""
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def jobs_cluster(ray_settings: None) -> Iterator[RayCluster]:
    """A cluster that takes submitted jobs, as `ray start --head` gives; its dashboard is a dozen processes more."""
    with start_cluster(dashboard_port=free_port()) as cluster:
        yield cluster


@pytest.fixture
def ray_driver(ray_cluster: RayCluster) -> RayCluster:
    """The cluster, with this process as one of its drivers; the tests' own teachers travel by value."""
    import ray
    import tiny

    ray.cloudpickle.register_pickle_by_value(tiny)
    if not ray.is_initialized():
        ray.init(address=ray_cluster.address, logging_level="warning")
    return ray_cluster
