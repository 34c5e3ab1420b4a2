"""A full disk, a process that runs out of memory, a clock that jumps, a gateway that is away, credentials that expire:
a labelling run recovers or says what to do, and loses nothing. Submitted again, it ends with the bytes of one that was
left alone.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import chaos_driver
import gateway
import numpy as np
import pytest
import s3
import tiny
from clusters import RayCluster, start_cluster
from gateway import Gateway, Trouble

from liftgs.chunks import ChunkingConfig
from liftgs_platform import label_stages, pseudolabel, shards, storage
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.label_scale import PoolSpec, ScaleSpec
from liftgs_platform.label_stages import Stage
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.verify import verify

ONE_PROCESS = ScaleSpec({"load+segment+embed+caption+commit": PoolSpec(num_cpus=0.5)})
SCENES = 4  # of two shards each


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers without torch, and one name for the code, as `chaos_driver` has them."""
    original = pseudolabel.factories
    monkeypatch.setattr(pseudolabel, "factories", lambda spec, plans: tiny.with_quick_teachers(original(spec, plans)))
    monkeypatch.setattr(pseudolabel, "code_revision", lambda: "chaos")


@dataclass(frozen=True)
class Work:
    """A source, and what its corpus must be."""

    source: Path
    expected: dict[str, bytes]

    def spec(self, corpus: str) -> Spec:
        """Of a job in one process."""
        spec = Spec(str(self.source), corpus, chunking=ChunkingConfig(frames_per_chunk=2), chunks_per_shard=1)
        return replace(spec, scale=ONE_PROCESS)


@pytest.fixture
def work(quick: None, tmp_path: Path) -> Work:
    """Not a frame of it is bad."""
    one = Work(tiny.write_scenes(tmp_path / "scans", SCENES), {})
    undisturbed = tmp_path / "undisturbed"
    pseudolabel.run_here(one.spec(str(undisturbed)))
    return replace(one, expected=tiny.corpus_files(undisturbed))


def label(spec: Spec) -> None:
    pseudolabel.run(spec, Job(Path("jobs/pseudolabel.yaml")))


def content(corpus: str) -> dict[str, bytes]:
    """All files of a corpus, anywhere, but the records of its runs."""
    found = {uri.removeprefix(f"{corpus}/"): uri for uri in storage.list_files(corpus)}
    return {name: storage.read_bytes(uri) for name, uri in found.items() if not name.startswith("runs/")}


# ---- a full disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], object]]:
    """A disk of its own; yields what gives it another size."""
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk to fill, which needs root: {error}")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_and_more_room_finishes_it(ray_driver: RayCluster, work: Work, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "96k") as resize:
        spec = work.spec(str(tmp_path / "disk" / "corpus"))
        with pytest.raises(JobFailed, match=rf"stage commit.*the disk at {tmp_path}/disk/corpus.* is full; free space"):
            label(spec)
        assert 0 < len(shards.committed_indices(spec.output)) < 2 * SCENES
        assert not [path for path in Path(spec.output).rglob("*") if path.name.endswith(".tmp")]
        resize("8m")
        label(spec)
        assert content(spec.output) == work.expected


# ---- no memory


@dataclass(frozen=True)
class BuildHungry:
    """Segments as `tiny.BuildPatches` does; but once, at a process' fifth frame, it takes 512 MB that it may not have.

    `cgroup`: whose limit it exceeds, so that the kernel kills it; "" = a limit of its own, so that it is told.
    """

    marker: str
    cgroup: str

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        patches = tiny.BuildPatches()(before)
        assert isinstance(patches, label_stages.Segment)
        frames = 0

        def segment(rgb: np.ndarray) -> np.ndarray:
            nonlocal frames
            frames += 1
            if frames == 5 and not Path(self.marker).exists():
                Path(self.marker).touch()
                self.eat()
            found: np.ndarray = patches.teacher(rgb)
            return found

        return label_stages.Segment(segment, patches.revision)

    def eat(self) -> None:
        if self.cgroup:
            Path(self.cgroup, "cgroup.procs").write_text(str(os.getpid()))
            np.ones(512 << 20, np.uint8)
            raise AssertionError("the kernel should have killed this process")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), limits[1]))
        try:
            np.ones(512 << 20, np.uint8)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A group of processes that may take 64 MB together."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"liftgs-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(64 << 20))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("cannot make a cgroup with a limit of memory, which needs root and the memory controller")


@pytest.fixture
def hungry(ray_driver: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes the jobs of this process meet `BuildHungry`."""
    import ray
    import test_disasters

    ray.cloudpickle.register_pickle_by_value(test_disasters)
    gentle = pseudolabel.factories

    def use(cgroup: str) -> None:
        segment = BuildHungry(str(tmp_path / "eaten"), cgroup)
        monkeypatch.setattr(pseudolabel, "factories", lambda spec, plans: {**gentle(spec, plans), "segment": segment})

    return use


def test_a_process_that_is_killed_for_its_memory_costs_nothing(
    hungry: Callable[[str], None], cgroup: Path, work: Work, tmp_path: Path
) -> None:
    hungry(str(cgroup))
    label(work.spec(str(tmp_path / "corpus")))
    assert (tmp_path / "eaten").exists()
    assert tiny.corpus_files(tmp_path / "corpus") == work.expected, "and nothing is in quarantine"


def test_memory_that_is_refused_ends_the_run_with_advice(
    hungry: Callable[[str], None], work: Work, tmp_path: Path
) -> None:
    hungry("")
    spec = work.spec(str(tmp_path / "corpus"))
    with pytest.raises(
        JobFailed, match=r"stage segment, scene.*: no memory is left .*512.*; give its pool fewer actors"
    ):
        label(spec)
    assert 0 < len(shards.committed_indices(spec.output)) < 2 * SCENES
    label(spec)
    assert content(spec.output) == work.expected


# ---- drivers of their own


def start(
    cluster: RayCluster, work: Work, corpus: str, seconds: float = 0.0, **environment: str
) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", chaos_driver.__file__, str(work.source), corpus, str(seconds)],
        env={**os.environ, "RAY_ADDRESS": cluster.address, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(driver: subprocess.Popen[str], timeout_s: float = 300) -> tuple[int, str]:
    """Exit code and what it said; where it stands, if it does not end."""
    try:
        said = driver.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        driver.send_signal(signal.SIGABRT)  # it was started with faulthandler
        pytest.fail(f"no end after {timeout_s} s: {driver.communicate()[0]}")
    return driver.returncode, said


# ---- a clock that jumps


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file that holds by how many seconds the clocks of those processes are off who have `CLOCK_JUMP` set to it."""
    file = tmp_path / "jump"
    file.write_bytes(struct.pack("q", 0))
    return file


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """What must be preloaded for that."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a clock that jumps needs Linux and a C compiler (cc)")
    library = tmp_path / "clock_jump.so"
    source = Path(__file__).with_name("clock_jump.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


@pytest.mark.timeout(900)
def test_a_clock_that_jumps_ahead_and_back_changes_nothing(
    ray_settings: None, clock: Path, shim: Path, work: Work, tmp_path: Path
) -> None:
    """Of every process of the cluster and of the driver: by an hour ahead once the first shard is committed, and to an
    hour behind the true time once the third is.
    """
    corpus = tmp_path / "corpus"
    environment = {"LD_PRELOAD": str(shim), "CLOCK_JUMP": str(clock)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with start_cluster() as cluster:
            driver = start(cluster, work, str(corpus), 0.1)
            for committed, off_s in ((1, 3600), (3, -3600)):
                while driver.poll() is None and len(list(corpus.glob("shards/*.json"))) < committed:
                    time.sleep(0.05)
                with clock.open("r+b") as file:
                    file.write(struct.pack("q", off_s))
            assert driver.poll() is None, "it ended before its clock had jumped"
            code, said = ended(driver)
    assert code == 0, said
    assert tiny.corpus_files(corpus) == work.expected


# ---- object stores


@pytest.fixture(scope="module")
def store(s3_server: s3.S3Server) -> Iterator[Gateway]:
    """What the cluster below sees of the S3 server."""
    with gateway.serve(s3_server.endpoint) as between:
        yield between


@pytest.fixture(scope="module")
def far_cluster(ray_settings: None, store: Gateway) -> Iterator[RayCluster]:
    """A cluster whose object store is behind the gateway; this process goes past it, and keeps no client of it."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", store.endpoint)
            cluster = stack.enter_context(start_cluster())
        yield cluster


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_gateway_that_is_away_is_waited_for(
    far_cluster: RayCluster, store: Gateway, work: Work, s3_folder: str, seconds: int
) -> None:
    store.trouble = Trouble(503, "ServiceUnavailable", "Please try again", "/shards/000001.json", seconds)
    code, said = ended(start(far_cluster, work, s3_folder, AWS_ENDPOINT_URL=store.endpoint))
    assert code == 0, said
    assert store.trouble.refused > 1
    assert content(s3_folder) == work.expected
    if seconds > 30:
        assert "cannot write" in said, "somebody who watches is told why nothing happens"
    assert not list(verify(s3_folder))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_credentials_that_expire_end_the_run_and_new_ones_finish_it(
    far_cluster: RayCluster, store: Gateway, work: Work, s3_folder: str
) -> None:
    store.trouble = Trouble(400, "ExpiredToken", "The provided token has expired.", "/shards/000002.json", float("inf"))
    code, said = ended(start(far_cluster, work, s3_folder, AWS_ENDPOINT_URL=store.endpoint))
    assert code == 1
    assert "The provided token has expired; renew the credentials where the job and its workers find them" in said
    store.trouble = None
    assert 0 < len(shards.committed_indices(s3_folder)) < 2 * SCENES, "what was committed stays"
    code, said = ended(start(far_cluster, work, s3_folder, AWS_ENDPOINT_URL=store.endpoint))
    assert code == 0, said
    assert content(s3_folder) == work.expected
