"""S3 servers for tests, on loopback or another address of this machine.

A real Ceph gateway where its programs are installed, else moto's imitation.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CEPH = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
START_TIMEOUT_S = 90

# One monitor, one object store in memory, one gateway; no replicas, no authentication among them; only the gateway may
# be reached from elsewhere.
_CEPH_CONF = """\
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon_port}]
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class update on start = false
osd crush update on start = false
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 0
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
run dir = {folder}
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint={host}:{port}
"""


@dataclass(frozen=True)
class S3Server:
    """A running server and the one user it knows."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """All that a client needs to know."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def best_kind() -> str:
    """What `serve` will try first: "Ceph", "moto" or ""."""
    if all(map(shutil.which, CEPH)):
        return "Ceph"
    return "moto" if find_spec("moto") and find_spec("flask") else ""


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[S3Server | None]:
    """The best server that can be had at an address, for as long as the context lasts; None where there is none."""
    kind = best_kind()
    if kind == "Ceph":
        with tempfile.TemporaryDirectory(prefix="s3-") as folder, _stopping() as daemons:
            try:
                server = _start_ceph(Path(folder), daemons, host)
            except (OSError, subprocess.SubprocessError, TimeoutError) as error:
                warnings.warn(f"Ceph is installed but does not start ({error}); S3 tests run on moto", stacklevel=2)
            else:
                yield server
                return
    if find_spec("moto") and find_spec("flask"):
        with _moto(host) as server:
            yield server
    else:
        yield None


def _start_ceph(folder: Path, daemons: list[subprocess.Popen[bytes]], host: str) -> S3Server:
    port, mon_port = _free_port(), _free_port()
    fsid, access_key, secret_key = str(uuid.uuid4()), secrets.token_hex(10).upper(), secrets.token_hex(20)
    config = folder / "ceph.conf"
    config.write_text(_CEPH_CONF.format(fsid=fsid, folder=folder, host=host, port=port, mon_port=mon_port))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    log = (folder / "start.log").open("wb")

    def run(*command: str) -> None:
        finished = subprocess.run(
            [command[0], "-c", str(config), *command[1:]], stdout=log, stderr=log, timeout=START_TIMEOUT_S, check=False
        )
        if finished.returncode:
            raise OSError(f"{' '.join(command)}: {_last_line(folder / 'start.log')}")

    def start(*command: str) -> None:
        daemons.append(subprocess.Popen([command[0], "-c", str(config), "-f", *command[1:]], stdout=log, stderr=log))

    monmap = str(folder / "monmap")
    run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{mon_port}]", "--fsid", fsid, monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    start("ceph-mon", "-i", "a")
    osd = str(uuid.uuid4())
    run("ceph", "--connect-timeout", "30", "osd", "new", osd)
    # An OSD that places itself as it starts may ask before it knows the monitor's fsid, and ends with "wrong fsid".
    run("ceph", "osd", "crush", "add", "0", "1.0", "root=default")
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    start("ceph-osd", "-i", "0")
    start("radosgw", "-n", "client.rgw.a")
    endpoint = f"http://{host}:{port}"
    _wait_for(endpoint, daemons, folder / "start.log")
    keys = ("--access-key", access_key, "--secret-key", secret_key)
    run("radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=test", "--display-name=test", *keys)
    version = subprocess.run(["radosgw", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return S3Server(f"Ceph {version}", endpoint, access_key, secret_key)


@contextmanager
def _stopping() -> Iterator[list[subprocess.Popen[bytes]]]:
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        yield daemons
    finally:
        for daemon in daemons:
            daemon.kill()  # nothing is worth an orderly shutdown: the data was in memory
        for daemon in daemons:
            daemon.wait()


@contextmanager
def _moto(host: str) -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    moto.start()
    try:
        port = moto.get_host_and_port()[1]
        yield S3Server("moto", f"http://{host}:{port}", secrets.token_hex(10).upper(), secrets.token_hex(20))
    finally:
        moto.stop()


def _wait_for(endpoint: str, daemons: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for daemon in daemons:
            if daemon.poll() is not None:
                raise OSError(f"{daemon.args} ended: {_last_line(log)}")
        try:
            with urllib.request.urlopen(endpoint, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no answer within {START_TIMEOUT_S} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "nothing was said"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client_variables() -> list[str]:
    """Names of the variables, as they are now, that could make a client use another server or user."""
    return [name for name in os.environ if name.startswith("AWS_")]
