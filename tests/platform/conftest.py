"""Ray for the tests of the platform: one cluster for all of them, and one with a dashboard where jobs are submitted."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RayCluster:
    """A running cluster: a head of two CPUs, started in the root of the repository.

    Attributes:
        cluster: the `ray.cluster_utils.Cluster`.
        address: of its GCS, for `ray.init` and `RAY_ADDRESS`.
        dashboard: URL of the jobs API, or "".
    """

    cluster: Any
    address: str
    dashboard: str


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


@contextmanager
def start_cluster(dashboard_port: int | None = None, **of_head: Any) -> Iterator[RayCluster]:
    """Start a cluster, and stop it in the end; `of_head` goes to its first node."""
    import ray
    from ray.cluster_utils import Cluster

    dashboard = {"dashboard_host": "127.0.0.1", "dashboard_port": dashboard_port} if dashboard_port else {}
    head = {
        "num_cpus": 2,
        "object_store_memory": 200 * 2**20,
        "include_dashboard": dashboard_port is not None,
        "dashboard_agent_listen_port": free_port(),  # its default may belong to another cluster of this machine
        "temp_dir": f"{os.environ['RAY_TMPDIR']}/{free_port()}",
        **dashboard,
        **of_head,
    }
    for attempt in range(3):  # Ray gives its parts seconds to start, whatever else the machine does
        cluster = Cluster()
        try:
            cluster.add_node(**head)
            break
        except Exception:
            cluster.shutdown()
            if attempt == 2:
                raise
            head |= {name: free_port() for name in head if name.endswith("_port")}  # what half started holds them
    # A submitted job connects to the cluster that is noted here, else to any that runs on this machine.
    Path(head["temp_dir"], "ray_current_cluster").write_text(cluster.address)
    try:
        yield RayCluster(cluster, cluster.address, f"http://127.0.0.1:{head['dashboard_port']}" if dashboard else "")
    finally:
        if ray.is_initialized() and ray.get_runtime_context().gcs_address == cluster.address:
            ray.shutdown()
        cluster.shutdown()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
