"""The lock pins every dependency by hash, and the bill of materials names what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import lock  # noqa: E402
import sbom  # noqa: E402

LOCK = ROOT / "requirements.lock"


def package(name: str = "Foo.bar", **changes: Any) -> dict[str, Any]:
    """As pip reports one."""
    source = {"url": "https://index/foo.whl", "archive_info": {"hashes": {"sha256": "0" * 64}}}
    return {"metadata": {"name": name, "version": "1.0"}, "download_info": source, "requested": False} | changes


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    environment = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
    return {"install": list(packages), "environment": environment}


def test_a_lock_is_sorted_and_holds_hashes_and_no_address() -> None:
    ours = package("liftgs", requested=True, download_info={"url": "file:///here", "dir_info": {}})
    text = lock.lock(report(package("zlib_ng"), ours, package()))
    zeros = "0" * 64
    assert text.splitlines()[1:] == [f"foo-bar==1.0 --hash=sha256:{zeros}", f"zlib-ng==1.0 --hash=sha256:{zeros}"]
    assert lock.read(text) == {"foo-bar": ("1.0", zeros), "zlib-ng": ("1.0", zeros)}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (package(metadata={"name": "torch", "version": "2.9+cpu"}), "build of this machine"),
        (package(download_info={"url": "file:///wheels/a.whl", "archive_info": {}}), "build of this machine"),
        (package(download_info={"url": "https://index/a.whl", "archive_info": {}}), "no SHA-256"),
        (package(download_info={"url": "git+https://a", "vcs_info": {}}), "not from an index"),
    ],
)
def test_what_others_could_not_check_is_refused(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        lock.lock(report(package(), bad))


def test_the_lock_satisfies_the_project() -> None:
    if not LOCK.exists():
        pytest.skip("there is no requirements.lock")
    locked = lock.read(LOCK.read_text())
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert len(locked) == len(lines), "every line pins one package by one hash"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted in map(Requirement, [*project["dependencies"], *extras["sfm"], *extras["viewer"]]):
        release, _ = locked[lock.normal(wanted.name)]
        assert wanted.specifier.contains(release), f"{wanted} is locked to {release}; make the lock anew"


def test_the_bill_of_materials_lists_what_is_installed() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "sbom.py")]
    texts = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    found = {part["name"]: part for part in bill["components"]}
    assert found["numpy"]["version"] == version("numpy")
    assert found["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert "BSD" in found["numpy"]["licenses"][0]["license"]["name"]
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(refs) == len(set(refs))
    assert bill["metadata"]["component"]["name"] == "liftgs"


def test_a_hash_is_that_of_the_installed_release() -> None:
    from importlib.metadata import distribution

    numpy = distribution("numpy")
    same, other = {"numpy": (numpy.version, "a" * 64)}, {"numpy": ("0.1", "a" * 64)}
    assert sbom.bill([numpy], same)["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert "hashes" not in sbom.bill([numpy], other)["components"][0]
