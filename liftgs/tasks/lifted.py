"""Grounding without training: names are compared with the pseudo-labels that are lifted from a sample's photos.

Two ways, both with one point per voxel of the cloud:

"points" is ConceptFusion's: each point has the mean feature of what photos show there, and is called by the phrase that
this is closest to; points of one name that touch are an instance. "instances" joins the photos' segments first, and
names each joined thing as a whole.

In both a phrase competes with those that are asked for at the same time and with phrases that fit anything, by a
softmax over cosines at CLIP's own temperature. What these generic phrases win is nobody's.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from liftgs.lifting import LiftingConfig, merge, pool, sight
from liftgs.model.liftgs import Prediction
from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs.tasks.phrases import Encode
from liftgs.tasks.proposals import SeenScene

Way = Literal["points", "instances"]

#: LERF's canonical phrases (Kerr et al. 2023).
GENERIC = ("object", "things", "stuff", "texture")
#: CLIP's own: its cosines are multiplied by 100.
TEMPERATURE = 0.01
#: Points this close touch: voxels of 5 cm with one between them, as means of voxels are not on a grid.
TOUCH_M = 0.1
#: Logit of what is in a mask; masks are not soft.
_IN_MASK = 20.0


def lifted(way: Way, encode: Encode, config: LiftingConfig, sample: Sample) -> SeenScene:
    """Lift the pseudo-labels of a sample.

    Args:
        way: see above.
        encode: the text side of the CLIP that the sample is labelled with.
        config: of lifting.
        sample: pseudo-labelled.

    Raises:
        BadInput: a member is broken, the sample is not labelled, or by another CLIP.
    """
    sightings, generic = sight(sample, config), encode(GENERIC)
    if sightings.embeds.shape[1] != generic.shape[1]:
        raise BadInput(
            sample.uri,
            f"is labelled with embeddings of {sightings.embeds.shape[1]} numbers, and phrases have {generic.shape[1]}",
        )
    every_point = np.arange(len(sample.cloud))
    if way == "points":
        features, pairs = torch.from_numpy(pool(sightings)), touching(sample.cloud.xyz)
        return SeenScene(partial(_by_points, features, pairs, generic, config), every_point, sample.cloud.xyz)
    found = merge(sightings, config)
    masks = torch.from_numpy(found.ids == np.arange(1, len(found.embeds) + 1)[:, None])
    return SeenScene(
        partial(_by_instances, torch.from_numpy(found.embeds), masks, generic), every_point, sample.cloud.xyz
    )


def touching(xyz: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "e 2"]:
    """Pairs of points that touch."""
    return cKDTree(xyz).query_pairs(TOUCH_M, output_type="ndarray")


def _by_points(
    features: Float[Tensor, "n f"],
    pairs: Int[np.ndarray, "e 2"],
    generic: Float[Tensor, "g f"],
    config: LiftingConfig,
    queries: Float[Tensor, "t f"],
) -> Prediction:
    probs = _compare(features, queries, generic)
    name = np.where(features.any(1), probs.argmax(1), len(queries))
    part = components(name, pairs)
    of_query = np.flatnonzero(name < len(queries))
    parts, points = np.unique(part[of_query], return_counts=True)
    parts = parts[points >= config.min_points]
    masks = torch.from_numpy(part == parts[:, None])
    tokens = torch.zeros(len(parts), len(queries))
    for row, mask in enumerate(masks):
        column = name[int(mask.int().argmax())]
        tokens[row, column] = probs[mask, column].mean()
    return Prediction(torch.where(masks, _IN_MASK, -_IN_MASK), tokens)


def _by_instances(
    embeds: Float[Tensor, "k f"],
    masks: Bool[Tensor, "k n"],
    generic: Float[Tensor, "g f"],
    queries: Float[Tensor, "t f"],
) -> Prediction:
    tokens = _compare(embeds, queries, generic)[:, : len(queries)]
    return Prediction(torch.where(masks, _IN_MASK, -_IN_MASK), tokens)


def _compare(
    rows: Float[Tensor, "n f"], queries: Float[Tensor, "t f"], generic: Float[Tensor, "g f"]
) -> Float[Tensor, "n c"]:
    """Probability of each query, then of each generic phrase."""
    return (rows @ torch.cat([queries.cpu(), generic]).T / TEMPERATURE).softmax(1)


def components(name: Int[np.ndarray, " n"], pairs: Int[np.ndarray, "e 2"]) -> Int[np.ndarray, " n"]:
    """Numbers the connected parts of points of one name."""
    a, b = pairs[name[pairs[:, 0]] == name[pairs[:, 1]]].T
    graph = sparse.csr_array((np.ones(len(a), bool), (a, b)), shape=(len(name), len(name)))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
