"""What stays in float32 while the network around it computes in less."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function, in the precision of its arguments whatever autocast is on around it.

    Autocast lowers every product, also of tensors that were made float32 on purpose: metres squared, variances as
    differences of squares, cosines over a temperature.
    """

    @wraps(function)
    def full(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return full
