"""The objective renders only what losses look at; it must equal rendering everything."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import pytest
import torch
from labelled_room import room_sample
from tiny_network import CONFIG, network

from liftgs.losses.grounding import mask_losses, token_loss
from liftgs.losses.matching import match
from liftgs.losses.pixels import contrastive_loss, photometric_loss
from liftgs.model.voxels import voxelise
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.render import render
from liftgs.training.trainer import OptimConfig, Trainer


@pytest.fixture(scope="module")
def item() -> Item:
    config = ItemConfig(views=2, image_px=48, min_area=0.004)
    return make_item(room_sample(), config, 0.1, "room-000", 0, 0)


def test_it_equals_rendering_all_features_and_masks(item: Item) -> None:
    """Features and all masks of all heads as images, then losses: the route that the objective saves."""
    model, config = network().eval(), ObjectiveConfig(temperature=0.2, background_logit=-4)
    losses = Objective(config)(model, [item])
    scene = model.encode([item.voxels])[0]
    expected: dict[str, torch.Tensor] = {}
    for view in item.views:
        outputs = model.decode(scene, view.queries[None])
        channels = [scene.colours, scene.features, *(model.mask_logits(scene, o.mask_embeds[0]).T for o in outputs)]
        image, alpha = render(scene.gaussians, view.camera, torch.cat(channels, 1))
        colour, feature, *masks = image.split([c.shape[1] for c in channels], 2)
        terms = {
            "photometric": photometric_loss(colour, view.photo),
            "features": 0.1 * contrastive_loss(feature @ model.project_embeds(view.embeds).T, view.segment, 0.2),
        }
        for output, logits in zip(outputs, masks, strict=True):
            rendered = (logits - 4 * (1 - alpha[..., None])).permute(2, 0, 1).flatten(1)
            truth = view.masks().flatten(1)
            proposal = match(rendered, output.token_logits[0], truth, view.positives)
            entropy, dice = mask_losses(rendered[proposal], truth)
            seen = (rendered > 0).any(1)
            token = token_loss(output.token_logits[0], proposal, view.positives, judged=seen)
            for name, value in (("mask", 15 * entropy.mean()), ("dice", 6 * dice.mean()), ("token", 2 * token)):
                terms[name] = terms.get(name, torch.zeros(())) + value
        for name, value in terms.items():
            expected[name] = expected.get(name, torch.zeros(())) + value / 2
    assert losses.terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses.terms[name], value, rtol=2e-3, atol=2e-3, msg=name)
    torch.testing.assert_close(losses.total, torch.stack(list(expected.values())).sum(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("off", "gone", "idle"),
    [
        ("grounding", {"mask", "dice", "token"}, "decoder.blocks"),
        ("photometric", {"photometric"}, None),
        ("features", {"features"}, None),
    ],
)
def test_each_term_can_be_switched_off(item: Item, off: str, gone: set[str], idle: str | None) -> None:
    model = network()
    losses = Objective(dataclasses.replace(ObjectiveConfig(), **{off: 0.0}))(model, [item])
    assert losses.terms.keys() == {"mask", "dice", "token", "photometric", "features"} - gone
    losses.total.backward()
    for name, parameter in model.named_parameters():
        if idle is not None and name.startswith(idle):
            assert parameter.grad is None or not parameter.grad.any(), name


def test_switching_everything_off_is_refused() -> None:
    with pytest.raises(ValueError, match="all losses are switched off"):
        ObjectiveConfig(grounding=0, photometric=0, features=0)


def test_a_batch_counts_every_view_alike(item: Item) -> None:
    model, objective = network().eval(), Objective()
    single = Item(item.key, item.voxels, item.views[:1])
    a, b = objective(model, [item]), objective(model, [single])
    both = objective(model, [item, single])
    torch.testing.assert_close(both.total, (2 * a.total + b.total) / 3, rtol=1e-2, atol=1e-2)


def test_matching_at_low_resolution_matches_masks_alike(item: Item) -> None:
    model = network().eval()
    fine = Objective(ObjectiveConfig(match_px=48))(model, [item])
    coarse = Objective(ObjectiveConfig(match_px=24))(model, [item])
    torch.testing.assert_close(fine.terms["photometric"], coarse.terms["photometric"])
    torch.testing.assert_close(fine.total, coarse.total, rtol=0.1, atol=0)


def test_a_view_without_segments_teaches_no_match_and_colours(item: Item) -> None:
    view = item.views[0]
    nothing = dataclasses.replace(
        view,
        segment=torch.full_like(view.segment, -1),
        chosen=view.chosen[:0],
        queries=view.queries[:0],
        positives=torch.zeros(0, 0),
    )
    losses = Objective()(network(), [Item("k", item.voxels, (nothing, view))])
    losses.total.backward()
    assert torch.isfinite(losses.total)
    alone = Objective()(network(), [Item("k", item.voxels, (nothing,))])
    assert torch.isfinite(alone.total)
    assert "mask" not in alone.terms
    ground = Objective(ObjectiveConfig(photometric=0, features=0))(network(), [Item("k", item.voxels, (nothing,))])
    assert ground.terms.keys() == {"token"}  # and nothing is rendered
    unlabelled = dataclasses.replace(nothing, embeds=view.embeds[:0])
    features = Objective(ObjectiveConfig(photometric=0))(network(), [Item("k", item.voxels, (unlabelled, view))])
    features.total.backward()
    assert torch.isfinite(features.total)


def test_losses_and_matching_are_in_float32_whatever_autocast_says(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same scene and answers, to the bit; or SSIM, a difference of squares, is noise, and masks lose metres."""
    model = network().eval()
    scenes = model.encode([item.voxels])
    answers = model.decode_sets(scenes[0], [view.queries for view in item.views])
    monkeypatch.setattr(model, "encode", lambda clouds: scenes)
    monkeypatch.setattr(model, "decode_sets", lambda scene, sets: answers)
    expected = Objective()(model, [item])
    with torch.autocast("cpu", torch.bfloat16):
        found = Objective()(model, [item])
    assert {name: value.item() for name, value in found.terms.items()} == {
        name: value.item() for name, value in expected.terms.items()
    }


def test_every_parameter_learns(item: Item) -> None:
    model = network()
    Objective()(model, [item]).total.backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert not still


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("gsplat") is None, reason="needs CUDA and gsplat (extra `gpu`)"
)
def test_losses_and_gradients_on_cuda_are_those_on_the_cpu(item: Item) -> None:
    """Whatever spconv and gsplat replace there. TF32 and another order of sums leave small differences."""
    results = {}
    for device in ("cpu", "cuda"):
        model = network(unet=dataclasses.replace(CONFIG.unet, precision="fp32")).to(device).eval()
        losses = Objective()(model, [item.to(device)])
        losses.total.backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        results[device] = {name: float(value.detach()) for name, value in losses.terms.items()}, gradient
    (terms, gradient), (terms_on_cuda, gradient_on_cuda) = results["cpu"], results["cuda"]
    assert terms_on_cuda == pytest.approx(terms, rel=2e-2)
    assert torch.nn.functional.cosine_similarity(gradient_on_cuda, gradient, dim=0) > 0.99
    assert float(gradient_on_cuda.norm() / gradient.norm()) == pytest.approx(1, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_step_on_cuda_in_bfloat16_is_finite_and_learns(item: Item) -> None:
    pytest.importorskip("gsplat", reason="gsplat is not installed (extra `gpu`)")
    trainer = Trainer(network(), Objective(), OptimConfig(steps=30, batch_size=1, lr=3e-3, warmup_steps=5), "cuda")
    losses = [trainer.step([item])["loss"] for _ in range(30)]
    assert not trainer.skipped
    assert losses[-1] < 0.8 * losses[0]


def test_a_cloud_of_a_few_voxels_has_fewer_proposals_than_targets(item: Item) -> None:
    """As where a photo sees next to nothing of a chunk; it is learned from as far as it goes."""
    few = voxelise(item.voxels.xyz[:2], item.voxels.rgb[:2], 0.1)
    assert len(item.views[0].chosen) > 2
    losses = Objective()(network(), [Item("few", few, item.views[:1])])
    assert torch.isfinite(losses.total)
    assert "dice" in losses.terms
