"""Ray clusters for the tests of the platform."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
