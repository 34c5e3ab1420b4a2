"""Trains the small CLIP that ships with the package, from scratch, on procedural rooms. One process, no Ray.

The loss is CLIP's with what procedural data adds: every crop is compared with the names of all kinds and of all colours
(so the softmax is over classes, not over whoever is in the batch), with phrases that fit several crops, and with
referring expressions, which must pick crops that fit their target and not their anchors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save
from torch import nn

from liftgs.procedural.colours import COLOURS
from liftgs.teachers.clip import TINY, load_shipped
from liftgs.teachers.crops import ResizeMode
from liftgs.teachers.evaluate_clip import evaluate_tiny
from liftgs.teachers.train.clip_augment import FILL, augmented
from liftgs.teachers.train.clip_batches import Batch, BatchConfig, Batches
from liftgs.teachers.train.clip_data import ALL_KINDS, Crops, RoomExpression, RoomsConfig, load_blocks, prepare
from liftgs.teachers.train.clip_objective import TokenTasks, objective, relation_names
from liftgs.teachers.train.clip_texts import SYNONYMS, kind_phrase, object_phrase
from liftgs.teachers.train.clip_tokenizer import count_words, english_words, learn_merges, write_merges

#: of our renderings, about; what matters is only that it stays as it was in training
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class TinyClipConfig:
    """The network: open_clip's CLIP with its ResNet, at small width.

    Attributes:
        width: F, of the joint space.
        image_px: input size.
        image_layers: bottleneck blocks per stage.
        image_width: channels after the stem; the last stage has 32 times as many.
        text_width: of the text transformer.
        text_heads: of each layer.
        text_layers: of the text transformer.
        context_length: tokens, start and end mark included.
        merges: of the byte-pair vocabulary, at most.
        resize_mode: how a crop is brought to `image_px`.
    """

    width: int = 128
    image_px: int = 64
    image_layers: tuple[int, int, int, int] = (2, 2, 2, 2)
    image_width: int = 16
    text_width: int = 128
    text_heads: int = 4
    text_layers: int = 4
    context_length: int = 40
    merges: int = 2000
    resize_mode: ResizeMode = "longest"


@dataclass(frozen=True)
class ClipTrainConfig:
    """A training run; the defaults made the weights that ship.

    Attributes:
        rooms: what to render.
        network: what to train.
        batch: what a step sees.
        steps: optimiser steps.
        learning_rate: peak of a cosine schedule.
        warmup_steps: of a linear warm-up.
        weight_decay: of matrices and filters.
        seed: of the initialisation and of the batches.
        bf16: whether the image tower computes in bfloat16.
        checkpoint_every: steps between checkpoints, from which a killed run goes on.
        log_every: steps between progress lines.
        eval_scenes: held-out rooms to evaluate on.
        eval_seed: of those.
    """

    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    network: TinyClipConfig = field(default_factory=TinyClipConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    steps: int = 7000
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    seed: int = 0
    bf16: bool = True
    checkpoint_every: int = 250
    log_every: int = 50
    eval_scenes: int = 60
    eval_seed: int = 1_000_000


def train_clip(config: ClipTrainConfig, out_dir: Path, progress: Callable[[str], None] = print) -> dict[str, Any]:
    """Render, train, export and evaluate; a killed run goes on where it was when called again.

    Args:
        config: everything that matters to the result.
        out_dir: gets `data/`, `checkpoint.pt` and the exported `clip_tiny.*`.
        progress: gets one line at a time.

    Returns:
        What `evaluate_clip` returns, on held-out rooms.
    """
    prepare(config.rooms, out_dir / "data", progress)
    crops, expressions = load_blocks(out_dir / "data", range(config.rooms.blocks))
    progress(f"{len(crops)} crops, {len(expressions)} expressions of {config.rooms.rooms} rooms")
    tokenizer = make_tokenizer(config, crops, expressions, out_dir)
    model = fit(config, crops, expressions, tokenizer, out_dir, progress)
    export(model, config, out_dir, {})
    metrics = evaluate_tiny(out_dir / f"{TINY}.json", config.eval_scenes, config.eval_seed)
    export(model, config, out_dir, metrics)
    return metrics


def make_tokenizer(
    config: ClipTrainConfig, crops: Crops, expressions: list[RoomExpression], out_dir: Path
) -> SimpleTokenizer:
    """Learn the vocabulary from our phrases, the rooms' expressions and a list of English words."""
    rng = np.random.default_rng([config.seed, 1])
    rows = rng.choice(len(crops), min(len(crops), 5000), replace=False)
    phrases = [
        object_phrase(str(crops.kinds[row]), str(crops.colours[row]), str(crops.materials[row]), rng).text
        for row in rows
    ]
    phrases += [kind_phrase(kind, rng).text for kind in ALL_KINDS for _ in range(50)]
    phrases += [*COLOURS, *(other for names in SYNONYMS.values() for other in names)] * 20
    counts = count_words([*phrases, *(expression.text for expression in expressions[:50_000])])
    for word in english_words():
        counts[word] += 1
    write_merges(learn_merges(counts, config.network.merges), out_dir / f"{TINY}_merges.txt.gz")
    return SimpleTokenizer(str(out_dir / f"{TINY}_merges.txt.gz"), context_length=config.network.context_length)


def model_config(network: TinyClipConfig, vocab_size: int) -> dict[str, Any]:
    """The arguments of `open_clip.CLIP`, as an `open_clip_config.json` holds them."""
    vision = {"layers": list(network.image_layers), "width": network.image_width, "image_size": network.image_px}
    text = {
        "context_length": network.context_length,
        "vocab_size": vocab_size,
        "width": network.text_width,
        "heads": network.text_heads,
        "layers": network.text_layers,
    }
    return {"embed_dim": network.width, "vision_cfg": vision, "text_cfg": text}


def fit(
    config: ClipTrainConfig,
    crops: Crops,
    expressions: list[RoomExpression],
    tokenizer: SimpleTokenizer,
    out_dir: Path,
    progress: Callable[[str], None],
) -> open_clip.CLIP:
    """Run all steps, or those that are missing after `checkpoint.pt`.

    Raises:
        ValueError: the checkpoint is of another config.
    """
    run = _Run(config, relation_names(expressions), tokenizer)
    start = run.resume(out_dir / "checkpoint.pt")
    batches = Batches(crops, expressions, config.batch, config.seed)
    began, reports = time.monotonic(), []
    for step in range(start, config.steps):
        reports.append(run.step(step, crops, batches[step]))
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            pace = (time.monotonic() - began) / (done - start)
            progress(f"step {done}/{config.steps}  {pace:.2f} s/step  {_means(reports)}")
            reports = []
        if done % config.checkpoint_every == 0 or done == config.steps:
            run.save(done, out_dir / "checkpoint.pt")
    return run.model.eval()


def _means(reports: list[dict[str, float]]) -> str:
    names = dict.fromkeys(name for report in reports for name in report)
    means = {name: np.mean([report[name] for report in reports if name in report]) for name in names}
    return "  ".join(f"{name} {value:.3f}" for name, value in means.items())


class _Run:
    """The state of a run: network, read-outs, optimiser, and where it is."""

    def __init__(self, config: ClipTrainConfig, relations: Sequence[str], tokenizer: SimpleTokenizer):
        torch.manual_seed(config.seed)
        self.config = config
        self.tokenizer = tokenizer
        self.model = open_clip.CLIP(**model_config(config.network, tokenizer.vocab_size))
        self.model.visual.to(memory_format=torch.channels_last)
        self.tasks = TokenTasks(config.network.width, relations)
        self.everything = nn.ModuleDict({"clip": self.model, "tasks": self.tasks}).train()
        self.optimizer = torch.optim.AdamW(
            _groups(self.everything, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
        )

    def step(self, step: int, crops: Crops, batch: Batch) -> dict[str, float]:
        """One optimiser step."""
        config, network = self.config, self.config.network
        rng = np.random.default_rng([config.seed, step, 1])
        pixels = augmented(crops, batch.rows, network.image_px, network.resize_mode, rng)
        pixels = ((pixels - MEAN[0]) / STD[0]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            images = self.model.visual(pixels)
        images = nn.functional.normalize(images.float(), dim=-1)
        loss, report = objective(self.model, self.tasks, self.tokenizer, images, crops, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _cosine(step, config)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.everything.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=float(np.log(100)))
        return report

    def save(self, step: int, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        partial = path.with_suffix(".tmp")
        state = {
            "step": step,
            "config": json.dumps(asdict(self.config)),
            "everything": self.everything.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> int:
        """Load the checkpoint, if there is one; the number of steps it has seen."""
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        if state["config"] != json.dumps(asdict(self.config)):
            raise ValueError(f"{path} is of another config; remove it or choose another folder")
        self.everything.load_state_dict(state["everything"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def _cosine(step: int, config: ClipTrainConfig) -> float:
    """Learning rate of a step as a fraction of the peak."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return float(warm * 0.5 * (1 + np.cos(np.pi * min(1.0, step / config.steps))))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and filters, not norms, biases, positions or the temperature."""
    named = list(module.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and "positional" not in name]
    rest = [p for name, p in named if p.ndim <= 1 or "positional" in name]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def export(model: open_clip.CLIP, config: ClipTrainConfig, out_dir: Path, metrics: dict[str, Any]) -> None:
    """Write `clip_tiny.json` and `clip_tiny.safetensors` (float16) beside the merges, as `load_shipped` reads them."""
    weights = {name: _half(value) for name, value in model.state_dict().items()}
    (out_dir / f"{TINY}.safetensors").write_bytes(save(weights))
    preprocess = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": config.network.resize_mode,
        "fill_color": FILL,
    }
    described = {
        "model_cfg": model_config(config.network, model.vocab_size),
        "preprocess_cfg": preprocess,
        "merges": f"{TINY}_merges.txt.gz",
        "training": asdict(config),
        "held_out": metrics,
    }
    (out_dir / f"{TINY}.json").write_text(json.dumps(described, indent=1) + "\n")
    load_shipped(out_dir / f"{TINY}.json")  # what cannot be read back must not ship


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
