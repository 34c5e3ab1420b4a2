"""Items are pure functions of their arguments, and augmentation never moves what a camera sees."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_room import room_sample

from liftgs.geometry import project
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs.training.augment import AugmentConfig, Change

PLAIN = AugmentConfig(rotate=False, flip=False, scale=0.0, colour=0.0)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return room_sample()


def take(sample: Sample, epoch: int = 0, **changes: object) -> Item:
    config = ItemConfig(**{"views": 2, "image_px": 64, **changes})  # type: ignore[arg-type]
    return make_item(sample, config, 0.05, "room-000", 3, epoch)


@pytest.mark.parametrize("epoch", range(6))
def test_projection_survives_every_augmentation(sample: Sample, epoch: int) -> None:
    augment = AugmentConfig(scale=0.3)
    rng = np.random.default_rng([3, epoch, zlib.crc32(b"room-000")])
    move = Change.draw(augment, rng).move
    item = take(sample, epoch, augment=augment)
    by_id = {tuple(np.round(view.camera.K.ravel(), 6)): view for view in sample.views}
    assert len(by_id) >= 1
    points = sample.cloud.xyz[::50]
    moved = points @ move[:3, :3].T + move[:3, 3]
    seen = []
    for view in item.views:
        in_camera = moved @ view.camera.viewmat[:3, :3].double().numpy().T + view.camera.viewmat[:3, 3].double().numpy()
        pixels = (in_camera @ view.camera.K.double().numpy().T)[:, :2] / in_camera[:, 2:]
        errors = []
        for original in sample.views:
            expected, z = project(points, original.camera.resized(64, 64))
            front = z > 0.2
            errors.append(np.abs(pixels - expected)[front].max())
            if errors[-1] < 0.05:
                np.testing.assert_allclose(in_camera[front, 2], z[front], atol=1e-3)
        seen.append(int(np.argmin(errors)))
        assert min(errors) < 0.05
    assert sorted(seen) == [0, 1]


def test_augmentations_differ_between_epochs_and_repeat_within(sample: Sample) -> None:
    a, again, other = take(sample, 0), take(sample, 0), take(sample, 1)
    torch.testing.assert_close(a.voxels.xyz, again.voxels.xyz, rtol=0, atol=0)
    torch.testing.assert_close(a.views[0].photo, again.views[0].photo, rtol=0, atol=0)
    assert a.views[0].chosen.tolist() == again.views[0].chosen.tolist()
    assert len(a.voxels) != len(other.voxels) or not torch.allclose(a.voxels.xyz, other.voxels.xyz)


def test_some_augmented_worlds_are_mirrored(sample: Sample) -> None:
    signs = {float(torch.sign(torch.linalg.det(take(sample, e).views[0].camera.viewmat[:3, :3]))) for e in range(8)}
    assert signs == {-1.0, 1.0}


def test_targets_are_segments_and_their_own_queries(sample: Sample) -> None:
    item = take(sample, augment=PLAIN, min_area=0.004)
    for view in item.views:
        areas = view.masks().flatten(1).sum(1)
        assert 1 <= len(view.chosen) <= 8
        assert (areas >= 0.004 * 64 * 64).all()
        torch.testing.assert_close(view.queries, view.embeds[view.chosen])
        torch.testing.assert_close(view.positives, torch.eye(len(view.chosen)))
        assert view.segment.min() >= -1
        assert view.segment.max() < len(view.embeds)


def test_the_photo_is_shrunk_by_averaging(sample: Sample) -> None:
    item = take(sample, augment=PLAIN)
    means = {round(float(view.photo.mean()), 4) for view in item.views}
    expected = {round(float(view.photo.mean()) / 255, 4) for view in sample.views}
    assert means == expected


def test_colours_of_cloud_and_photos_change_alike(sample: Sample) -> None:
    strong = take(sample, augment=AugmentConfig(rotate=False, flip=False, scale=0.0, colour=0.5))
    plain = take(sample, augment=PLAIN)
    gain = (strong.voxels.rgb - strong.voxels.rgb.mean(0)).norm(dim=0) / (
        plain.voxels.rgb - plain.voxels.rgb.mean(0)
    ).norm(dim=0)
    photos = {float(v.photo.mean()): v for v in strong.views}
    for view in plain.views:
        predicted = view.photo * gain + (strong.voxels.rgb.mean(0) - gain * plain.voxels.rgb.mean(0))
        assert min(float((predicted - p.photo).abs().mean()) for p in photos.values()) < 1e-3


def test_an_unlabelled_sample_is_refused() -> None:
    with pytest.raises(BadInput, match="label the corpus first"):
        make_item(room_sample(labelled=False), ItemConfig(), 0.05, "k", 0, 0)


def test_segments_with_the_same_words_share_a_query_in_words() -> None:
    words = ("a chair", "a red chair", "a table")

    def encode(phrases: Sequence[str]) -> torch.Tensor:
        return torch.eye(3)[[words.index(phrase) for phrase in phrases]]

    captioned = room_sample(caption=lambda number: words[number % 3])
    config = ItemConfig(views=1, image_px=64, min_area=0.002, queries="captions", augment=PLAIN)
    (view,) = make_item(captioned, config, 0.05, "room-000", 3, 0, encode).views
    (unasked,) = make_item(captioned, replace(config, queries="embeds"), 0.05, "room-000", 3, 0).views

    assert view.chosen.tolist() == unasked.chosen.tolist()
    assert len(view.queries) < len(view.chosen)
    torch.testing.assert_close(view.embeds, unasked.embeds)  # what the feature loss compares with
    all_captions = next(v.segments.captions for v in captioned.views if len(v.segments.captions) == len(view.embeds))
    asked = [words[int(row.argmax())] for row in view.positives @ view.queries]
    assert asked == [all_captions[row] for row in view.chosen.tolist()]
    assert (view.positives.sum(1) == 1).all()


def test_a_photo_without_segments_asks_for_nothing_in_words() -> None:
    config = ItemConfig(views=1, image_px=64, min_area=2.0, queries="captions")
    captioned = room_sample(caption=str)
    (view,) = make_item(captioned, config, 0.05, "k", 0, 0, lambda phrases: torch.ones(len(phrases), 16)).views
    assert view.queries.shape == (0, 16)
    assert view.positives.shape == (0, 0)


def test_captions_that_are_asked_for_and_not_there_are_refused() -> None:
    with pytest.raises(BadInput, match=r"no captions; label with them, or set item\.queries=embeds"):
        make_item(room_sample(), ItemConfig(queries="captions"), 0.05, "k", 0, 0, lambda phrases: torch.ones(1, 4))


NAMES = ("a red chair", "a blue chair", "a table", "a grey oven", "an orange")


def encode_names(phrases: Sequence[str]) -> torch.Tensor:
    """Each phrase its own row, whichever it is."""
    return torch.tensor([[*phrase.ljust(24).encode()] for phrase in phrases]).float()


def decoded(queries: torch.Tensor) -> list[str]:
    return [bytes(row.to(torch.uint8).tolist()).decode().strip() for row in queries]


def test_absent_captions_are_asked_for_and_name_nothing() -> None:
    captioned = room_sample(caption=lambda number: NAMES[number % 2])
    config = ItemConfig(views=1, image_px=64, min_area=0.002, queries="captions", absent=2)
    heard, orders = set(), set()
    for epoch in range(12):
        (view,) = make_item(captioned, config, 0.05, "room", 3, epoch, encode_names, NAMES).views
        texts = decoded(view.queries)
        borne = {texts[column] for column in view.positives.argmax(1).tolist()}
        assert borne == {NAMES[row % 2] for row in view.chosen.tolist()}
        absent = [text for column, text in enumerate(texts) if not view.positives[:, column].any()]
        assert len(set(absent)) == 2
        assert set(absent) <= set(NAMES[2:]), "nothing that a segment of the view bears, asked for or not"
        heard |= set(absent)
        orders.add(tuple(text in borne for text in texts))
    assert heard == set(NAMES[2:])
    assert len(orders) > 1, "a place would tell which are absent"


def test_plain_views_are_asked_for_without_colours() -> None:
    captioned = room_sample(caption=lambda number: NAMES[number % 2])
    config = ItemConfig(views=1, image_px=64, min_area=0.002, queries="captions", plain=1.0, absent=4)
    (view,) = make_item(captioned, config, 0.05, "room", 3, 0, encode_names, NAMES).views
    texts = decoded(view.queries)
    assert sorted(texts) == ["a chair", "a table", "an orange", "an oven"]
    assert (view.positives[:, texts.index("a chair")] == 1).all()
    half = replace(config, plain=0.5)
    views = [make_item(captioned, half, 0.05, "room", 3, e, encode_names, NAMES).views[0] for e in range(12)]
    assert {"a chair" in decoded(one.queries) for one in views} == {True, False}


@pytest.mark.parametrize(
    ("caption", "signs"),
    [("a chair on the LEFT", {1.0}), ("the rightmost chair", {1.0}), ("an upright chair", {-1.0, 1.0})],
)
def test_a_chunk_whose_captions_tell_left_from_right_is_not_mirrored(caption: str, signs: set[float]) -> None:
    captioned = room_sample(caption=lambda number: caption if number % 5 == 0 else "a table")
    config = ItemConfig(views=1, image_px=64, min_area=0.002, queries="captions")
    worlds = [make_item(captioned, config, 0.05, "room", 3, epoch, encode_names).views[0] for epoch in range(8)]
    assert {float(torch.linalg.det(view.camera.viewmat[:3, :3]).sign()) for view in worlds} == signs
