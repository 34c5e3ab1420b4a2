"""The U-Net's shape, and what its output must not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from liftgs.model.sparse import Pyramid, build_pyramid
from liftgs.model.unet import SpUNet, UNetConfig

SMALL = UNetConfig(
    stem_channels=8,
    stem_kernel=3,
    channels=(8, 12, 16, 10),
    layers=(1, 2, 1, 0),
    norm="layer",
    precision="fp32",
)


def random_voxels(seed: int, scenes: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    voxels = (torch.rand(scenes, 9, 9, 9, generator=generator) < 0.3).nonzero().int()
    return voxels[torch.randperm(len(voxels), generator=generator)] - torch.tensor([0, 4, 4, 4], dtype=torch.int32)


def random_features(rows: int) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))


def make(config: UNetConfig) -> SpUNet:
    torch.manual_seed(0)
    return SpUNet(config)


def pyramid_of(voxels: Tensor) -> Pyramid:
    return build_pyramid(voxels, SMALL.num_levels)


def test_base_has_the_parameters_of_spunet() -> None:
    """39.16 million, counted from PonderV2's widths by hand: weights of convolutions, and two per norm channel."""
    widths, blocks = (32, 64, 128, 256, 256, 128, 96, 96), (2, 3, 4, 6, 2, 2, 2, 2)
    total = 125 * 6 * 32 + 2 * 32
    incoming, skips = 32, [32]
    for width, count in zip(widths[:4], blocks[:4], strict=True):
        total += 8 * incoming * width + 2 * width + count * 2 * (27 * width * width + 2 * width)
        incoming = width
        skips.append(width)
    skips.pop()
    for width, count in zip(widths[4:], blocks[4:], strict=True):
        joined = width + skips.pop()
        total += 8 * incoming * width + 2 * width + count * 2 * (27 * width * width + 2 * width)
        total += 27 * (joined - width) * width + joined * width + 2 * width
        incoming = width
    parameters = sum(parameter.numel() for parameter in SpUNet(UNetConfig()).parameters())
    assert parameters == total == 39_155_904


def test_outputs_are_those_of_all_levels_finest_first() -> None:
    pyramid = pyramid_of(random_voxels(0))
    outputs = make(SMALL)(random_features(len(pyramid.levels[0])), pyramid)
    assert [output.shape[1] for output in outputs] == [10, 16, 12]
    assert [len(output) for output in outputs] == [len(level) for level in pyramid.levels]


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_scenes_of_a_batch_do_not_mix(norm: str) -> None:
    """Of batch norm this is only true in evaluation."""
    net = make(replace(SMALL, norm=norm)).eval()
    voxels = random_voxels(1, scenes=2)
    features = random_features(len(voxels))
    pyramid = pyramid_of(voxels)
    together = net(features, pyramid)
    for scene in range(2):
        mine = voxels[:, 0] == scene
        alone = net(features[mine], pyramid_of(voxels[mine]))
        for level, both, one in zip(pyramid.levels, together, alone, strict=True):
            torch.testing.assert_close(both[level.coords[:, 0] == scene], one, rtol=1e-4, atol=1e-5)


def test_shuffled_points_give_shuffled_outputs() -> None:
    net = make(SMALL)
    voxels = random_voxels(2)
    features = random_features(len(voxels))
    order = torch.randperm(len(voxels), generator=torch.Generator().manual_seed(0))
    finest, *coarser = net(features, pyramid_of(voxels))
    shuffled, *shuffled_coarser = net(features[order], pyramid_of(voxels[order]))
    torch.testing.assert_close(shuffled, finest[order], rtol=1e-4, atol=1e-5)
    for mine, other in zip(shuffled_coarser, coarser, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_moving_by_the_coarsest_voxel_changes_nothing() -> None:
    net = make(SMALL)
    voxels = random_voxels(3)
    features = random_features(len(voxels))
    moved = voxels + torch.tensor([0, 4, -8, 12], dtype=torch.int32)
    for mine, other in zip(net(features, pyramid_of(moved)), net(features, pyramid_of(voxels)), strict=True):
        torch.testing.assert_close(mine, other)


def test_every_parameter_has_a_gradient() -> None:
    net = make(replace(SMALL, layers=(1, 1, 1, 1)))
    voxels = random_voxels(4)
    outputs = net(random_features(len(voxels)), pyramid_of(voxels))
    (outputs[0] * torch.arange(10)).sum().backward()
    without = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_checkpointing_changes_nothing_but_memory(norm: str) -> None:
    voxels = random_voxels(5)
    features = random_features(len(voxels))
    results = []
    for checkpointed in (False, True):
        net = make(replace(SMALL, norm=norm, checkpoint_stages=checkpointed))
        output = net(features, pyramid_of(voxels))[0]
        output.square().sum().backward()
        results.append((output, *(parameter.grad for parameter in net.parameters()), *net.buffers()))
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_it_learns_which_voxels_are_above_others() -> None:
    """A geometric question that no voxel can answer from its own features."""
    net, head = make(SMALL), nn.Linear(10, 1)
    voxels = random_voxels(6)
    pyramid = pyramid_of(voxels)
    below = {tuple(voxel) for voxel in (voxels + torch.tensor([0, 0, 0, 1])).tolist()}
    answers = torch.tensor([tuple(voxel) in below for voxel in voxels.tolist()]).float()
    features = torch.ones(len(voxels), 6)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        logits = head(net(features, pyramid)[0])[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, answers).backward()
        optimiser.step()
    assert ((logits > 0) == (answers > 0)).float().mean() > 0.97


def test_a_pyramid_of_another_height_is_refused() -> None:
    voxels = random_voxels(7)
    with pytest.raises(ValueError, match="works on 3 levels, the pyramid has 2"):
        make(SMALL)(random_features(len(voxels)), build_pyramid(voxels, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"layers": (1, 1)}, "one entry per stage"), ({"stem_kernel": 4}, "must be odd")],
)
def test_an_impossible_config_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)
