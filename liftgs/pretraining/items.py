"""One labelled chunk -> one training item: augmented voxels, views to render, and the queries asked of each view."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from liftgs.geometry import CloudConfig, sees
from liftgs.model.voxels import Voxels
from liftgs.render.gaussians import Pinhole
from liftgs.sample import Sample, View
from liftgs.scene import BadInput, PointCloud
from liftgs.tasks.phrases import Encode, without_colours
from liftgs.training.augment import AugmentConfig, Change
from liftgs.training.queries import share_queries

_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


@dataclass(frozen=True)
class ItemConfig:
    """What is taken from a chunk in one visit.

    Attributes:
        views: photos to render; the paper has one per step.
        image_px: longer side of a rendered image; 512 in the paper.
        instances: at most this many segments of a view are asked for; 8 in the paper, where asking for all lets the
            network "reconstruct the whole image" from its queries.
        min_area: smallest segment asked for, as a share of the image: 1024 pixels of 512x512 in the paper.
        queries: by what segments are asked for. "embeds": their image embeddings, as in the paper. "captions": their
            captions, embedded as text; segments with the same words share a query (paper, Table 7).
        plain: share of the views that are asked for without the colours in their captions, as class names are. A
            network that always hears colours learns to go by them.
        absent: captions asked for besides, of the corpora's own, which no segment of the view bears. What is named
            must be told then from all there is, not only from what stands beside it. Nothing to embeds, as is `plain`.
        same_query: segments of a view whose embeddings have at least this cosine share one query that names them all,
            as a class name does. 1 gives each its own, as in the paper. Nothing to captions.
        only_seen: leave out points that no view taken looks at, which learn nothing this time. Saves work where chunks
            are much wider than a view; the paper keeps the chunk.
        augment: random changes. A chunk with a caption that tells left from right is not mirrored, where captions are
            asked for.
    """

    views: int = 1
    image_px: int = 512
    instances: int = 8
    min_area: float = 1024 / 512**2
    queries: Literal["embeds", "captions"] = "embeds"
    plain: float = 0.0
    absent: int = 0
    same_query: float = 1.0
    only_seen: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if min(self.views, self.image_px, self.instances) < 1:
            raise ValueError("views, image_px and instances must be at least 1")
        if not 0 <= self.plain <= 1 or self.absent < 0:
            raise ValueError("plain must be in [0, 1], and absent at least 0")


@dataclass(frozen=True, eq=False)
class ItemView:
    """A photo to render, and what is asked about it.

    Attributes:
        photo: 0..1 before colour augmentation.
        camera: of the augmented world; its viewmat may be a reflection.
        segment: row of `embeds` per pixel; -1 = unlabelled.
        embeds: unit rows, one per segment of the view.
        chosen: rows that are asked for, the k targets.
        queries: unit embeddings.
        positives: which query names which target; rows sum to 1.
    """

    photo: Float[Tensor, "h w 3"]
    camera: Pinhole
    segment: Int[Tensor, "h w"]
    embeds: Float[Tensor, "s f"]
    chosen: Int[Tensor, " k"]
    queries: Float[Tensor, "t f"]
    positives: Float[Tensor, "k t"]

    def masks(self, height: int | None = None, width: int | None = None) -> Float[Tensor, "k h w"]:
        """Targets, 0 or 1; at the photo's size, or another. In memory the targets of a pixel lie side by side."""
        segment = shrink_labels(self.segment, height or self.camera.height, width or self.camera.width)
        return (segment[..., None] == self.chosen).float().permute(2, 0, 1)

    def at_most(self, targets: int) -> ItemView:
        """With no more targets than so many."""
        if len(self.chosen) <= targets:
            return self
        return replace(self, chosen=self.chosen[:targets], positives=self.positives[:targets])

    def to(self, device: torch.device | str) -> ItemView:
        """On another device."""
        camera = Pinhole(
            self.camera.viewmat.to(device), self.camera.K.to(device), self.camera.width, self.camera.height
        )
        tensors = (self.segment, self.embeds, self.chosen, self.queries, self.positives)
        return ItemView(self.photo.to(device), camera, *(value.to(device) for value in tensors))


@dataclass(frozen=True, eq=False)
class Item:
    """A chunk as one visit sees it.

    Attributes:
        key: of the sample.
        voxels: what the network gets.
        views: what it is compared with.
        seed: of what the network itself draws for it (dropout), on whichever worker it is.
    """

    key: str
    voxels: Voxels
    views: tuple[ItemView, ...]
    seed: int = 0

    def __len__(self) -> int:
        """Views, each of which counts as much as any other of a batch."""
        return len(self.views)

    def to(self, device: torch.device | str) -> Item:
        """On another device."""
        return Item(self.key, self.voxels.to(device), tuple(view.to(device) for view in self.views), self.seed)


def make_item(
    sample: Sample,
    config: ItemConfig,
    voxel_size_m: float,
    key: str,
    seed: int,
    epoch: int,
    encode: Encode | None = None,
    names: Sequence[str] = (),
) -> Item:
    """Take an item from a sample: a pure function of its arguments, whoever calls it and when.

    Args:
        sample: labelled.
        config: what to take.
        voxel_size_m: of the network.
        key: of the sample; with `seed` and `epoch` it decides every random choice.
        seed: of the run.
        epoch: which visit.
        encode: captions -> queries, where those are asked for.
        names: captions of the corpora, from which absent ones are drawn.

    Raises:
        BadInput: a member is broken, or the sample has no labels, or no captions where those are asked for.
    """
    rng = np.random.default_rng([seed, epoch, zlib.crc32(key.encode())])
    change = Change.draw(_augment(sample, config), rng)
    taken = [sample.views[number] for number in rng.permutation(len(sample.views))[: config.views]]
    views = tuple(_view(view, config, change, rng, encode, names, sample.uri) for view in taken)
    cloud = _seen(sample.cloud, taken) if config.only_seen else sample.cloud
    voxels = change.voxels(cloud, voxel_size_m, sample.uri)
    return Item(key, voxels, views, int(rng.integers(2**63)))


def _augment(sample: Sample, config: ItemConfig) -> AugmentConfig:
    """Without mirrors, where they would make captions wrong."""
    if config.queries == "embeds":
        return config.augment
    captions = (caption for view in sample.views if view.segments for caption in view.segments.captions or ())
    return replace(config.augment, flip=config.augment.flip and not any(map(_SIDES.search, captions)))


def _seen(cloud: PointCloud, views: Sequence[View]) -> PointCloud:
    """The points within the frustum of some view."""
    seen = np.zeros(len(cloud), bool)
    for view in views:
        seen |= sees(view.camera, cloud.xyz, CloudConfig())
    return cloud[seen]


def _view(
    view: View,
    config: ItemConfig,
    change: Change,
    rng: np.random.Generator,
    encode: Encode | None,
    names: Sequence[str],
    uri: str,
) -> ItemView:
    segments = view.segments
    if segments is None or segments.embeds is None:
        raise BadInput(uri, f"view {view.id} has no segments with embeddings; label the corpus first")
    viewmat = torch.from_numpy(view.camera.world_to_cam @ np.linalg.inv(change.move)).float()
    K = torch.from_numpy(view.camera.K).float()
    camera = Pinhole(viewmat, K, view.camera.width, view.camera.height).within(config.image_px)
    height, width = camera.height, camera.width
    segment = shrink_labels(torch.from_numpy(segments.semantics.astype(np.int32)), height, width) - 1
    embeds = functional.normalize(torch.from_numpy(segments.embeds.astype(np.float32)), dim=1)
    areas = torch.bincount(segment.flatten() + 1, minlength=len(embeds) + 1)[1:]
    candidates = np.flatnonzero(areas.numpy() >= max(1, config.min_area * height * width))
    chosen = torch.from_numpy(rng.permutation(candidates)[: config.instances])
    if config.queries == "captions":
        if segments.captions is None:
            raise BadInput(uri, f"view {view.id} has no captions; label with them, or set item.queries=embeds")
        if encode is None:
            raise ValueError("captions are asked for, and nobody encodes them")
        captions = segments.captions
        if rng.random() < config.plain:
            captions, names = _plain(tuple(captions)), _plain(tuple(names))
        asked = [captions[row] for row in chosen.tolist()]
        texts = _with_absent(list(dict.fromkeys(asked)), sorted(set(names).difference(captions)), config.absent, rng)
        queries = encode(texts) if texts else embeds[:0]
        positives = torch.tensor([[float(text == one) for text in texts] for one in asked]).view(len(asked), len(texts))
    else:
        queries, positives = share_queries(embeds[chosen], config.same_query)
    photo = _shrink(view.photo, height, width) * change.gain + change.shift
    return ItemView(photo, camera, segment, embeds, chosen, queries, positives)


@lru_cache(1024)
def _plain(captions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(without_colours, captions))


def _with_absent(texts: list[str], names: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """In random order, so that nothing tells which are which."""
    chosen = rng.permutation(len(names))[:count] if count else ()
    texts = [*texts, *(names[row] for row in chosen)]
    return [texts[row] for row in rng.permutation(len(texts))]


def _shrink(photo: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> Float[Tensor, "h w 3"]:
    """Area average, 0..1."""
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(pixels, size=(height, width), mode="area")[0].permute(1, 2, 0).contiguous()


def shrink_labels(labels: Int[Tensor, "h w"], height: int, width: int) -> Int[Tensor, "nh nw"]:
    """Of each new pixel the label under its centre; exact up to 2^24."""
    return functional.interpolate(labels[None, None].float(), size=(height, width), mode="nearest-exact")[0, 0].long()
