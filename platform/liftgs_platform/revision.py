"""Which code this is: by its own content, so that a checkout, an upload of it and an installed wheel agree."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import liftgs
import liftgs_platform


@cache
def code_revision() -> str:
    """Version of the package and a hash of its sources, e.g. "0.1.0+3fa9c2d41b07"; goes into every sample."""
    digest = hashlib.sha256()
    for package in (liftgs, liftgs_platform):
        root = Path(str(package.__file__)).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{package.__name__}/{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return f"{version('liftgs')}+{digest.hexdigest()[:12]}"


def git_revision() -> str | None:
    """Commit of the checkout that the code runs from, with "-dirty" where it was changed; None outside a checkout."""
    root = Path(str(liftgs.__file__)).parents[1]
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
