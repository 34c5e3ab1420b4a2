"""A Ray cluster of several nodes on this machine: what `make cluster-up` and `make cluster-down` do.

A head that computes nothing and two nodes that share the CPUs, each with its own raylet, object store, ports and
folder: what a job meets on a real cluster, small. Everything listens on 127.0.0.1 alone and asks for Ray's token.

    python -m liftgs_platform.local_cluster up
    python -m liftgs_platform.local_cluster down

All its files are in one folder under /tmp, whose name follows from the folder where it was started. Its processes, and
those of its jobs, carry that name in their environment: `down` finds them by it, so it stops all of this cluster, and
nothing of another, also when the processes that started them are gone.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: In the environment of every process of a cluster: its folder.
MARK = "LIFTGS_LOCAL_CLUSTER"

WORKERS = 2
HOST = "127.0.0.1"
#: Ray's own default, so that the dashboard is where people look for it.
DASHBOARD_PORT = 8265
#: Three interpreters that import Ray, on a busy laptop.
PATIENCE_S = 180.0
STARTED = "Ray runtime started"  # what `ray start` prints once a node belongs to its cluster


class ClusterFailed(RuntimeError):
    """The cluster cannot be started or stopped; the message says why."""


@dataclass(frozen=True)
class Cluster:
    """What is noted of a running cluster, in `state.json` of its folder.

    Attributes:
        address: of its GCS, host:port.
        dashboard: URL of the dashboard and the jobs API.
        client: address of Ray Client, ray://host:port.
        token_file: where Ray reads the token; "" = it is in RAY_AUTH_TOKEN.
        pids: the `ray start` of each node, head first.
    """

    address: str
    dashboard: str
    client: str
    token_file: str
    pids: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path) -> Cluster | None:
        """The cluster of a folder; None if none was completely started."""
        try:
            fields = json.loads((folder / "state.json").read_text())
            return cls(**{**fields, "pids": tuple(fields["pids"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def folder_of(place: Path) -> Path:
    """The folder of the cluster that is started in `place`. Short: Unix sockets, whose paths are short, live in it."""
    name = hashlib.sha256(f"{os.getuid()}:{place.resolve()}".encode()).hexdigest()[:8]
    return Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"liftgs-{name}"


def up(folder: Path) -> tuple[Cluster, bool]:
    """Start the cluster, unless it runs.

    Args:
        folder: for all its files; see `folder_of`.

    Returns:
        The cluster, in which a job has run, and whether it ran already.

    Raises:
        ClusterFailed: a node does not start, no job runs, or there is half a cluster.
    """
    token_file = ensure_token()
    if processes(folder):
        running = Cluster.read(folder)
        if running is None or not runs_jobs(running):
            raise ClusterFailed("a part of a cluster runs that does not answer; make cluster-down, then try again")
        return running, True
    _own(folder)
    with _locked(folder):
        try:
            cluster = _start(folder, token_file)
        except BaseException:
            stop(folder)
            raise
        (folder / "state.json").write_text(json.dumps(asdict(cluster), indent=1))
        return cluster, False


def down(folder: Path) -> int:
    """Stop the cluster with all its jobs, and remove its files. Returns the number of processes that ran."""
    cluster = Cluster.read(folder)
    stopped = stop(folder)
    if cluster is not None and _current_address() == cluster.address:
        _address_file().unlink(missing_ok=True)
    if folder.exists():
        _own(folder)
        shutil.rmtree(folder)
    return stopped


def ensure_token() -> str:
    """See that there is a token where Ray looks for it, and that nobody else can read it.

    Returns:
        Its file, made if there is none; "" where the token is in RAY_AUTH_TOKEN.

    Raises:
        ClusterFailed: the file is empty.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return ""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
    if not file.read_text().strip():
        raise ClusterFailed(f"{file} holds no token; remove it and try again")
    file.chmod(0o600)
    return str(file)


def processes(folder: Path) -> list[Any]:
    """The running processes of the cluster, as `psutil.Process`."""
    psutil = _psutil()
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's
    return found


def stop(folder: Path) -> int:
    """End the cluster's processes: politely, then not. Returns how many there were."""
    psutil = _psutil()
    first = left = processes(folder)
    for patience_s in (10.0, 5.0, 5.0):
        for process in left:
            try:
                process.terminate() if left is first else process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, patience_s)
        left = processes(folder)  # anew: what was dying may have started another
        if not left:
            return len(first)
    raise ClusterFailed(f"processes {', '.join(str(process.pid) for process in left)} do not end")


def runs_jobs(cluster: Cluster) -> bool:
    """Whether `ray job submit` gets a job done; the dashboard answers before it can run any."""
    command = [_ray(), "job", "submit", "--", "true"]
    environment = _environment() | {"RAY_ADDRESS": cluster.dashboard}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=PATIENCE_S)
    return done.returncode == 0


def wishes(cluster: Cluster, environment: Mapping[str, str]) -> dict[str, str]:
    """What a shell must export so that `ray` in it means this cluster; nothing if it does so already."""
    wanted = {}
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        wanted["RAY_AUTH_MODE"] = "token"
    address = environment.get("RAY_ADDRESS") or _current_address()
    if address not in (cluster.address, cluster.dashboard):
        wanted["RAY_ADDRESS"] = cluster.address
    return wanted


def _start(folder: Path, token_file: str) -> Cluster:
    gcs, client, *agents = _free_ports(2 + 4 * (1 + WORKERS))
    dashboard = DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else _free_ports(1)[0]
    cluster = Cluster(f"{HOST}:{gcs}", f"http://{HOST}:{dashboard}", f"ray://{HOST}:{client}", token_file, ())
    head = ("--head", f"--port={gcs}", f"--ray-client-server-port={client}", "--num-cpus=0", "--num-gpus=0")
    head += (f"--dashboard-host={HOST}", f"--dashboard-port={dashboard}")
    nodes = [_launch(folder, 0, token_file, agents[:4], head)]
    _wait(folder, nodes)
    for number in range(1, 1 + WORKERS):
        # Each node would count all GPUs as its own; the first has them.
        worker = (f"--address={cluster.address}", f"--num-cpus={_cpus()}", *(("--num-gpus=0",) if number > 1 else ()))
        nodes.append(_launch(folder, number, token_file, agents[4 * number : 4 * number + 4], worker))
    _wait(folder, nodes)
    deadline = time.monotonic() + PATIENCE_S
    while not runs_jobs(cluster):
        if time.monotonic() > deadline:
            raise ClusterFailed(f"{cluster.dashboard} runs no jobs; see {folder}")
    _become_current(cluster)
    return Cluster(**{**asdict(cluster), "pids": tuple(node.pid for node in nodes)})


def _launch(
    folder: Path, number: int, token_file: str, ports: list[int], arguments: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
    memory = max(int(0.3 * _psutil().virtual_memory().available / (1 + WORKERS)), 100_000_000)
    common = (
        *("--block", "--disable-usage-stats", f"--node-ip-address={HOST}", f"--temp-dir={folder / str(number)}"),
        *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
        # Any free port: the default range would be the same for all nodes.
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={memory}"),
    )
    environment = _environment() | {MARK: str(folder)}
    environment.pop("RAY_ADDRESS", None)
    if token_file:
        environment["RAY_AUTH_TOKEN_PATH"] = token_file
    with (folder / f"node{number}.log").open("wb") as log:
        return subprocess.Popen(
            [_ray(), "start", *arguments, *common],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the shell is not meant for it
        )


def _wait(folder: Path, nodes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for number, node in enumerate(nodes):
        log = folder / f"node{number}.log"
        while STARTED not in log.read_text(errors="replace"):
            if node.poll() is not None or time.monotonic() > deadline:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise ClusterFailed(f"node {number} does not start:\n{last}")
            time.sleep(0.2)


def _become_current(cluster: Cluster) -> None:
    """Let `ray` without an address mean this cluster, as with any `ray start`, unless another is running."""
    current = _current_address()
    if current and not _is_free(int(current.rpartition(":")[2]), current.rpartition(":")[0]):
        return
    try:
        _address_file().parent.mkdir(exist_ok=True)
        _address_file().write_text(cluster.address)
    except OSError:
        return  # another user's folder: then this shell exports RAY_ADDRESS


def _current_address() -> str:
    """Address of the cluster that Ray takes on this machine where it is told none, or ""."""
    try:
        return _address_file().read_text().strip()
    except OSError:
        return ""


def _address_file() -> Path:
    ray = importlib.import_module("ray._common.utils")
    return Path(ray.get_ray_address_file(None))


def _environment() -> dict[str, str]:
    """Of all that is started: the token is asked for, and jobs find this very interpreter by the name `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "RAY_AUTH_MODE": "token"}


def _own(folder: Path) -> None:
    """Make the folder, or see that it is ours: its name can be guessed, and /tmp is everybody's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ClusterFailed(f"{folder} is not yours; remove it, or set RAY_TMPDIR to a folder of your own")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClusterFailed("the cluster is being started already") from error
        yield


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _is_free(port: int, host: str = HOST) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((host, port)) != 0


def _cpus() -> int:
    """Of each node that computes."""
    utils = importlib.import_module("ray._private.utils")  # knows what a container allows
    return max(1, int(utils.get_num_cpus()) // WORKERS)


def _psutil() -> Any:
    importlib.import_module("ray")  # brings its own
    return importlib.import_module("psutil")


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m liftgs_platform.local_cluster",
        description="A Ray cluster of a head and two nodes on this machine, for loopback and with a token.",
    )
    parser.add_argument("command", choices=("up", "down"))
    folder = folder_of(Path.cwd())
    try:
        if parser.parse_args().command == "down":
            print(f"stopped {count} processes" if (count := down(folder)) else "no cluster runs here")
            return 0
        cluster, already = up(folder)
    except ClusterFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'runs already' if already else 'runs'}: a head and {WORKERS} nodes; dashboard {cluster.dashboard}")
    print("the token: " + (cluster.token_file or "in RAY_AUTH_TOKEN"))
    exports = "".join(f"  export {name}={value}\n" for name, value in wishes(cluster, os.environ).items())
    print((f"this shell needs:\n{exports}then:\n" if exports else "") + "  ray job submit jobs/pseudolabel.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
