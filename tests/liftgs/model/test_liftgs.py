"""The network as a whole: batches, predictions over points, checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import bombs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_network import CONFIG, network

from liftgs.formats import NewerFormat
from liftgs.model.liftgs import LiftGS, LiftGSConfig, config_from_json
from liftgs.model.text import encode_phrases
from liftgs.scene import BadInput, PointCloud


def cloud(points: int = 2000, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, 2, (points, 3)).astype(np.float32)
    return PointCloud(xyz, rng.integers(0, 256, (points, 3), np.uint8))


def queries(count: int = 3) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(0)), dim=1)


def test_a_batch_of_clouds_is_each_cloud_alone() -> None:
    model = network().eval()
    clouds = [model.voxelise(cloud(1500, 1)), model.voxelise(cloud(700, 2))]
    together = model.encode(clouds)
    for one, scene in zip(clouds, together, strict=True):
        alone = model.encode([one])[0]
        for name in ("colours", "features"):
            torch.testing.assert_close(getattr(scene, name), getattr(alone, name), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(scene.tokens.xyz, alone.tokens.xyz, rtol=0, atol=1e-4)
        assert scene.tokens.mask_features.shape == alone.tokens.mask_features.shape


def test_pooled_mask_features_are_means_over_what_a_token_holds() -> None:
    model = network().eval()
    voxels = model.voxelise(cloud())
    tokens = model.encode([voxels])[0].tokens
    parents = torch.div(voxels.grid, 2, rounding_mode="floor")
    for row, place in zip(tokens.pooled_mask_features[:5], tokens.xyz[:5], strict=True):
        near = (voxels.inputs()[:, :3] - place).norm(dim=1).argmin()
        inside = (parents == parents[near]).all(1)
        torch.testing.assert_close(row, tokens.mask_features[inside].mean(0), rtol=1e-3, atol=1e-4)


def test_masks_are_over_the_points_that_went_in() -> None:
    model = network().eval()
    sparse, dense = cloud(), cloud()
    doubled = PointCloud(np.repeat(dense.xyz, 2, 0), np.repeat(dense.rgb, 2, 0))
    a, b = model.predict(sparse, queries()), model.predict(doubled, queries())
    assert a.mask_logits.shape == (12, 2000)
    assert a.token_probs.shape == (12, 3)
    assert (a.token_probs.sum(1) < 1).all()
    torch.testing.assert_close(b.mask_logits[:, ::2], a.mask_logits, rtol=1e-2, atol=1e-2)


def test_a_checkpoint_is_the_network(tmp_path: Path) -> None:
    model = network().eval()
    model.save(tmp_path / "x")
    again = LiftGS.from_pretrained(tmp_path / "x")
    assert again.config == model.config
    a, b = model.predict(cloud(), queries()), again.predict(cloud(), queries())
    torch.testing.assert_close(a.mask_logits, b.mask_logits, rtol=0, atol=0)
    assert set(load_file(tmp_path / "x" / "model.safetensors")) == set(model.state_dict())  # someone else's reader


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    network().save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"model\.safetensors.*not a whole"):
        LiftGS.from_pretrained(tmp_path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    network().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["decoder"]["dim"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="does not fit"):
        LiftGS.from_pretrained(tmp_path)


def test_a_config_that_claims_more_than_its_weights_hold_takes_no_memory(tmp_path: Path) -> None:
    network().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["decoder"] |= {"dim": 200_000, "feedforward": 400_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fault = bombs.outcome(lambda: LiftGS.from_pretrained(tmp_path))
    assert isinstance(fault, BadInput), repr(fault)
    assert "does not fit" in fault.reason


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [1000000, 1000000], "data_offsets": [0, 4000000000000]}}',
        b'{"a": {"dtype": "F32", "shape": [1000000, 1000000], "data_offsets": [0, 4]}}',
        b'{"a": ' + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("claimed", [None, 1 << 60])
def test_weights_whose_header_lies_are_refused(tmp_path: Path, header: bytes, claimed: int | None) -> None:
    network().save(tmp_path)
    data = (claimed or len(header)).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / "model.safetensors").write_bytes(data)
    fault = bombs.outcome(lambda: LiftGS.from_pretrained(tmp_path))
    assert isinstance(fault, BadInput), repr(fault)
    assert fault.uri.endswith("model.safetensors")


def test_a_config_names_its_format_and_older_ones_have_none(tmp_path: Path) -> None:
    network().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("format") == "liftgs-model/1"
    assert config_from_json(config, "config.json") == CONFIG
    with pytest.raises(NewerFormat, match="upgrade"):
        config_from_json(config | {"format": "liftgs-model/2", "novelty": 1}, "config.json")
    with pytest.raises(BadInput, match="liftgs-shard/1"):
        config_from_json(config | {"format": "liftgs-shard/1"}, "config.json")


def test_a_missing_checkpoint_says_which_ship(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'nowhere'.*(those that ship|none ships)"):
        LiftGS.from_pretrained("nowhere")


def test_a_misspelt_key_is_corrected() -> None:
    with pytest.raises(BadInput, match=r"'decoder\.layer'; did you mean 'layers'"):
        config_from_json({"decoder": {"layer": 3}}, "config.json")


def test_configs_survive_json() -> None:
    for config in (CONFIG, LiftGSConfig.named("base"), LiftGSConfig.named("tiny")):
        assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config))), "x") == config


def test_base_is_the_papers_network() -> None:
    config = LiftGSConfig.named("base")
    assert config.unet.channels == (32, 64, 128, 256, 256, 128, 96, 96)
    assert config.unet.layers == (2, 3, 4, 6, 2, 2, 2, 2)
    decoder = config.decoder
    assert (decoder.layers, decoder.dim, decoder.heads, decoder.feedforward, decoder.proposals) == (
        8,
        512,
        8,
        2048,
        256,
    )
    assert (decoder.dropout, config.gaussians.features, config.embed_dim, config.voxel_size_m) == (0.15, 512, 768, 0.05)
    with torch.device("meta"):
        model = LiftGS(config)
    blocks = sum(p.numel() for p in model.decoder.blocks.parameters())
    assert abs(blocks / 1e6 - 33.6) < 0.2  # 8 x (two attentions of 4 d^2, an MLP of 8 d^2 / 2)


def test_a_checkpoint_in_half_precision_is_half_as_large_and_almost_the_network(tmp_path: Path) -> None:
    model = network().eval()
    model.save(tmp_path / "full")
    model.save(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = LiftGS.from_pretrained(tmp_path / "half")
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    a, b = model.predict(cloud(), queries()), again.predict(cloud(), queries())
    torch.testing.assert_close(a.token_probs, b.token_probs, rtol=0.05, atol=0.02)


def test_phrases_are_rows_of_the_frozen_clip() -> None:
    clip = network().clip()
    rows = encode_phrases(["a red chair", "a desk"], clip)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    assert rows.shape[1] == LiftGSConfig.named("tiny").embed_dim
    with pytest.raises(ValueError, match="empty"):
        encode_phrases(["  "], clip)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_predictions_on_cuda_are_those_on_the_cpu() -> None:
    exact = {"unet": dataclasses.replace(CONFIG.unet, precision="fp32")}
    on_cpu = network(**exact).eval().predict(cloud(), queries())
    on_cuda = network(**exact).eval().cuda().predict(cloud(), queries().cuda())
    agree = (on_cuda.mask_logits.cpu() > 0) == (on_cpu.mask_logits > 0)
    assert agree.float().mean() > 0.99
    torch.testing.assert_close(on_cuda.token_probs.cpu(), on_cpu.token_probs, rtol=0, atol=0.02)
