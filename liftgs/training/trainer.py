"""One training step after another: forward, backward, clip, step; what is not finite is skipped and counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.model.norm import batch_norms, uncounted
from liftgs.model.voxels import voxelise
from liftgs.render import NotFinite
from liftgs.training.world import ALONE, World, tree_sum


@dataclass(frozen=True, eq=False)
class Losses:
    """Attributes:
    total: what is minimised.
    terms: its parts, weighted, by name; they add up to it.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class Item(Protocol):
    """What a training learns from in one visit to a sample."""

    def __len__(self) -> int:
        """How much it counts in the mean over a batch: by its views, or the questions that it asks."""

    def to(self, device: torch.device | str) -> Self:
        """On another device."""


class Objective(Protocol):
    """Mean loss of a batch over all that counts in its items, so it does not matter how the batch is split."""

    def __call__(self, model: LiftGS, items: Sequence[Any], scenes: Sequence[EncodedScene] | None = None) -> Losses:
        """Args:
        model: in training mode, or not.
        items: on the model's device. Each seeds torch's random numbers for its own part.
        scenes: theirs, if the model has encoded them already.
        """


class TrainingDiverged(RuntimeError):
    """Too many steps in a row, or in all, had losses or gradients that are not finite."""


@dataclass(frozen=True)
class OptimConfig:
    """How weights are updated. Defaults are the paper's (section 4.1) where it says.

    Attributes:
        steps: updates in all; 76,000 in the paper. With schedule=plateau at most so many.
        batch_size: items per update, over all workers; 32 in the paper.
        lr: peak learning rate of AdamW; 1e-4 in the paper.
        weight_decay: 1e-4 in the paper; not on norms, biases and embeddings.
        warmup_steps: linear rise; 1000 in UniVLG, the paper does not say.
        schedule: what follows the warm-up. "cosine": `lr` falls to `final_lr` over all steps. "plateau": it stays, and
            training ends when validation has stopped rising; best with `average`, since no falling rate calms the
            weights.
        final_lr: share of `lr` at the end of the cosine.
        average: what is validated and kept are the weights' exponential moving average over about so many steps, fewer
            at the beginning; 0 = the newest weights.
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
    schedule: Literal["cosine", "plateau"] = "cosine"
    final_lr: float = 0.01
    average: int = 0
    clip: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    max_skipped: float = 0.2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.lr > 0 or not self.clip > 0:
            raise ValueError("steps and batch_size must be at least 1, lr and clip above 0")
        if self.average < 0:
            raise ValueError(f"average must be a number of steps, or 0, not {self.average}")

    def lr_at(self, step: int) -> float:
        """Learning rate of the update number `step`, from 0: warm-up, then what `schedule` says."""
        warm = self.warm
        if step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule == "plateau":
            return self.lr
        along = (step - warm) / max(1, self.steps - warm)
        return self.lr * (self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))

    @property
    def warm(self) -> int:
        """Steps of the warm-up."""
        return min(self.warmup_steps, self.steps // 2)


@dataclass(frozen=True)
class _Part:
    """What some items contribute, as sums over all that counts: to the loss, its terms and the gradient; and seconds.

    `slopes` is the gradient of all parameters in a row, then for each parameter whether it has any.
    """

    count: int
    total: float
    terms: dict[str, float]
    slopes: Float[Tensor, " p"]
    forward_s: float
    backward_s: float


@dataclass(frozen=True)
class _Forward:
    """Losses of some items, how much they count, and how many seconds they took."""

    losses: Losses
    count: int
    seconds: float

    @property
    def total(self) -> float:
        """Sum over all that counts; NaN if the network's outputs could not even be rendered or matched."""
        return float(self.losses.total.detach()) * self.count if self.count else 0.0


class Trainer:
    """The state of a training, and its one action.

    With several workers each has a trainer in the same state, and steps with its part of the batch. The update is the
    same on any number of workers that compute alike: bit for bit, or, where the network has statistics over a batch, up
    to rounding.

    Attributes:
        network: what learns.
        model: what it has come to, to be validated, shown and kept: the same, or its average (`OptimConfig.average`).
    """

    def __init__(
        self,
        model: LiftGS,
        objective: Objective,
        optim: OptimConfig,
        device: torch.device | str = "cpu",
        world: World = ALONE,
    ):
        self.network = model.to(device).train()
        self._average = _averaged(self.network, optim.average) if optim.average else None
        self.model = self._average.module if self._average else self.network
        self.objective = objective
        self.optim = optim
        self.device = torch.device(device)
        self.world = world
        for norm in batch_norms(self.network):
            norm.sum_over_workers = world.sum if world.size > 1 else None
        self.optimizer = torch.optim.AdamW(_groups(self.network, optim.weight_decay), lr=optim.lr, fused=True)
        self.steps_done = 0
        self.skipped: list[int] = []  # numbers of the steps that were skipped

    def step(self, items: Sequence[Item | None]) -> dict[str, float]:
        """One update.

        Args:
            items: this worker's places in the batch, in order (`World.places`); None where there is no usable sample.

        Returns:
            Loss terms by name, "loss", "grad_norm", "lr", "skipped" (0 or 1), the same on all workers; and seconds by
            phase: "forward_s", "backward_s", "update_s".

        Raises:
            TrainingDiverged: past `OptimConfig.max_skipped`.
            ValueError: not as many items as this worker has places.
        """
        start = time.perf_counter()
        places = sum(map(len, self.world.places(self.optim.batch_size)))
        if len(items) != places:
            raise ValueError(f"{len(items)} items for this worker's {places} of {self.optim.batch_size} places")
        lr = self.optim.lr_at(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        parts = self._differentiate_all(items)
        counted, total, terms = self._of_all_workers(parts)
        norm = self._set_gradients(parts, counted) if math.isfinite(total) else math.nan
        differentiated = time.perf_counter()
        if math.isfinite(norm):
            self.optimizer.step()
            if self._average:
                self._average.update_parameters(self.network)
        else:
            self.skipped.append(self.steps_done)
            for buffer, before in zip(self.network.buffers(), statistics, strict=True):
                buffer.copy_(before)
        self.steps_done += 1
        mine = [part for part in parts if part is not None]
        forward_s, backward_s = sum(part.forward_s for part in mine), sum(part.backward_s for part in mine)
        wall_s = (differentiated - start) / max(forward_s + backward_s, 1e-9)  # they may run side by side
        metrics = terms | {
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

    def _differentiate_all(self, items: Sequence[Item | None]) -> list[_Part | None]:
        """A part per place. On a CPU items are worked on side by side, a thread each: most of what a step does is too
        small to be shared out."""
        usable = [item for item in items if item is not None]
        if batch_norms(self.network):
            return [self._differentiate_together(usable), *[None] * (len(items) - 1)]
        threads = torch.get_num_threads()
        nothing_to_share = self.optim.batch_size == 1 or threads == 1
        if nothing_to_share or self.device.type != "cpu" or self._draws_random_numbers:
            return [None if item is None else self._differentiate(item) for item in items]
        # Each item has as many threads on any number of workers, since kernels round by how they share out their work.
        each = max(1, threads // self.optim.batch_size)
        side_by_side = max(1, min(len(usable), threads))
        with ThreadPoolExecutor(side_by_side, "item", torch.set_num_threads, (each,)) as pool:
            return list(pool.map(lambda item: None if item is None else self._differentiate(item), items))

    @property
    def _draws_random_numbers(self) -> bool:
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.network.modules())

    def _differentiate(self, item: Item) -> _Part:
        """Of one item, which does not depend on the others."""
        done = self._forward([item])
        return self._backward(done, wanted=math.isfinite(done.total))

    def _differentiate_together(self, items: Sequence[Item]) -> _Part | None:
        """Of all this worker's items, where statistics go over those of all workers: in step with the others."""
        if not sum(self.world.gather(len(items))):
            return None
        with nullcontext() if items else uncounted(self.network):  # also backward, which may run stages once more
            done = self._forward(items) if items else self._forward_for_others()
            return self._backward(done, wanted=all(self.world.gather(math.isfinite(done.total))))

    def _forward(self, items: Sequence[Item]) -> _Forward:
        start = time.perf_counter()
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                losses = self.objective(self.network, [item.to(self.device) for item in items])
        except NotFinite:
            losses = Losses(torch.tensor(math.nan), {})
        return _Forward(losses, sum(map(len, items)), time.perf_counter() - start)

    def _forward_for_others(self) -> _Forward:
        """Takes part in the others' statistics, as a worker all of whose samples are bad: a voxel that does not count
        goes the same way through the network."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            nowhere = voxelise(torch.zeros(1, 3), torch.zeros(1, 3), self.network.config.voxel_size_m)
            features = self.network.encode([nowhere.to(self.device)])[0].features
        return _Forward(Losses(features.sum(), {}), 0, 0.0)

    def _backward(self, done: _Forward, wanted: bool) -> _Part:
        """The gradient, or none if it is not wanted."""
        start = time.perf_counter()
        parameters = list(self.network.parameters())
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if wanted:
            gradients = torch.autograd.grad(done.losses.total * done.count, parameters, allow_unused=True)
        terms = {name: float(value.detach()) * done.count for name, value in done.losses.terms.items()}
        slopes = _in_a_row(parameters, gradients)
        return _Part(done.count, done.total, terms, slopes, done.seconds, time.perf_counter() - start)

    def _of_all_workers(self, parts: Sequence[_Part | None]) -> tuple[int, float, dict[str, float]]:
        """How much the batch counts, its mean loss over that, and the loss' terms. NaN if there is nothing."""
        told = [None if part is None else (part.count, part.total, part.terms) for part in parts]
        everyone = [one for of_worker in self.world.gather(told) for one in of_worker if one is not None]
        counted = sum(count for count, _, _ in everyone)
        if counted == 0:
            return 0, math.nan, {}
        names = list(dict.fromkeys(name for _, _, terms in everyone for name in terms))
        means = {name: sum(terms.get(name, 0.0) for _, _, terms in everyone) / counted for name in names}
        return counted, sum(total for _, total, _ in everyone) / counted, means

    def _set_gradients(self, parts: Sequence[_Part | None], counted: int) -> float:
        """The mean over all that counts, of all workers; returns its norm before clipping."""
        parameters = list(self.network.parameters())
        size = sum(p.numel() + 1 for p in parameters)
        nothing = torch.zeros(size if None in parts else 0, device=self.device)  # one for all that there is none of
        rows = iter([nothing if part is None else part.slopes for part in parts])
        units = [tree_sum([next(rows) for _ in places]) for places in self.world.places(self.optim.batch_size)]
        total = self.world.sum_units(units, self.optim.batch_size)
        gradients, present = total[: -len(parameters)].div_(counted), (total[-len(parameters) :] > 0).tolist()
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, gradient, there in zip(parameters, gradients.split(sizes), present, strict=True):
            parameter.grad = gradient.view_as(parameter) if there else None
        return float(nn.utils.clip_grad_norm_(parameters, self.optim.clip))

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
        if self._average:
            state |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{name}.{key}"] = value
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse.

        Raises:
            ValueError: the state is of another network.
        """
        parameters = dict(self.network.named_parameters())
        self.steps_done, self.skipped = int(state["steps_done"]), [int(number) for number in state["skipped"]]
        if self._average:
            self._average.n_averaged.fill_(self.steps_done - len(self.skipped))
            prefix = "network."
            weights = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
            self.network.load_state_dict(weights)
        for entry, value in state.items():
            if not entry.startswith("optimizer."):
                continue
            name, _, key = entry.removeprefix("optimizer.").rpartition(".")
            if name not in parameters:
                raise ValueError(f"optimiser state of {name!r}, which this network does not have")
            tensor: Tensor = value
            place = "cpu" if key == "step" and self.device.type == "cpu" else self.device
            self.optimizer.state[parameters[name]][key] = tensor.to(place)


def _averaged(network: LiftGS, steps: int) -> AveragedModel:
    """See `OptimConfig.average`. Unlike the fixed rate of torch, it soon forgets the first weights."""

    def move(average: Any, newest: Any, count: Tensor | int) -> None:
        torch._foreach_lerp_(average, newest, max(1 / steps, 9 / (10 + int(count))))

    return AveragedModel(network, multi_avg_fn=move)


def _in_a_row(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Float[Tensor, " p"]:
    """See `_Part.slopes`."""
    present = [gradient is not None for gradient in gradients]
    rows = [
        torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    return torch.cat([*rows, torch.tensor(present, dtype=rows[0].dtype, device=rows[0].device)])


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) and embeddings do not."""
    matrices = {id(m.weight) for m in model.modules() if hasattr(m, "weight") and getattr(m.weight, "ndim", 0) > 1}
    decayed = [p for p in model.parameters() if id(p) in matrices]
    rest = [p for p in model.parameters() if id(p) not in matrices]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
