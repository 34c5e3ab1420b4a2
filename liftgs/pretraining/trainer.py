"""One training step after another: forward, backward, clip, step; what is not finite is skipped and counted."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from liftgs.model.liftgs import LiftGS
from liftgs.pretraining.items import Item
from liftgs.pretraining.objective import Losses, Objective, ObjectiveConfig
from liftgs.render import NotFinite


class TrainingDiverged(RuntimeError):
    """Too many steps in a row, or in all, had losses or gradients that are not finite."""


@dataclass(frozen=True)
class OptimConfig:
    """How weights are updated. Defaults are the paper's (section 4.1) where it says.

    Attributes:
        steps: updates in all; 76,000 in the paper.
        batch_size: items per update, over all workers; 32 in the paper.
        lr: peak learning rate of AdamW; 1e-4 in the paper.
        weight_decay: 1e-4 in the paper; not on norms, biases and embeddings.
        warmup_steps: linear rise; 1000 in UniVLG, the paper does not say.
        final_lr: share of `lr` at the end of the cosine.
        clip: largest gradient norm; between UniVLG's 0.01 and the common 1.0, the paper does not say.
        precision: of the network's matrix products: "bf16" by autocast on CUDA, "fp32" otherwise; "auto" picks by
            device. Rendering, matching and losses are always float32.
        max_skipped: the run stops when more than this share of the last 100 steps (or of at least 20) was skipped.
    """

    steps: int = 76_000
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 1000
    final_lr: float = 0.01
    clip: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    max_skipped: float = 0.2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.lr > 0 or not self.clip > 0:
            raise ValueError("steps and batch_size must be at least 1, lr and clip above 0")

    def lr_at(self, step: int) -> float:
        """Learning rate of the update number `step`, from 0: warm-up, then cosine."""
        warm = min(self.warmup_steps, self.steps // 2)
        if step < warm:
            return self.lr * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - warm)
        return self.lr * (self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))


@dataclass(frozen=True)
class _Part:
    """What some items of a batch contribute: to its loss, to each term, to each parameter's gradient; and seconds."""

    total: float
    terms: dict[str, float]
    gradients: tuple[Tensor | None, ...]
    forward_s: float
    backward_s: float


class Trainer:
    """The state of a training, and its one action."""

    def __init__(
        self, model: LiftGS, objective: ObjectiveConfig, optim: OptimConfig, device: torch.device | str = "cpu"
    ):
        self.model = model.to(device).train()
        self.objective = Objective(objective)
        self.optim = optim
        self.device = torch.device(device)
        self.optimizer = torch.optim.AdamW(_groups(self.model, optim.weight_decay), lr=optim.lr, fused=True)
        self.steps_done = 0
        self.skipped: list[int] = []  # numbers of the steps that were skipped

    def step(self, items: Sequence[Item]) -> dict[str, float]:
        """One update.

        Args:
            items: the batch.

        Returns:
            Loss terms by name, "loss", "grad_norm", "lr", "skipped" (0 or 1), and seconds by phase: "forward_s",
            "backward_s", "update_s".

        Raises:
            TrainingDiverged: past `OptimConfig.max_skipped`.
        """
        start = time.perf_counter()
        lr = self.optim.lr_at(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts = self._differentiate_all(items)
        total = sum(part.total for part in parts)
        norm = self._set_gradients(parts) if math.isfinite(total) else math.nan
        differentiated = time.perf_counter()
        if math.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped.append(self.steps_done)
        self.steps_done += 1
        forward_s, backward_s = (sum(part.forward_s for part in parts), sum(part.backward_s for part in parts))
        wall_s = (differentiated - start) / (forward_s + backward_s)
        metrics = {name: sum(part.terms.get(name, 0.0) for part in parts) for name in parts[0].terms} | {
            "loss": total,
            "grad_norm": norm,
            "lr": lr,
            "skipped": float(bool(self.skipped) and self.skipped[-1] == self.steps_done - 1),
            "forward_s": forward_s * wall_s,
            "backward_s": backward_s * wall_s,
            "update_s": time.perf_counter() - differentiated,
        }
        self._check_skipped(metrics)
        return metrics

    def _differentiate_all(self, items: Sequence[Item]) -> list[_Part]:
        """On a CPU items are worked on side by side, a thread each: most of a step is too small to share out."""
        parts = [[item] for item in items] if self._items_are_apart else [list(items)]
        views = sum(len(item.views) for item in items)
        shares = [sum(len(item.views) for item in part) / views for part in parts]
        threads = torch.get_num_threads()
        if min(len(parts), threads) == 1:
            return list(map(self._differentiate, parts, shares))
        side_by_side = min(len(parts), threads)
        with ThreadPoolExecutor(side_by_side, "item", torch.set_num_threads, (threads // side_by_side,)) as pool:
            return list(pool.map(self._differentiate, parts, shares))

    @property
    def _items_are_apart(self) -> bool:
        """Whether a batch's gradient is the mean of its items'. Not with statistics of a batch; and random numbers
        that threads draw in turns would differ from run to run."""
        return self.device.type == "cpu" and not any(
            isinstance(module, nn.BatchNorm1d) or (isinstance(module, nn.Dropout) and module.p > 0)
            for module in self.model.modules()
        )

    def _differentiate(self, items: Sequence[Item], share: float) -> _Part:
        """The part of the batch's loss that some of its items make. NaN if they cannot even be rendered or matched."""
        start = time.perf_counter()
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                losses = self.objective(self.model, [item.to(self.device) for item in items])
        except NotFinite:
            losses = Losses(torch.tensor(math.nan), {})
        total = float(losses.total.detach()) * share
        forward = time.perf_counter()
        gradients: tuple[Tensor | None, ...] = ()
        if math.isfinite(total):
            parameters = list(self.model.parameters())
            gradients = torch.autograd.grad(losses.total * share, parameters, allow_unused=True)
        terms = {name: float(value.detach()) * share for name, value in losses.terms.items()}
        return _Part(total, terms, gradients, forward - start, time.perf_counter() - forward)

    def _set_gradients(self, parts: Sequence[_Part]) -> float:
        """The sum of the parts', in their order; returns its norm before clipping."""
        for parameter, gradients in zip(
            self.model.parameters(), zip(*(part.gradients for part in parts), strict=True), strict=True
        ):
            present = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = functools.reduce(torch.add, present) if present else None
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip))

    @property
    def _bf16(self) -> bool:
        precision = self.optim.precision
        return precision == "bf16" or (precision == "auto" and self.device.type == "cuda")

    def _check_skipped(self, metrics: Mapping[str, float]) -> None:
        recent = min(100, self.steps_done)
        lost = sum(number >= self.steps_done - recent for number in self.skipped)
        if recent >= min(20, self.optim.steps) and lost > self.optim.max_skipped * recent:
            bad = [name for name, value in metrics.items() if not math.isfinite(value)] or ["gradients"]
            raise TrainingDiverged(
                f"{lost} of the last {recent} steps were skipped (now: {', '.join(bad)} not finite); "
                f"lower optim.lr (now {self.optim.lr:g}) or optim.clip, or look at the data of the last steps"
            )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, flat: what `load_state_dict` needs beside the model's weights."""
        state: dict[str, Any] = {"steps_done": self.steps_done, "skipped": list(self.skipped)}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{name}.{key}"] = value
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse.

        Raises:
            ValueError: the state is of another network.
        """
        parameters = dict(self.model.named_parameters())
        self.steps_done, self.skipped = int(state["steps_done"]), [int(number) for number in state["skipped"]]
        for entry, value in state.items():
            if not entry.startswith("optimizer."):
                continue
            name, _, key = entry.removeprefix("optimizer.").rpartition(".")
            if name not in parameters:
                raise ValueError(f"optimiser state of {name!r}, which this network does not have")
            tensor: Tensor = value
            place = "cpu" if key == "step" and self.device.type == "cpu" else self.device
            self.optimizer.state[parameters[name]][key] = tensor.to(place)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) and embeddings do not."""
    matrices = {id(m.weight) for m in model.modules() if hasattr(m, "weight") and getattr(m.weight, "ndim", 0) > 1}
    decayed = [p for p in model.parameters() if id(p) in matrices]
    rest = [p for p in model.parameters() if id(p) not in matrices]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
