"""Steps: they learn, continue exactly, and survive what is not finite."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from labelled_room import room_sample
from tiny_network import CONFIG, network
from torch import Tensor, distributed, multiprocessing

from liftgs.pretraining.items import Item, ItemConfig, ItemView, make_item
from liftgs.pretraining.objective import Objective
from liftgs.training.trainer import OptimConfig, Trainer, TrainingDiverged
from liftgs.training.world import World

OPTIM = OptimConfig(steps=40, batch_size=1, lr=1e-3, warmup_steps=4)


@pytest.fixture(scope="module")
def item() -> Item:
    return make_item(room_sample(), ItemConfig(views=1, image_px=32, min_area=0.004), 0.1, "room-000", 0, 0)


def broken(item: Item) -> Item:
    view = item.views[0]
    photo = view.photo.clone()
    photo[0, 0, 0] = math.nan
    fields = (view.camera, view.segment, view.embeds, view.chosen, view.queries, view.positives)
    return Item(item.key, item.voxels, (ItemView(photo, *fields),))


@pytest.mark.parametrize("average", [0, 3])
def test_continuing_from_a_state_is_as_if_never_stopped(item: Item, average: int) -> None:
    optim = dataclasses.replace(OPTIM, average=average)
    whole = Trainer(network(), Objective(), optim)
    for _ in range(6):
        last = whole.step([item])
    first = Trainer(network(), Objective(), optim)
    for _ in range(3):
        first.step([item])
    second = Trainer(network(seed=9), Objective(), optim)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        again = second.step([item])
    assert again["loss"] == pytest.approx(last["loss"], rel=1e-4)
    assert again["lr"] == last["lr"]
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("average", [2, 1000])
def test_the_average_is_that_of_the_weights_after_each_step(item: Item, average: int) -> None:
    """By hand: each moves it by 1/average, or by more while there are few. A skipped step is none."""
    trainer = Trainer(network(), Objective(), dataclasses.replace(OPTIM, average=average))
    expected: list[Tensor] = []
    for number, one in enumerate([item, item, broken(item), item, item]):
        skipped = trainer.step([one])["skipped"]
        assert skipped == (number == 2)
        weights = [parameter.detach().double() for parameter in trainer.network.parameters()]
        share = max(1 / average, 9 / (10 + number - (number > 2)))
        if not skipped:
            pairs = zip(expected, weights, strict=True)
            expected = [mean + share * (new - mean) for mean, new in pairs] if expected else weights
    assert trainer.model is not trainer.network
    for found, wanted in zip(trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-5, atol=1e-7)


def test_without_an_average_the_newest_weights_are_kept() -> None:
    trainer = Trainer(network(), Objective(), OPTIM)
    assert trainer.model is trainer.network
    with pytest.raises(ValueError, match="average"):
        OptimConfig(average=-1)


def test_items_side_by_side_give_the_gradient_of_the_batch() -> None:
    """Also where they have different numbers of views, which count alike."""
    config = ItemConfig(views=1, image_px=32, min_area=0.004)
    items = [make_item(room_sample(), dataclasses.replace(config, views=v), 0.1, f"room-{v}", 0, 0) for v in (1, 2, 1)]
    exact = {"unet": dataclasses.replace(CONFIG.unet, precision="fp32")}
    together = network(**exact).train()
    losses = Objective()(together, items)
    losses.total.backward()
    trainer = Trainer(network(**exact), Objective(), dataclasses.replace(OPTIM, batch_size=3, clip=1e9))
    metrics = trainer.step(items)
    assert metrics["loss"] == pytest.approx(float(losses.total.detach()), rel=1e-5)
    for name, value in losses.terms.items():
        assert metrics[name] == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-6)
    for (name, one), other in zip(trainer.model.named_parameters(), together.parameters(), strict=True):
        if one.grad is not None or other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_one_broken_item_of_a_batch_skips_the_step(item: Item) -> None:
    trainer = Trainer(network(), Objective(), dataclasses.replace(OPTIM, batch_size=2))
    assert trainer.step([item, broken(item)])["skipped"] == 1


def test_state_is_tensors_and_plain_numbers(item: Item) -> None:
    trainer = Trainer(network(), Objective(), OPTIM)
    trainer.step([item])
    for name, value in trainer.state_dict().items():
        assert isinstance(value, torch.Tensor | int | list), name


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(item: Item) -> None:
    trainer = Trainer(network(), Objective(), OPTIM)
    trainer.step([item])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    metrics = trainer.step([broken(item)])
    assert metrics["skipped"] == 1
    assert trainer.skipped == [1]
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert trainer.step([item])["skipped"] == 0


def test_a_network_whose_outputs_are_not_finite_is_skipped_too(item: Item) -> None:
    """The renderer refuses NaN; that is no reason for the run to end."""
    trainer = Trainer(network(), Objective(), OPTIM)
    with torch.no_grad():
        trainer.model.gaussian_head.geometry.bias[0] = math.nan
    assert trainer.step([item])["skipped"] == 1


def test_too_many_skipped_steps_stop_the_run_with_the_reason(item: Item) -> None:
    trainer = Trainer(network(), Objective(), OPTIM)
    for _ in range(19):
        trainer.step([broken(item)])
    with pytest.raises(TrainingDiverged, match=r"20 of the last 20 steps were skipped \(now: photometric, loss"):
        trainer.step([broken(item)])
    assert trainer.steps_done == 20


def test_the_learning_rate_warms_up_and_decays() -> None:
    optim = OptimConfig(steps=1000, lr=2.0, warmup_steps=100, final_lr=0.1)
    rates = [optim.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(2.0)
    assert rates.index(max(rates)) in (99, 100)
    assert rates[-1] == pytest.approx(0.2, rel=1e-3)
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_matrices_decay_and_vectors_do_not() -> None:
    trainer = Trainer(network(), Objective(), OPTIM)
    decayed, rest = trainer.optimizer.param_groups
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    assert all("norm" not in names[id(p)] and not names[id(p)].endswith("bias") for p in decayed["params"])
    assert {names[id(p)] for p in rest["params"]} >= {"decoder.proposal_content", "decoder.heads.no_match"}
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


# ---- several workers

BATCH = 5
SHARED = dataclasses.replace(OPTIM, batch_size=BATCH)


@dataclasses.dataclass(frozen=True)
class Shared:
    """What workers train together: a network, and the place of the batch that holds no usable sample."""

    bad_place: int
    norm: Literal["batch", "layer"] = "layer"
    dropout: float = 0.0
    checkpoint_stages: bool = False


def train_together(rank: int, size: int, folder: str, what: Shared) -> None:
    """Three steps; the metrics and the weights go to a file."""
    torch.set_num_threads(1)  # as one item has wherever it is worked on
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    world = World(rank, size)
    model = network(
        unet=dataclasses.replace(
            CONFIG.unet,
            norm=what.norm,
            precision="fp32" if what.norm == "batch" else "auto",
            checkpoint_stages=what.checkpoint_stages,
        ),
        decoder=dataclasses.replace(CONFIG.decoder, dropout=what.dropout),
    )
    trainer = Trainer(model, Objective(), SHARED, world=world)
    config = ItemConfig(views=1, image_px=32, min_area=0.004)
    sample = room_sample(views=2)
    for step in range(3):
        items = [
            None if place == what.bad_place else make_item(sample, config, 0.1, f"{step}-{place}", 0, 0)
            for places in world.places(BATCH)
            for place in places
        ]
        metrics = trainer.step(items)
    learned = {name: metrics[name] for name in ("loss", "mask", "grad_norm")}
    torch.save((learned, trainer.model.state_dict()), f"{folder}/{size}-{rank}.pt")
    if size > 1:
        distributed.destroy_process_group()


def learn(folder: Path, size: int, what: Shared) -> list[tuple[dict[str, float], dict[str, torch.Tensor]]]:
    """Metrics and weights of each worker."""
    multiprocessing.spawn(train_together, (size, str(folder), what), nprocs=size)
    return [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize(("size", "dropout"), [(3, 0.0), (2, 0.3)])
def test_weights_are_the_same_bits_on_any_number_of_workers(size: int, dropout: float, tmp_path: Path) -> None:
    what = Shared(bad_place=1, dropout=dropout)
    ((expected_metrics, expected),) = learn(tmp_path, 1, what)
    for metrics, state in learn(tmp_path, size, what):
        assert metrics == expected_metrics
        for name, value in expected.items():
            assert torch.equal(state[name], value), name


@pytest.mark.parametrize(("size", "checkpoint_stages"), [(2, False), (3, True)])
def test_statistics_over_a_batch_are_those_of_all_workers(size: int, checkpoint_stages: bool, tmp_path: Path) -> None:
    """The last of three workers holds nothing but the bad sample; stages may be run once more for their gradients."""
    what = Shared(bad_place=4, norm="batch", checkpoint_stages=checkpoint_stages)
    ((expected_metrics, expected),) = learn(tmp_path, 1, what)
    apart = learn(tmp_path, size, what)
    for metrics, state in apart:
        assert metrics == pytest.approx(expected_metrics, rel=1e-4)
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=2e-4, msg=name)
            assert torch.equal(state[name], apart[0][1][name]), name


def test_a_skipped_step_leaves_the_statistics(item: Item) -> None:
    model = network(unet=dataclasses.replace(CONFIG.unet, norm="batch"))
    trainer = Trainer(model, Objective(), OPTIM)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert trainer.step([broken(item)])["skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_batch_without_a_usable_sample_is_skipped() -> None:
    trainer = Trainer(network(), Objective(), SHARED)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.step([None] * BATCH)["skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
