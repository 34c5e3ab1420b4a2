"""Nothing that is found in data is executed: no call in the sources can, but for the few that are listed and why."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: (file, call) -> why it is none of data's business
ALLOWED = {
    ("platform/liftgs_platform/label_pool.py", "pickle.loads"): "what the same job's actors hand to each other",
    ("platform/liftgs_platform/evaluate_pool.py", "pickle.loads"): "what the same job's driver hands to its actors",
    ("liftgs/teachers/torchscript.py", "pickle.Unpickler"): "builds tensors and containers, refuses any other name",
    ("benchmarks/_raster_peers.py", "exec"): "the source code of a peer, which the benchmark downloads to run it",
    ("benchmarks/_raster_peers.py", "compile"): "the same",
    ("benchmarks/raster.py", "ctypes.CDLL"): "a bound of our own, compiled from this repository",
    ("liftgs/render/compile.py", "ctypes.CDLL"): "our own kernels, compiled from the package",
    ("platform/liftgs_platform/label_teachers.py", "ctypes.CDLL"): "the C library of this process",
}

#: Modules whose loaders call whatever a file names.
_UNPICKLING = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle")
_LOADERS = {"load", "loads", "Unpickler", "open", "decode"}
_NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "ctypes.CDLL", "ctypes.cdll.LoadLibrary"),
    *("torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "torch.ops.load_library", "runpy.run_path"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "hydra.utils.instantiate", "numpy.fromregex"),
    *("pandas.read_pickle", "pandas.eval", "ray.cloudpickle.load", "ray.cloudpickle.loads", "numexpr.evaluate"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
}


def _sets(call: ast.Call, argument: str, value: object) -> bool:
    return any(
        k.arg == argument and isinstance(k.value, ast.Constant) and k.value.value == value for k in call.keywords
    )


#: What is safe only with an argument: call -> whether it is safe.
_GUARDED: dict[str, Callable[[ast.Call], bool]] = {
    "torch.load": lambda call: _sets(call, "weights_only", True),
    "open_clip.create_model": lambda call: len(call.args) < 2 or _sets(call, "weights_only", True),
    "open_clip.factory.load_state_dict": lambda call: _sets(call, "weights_only", True),
    "numpy.load": lambda call: _sets(call, "allow_pickle", False),
    "numpy.lib.format.read_array": lambda call: _sets(call, "allow_pickle", False),
    "jinja2.Environment": lambda call: _sets(call, "autoescape", True),  # a scene's name is no script
}


def sources() -> list[Path]:
    return sorted(
        file for room in ("liftgs", "platform", "benchmarks", "scripts") for file in (ROOT / room).rglob("*.py")
    )


def full_names(tree: ast.Module) -> dict[str, str]:
    """Name in a file -> what it is in full, from its imports."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def dangers(text: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each call, or base class, that can execute what it is given."""
    tree = ast.parse(text)
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from ((node.lineno, name) for base in node.bases if is_unpickler(name := dotted(base, names)))
        if isinstance(node, ast.Call):
            name = dotted(node.func, names)
            if name in _NEVER or is_unpickler(name) or not _GUARDED.get(name, lambda _: True)(node):
                yield node.lineno, name
            elif name.startswith("subprocess.") and any(k.arg == "shell" for k in node.keywords):
                yield node.lineno, f"{name}(shell=)"
            elif name.endswith((".extractall", ".extract")) and not _sets(node, "filter", "data"):
                yield node.lineno, name


def is_unpickler(name: str) -> bool:
    module, _, function = name.rpartition(".")
    return module in _UNPICKLING and function in _LOADERS


#: (file, call) -> line. Read before any test runs: Python 3.11's `ast.parse` fails beside a thread that parses too.
FOUND = {
    (file.relative_to(ROOT).as_posix(), name): line for file in sources() for line, name in dangers(file.read_text())
}


def test_no_call_executes_what_it_is_given() -> None:
    assert {f"{file}:{FOUND[file, name]}: {name}" for file, name in FOUND.keys() - ALLOWED.keys()} == set()
    assert ALLOWED.keys() - FOUND.keys() == set(), "listed, and not there any more"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load\nload(f)",
        "import pickle as p\nclass U(p.Unpickler): ...",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import jit\njit.load(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "eval('1')",
        "exec('1')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess as s\ns.Popen('ls', shell=really)",
        "import os\nos.system('ls')",
        "import tarfile\ntarfile.open(f).extractall(folder)",
        "def f(tar):\n    tar.extract(member, filter='fully_trusted')",
        "import jinja2\njinja2.Environment().from_string(t)",
    ],
)
def test_the_search_finds_each_way(text: str) -> None:
    assert list(dangers(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import json, yaml\njson.loads(t)\nyaml.safe_load(t)",
        "model.eval()\nimport re\nre.compile('a')",
        "import tarfile\ntarfile.open(f).extractall(folder, filter='data')",
        "import subprocess\nsubprocess.run(['ls'])",
    ],
)
def test_the_search_lets_pass_what_is_safe(text: str) -> None:
    assert not list(dangers(text))
