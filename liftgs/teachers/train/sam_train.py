"""Trains the small SAM (`weights/sam_tiny.*`) from nothing, on procedural rooms.

As SAM does (Kirillov et al. 2023, appendix A), a mask loss and a dice loss go through the best of the three masks only,
and the model learns to predict its own IoU. What differs makes training possible on one CPU core within two hours: one
click per prompt and whole instances only, many prompts per image, small images first, cross-entropy that weighs a
mask's inside and outside alike at first (SAM's focal loss finds the empty mask and stays there for long), an auxiliary
loss that teaches the image encoder directly which places belong together, Muon for the transformers' matrices, and
weights averaged over time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save
from segment_anything.modeling import Sam
from torch import Tensor, nn

from liftgs.teachers.configs import MaskSettings, SegmentConfig
from liftgs.teachers.evaluate_sam import evaluate_sam
from liftgs.teachers.sam import SamArchitecture, Segment, build_architecture
from liftgs.teachers.sam_decoder import mask_logits, prompt_points
from liftgs.teachers.train.sam_data import Frames, Prompts, RenderedRooms, RoomSet, sample_prompts

TINY = "sam_tiny"


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size, with a learning rate that warms up and then falls as a cosine.

    Attributes:
        size: side of the images, pixels.
        steps: optimiser steps.
        images: per step.
        prompts: per image.
        lr: peak learning rate.
        balance: 1 = the inside and the outside of a mask weigh the same in its cross-entropy, 0 = every pixel does.
        warmup: steps.
        final_lr: at the end, over `lr`.
    """

    size: int
    steps: int
    images: int
    prompts: int
    lr: float
    balance: float
    warmup: int = 100
    final_lr: float = 0.02


@dataclass(frozen=True)
class SamTrainConfig:
    """Everything that decides the weights. The defaults made those that ship.

    Attributes:
        architecture: of the model; the last stage's size must be its `img_size`.
        masks: settings of automatic mask generation that go with the weights.
        rooms: to train on.
        held_out: rooms to evaluate on.
        stages: one after another.
        seed: of initial weights, crops, colours and prompts.
        weight_decay: of the transformers' matrices.
        clip_norm: of the gradient.
        ema: decay of the averaged weights per step.
        bf16: run the network in bfloat16; worth it on CPUs with avx512_bf16 and on GPUs.
        checkpoint_every: steps.
    """

    architecture: SamArchitecture = field(default_factory=SamArchitecture)
    masks: MaskSettings = field(
        default_factory=lambda: MaskSettings(
            points_per_side=16,
            coarse_points_per_side=8,
            points_per_batch=16,  # fits a CPU core's caches
            pred_iou_thresh=0.25,
            stability_score_thresh=0.7,
            box_nms_thresh=0.8,
        )
    )
    rooms: RoomSet = field(default_factory=lambda: RoomSet(seed=900_000, rooms=700, views=1))
    held_out: RoomSet = field(default_factory=lambda: RoomSet(seed=1_000_000, rooms=10, views=1))
    stages: tuple[Stage, ...] = (
        Stage(size=128, steps=1400, images=8, prompts=16, lr=2e-3, balance=1.0, final_lr=0.3),
        Stage(size=256, steps=2000, images=4, prompts=16, lr=1e-3, balance=0.0, final_lr=1.0),
        Stage(size=256, steps=1200, images=4, prompts=16, lr=1e-3, balance=0.0),
    )
    seed: int = 0
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema: float = 0.998
    bf16: bool = True
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if self.stages[-1].size != self.architecture.img_size:
            raise ValueError(
                f"the last stage trains at {self.stages[-1].size} pixels, but architecture.img_size is "
                f"{self.architecture.img_size}"
            )


class _Trainee(nn.Module):
    """The SAM and what only its training needs."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.sam = sam
        dim = sam.prompt_encoder.embed_dim
        self.affinity = nn.Linear(dim, 2 * dim + 1)  # a query, a key and a bias per place


@dataclass
class TrainingState:
    """Where a training stands: `step` steps into `stage`."""

    stage: int
    step: int
    model: _Trainee
    ema: dict[str, Tensor]
    optimisers: list[torch.optim.Optimizer]


def train_sam(config: SamTrainConfig, out_dir: Path, progress: Callable[[str], None] = print) -> dict[str, Any]:
    """Train, or go on with what `out_dir` holds. Rendered rooms and the checkpoint are kept there too.

    The result depends on `config` alone (and on the machine's arithmetic), however often it is interrupted.

    Args:
        config: everything that matters to the result.
        out_dir: gets `rooms/`, `checkpoint.pt`, and the result: `sam_tiny.json`, a card that `build_sam` takes as
            checkpoint, and `sam_tiny.safetensors` (fp16).
        progress: gets one line at a time.

    Returns:
        What `evaluate_sam` returns, on held-out rooms.

    Raises:
        ValueError: `out_dir` holds a checkpoint of another config.
    """
    frames = RenderedRooms(config.rooms, out_dir / "rooms")
    frames.render(progress)
    state = fit(config, frames, out_dir, progress)
    path = out_dir / f"{TINY}.json"
    export_sam(config, state.ema, {}, path)
    metrics = evaluate_sam(Segment(SegmentConfig(str(path))), config.held_out.scenes(), progress)
    export_sam(config, state.ema, metrics, path)
    return metrics


def fit(
    config: SamTrainConfig, frames: Frames, out_dir: Path, progress: Callable[[str], None] = print
) -> TrainingState:
    """Take all steps that `out_dir/checkpoint.pt` has not taken yet."""
    state = _resume(config, out_dir) or _fresh(config)
    losses: list[dict[str, float]] = []
    while True:
        stage = config.stages[state.stage]
        if state.step == stage.steps:
            if state.stage + 1 == len(config.stages):
                return state
            state = _next_stage(config, state)
            _save(config, state, out_dir)
            continue
        losses = [*losses[-99:], _step(config, state, frames)]
        if state.step % 50 == 0:
            means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
            line = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
            progress(f"stage {state.stage + 1} of {len(config.stages)}, step {state.step} of {stage.steps}: {line}")
        if state.step % config.checkpoint_every == 0 or state.step == stage.steps:
            _save(config, state, out_dir)


def _sam_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("sam."): value for name, value in weights.items() if name.startswith("sam.")}


def export_sam(config: SamTrainConfig, weights: dict[str, Tensor], metrics: dict[str, Any], path: Path) -> None:
    """Write the card to `path` (.json) and the weights beside it, each whole or not at all."""
    tensors = {name: value.half().contiguous() for name, value in _sam_weights(weights).items()}
    card = {
        "architecture": asdict(config.architecture),
        "masks": asdict(config.masks),
        "training": {name: value for name, value in asdict(config).items() if name not in ("architecture", "masks")},
        "evaluation": metrics,
    }
    _write_whole(path.with_suffix(".safetensors"), save(tensors))
    _write_whole(path, (json.dumps(card, indent=2) + "\n").encode())


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _build(config: SamTrainConfig, stage: int) -> _Trainee:
    """The model at a stage's image size; only `pos_embed` depends on it."""
    architecture = SamArchitecture(**{**asdict(config.architecture), "img_size": config.stages[stage].size})
    return _Trainee(build_architecture(architecture)).train()


def _fresh(config: SamTrainConfig) -> TrainingState:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _build(config, 0)
        encoder = model.sam.image_encoder
        nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
        for module in encoder.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
    return TrainingState(0, 0, model, _copy(model), _optimisers(config, model))


def _next_stage(config: SamTrainConfig, state: TrainingState) -> TrainingState:
    """Averaged weights so far become the start of the next stage; its optimisers start anew."""
    model = _build(config, state.stage + 1)
    weights, name = dict(state.ema), "sam.image_encoder.pos_embed"
    grid = model.sam.image_encoder.pos_embed.shape[1]
    position = weights[name].permute(0, 3, 1, 2)
    position = F.interpolate(position, (grid, grid), mode="bilinear", align_corners=False)
    model.load_state_dict({**weights, name: position.permute(0, 2, 3, 1)})
    return TrainingState(state.stage + 1, 0, model, _copy(model), _optimisers(config, model))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _optimisers(config: SamTrainConfig, model: _Trainee) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the transformers, AdamW for the rest, at one learning rate."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and (".blocks." in name or ".transformer." in name)
        (matrices if is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(matrices, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
    ]


def _step(config: SamTrainConfig, state: TrainingState, frames: Frames) -> dict[str, float]:
    stage = config.stages[state.stage]
    rng = np.random.default_rng([config.seed, state.stage, state.step])
    patch = config.architecture.patch_size
    batch = [sample_prompts(frames, rng, stage.size, stage.prompts, patch) for _ in range(stage.images)]
    losses = _losses(state.model, batch, stage.balance, config.bf16)
    total = 2 * losses["mask"] + 2 * losses["dice"] + losses["iou"] + losses["affinity"]
    state.model.zero_grad()
    total.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(stage, state.step)
        if torch.isfinite(norm):
            optimiser.step()
    state.step += 1
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        now = state.model.state_dict()
        torch._foreach_lerp_(list(state.ema.values()), [now[name] for name in state.ema], 1 - decay)
    return {name: float(value.detach()) for name, value in losses.items()}


def _learning_rate(stage: Stage, step: int) -> float:
    if step < stage.warmup:
        return stage.lr * (step + 1) / stage.warmup
    progress = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.lr * (stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))


def _losses(model: _Trainee, batch: list[Prompts], balance: float, bf16: bool) -> dict[str, Tensor]:
    """Mean losses over all prompts of some images.

    Returns:
        `mask` and `dice`: of the best of three masks, plus a quarter of the single mask's; `iou`: squared error of
        predicted IoU; `affinity`: see `_affinity_loss`; `best_iou`: true IoU of the best of three, to watch.
    """
    sam = model.sam
    images = torch.stack([sam.preprocess(torch.from_numpy(item.rgb).permute(2, 0, 1)) for item in batch])
    logits, predicted = [], []
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        embeddings = sam.image_encoder(images)
        for item, embedding in zip(batch, embeddings, strict=True):
            prompted = prompt_points(sam, embedding[None], torch.from_numpy(item.points))
            logits.append(mask_logits(sam.mask_decoder, prompted))
            predicted.append(prompted.iou)
    targets = torch.cat([item.targets for item in batch])
    places = torch.stack([torch.from_numpy(item.places) for item in batch])
    affinity = _affinity_loss(model.affinity(embeddings.float().flatten(2).transpose(1, 2)), places.flatten(1))
    losses = _mask_losses(torch.cat(logits).float(), torch.cat(predicted).float(), targets, balance)
    return losses | {"affinity": affinity}


def _mask_losses(
    logits: Float[Tensor, "n 4 h w"], predicted: Float[Tensor, "n 4"], targets: Float[Tensor, "n h w"], balance: float
) -> dict[str, Tensor]:
    with torch.no_grad():
        iou = _iou(logits, targets)
        best = 1 + _dice_loss(logits[:, 1:], targets[:, None]).argmin(dim=1)
    rows = torch.arange(len(logits))
    chosen = torch.stack([logits[:, 0], logits[rows, best]], dim=1)
    weights = torch.tensor([0.25, 1.0])  # the single mask is not what automatic generation uses
    return {
        "mask": (_cross_entropy(chosen, targets[:, None], balance).mean(dim=0) * weights).sum(),
        "dice": (_dice_loss(chosen, targets[:, None]).mean(dim=0) * weights).sum(),
        "iou": F.mse_loss(predicted, iou),
        "best_iou": iou[rows, best].mean(),
    }


def _affinity_loss(heads: Float[Tensor, "images places 2*dim+1"], ids: Int[Tensor, "images places"]) -> Tensor:
    """Balanced cross-entropy of "these two places show the same instance", over all pairs of places of an image.

    A place is a cell of the feature map; this is a point prompt at every cell, answered by a dot product.
    """
    dim = heads.shape[-1] // 2
    queries, keys, bias = heads.split([dim, dim, 1], dim=-1)
    logits = queries @ keys.transpose(1, 2) / math.sqrt(dim) + bias
    same = (ids[:, :, None] == ids[:, None, :]).float()
    labelled = ids > 0
    return (_cross_entropy(logits[:, :, None], same[:, :, None], 1.0) * labelled).sum() / labelled.sum()


def _iou(logits: Float[Tensor, "n m h w"], targets: Float[Tensor, "n h w"]) -> Float[Tensor, "n m"]:
    """True IoU of thresholded masks."""
    masks = (logits > 0).float().flatten(2)
    truth = (targets > 0.5).float().flatten(1)
    both = (masks @ truth[:, :, None])[..., 0]
    return both / (masks.sum(dim=2) + truth.sum(dim=1, keepdim=True) - both).clamp(min=1)


def _cross_entropy(
    logits: Float[Tensor, "*n h w"], targets: Float[Tensor, "*#n h w"], balance: float
) -> Float[Tensor, "*n"]:
    """Pixelwise binary cross-entropy per mask, between unweighted and evenly weighted inside and outside."""
    inside = targets.mean(dim=(-2, -1), keepdim=True).clamp(0.005, 0.995)
    weights = targets * (0.5 / inside) ** balance + (1 - targets) * (0.5 / (1 - inside)) ** balance
    losses = F.binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction="none")
    return (weights * losses).mean(dim=(-2, -1))


def _dice_loss(logits: Float[Tensor, "n m h w"], targets: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n m"]:
    masks = logits.sigmoid()
    both = (masks * targets).sum(dim=(2, 3))
    return 1 - (2 * both + 1) / (masks.sum(dim=(2, 3)) + targets.sum(dim=(2, 3)) + 1)


def _save(config: SamTrainConfig, state: TrainingState, out_dir: Path) -> None:
    partial = out_dir / f"checkpoint.{os.getpid()}.partial"
    content = {
        "config": json.dumps(asdict(config)),
        "stage": state.stage,
        "step": state.step,
        "model": state.model.state_dict(),
        "ema": state.ema,
        "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
    }
    torch.save(content, partial)
    partial.replace(out_dir / "checkpoint.pt")


def _resume(config: SamTrainConfig, out_dir: Path) -> TrainingState | None:
    path = out_dir / "checkpoint.pt"
    if not path.exists():
        return None
    content = torch.load(path, weights_only=True)
    if json.loads(content["config"]) != json.loads(json.dumps(asdict(config))):
        raise ValueError(
            f"{path} is of a training with other settings; give another folder, or remove it to start anew"
        )
    model = _build(config, content["stage"])
    model.load_state_dict(content["model"])
    optimisers = _optimisers(config, model)
    for optimiser, saved in zip(optimisers, content["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return TrainingState(content["stage"], content["step"], model, content["ema"], optimisers)
