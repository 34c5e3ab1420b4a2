"""Building the kernels: once, also among many processes; and what happens where nothing builds."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from liftgs.losses import fused, grounding
from liftgs.render import Gaussians, Pinhole, compile, rasterize
from liftgs.render.dense import render_dense
from liftgs.render.native import NativeRasterization
from liftgs.render.plain import PlainRasterization
from tests.liftgs.render import splats

ROOT = Path(__file__).parents[3]
QUICK = tuple(flag.replace("-O3", "-O1") for flag in compile.FLAGS)  # builds in half the time
needs_compiler = pytest.mark.skipif(compile.find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Nothing is loaded yet, and nothing of this test stays loaded."""
    compile.load.cache_clear()
    compile.available.cache_clear()
    yield
    compile.load.cache_clear()
    compile.available.cache_clear()


@needs_compiler
def test_processes_that_build_at_once_all_succeed_and_leave_one_file(tmp_path: Path) -> None:
    code = f"from liftgs.render import compile; compile.FLAGS = {QUICK}; compile.load()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    builds = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) for _ in range(2)]
    assert [build.wait() for build in builds] == [0, 0]
    (library,) = (tmp_path / "liftgs").iterdir()
    assert library.suffix == ".so"


def test_without_a_compiler_plain_torch_renders_and_says_so_once(
    forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    scene, view = splats.gaussians(), splats.camera()
    with pytest.warns(UserWarning, match="plain torch, .* slower"):
        rasterization = rasterize(scene, view)
    assert isinstance(rasterization, PlainRasterization)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rasterize(scene, view)


def test_a_compiler_that_fails_is_named_in_the_warning(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="(?s)broken-c.*no such luck"):
        rasterization = rasterize(splats.gaussians(), splats.camera())
    assert isinstance(rasterization, PlainRasterization)
    assert not list((tmp_path / "cache" / "liftgs").iterdir())


@needs_compiler
def test_a_fixed_target_is_built_once_for_all_kinds_of_cpu(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LIFTGS_RENDER_TARGET", "-mtune=generic")
    monkeypatch.setattr(compile, "FLAGS", QUICK)
    compile.load()
    compile.load.cache_clear()
    monkeypatch.setattr(compile, "_cpu", lambda: "another")
    compile.load()
    assert len(list((tmp_path / "liftgs").iterdir())) == 1
    monkeypatch.delenv("LIFTGS_RENDER_TARGET")
    assert compile._identity("c++") not in next((tmp_path / "liftgs").iterdir()).name


@needs_compiler
@pytest.mark.parametrize("target", ["", "-mavx2 -mfma"])
def test_other_instruction_sets_agree(
    target: str, forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same source without AVX-512: narrower vectors, other register blocks."""
    if target and not _cpu_has("avx2"):
        pytest.skip("no AVX2 here")
    monkeypatch.setattr(compile, "TARGETS", (tuple(target.split()),))
    monkeypatch.setattr(compile, "FLAGS", QUICK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scene, view = splats.gaussians(), splats.camera()
    channels = torch.randn(300, 75, dtype=torch.float64)

    def render(gaussians: Gaussians, camera: Pinhole, channels: Tensor) -> tuple[Tensor, Tensor]:
        rasterization = NativeRasterization(gaussians, camera)
        return rasterization.composite(channels), rasterization.alpha

    expected = splats.values_and_gradients(render_dense, scene, view, channels, torch.float64)
    splats.assert_agree(splats.values_and_gradients(render, scene, view, channels, torch.float32), expected)
    logits, masks = 4 * torch.randn(700, 27).T.unflatten(0, (9, 3)), (torch.rand(3, 700) < 0.3).float()
    exact, columns = (logits.double(), masks.double()), torch.randn(3, 9, 3)
    sums, slopes = fused.sums(logits, masks).double(), fused.slopes(logits, masks, *columns).double()
    torch.testing.assert_close(sums, grounding._sums(*exact), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(slopes, grounding._slopes(*exact, *columns.double()), rtol=1e-5, atol=1e-6)


def _cpu_has(flag: str) -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and flag in info.read_text().split()
