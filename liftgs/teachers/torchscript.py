"""Reads the tensors of a TorchScript archive without running anything in it.

OpenAI publishes CLIP as TorchScript archives (`ViT-L-14.pt`). `torch.jit.load` would compile and hold their code, and
`torch.load(weights_only=True)` refuses them; all that is wanted is their parameters.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands for an object of any class that the archive defines; only its attributes are kept."""

    fields: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.fields = state


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors, containers and `_Module`s; any other name in the pickle is an error."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, tag: value
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        member = self._archive.getinfo(f"{self._root}/data/{key}")
        if member.compress_type != zipfile.ZIP_STORED:  # as torch writes them; what is packed may grow without end
            raise pickle.UnpicklingError(f"{member.filename} is compressed")
        data = bytearray(self._archive.read(member))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by its list of members."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """All tensors of a TorchScript archive by their attribute path, as `ScriptModule.state_dict` would name them.

    Raises:
        pickle.UnpicklingError, zipfile.BadZipFile, KeyError, RuntimeError: damaged, or not such an archive.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name.split("/")[0] for name in archive.namelist() if name.endswith("/constants.pkl"))
        module = _TensorUnpickler(archive, root).load()
    state: dict[str, Tensor] = {}
    _collect(module, "", state)
    return state


def _collect(module: _Module, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in module.fields.items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", state)
