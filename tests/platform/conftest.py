"""One Ray cluster for all tests of the platform: a head of two CPUs with a dashboard, as `ray start --head` gives."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RayCluster:
    """A running cluster.

    Attributes:
        cluster: the `ray.cluster_utils.Cluster`.
        address: of its GCS, for `ray.init` and `RAY_ADDRESS`.
        dashboard: URL of the jobs API.
    """

    cluster: Any
    address: str
    dashboard: str


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster started in the root of the repository, with token authentication on, as Ray has it by default."""
    patch = pytest.MonkeyPatch()
    # Jobs are executable YAML whose first line asks for `python`.
    patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.chdir(ROOT)

    from ray._private.authentication_test_utils import reset_auth_token_state
    from ray.cluster_utils import Cluster

    reset_auth_token_state()  # Ray reads the token once per process, perhaps before this
    port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "object_store_memory": 200 * 2**20,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": port,
            "temp_dir": f"/tmp/liftgs-ray-{os.getpid()}",  # short: it holds Unix sockets
        },
    )
    yield RayCluster(cluster, cluster.address, f"http://127.0.0.1:{port}")
    import ray

    ray.shutdown()
    cluster.shutdown()
    patch.undo()
    reset_auth_token_state()


@pytest.fixture
def ray_driver(ray_cluster: RayCluster) -> Iterator[RayCluster]:
    """The cluster, with this process as one of its drivers; the tests' own teachers travel by value."""
    import ray

    import tiny

    ray.cloudpickle.register_pickle_by_value(tiny)
    if not ray.is_initialized():
        ray.init(address=ray_cluster.address, logging_level="warning")
    yield ray_cluster


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
