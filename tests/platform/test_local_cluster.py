"""The cluster on one machine: it starts, asks for the token, listens to nobody else, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import ROOT

from liftgs_platform import local_cluster, local_nodes, verify
from liftgs_platform.local_cluster import ClusterFailed
from liftgs_platform.local_nodes import Cluster

CLUSTER = Cluster(1, 4321, "http://127.0.0.1:8265", "ray://127.0.0.1:10001")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for Ray and its token, with a short name; nothing of the user's own is seen."""
    folder = Path(tempfile.mkdtemp(prefix="lc", dir="/tmp"))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'platform'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    local_nodes.stop(local_cluster.folder_of(ROOT))
    shutil.rmtree(folder)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_token_is_made_where_ray_looks_and_nobody_else_can(place: Path) -> None:
    assert local_cluster.ensure_token() == str(place / "token")
    first = (place / "token").read_text()
    assert len(first) == 64
    assert mode(place / "token") == 0o600
    (place / "token").chmod(0o644)
    assert local_cluster.ensure_token() == str(place / "token")
    assert (place / "token").read_text() == first, "other clusters may use it"
    assert mode(place / "token") == 0o600


def test_an_empty_token_is_named_and_one_in_the_environment_is_enough(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "token").write_text("\n")
    with pytest.raises(ClusterFailed, match="token holds no token"):
        local_cluster.ensure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    assert local_cluster.ensure_token() == ""


def test_a_shell_is_told_what_it_lacks(place: Path) -> None:
    assert local_cluster.exports(CLUSTER, {}) == {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": CLUSTER.address}
    local_cluster._become_current(CLUSTER)
    assert local_cluster.exports(CLUSTER, {"RAY_AUTH_MODE": "token"}) == {}
    elsewhere = {"RAY_AUTH_MODE": "Token", "RAY_ADDRESS": "10.0.0.1:6379"}
    assert local_cluster.exports(CLUSTER, elsewhere) == {"RAY_ADDRESS": CLUSTER.address}


def test_another_cluster_that_runs_stays_the_one_that_is_found(place: Path) -> None:
    (place / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        (place / "ray" / "ray_current_cluster").write_text(address)
        local_cluster._become_current(CLUSTER)
        assert local_cluster.current_address() == address
    local_cluster._become_current(CLUSTER)
    assert local_cluster.current_address() == CLUSTER.address, "its address is left over: nobody listens there"


def test_stopping_ends_what_carries_the_mark_and_nothing_else(place: Path) -> None:
    def sleep(folder: str, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, local_nodes.MARK: folder}
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE)

    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    mine, other = sleep(str(place), "sleep", "600"), sleep(f"{place}0", "sleep", "600")
    # An orphan, as a killed raylet leaves them.
    orphan = sleep(str(place), "sh", "-c", "sleep 600 &")
    orphan.wait()
    try:
        assert len(local_nodes.processes(place)) == 2
        assert local_nodes.stop(place) == (2, [])
        assert mine.wait(5) == -signal.SIGTERM
        assert local_nodes.processes(place) == []
        assert other.poll() is None
        deaf = sleep(str(place), sys.executable, "-c", stubborn)
        assert deaf.stdout is not None
        deaf.stdout.readline()  # it is deaf by now
        assert local_nodes.stop(place)[1] == []
        assert deaf.wait(5) < 0
    finally:
        other.kill()
        other.wait()


def test_a_start_that_fails_says_why_and_leaves_no_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = place / "python"
    broken.write_text("#!/bin/sh\necho no room for a raylet\nsleep 600 &\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    folder = local_cluster.folder_of(ROOT)
    with pytest.raises(ClusterFailed, match="no room for a raylet"):
        local_cluster.up(folder)
    assert local_nodes.processes(folder) == []
    assert local_cluster.down(folder) == 0
    assert not folder.exists()


def test_a_folder_that_another_has_made_is_not_used(place: Path) -> None:
    folder = local_cluster.folder_of(ROOT)
    folder.symlink_to(place)
    with pytest.raises(ClusterFailed, match="is not yours"):
        local_cluster.up(folder)
    with pytest.raises(ClusterFailed, match="is not yours"):
        local_cluster.down(folder)
    assert place.exists()


def test_make_has_both_commands() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for command in ("up", "down"):
        recipe = subprocess.run(
            ["make", "--no-print-directory", "-n", f"cluster-{command}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert recipe.rstrip().endswith(f"-m liftgs_platform.local_cluster {command}")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    name, *arguments = command
    return subprocess.run(
        [str(Path(sys.executable).parent / name), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def manage(command: str) -> str:
    done = run("python", "-m", "liftgs_platform.local_cluster", command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listening(folder: Path) -> set[tuple[str, int]]:
    sockets = [c for process in local_nodes.processes(folder) for c in process.net_connections("inet")]
    return {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in sockets if c.status == "LISTEN"}


def status(url: str, token: str = "", body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow  # a minute: three nodes, and a job
def test_a_job_runs_on_three_nodes_that_ask_for_the_token(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "export RAY_AUTH_MODE=token" in manage("up")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    folder = local_cluster.folder_of(ROOT)
    cluster = Cluster.read(folder)
    assert cluster is not None
    again = manage("up")
    assert again.startswith("runs already")
    assert "export" not in again
    assert sum(process.name() == "raylet" for process in local_nodes.processes(folder)) == 3
    ports = listening(folder)
    assert {host for host, _ in ports} == {"127.0.0.1"}
    assert {cluster.port, int(cluster.dashboard.rpartition(":")[2])} < {port for _, port in ports}

    job = json.dumps({"entrypoint": f"touch {tmp_path / 'evil'}"}).encode()
    for token, refused in (("", 401), (secrets.token_hex(32), 403)):
        assert status(f"{cluster.dashboard}/api/version", token) == refused
        assert status(f"{cluster.dashboard}/api/jobs/", token) == refused
        assert status(f"{cluster.dashboard}/api/jobs/", token, job) == refused
        assert status(f"{cluster.dashboard}/nodes?view=summary", token) == refused
    assert status(f"{cluster.dashboard}/api/version", (place / "token").read_text()) == 200
    work = "import ray; ray.init('{}', logging_level='error'); print(ray.get(ray.remote(lambda: 41 + 1).remote()))"
    for address in (cluster.address, cluster.client):
        intruder = run("python", "-c", work.format(address), RAY_AUTH_TOKEN="x" * 64)
        assert intruder.returncode != 0, address
        assert "42" not in intruder.stdout
    assert not (tmp_path / "evil").exists()
    assert run("python", "-c", work.format(cluster.client)).stdout.strip() == "42", "a script of this shell is let in"
    typed = "import ray; from liftgs_platform import job; job.connect(); print(len(ray.nodes()))"
    assert run("python", "-c", typed).stdout.strip() == "3", "and so is a job that is typed rather than submitted"

    corpus = tmp_path / "corpus"
    source = "procedural:apartments?scenes=2&views=2&width=96&height=96"
    done = run(
        *("ray", "job", "submit", "jobs/pseudolabel.yaml"),
        *(f"source={source}", f"output={corpus}", "chunks_per_shard=1", "segment.points_per_side=4"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(verify.verify(str(corpus)))
    assert not [file for file in corpus.rglob("*") if file.is_file() and token_of(place) in file.read_bytes()]

    assert manage("down").startswith("stopped")
    assert local_nodes.processes(folder) == []
    assert not folder.exists()
    assert not [port for _, port in ports if answers(port)]
    assert manage("down") == "no cluster of this folder runs\n"


def token_of(place: Path) -> bytes:
    return (place / "token").read_bytes()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow  # half a minute
def test_down_after_a_crash_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    manage("up")
    folder = local_cluster.folder_of(ROOT)
    ports = listening(folder)
    for process in local_nodes.processes(folder):
        if process.name() in ("python", "raylet"):  # what started the rest, and what watches over workers
            process.kill()
    manage("down")
    assert local_nodes.processes(folder) == []
    assert not [port for _, port in ports if answers(port)]
    assert not (place / "ray" / "ray_current_cluster").exists()
