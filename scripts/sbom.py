"""A bill of materials: what is installed beside this project and under which licence, as CycloneDX 1.5 JSON.

    python scripts/sbom.py > sbom.json

Read from the environment it runs in, so run it in the one that is shipped, such as the image. Equal environments give
equal bytes. Hashes are those of requirements.lock, where the release is the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from lock import normal, read

LOCK = Path(__file__).parents[1] / "requirements.lock"
_PROJECT = "liftgs"


def bill(installed: Iterable[Distribution], locked: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """The document, for these packages and a lock's hashes."""
    found = {normal(one.metadata["Name"]): one for one in installed}
    components = [_component(name, found[name], locked) for name in sorted(found) if name != _PROJECT]
    document: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    if _PROJECT in found:
        document["metadata"] = {"component": _component(_PROJECT, found[_PROJECT], {}) | {"type": "application"}}
    return document | {"components": components}


def _component(name: str, package: Distribution, locked: dict[str, tuple[str, str]]) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{package.version}",
        "name": name,
        "version": package.version,
        "purl": f"pkg:pypi/{name}@{package.version}",
    }
    if licence := _licence(package):
        component["licenses"] = [{"license": {"name": licence}}]
    version, digest = locked.get(name, ("", ""))
    if version == package.version:
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return component


def _licence(package: Distribution) -> str:
    """In its own words: the SPDX expression, the classifiers, or the first line of the free text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    text = str(metadata.get("License") or "").strip().splitlines()
    return " and ".join(classifiers) or (text[0][:100] if text else "")


def main() -> None:
    """See the module's text."""
    locked = read(LOCK.read_text()) if LOCK.exists() else {}
    json.dump(bill(distributions(), locked), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
