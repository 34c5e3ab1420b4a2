"""The nodes of a cluster on this machine: one process that starts them and watches; finding and ending all of theirs.

    python -m liftgs_platform.local_nodes FOLDER

`ray start` cannot do this: it takes 127.0.0.1 for the machine's own address and listens to the network, its metrics
without a token. So the nodes are started as Ray's own tests start them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: In the environment of every process of a cluster, and of its jobs: its folder.
MARK = "LIFTGS_LOCAL_CLUSTER"

WORKERS = 2
HOST = "127.0.0.1"
#: Ray's own default, so that the dashboard is where people look for it.
DASHBOARD_PORT = 8265
#: Ray gives its parts seconds to start, whatever else the machine does.
ATTEMPTS = 3


@dataclass(frozen=True)
class Cluster:
    """What is noted of a running cluster, in `state.json` of its folder.

    Attributes:
        pid: of the process that started the nodes; they end with it.
        port: of the GCS.
        dashboard: URL of the dashboard and of the jobs API.
        client: address of Ray Client.
    """

    pid: int
    port: int
    dashboard: str
    client: str

    @property
    def address(self) -> str:
        """For `RAY_ADDRESS` in a shell.

        Ray replaces "127.0.0.1" and "localhost" by the machine's address on the network, where nothing listens; other
        spellings it leaves alone.
        """
        return f"LOCALHOST:{self.port}"

    def write(self, folder: Path) -> None:
        """Note it, whole."""
        partial = folder / "state.json.partial"
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(folder / "state.json")

    @classmethod
    def read(cls, folder: Path) -> Cluster | None:
        """The cluster of a folder; None if none was completely started."""
        try:
            return cls(**json.loads((folder / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


def environment(folder: Path) -> dict[str, str]:
    """For the process that starts the nodes, and so for them and their jobs."""
    ours = {
        MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(folder),
        # The name misleads: off, Ray takes 127.0.0.1 as it is, on any system.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SPT_NOENV": "1",  # else a process that names itself (ray::…) writes over its environment, and the mark in it
        # Jobs are executable YAML whose first line asks for `python`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | ours


def serve(folder: Path) -> None:
    """Start the nodes, note them in `folder`, and stay until told to end."""
    for attempt in range(ATTEMPTS):
        from ray.cluster_utils import Cluster as Nodes  # noqa: PLC0415

        nodes = Nodes()
        try:
            started = _start(nodes, folder)
            break
        except Exception:
            nodes.shutdown()
            if attempt == ATTEMPTS - 1:
                raise
    started.write(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()


def _start(nodes: Any, folder: Path) -> Cluster:
    (folder / "ray").mkdir(exist_ok=True)
    dashboard = DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else _free_port()
    client = _free_port()
    nodes.add_node(
        **_common(folder, 0),
        num_cpus=0,
        include_dashboard=True,
        dashboard_host=HOST,
        dashboard_port=dashboard,
        ray_client_server_port=client,
    )
    cpus = importlib.import_module("ray._private.utils").get_num_cpus()  # knows what a container allows
    gpus = importlib.import_module("ray._private.accelerators").NvidiaGPUAcceleratorManager
    for number in range(1, 1 + WORKERS):
        # All GPUs on the first: each node would count them as its own.
        has = gpus.get_current_node_num_accelerators() if number == 1 else 0
        nodes.add_node(**_common(folder, number), num_cpus=max(1, int(cpus) // WORKERS), num_gpus=has)
    for number in range(1 + WORKERS):
        # As `ray start` does: a job takes the cluster named here, else any that runs on this machine.
        (folder / str(number) / "ray_current_cluster").write_text(nodes.address)
    port = int(nodes.address.rpartition(":")[2])
    return Cluster(os.getpid(), port, f"http://{HOST}:{dashboard}", f"ray://{HOST}:{client}")


def _common(folder: Path, number: int) -> dict[str, Any]:
    memory = int(0.3 * psutil().virtual_memory().available / (1 + WORKERS))
    temp_dir = folder / str(number)
    temp_dir.mkdir(exist_ok=True)
    return {
        "node_ip_address": HOST,
        "temp_dir": str(temp_dir),
        "dashboard_agent_listen_port": 0,  # any; the default would be the same for all nodes
        "object_store_memory": max(memory, 100_000_000),
    }


def processes(folder: Path) -> list[Any]:
    """The running processes of the cluster, as `psutil.Process`."""
    found = []
    for process in psutil().process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil().Error, OSError):
            continue  # it has ended, or is another user's
    return found


def stop(folder: Path) -> tuple[int, list[int]]:
    """End the cluster's processes: politely, then not.

    Returns:
        How many there were, and the ids of those that do not end.
    """
    first = left = processes(folder)
    for patience_s in (10.0, 5.0, 5.0):
        for process in left:
            try:
                process.terminate() if left is first else process.kill()
            except psutil().Error:
                continue
        deadline = time.monotonic() + patience_s
        while (left := processes(folder)) and time.monotonic() < deadline:  # anew: what dies may start another
            time.sleep(0.1)
        if not left:
            break
    return len(first), [process.pid for process in left]


def psutil() -> Any:
    """The module, which Ray brings."""
    importlib.import_module("ray")
    return importlib.import_module("psutil")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m liftgs_platform.local_nodes")
    parser.add_argument("folder", type=Path)
    serve(parser.parse_args().folder)
