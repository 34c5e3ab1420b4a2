"""requirements.lock: the exact release of everything that `pip install liftgs` brings, with the hash of its file.

    pip install --dry-run --ignore-installed --report report.json '.[sfm,viewer]'
    python scripts/lock.py report.json > requirements.lock
    pip install --require-hashes --no-deps -r requirements.lock && pip install --no-deps .

The report is pip's own resolution for the machine it runs on, so the lock is for that system and Python; its first line
says which. pip 23.3 or newer makes it from the packages' metadata, without downloading them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def lock(report: Mapping[str, Any]) -> str:
    """The lock, from pip's report.

    Raises:
        ValueError: a package has no SHA-256, or is no release of an index (a local build, a checkout).
    """
    rows = sorted(_rows(report["install"]), key=lambda row: row[0])
    environment = report["environment"]
    python, system = environment["python_version"], f"{environment['sys_platform']} {environment['platform_machine']}"
    lines = [f"# {len(rows)} packages for Python {python} on {system}; made by scripts/lock.py, do not edit"]
    lines += [f"{name}=={version} --hash=sha256:{digest}" for name, version, digest in rows]
    return "\n".join(lines) + "\n"


def _rows(installed: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for package in installed:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        source = package["download_info"]
        if "dir_info" in source or "vcs_info" in source:
            if package.get("requested"):
                continue  # the project itself
            raise ValueError(f"{name} comes from {source['url']}, not from an index")
        if source["url"].startswith("file:") or "+" in version:
            raise ValueError(f"{name}=={version} is a build of this machine's; resolve with the package index alone")
        digest = source.get("archive_info", {}).get("hashes", {}).get("sha256", "")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(f"{name}=={version} has no SHA-256")
        yield normal(name), version, digest


def normal(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(text: str) -> dict[str, tuple[str, str]]:
    """Name -> version and SHA-256 of a lock."""
    rows = re.findall(r"^([a-z0-9-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    return {name: (version, digest) for name, version, digest in rows}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what pip wrote with --report")
    report = json.loads(parser.parse_args().report.read_text())
    try:
        sys.stdout.write(lock(report))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
