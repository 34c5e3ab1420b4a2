"""A Ray cluster of several nodes on this machine: what `make cluster-up` and `make cluster-down` do.

A head that computes nothing and two nodes that share the CPUs, each with its own raylet, object store, ports and
folder: what a job meets on a real cluster, small. Everything listens on 127.0.0.1 alone, and Ray's token is asked for.

    python -m liftgs_platform.local_cluster up
    python -m liftgs_platform.local_cluster down

All its files are in one folder under /tmp, whose name follows from the folder where it was started. Its processes, and
those of its jobs, carry that name in their environment: `down` finds them by it, so it stops all of this cluster, and
nothing of another, also when the process that started them is gone.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from liftgs_platform import local_nodes
from liftgs_platform.local_nodes import Cluster

#: Four interpreters that import Ray, one after the other, on a busy laptop; three times, if need be.
START_PATIENCE_S = 300.0
#: The dashboard answers before it can run jobs.
JOB_PATIENCE_S = 120.0


class ClusterFailed(RuntimeError):
    """The cluster cannot be started or stopped; the message says why."""


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
    ensure_token()
    _own(folder)
    with _locked(folder):
        if local_nodes.processes(folder):
            running = Cluster.read(folder)
            if running is None or not runs_jobs(running):
                raise ClusterFailed("a part of a cluster runs that does not answer; make cluster-down, then try again")
            return running, True
        try:
            cluster = _start(folder)
        except BaseException:
            local_nodes.stop(folder)
            raise
        _become_current(cluster)
        return cluster, False


def down(folder: Path) -> int:
    """Stop the cluster with all its jobs, and remove its files. Returns the number of processes that ran.

    Raises:
        ClusterFailed: some do not end.
    """
    cluster = Cluster.read(folder)
    stopped, left = local_nodes.stop(folder)
    if left:
        raise ClusterFailed(f"processes {', '.join(map(str, left))} do not end")
    if cluster is not None and current_address() == cluster.address:
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


def runs_jobs(cluster: Cluster) -> bool:
    """Whether `ray job submit` gets a job done."""
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--", "true"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_ADDRESS": cluster.dashboard}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=JOB_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def exports(cluster: Cluster, environment: Mapping[str, str]) -> dict[str, str]:
    """What a shell must export so that `ray` in it means this cluster; nothing if it does so already."""
    wanted = {}
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        wanted["RAY_AUTH_MODE"] = "token"
    if (environment.get("RAY_ADDRESS") or current_address()) not in (cluster.address, cluster.dashboard):
        wanted["RAY_ADDRESS"] = cluster.address
    return wanted


def current_address() -> str:
    """The cluster that `ray` takes on this machine where it is told none, or ""."""
    try:
        return _address_file().read_text().strip()
    except OSError:
        return ""


def _start(folder: Path) -> Cluster:
    (folder / "state.json").unlink(missing_ok=True)
    log = folder / "nodes.log"
    with log.open("wb") as output:
        nodes = subprocess.Popen(
            [sys.executable, "-m", "liftgs_platform.local_nodes", str(folder)],
            env=local_nodes.environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the shell is not meant for it
        )
    deadline = time.monotonic() + START_PATIENCE_S
    while (cluster := Cluster.read(folder)) is None:
        if nodes.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise ClusterFailed(f"Ray does not start:\n{last}")
        time.sleep(0.2)
    deadline = time.monotonic() + JOB_PATIENCE_S
    while not runs_jobs(cluster):
        if time.monotonic() > deadline:
            raise ClusterFailed(f"{cluster.dashboard} runs no jobs; the logs are in {folder}/0/session_latest/logs")
    return cluster


def _become_current(cluster: Cluster) -> None:
    """Let `ray` without an address mean this cluster, as after any `ray start`, unless another runs."""
    host, _, port = current_address().rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(2.0)
        if port.isdigit() and probe.connect_ex((host, int(port))) == 0:
            return
    try:
        _address_file().parent.mkdir(parents=True, exist_ok=True)
        _address_file().write_text(cluster.address)
    except OSError:
        return  # another user's folder; then the shell exports RAY_ADDRESS


def _address_file() -> Path:
    return Path(importlib.import_module("ray._common.utils").get_ray_address_file(None))


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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m liftgs_platform.local_cluster",
        description="A Ray cluster of a head and two nodes on this machine, for loopback and with a token.",
    )
    parser.add_argument("command", choices=("up", "down"))
    command, folder = parser.parse_args().command, folder_of(Path.cwd())
    try:
        if command == "down":
            stopped = down(folder)
            print(f"stopped, {stopped} processes" if stopped else "no cluster of this folder runs")
            return 0
        cluster, already = up(folder)
    except ClusterFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'runs already' if already else 'runs'}: a head and {local_nodes.WORKERS} nodes; {cluster.dashboard}")
    needed = "".join(f"  export {name}={value}\n" for name, value in exports(cluster, os.environ).items())
    print((f"this shell needs\n{needed}and then\n" if needed else "") + "  ray job submit jobs/pseudolabel.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
