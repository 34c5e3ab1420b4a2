"""Submanifold convolution by spconv's kernels, with weights and rows of our own.

Only the submanifold kind: there spconv keeps the order of the voxels, and has the advantage of skipping absent
neighbours. A strided or inverse convolution is one gather and one product anyway.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.model.sparse_pyramid import Level

#: A layer has the weights of whoever calls it, for as long as the call lasts.
_BORROWED = threading.Lock()


@cache
def installed() -> bool:
    """Whether spconv can be imported."""
    return find_spec("spconv") is not None


def _spconv() -> Any:
    return import_module("spconv.pytorch")


def usable(features: Tensor) -> bool:
    """On CUDA. (spconv's CPU build computes the right forward, but neither trains nor is fast.)"""
    return features.is_cuda and installed()


def submanifold(
    features: Float[Tensor, "n i"], weight: Float[Tensor, "o kx ky kz i"], level: Level
) -> Float[Tensor, "n o"]:
    """As `sparse_ops.submanifold`; layers of one level and kernel share spconv's index pairs."""
    out_channels, kernel, *_, in_channels = weight.shape
    shared = _tensor(level)
    # Under autocast spconv's functions compute in float16, where gradients of means over many voxels vanish.
    with _BORROWED, torch.autocast("cuda", enabled=False):
        result = torch.func.functional_call(
            _layer(in_channels, out_channels, kernel), {"weight": weight}, (shared.replace_feature(features.float()),)
        )
    shared.indice_dict.update(result.indice_dict)
    return cast(Tensor, result.features).to(features.dtype)


@cache
def _layer(in_channels: int, out_channels: int, kernel: int) -> torch.nn.Module:
    """Without weights of its own. Always in training mode: the other has no gradient, and its pairs lack half."""
    with torch.device("meta"):
        layer = _spconv().SubMConv3d(
            in_channels, out_channels, kernel, padding=kernel // 2, bias=False, indice_key=f"submanifold{kernel}"
        )
    return cast(torch.nn.Module, layer)


def _tensor(level: Level) -> Any:
    """The level's voxels as spconv's tensor, without features; it holds the shared index pairs."""
    if "spconv" not in level.cache:
        low, high = torch.aminmax(level.coords, dim=0)
        low[0] = 0
        batch, *shape = (high - low + 1).tolist()
        nothing = torch.empty(0, 1, device=level.coords.device)
        level.cache["spconv"] = _spconv().SparseConvTensor(nothing, (level.coords - low).contiguous(), shape, batch)
    return level.cache["spconv"]
