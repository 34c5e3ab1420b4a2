"""Phrases -> masks and boxes in a scan. Knows nothing of files and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from liftgs.ground.scans import Scan, load_scan, open_scan
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.model.text import encode_phrases
from liftgs.scene import BadInput, PointCloud, Scene
from liftgs.tasks.instances import ScoredMasks
from liftgs.tasks.proposals import ProposalConfig, SeenScene, propose, select
from liftgs.teachers.clip import ClipModel


@dataclass(frozen=True, eq=False)
class Grounder:
    """A network and the CLIP that reads its phrases; from `load`."""

    model: LiftGS
    clip: ClipModel


@dataclass(frozen=True, eq=False)
class EncodedScan:
    """A scan and what the network makes of it, from `encode`; any number of phrases may then be asked for.

    Attributes:
        scan: what was looked at.
        encoded: holds the voxels, and which of them each point of the scan's cloud is in.
    """

    scan: Scan
    encoded: EncodedScene


@dataclass(frozen=True, eq=False)
class Match:
    """One answer to one phrase.

    Attributes:
        phrase: what was asked for.
        rank: 1 is the best answer to the phrase.
        score: probability of the phrase times the mean mask probability, in 0..1.
        points: indices of the mask's points in the scan's cloud, increasing; at least one.
        voxels: mask over the Gaussians of the scan.
        box_min: lower corner of the axis-aligned box around the mask's points, metres, world frame.
        box_max: upper corner.
    """

    phrase: str
    rank: int
    score: float
    points: Int[np.ndarray, " k"]
    voxels: Bool[np.ndarray, " v"]
    box_min: Float[np.ndarray, " 3"]
    box_max: Float[np.ndarray, " 3"]

    @property
    def centre(self) -> Float[np.ndarray, " 3"]:
        """Of the box, metres."""
        return (self.box_min + self.box_max) / 2

    @property
    def size(self) -> Float[np.ndarray, " 3"]:
        """Of the box, metres."""
        return self.box_max - self.box_min


@dataclass(frozen=True, eq=False)
class Grounding:
    """Answers to some phrases in one scan.

    Attributes:
        scan: what was looked at.
        phrases: what was asked for.
        matches: answers, phrase by phrase, the best of each first.
        encoded: what the network made of the scan; holds the Gaussians.
    """

    scan: Scan
    phrases: tuple[str, ...]
    matches: list[Match]
    encoded: EncodedScene

    def best(self, phrase: str) -> Match | None:
        """The first answer to a phrase, or None if nothing was good enough."""
        return next((match for match in self.matches if match.phrase == phrase), None)


def load(checkpoint: str | Path, device: str | torch.device = "cpu") -> Grounder:
    """Load a checkpoint and its CLIP.

    Args:
        checkpoint: as `LiftGS.from_pretrained` takes it.
        device: where both go.

    Raises:
        FileNotFoundError: there is no such checkpoint; the message lists those that ship.
        BadInput: it is damaged, or does not fit its CLIP.
    """
    model = LiftGS.from_pretrained(checkpoint, device)
    clip = model.clip()
    if clip.width != model.config.embed_dim:
        raise BadInput(
            str(checkpoint),
            f"takes queries of {model.config.embed_dim} channels, but CLIP {model.config.clip!r} gives {clip.width}",
        )
    return Grounder(model, clip)


def encode(grounder: Grounder, scene: str | Scene | Scan | PointCloud) -> EncodedScan:
    """Read a scene and run the network up to where it hears phrases, which is most of the work.

    Args:
        grounder: from `load`.
        scene: what `open_scan` opens, or the thing itself.

    Raises:
        BadInput: the scene cannot be read, or holds no points.
    """
    model = grounder.model
    scan = _scan(scene, model.config.voxel_size_m)
    with torch.inference_mode():
        return EncodedScan(scan, model.encode([model.voxelise(scan.cloud)])[0])


def ground(
    grounder: Grounder,
    scene: str | Scene | Scan | PointCloud | EncodedScan,
    phrases: Sequence[str],
    top: int = 3,
    threshold: float = 0.0,
    nms_iou: float = 0.5,
    phrases_at_once: int = 8,
) -> Grounding:
    """Find what phrases name.

    Args:
        grounder: from `load`.
        scene: as `encode` takes it, or what it gives.
        phrases: each names one kind of thing; equal phrases are asked once.
        top: most answers to a phrase.
        threshold: least score of an answer.
        nms_iou: answers to a phrase overlap by no more than this.
        phrases_at_once: phrases that compete for the masks; see `ProposalConfig.queries_at_once`.

    Raises:
        ValueError: no phrase, or an empty one.
        BadInput: the scene cannot be read, or holds no points.
    """
    names = tuple(dict.fromkeys(phrases))
    queries = encode_phrases(names, grounder.clip)
    known = scene if isinstance(scene, EncodedScan) else encode(grounder, scene)
    seen, config = SeenScene.by(grounder.model, known.encoded), ProposalConfig(phrases_at_once, top, nms_iou)
    with torch.inference_mode():
        candidates = propose(seen, queries, config.queries_at_once, config.part_m)
    candidates = candidates[candidates.score >= threshold]
    matches = [
        _match(known.scan.cloud, seen.of_point, name, rank, score, mask)
        for label, name in enumerate(names)
        for rank, (score, mask) in enumerate(_answers(candidates[candidates.label == label], seen, config), 1)
    ]
    return Grounding(known.scan, names, matches, known.encoded)


def _scan(scene: str | Scene | Scan | PointCloud, voxel_size_m: float) -> Scan:
    match scene:
        case str():
            return open_scan(scene, voxel_size_m)
        case Scene():
            return load_scan(scene, voxel_size_m)
        case PointCloud():
            return Scan("the cloud", scene)
    return scene


def _answers(
    candidates: ScoredMasks, seen: SeenScene, config: ProposalConfig
) -> list[tuple[float, Bool[np.ndarray, " v"]]]:
    rows, row = np.unique(candidates.row, return_inverse=True)  # others' masks need no comparison
    found = select(replace(candidates, row=row, masks=candidates.masks[rows]), config, seen.points)
    return [(float(score), found.masks[row]) for row, score in zip(found.row, found.score, strict=True)]


def _match(
    cloud: PointCloud,
    of_point: Int[np.ndarray, " n"],
    phrase: str,
    rank: int,
    score: float,
    mask: Bool[np.ndarray, " v"],
) -> Match:
    points = np.flatnonzero(mask[of_point])
    xyz = cloud.xyz[points]
    return Match(phrase, rank, score, points, mask, xyz.min(axis=0), xyz.max(axis=0))
