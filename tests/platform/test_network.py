"""Nodes with networks of their own: one is cut off in the middle of a training on S3, and comes back.

Each node's raylet runs in a network namespace, joined to the others and to the object store by a bridge. Needs root.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3
import s3fs
import tiny_corpora
import tiny_network
import torch
from clusters import ROOT, free_port
from run_log import learned, starts

from liftgs.model.liftgs import LiftGS
from liftgs_platform import spec as specs
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.training import train

NETWORK, HEAD = "10.77.13", "10.77.13.1"
BRIDGE, NAMES = "liftgs-test", ("liftgs-test-a", "liftgs-test-b")
STEPS, BATCH = 300, 4
RUNS = "Ray runtime started."
ALERT = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def namespaces() -> Iterator[None]:
    """A bridge, and on it a namespace per name, whose only way out is its `eth0`."""

    def clean() -> None:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)

    clean()
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HEAD}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(NAMES):
            ip("netns", "add", name)
            ip("link", "add", f"lgs{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"lgs{number}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{11 + number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        clean()


def can_make_namespaces() -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    try:
        with namespaces():
            return True
    except subprocess.CalledProcessError:
        return False


@dataclass
class Raylets:
    """A Ray cluster of processes that `ray start` made: a head that trains nothing, and nodes of one CPU."""

    folder: Path
    environment: dict[str, str]
    port: int
    dashboard: int
    nodes: dict[int, subprocess.Popen[bytes]]

    def start_head(self) -> None:
        self._start(
            -1,
            *("--head", f"--port={self.port}", f"--node-ip-address={HEAD}", "--num-cpus=0"),
            *(
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={self.dashboard}",
                f"--system-config={json.dumps(ALERT)}",
            ),
            f"--temp-dir=/tmp/liftgs-net-{os.getpid()}",
        )

    def start_node(self, number: int) -> None:
        address = f"{NETWORK}.{11 + number}"
        self._start(number, f"--address={HEAD}:{self.port}", f"--node-ip-address={address}", "--num-cpus=1")

    def _start(self, number: int, *arguments: str) -> None:
        log = self.folder / f"node{number}.log"
        for _ in range(3):  # Ray gives its parts seconds to start, whatever else the machine does
            log.write_text("")
            self._launch(number, *arguments)
            wait_for(lambda: self.nodes[number].poll() is not None or RUNS in log.read_text(), 90, "Ray hangs")
            if self.nodes[number].poll() is None:
                return
        raise AssertionError(f"node {number} does not start: {log.read_text()[-2000:]}")

    def _launch(self, number: int, *arguments: str) -> None:
        inside = ["ip", "netns", "exec", NAMES[number]] if number >= 0 else []
        ray = str(Path(sys.executable).parent / "ray")
        self.nodes[number] = subprocess.Popen(
            [*inside, ray, "start", *arguments, "--block", "--object-store-memory=100000000"],
            env=self.environment | ({"GLOO_SOCKET_IFNAME": "eth0"} if number >= 0 else {}),
            cwd=ROOT,
            stdout=(self.folder / f"node{number}.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop(self, number: int) -> None:
        """With all that it started."""
        import psutil  # Ray brings it

        node = self.nodes.pop(number)
        for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            process.kill()
        node.wait()


def wait_for(what: Callable[[], object], patience_s: float, why: str) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces need root and iproute2")
def test_a_node_is_cut_off_and_comes_back(tmp_path: Path, ray_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        stack.enter_context(namespaces())
        server = stack.enter_context(s3.serve(HEAD))
        if server is None:
            pytest.skip("no S3 server can be started: neither Ceph nor moto is installed")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("net")
        tiny_corpora.write("s3://net/corpus", tiny_corpora.plan(tiny_corpora.chunks(2)))
        torch.manual_seed(0)
        LiftGS(dataclasses.replace(tiny_network.CONFIG, embed_dim=tiny_corpora.DIM)).save(tmp_path / "start")
        arguments = [
            *("corpora=[{uri: s3://net/corpus}]", f"model.start={tmp_path / 'start'}", "item.image_px=16"),
            *("item.only_seen=false", "item.views=1", "item.queries=embeds"),
            *(f"optim.steps={STEPS}", f"optim.batch_size={BATCH}", "loop.checkpoint_every=10", "loop.panel_every=0"),
            *("worker.cpus=1", "worker.least=1", "worker.most=2", "worker.resize_every_s=5"),
        ]
        raylets = Raylets(tmp_path, dict(os.environ), free_port(), free_port(), {})
        raylets.start_head()
        for number in range(len(NAMES)):
            raylets.start_node(number)
        stack.callback(lambda: [raylets.stop(number) for number in list(raylets.nodes)])
        ray = str(Path(sys.executable).parent / "ray")
        wait_for(lambda: listens(raylets.dashboard), 60, "no dashboard")
        job = subprocess.Popen(
            [ray, "job", "submit", "--", "jobs/pretrain.yaml", *arguments, "output=s3://net/run"],
            env=os.environ | {"RAY_ADDRESS": f"http://127.0.0.1:{raylets.dashboard}"},
            cwd=ROOT,
            stdout=(tmp_path / "job.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        stack.callback(job.kill)

        def told() -> str:
            return (tmp_path / "job.log").read_text()[-3000:]

        wait_for(lambda: (0, 2) in starts("s3://net/run"), 120, "two workers never began")
        wait_for(lambda: len(learned("s3://net/run")) > 15, 120, "no progress")
        ip("link", "set", "lgs1", "down")
        wait_for(lambda: starts("s3://net/run")[-1][1] == 1, 90, f"the other one does not go on: {told()}")
        ip("link", "set", "lgs1", "up")
        raylets.stop(1)  # its raylet was given up; whatever supervises nodes starts it again
        raylets.start_node(1)
        wait_for(lambda: starts("s3://net/run")[-1][1] == 2, 90, f"it did not come back: {told()}")
        assert job.wait(300) == 0, told()

        here = specs.load(ROOT / "jobs" / "pretrain.yaml", [*arguments, f"output={tmp_path / 'here'}"], Spec)
        torch.set_num_threads(1)
        train(Pretraining(here), here.output, here.loop)
        weights, others = (LiftGS.from_pretrained(run).state_dict() for run in ("s3://net/run", here.output))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-6)
