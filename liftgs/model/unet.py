"""The point encoder: a residual U-Net of sparse convolutions, SpUNet of PonderV2 and Pointcept.

Knows voxels and features, not what they are used for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from liftgs.model.norm import BatchNorm, batch_norms
from liftgs.model.sparse import Coarsening, InverseConv, Level, Precision, Pyramid, StridedConv, SubmanifoldConv


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network; the defaults are SpUNet's (PonderV2, spconv_unet_v1m1_base), which LIFT-GS uses.

    Attributes:
        in_channels: LIFT-GS: xyz and rgb.
        stem_channels: width at the finest level before the first halving.
        stem_kernel: odd.
        channels: widths after each halving, then after each doubling; the last is that of the finest output.
        layers: residual blocks in each of those stages. A decoder stage of 0 blocks is one product per voxel, its norm
            and ReLU, which keeps the finest level cheap.
        norm: "batch" as published, or "layer" (over channels), which does not mix scenes and suits batches of one.
        precision: of convolutions on the CPU; see `SubmanifoldConv`.
        checkpoint_stages: recompute each stage in the backward pass instead of keeping its activations.
    """

    in_channels: int = 6
    stem_channels: int = 32
    stem_kernel: int = 5
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    layers: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2)
    norm: Literal["batch", "layer"] = "batch"
    precision: Precision = "auto"
    checkpoint_stages: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.layers) or len(self.channels) % 2:
            raise ValueError(
                f"channels and layers need one entry per stage, as many down as up: {self.channels}, {self.layers}"
            )
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, not {self.stem_kernel}")

    @property
    def num_levels(self) -> int:
        """Of the pyramid that the network works on."""
        return len(self.channels) // 2 + 1

    @property
    def output_channels(self) -> tuple[int, ...]:
        """Of what the network returns at each level, finest first."""
        half = len(self.channels) // 2
        return (*reversed(self.channels[half:]), self.channels[half - 1])


class SpUNet(nn.Module):
    """Features on the finest voxels to features at every level."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        halvings = config.num_levels - 1
        encoder_channels = (config.stem_channels, *config.channels[:halvings])
        self.stem = _Stem(config)
        self.encoder = nn.ModuleList(
            _EncoderStage(config, encoder_channels[depth], encoder_channels[depth + 1], config.layers[depth])
            for depth in range(halvings)
        )
        decoder = []
        width = encoder_channels[-1]
        for stage in range(halvings, 2 * halvings):
            skip = encoder_channels[2 * halvings - 1 - stage]
            decoder.append(_DecoderStage(config, width, skip, config.channels[stage], config.layers[stage]))
            width = config.channels[stage]
        self.decoder = nn.ModuleList(decoder)
        self.apply(_initialise)

    def forward(self, features: Float[Tensor, "n i"], pyramid: Pyramid) -> list[Float[Tensor, "n_level c"]]:
        """Run down and up.

        Args:
            features: one row per voxel of the pyramid's level 0, in its order.
            pyramid: of `config.num_levels` levels.

        Returns:
            One tensor per level, finest first: the decoder's outputs, and last the bottleneck's.

        Raises:
            ValueError: the pyramid has another number of levels.
        """
        if len(pyramid) != self.config.num_levels:
            raise ValueError(f"the network works on {self.config.num_levels} levels, the pyramid has {len(pyramid)}")
        levels = pyramid.levels
        skips = [self._run(self.stem, features, levels[0])]
        for stage, fine, coarse in zip(self.encoder, levels[:-1], levels[1:], strict=True):
            skips.append(self._run(stage, skips[-1], fine, coarse))
        outputs = [skips.pop()]
        for stage, level in zip(self.decoder, reversed(levels[:-1]), strict=True):
            outputs.append(self._run(stage, outputs[-1], skips.pop(), level))
        return outputs[::-1]

    def _run(self, stage: nn.Module, *inputs: Tensor | Level) -> Tensor:
        if self.config.checkpoint_stages and torch.is_grad_enabled():
            return checkpoint(
                stage, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(stage))
            )
        return cast(Tensor, stage(*inputs))


class _Stem(nn.Module):
    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.stem_channels
        self.conv = SubmanifoldConv(config.in_channels, width, config.stem_kernel, precision=config.precision)
        self.norm = _norm(config, width)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        return _relu(self.norm(self.conv(features, level)))


class _EncoderStage(nn.Module):
    """To the next coarser level, then residual blocks."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        self.down = StridedConv(in_channels, out_channels, precision=config.precision)
        self.norm = _norm(config, out_channels)
        self.blocks = nn.ModuleList(_ResidualBlock(config, out_channels, out_channels) for _ in range(blocks))

    def forward(self, features: Tensor, fine: Level, coarse: Level) -> Tensor:
        features = _relu(self.norm(self.down(features, _coarsening(fine))))
        for block in self.blocks:
            features = block(features, coarse)
        return features


class _DecoderStage(nn.Module):
    """To the next finer level, joined by what the encoder had there."""

    def __init__(self, config: UNetConfig, in_channels: int, skip_channels: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.up = InverseConv(in_channels, channels, precision=config.precision)
        self.norm = _norm(config, channels)
        joined = channels + skip_channels
        self.blocks = nn.ModuleList(
            _ResidualBlock(config, channels if index else joined, channels) for index in range(blocks)
        )
        self.projection = None if blocks else _Projection(config, joined, channels)

    def forward(self, features: Tensor, skip: Tensor, level: Level) -> Tensor:
        features = _relu(self.norm(self.up(features, _coarsening(level))))
        features = torch.cat((features, skip), dim=1)
        for block in self.blocks:
            features = block(features, level)
        return features if self.projection is None else _relu(self.projection(features, level))


class _ResidualBlock(nn.Module):
    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = SubmanifoldConv(in_channels, out_channels, 3, precision=config.precision)
        self.norm1 = _norm(config, out_channels)
        self.conv2 = SubmanifoldConv(out_channels, out_channels, 3, precision=config.precision)
        self.norm2 = _norm(config, out_channels)
        self.shortcut = None if in_channels == out_channels else _Projection(config, in_channels, out_channels)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        shortcut = features if self.shortcut is None else self.shortcut(features, level)
        features = _relu(self.norm1(self.conv1(features, level)))
        return _relu(self.norm2(self.conv2(features, level)) + shortcut)


class _Projection(nn.Module):
    """A product per voxel, and its norm."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = SubmanifoldConv(in_channels, out_channels, 1, precision=config.precision)
        self.norm = _norm(config, out_channels)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        return cast(Tensor, self.norm(self.conv(features, level)))


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Recomputing a stage must not count its batch a second time."""
    norms = batch_norms(stage)
    before = [(norm.momentum, cast(Tensor, norm.num_batches_tracked)) for norm in norms]
    for norm, (_, batches) in zip(norms, before, strict=True):
        norm.momentum, norm.num_batches_tracked = 0.0, batches.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _norm(config: UNetConfig, channels: int) -> nn.Module:
    return BatchNorm(channels, eps=1e-3, momentum=0.01) if config.norm == "batch" else nn.LayerNorm(channels)


def _relu(features: Tensor) -> Tensor:
    return nn.functional.relu(features, inplace=True)


def _coarsening(level: Level) -> Coarsening:
    assert level.coarsening is not None  # only the coarsest level has none, and the number of levels is checked
    return level.coarsening


def _initialise(module: nn.Module) -> None:
    """Submanifold weights as PonderV2 does; strided and inverse ones keep spconv's default."""
    if isinstance(module, SubmanifoldConv):
        nn.init.trunc_normal_(module.weight, std=0.02)
