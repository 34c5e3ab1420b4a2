"""Run every benchmark, one after the other, each in a process of its own so that none inherits another's memory."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import benchmarks

for module in sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__)):
    if not module.startswith("_") and module != "common":
        subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *sys.argv[1:]], check=True)
