"""The image, as far as a file tells: it is what its environments ask for, and nobody's secrets or root are in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", "", (ROOT / "cluster" / "Containerfile").read_text())
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
ARGUMENTS = dict(line.removeprefix("ARG ").split("=", 1) for line in LINES if line.startswith("ARG "))


def of_stage(number: int) -> list[str]:
    starts = [i for i, line in enumerate(LINES) if line.startswith("FROM ")]
    return LINES[starts[number] : [*starts, len(LINES)][number + 1]]


def copied() -> set[str]:
    """What is taken from the checkout."""
    lines = [line.split()[1:-1] for line in LINES if line.startswith("COPY ") and "--from" not in line]
    return {source for sources in lines for source in sources}


def test_all_that_is_copied_is_there_and_nothing_else_reaches_the_builder() -> None:
    assert copied() >= {"pyproject.toml", "liftgs", "platform", "jobs"}
    for source in copied():
        assert (ROOT / source).exists(), source
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied()


def test_what_pyproject_reads_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= copied()


def test_pins_are_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["gpu"])]
    pinned = {"ray": ARGUMENTS["RAY"], "torch": ARGUMENTS["TORCH"], "gsplat": ARGUMENTS["GSPLAT"]}
    found = {requirement.name: requirement.specifier for requirement in asked}
    assert all(found[name].contains(version) for name, version in pinned.items())
    python = {"python_version": "3.12"}  # of Ubuntu 24.04, for which spconv-cu120 has no wheel
    assert ARGUMENTS["UBUNTU"] == "24.04"
    applying = [requirement.name for requirement in asked if requirement.marker and requirement.marker.evaluate(python)]
    assert applying == ["spconv-cu126"]
    assert "pip install --editable '/opt/liftgs[gpu,gcs]'" in TEXT


def test_both_stages_stand_on_one_pinned_cuda() -> None:
    bases = [line.split()[1] for line in LINES if line.startswith("FROM ")]
    assert [re.sub(r"-(devel|base)-", "-", base) for base in bases] == [bases[0].replace("-devel-", "-")] * 2
    assert re.fullmatch(r"\d+\.\d+\.\d+", ARGUMENTS["CUDA"])
    assert "latest" not in TEXT


def test_kernels_are_compiled_when_it_is_built() -> None:
    build, final = of_stage(0), of_stage(1)
    order = [
        next(i for i, line in enumerate(build) if part in line) for part in ("install torch", "ARCH_LIST", "gsplat=")
    ]
    assert order == sorted(order), "gsplat is compiled against torch, for the GPUs that are named"
    (gsplat,) = (line for line in build if "gsplat==" in line)
    assert "--no-binary gsplat" in gsplat
    assert "import torch, gsplat.csrc" in gsplat
    kernels = next(i for i, line in enumerate(final) if "compile.load()" in line)
    assert any(line.startswith("ENV LIFTGS_RENDER_TARGET=") for line in final[:kernels])
    assert any(line.startswith("USER ") for line in final[:kernels]), "they are in the home of who runs"


def test_nobody_is_root_and_login_shells_find_python() -> None:
    users = [line.split()[1] for line in of_stage(1) if line.startswith("USER ")]
    assert users == ["1000:1000"], "a number, since Kubernetes cannot tell whether a name is root"
    assert "/etc/profile.d/" in TEXT
    assert "RAY_AUTH_MODE=token" in TEXT


@pytest.mark.parametrize("word", ["token", "secret", "passw", "key", "credential"])
def test_no_secret_is_an_argument(word: str) -> None:
    assert not [name for name in ARGUMENTS if word in name.lower()]
    assigned = [line for line in LINES if line.startswith("ENV ") and word in line.lower()]
    assert all(line.lower().count(word) == line.count("RAY_AUTH_MODE=token") for line in assigned)


def test_what_ray_up_and_the_autoscaler_need_is_in() -> None:
    final = " ".join(of_stage(1))
    assert all(f" {tool}" in final for tool in ("openssh-client", "rsync", "g++"))
    assert all(client in TEXT for client in ("boto3", "google-api-python-client"))
