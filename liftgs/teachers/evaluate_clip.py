"""How good a CLIP is on labelled scenes: zero-shot kinds and colours of ground-truth crops, and reading of expressions.

`liftgs teachers` prints it, for the small CLIP on held-out rooms by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn

from liftgs import labels
from liftgs.procedural import ProceduralScene
from liftgs.procedural.colours import COLOURS
from liftgs.procedural.kinds import KINDS, STRUCTURE_KINDS
from liftgs.scene import Expression, Frame, Instance, Scene
from liftgs.teachers.clip import Embed, load_shipped

#: visible pixels at 512x512 that an instance needs; what the teachers' segments have too
MIN_AREA_PX = 1024
CORPORA = ("apartments", "offices", "warehouses")


@dataclass(frozen=True, eq=False)
class _View:
    """The visible instances of a frame, and their embeddings, row by row."""

    instances: list[Instance]
    rows: Float32[np.ndarray, "s f"]


def evaluate_clip(embedder: Embed, scenes: Iterable[Scene]) -> dict[str, float]:
    """Zero-shot accuracy on ground-truth boxes, and what pooled texts tell.

    All instances with `MIN_AREA_PX` visible pixels count, as often as they are seen. Prompts: "a chair" against all
    object kinds (for walls, floors and ceilings against those too), and "a red object" against all colours.

    Args:
        embedder: how crops are cut and embedded, too.
        scenes: with `Frame.instances` and labels.

    Returns:
        - `kind`: top-1 of objects; `kind_macro`: the mean over kinds; `structure_kind`: top-1 of walls and so on;
        - `colour`: top-1 of objects; `structure_colour`;
        - `expression_kind`, `expression_colour`: an expression's embedding picks among the visible objects of each
          frame that sees its target one of the target's kind, and one of its colour where the expression says it;
        - `relation_probe`: a linear classifier on frozen expression embeddings names the relation, trained on one half
          of the scenes and tested on the other; `relation_chance`: always the most frequent one;
        - `crops`, `expressions`: how many of them.
    """
    views, expressions = [], []
    for number, scene in enumerate(scenes):
        found = scene.labels()
        if found is None:
            raise ValueError(f"{scene.uri}: has no labels to evaluate on")
        instances = {item.id: item for item in found.instances}
        scene_views = [_look(embedder, scene.load(frame_id), instances) for frame_id in scene.frame_ids()]
        views += scene_views
        expressions += [(number, expression, instances, scene_views) for expression in found.expressions]
    result = _zero_shot(embedder, views)
    if expressions:
        texts = embedder.encode_text([expression.text for _, expression, _, _ in expressions])
        result |= _referral(texts, [row[1:] for row in expressions])
        numbers = np.array([row[0] for row in expressions])
        result |= _relation_probe(texts, [row[1].relation for row in expressions], numbers)
    return result


def _look(embedder: Embed, frame: Frame, instances: dict[int, Instance]) -> _View:
    assert frame.instances is not None
    areas = np.bincount(frame.instances.ravel())
    enough = np.flatnonzero(areas >= MIN_AREA_PX * frame.instances.size / 512**2)
    visible = [int(i) for i in enough if int(i) in instances]
    semantics, _ = labels.renumber(np.where(np.isin(frame.instances, visible), frame.instances, np.uint16(0)))
    return _View([instances[i] for i in visible], embedder(frame.rgb, semantics).astype(np.float32))


def _zero_shot(embedder: Embed, views: Sequence[_View]) -> dict[str, float]:
    rows = np.concatenate([view.rows for view in views])
    instances = [item for view in views for item in view.instances]
    kinds = (*KINDS, *STRUCTURE_KINDS)
    kind_scores = rows @ embedder.encode_text([f"{_article(kind)} {kind}" for kind in kinds]).T
    colour_scores = rows @ embedder.encode_text([f"{_article(colour)} {colour} object" for colour in COLOURS]).T
    kind = np.array([kinds.index(item.kind) for item in instances])
    colour = np.array([COLOURS.index(item.colour) for item in instances])
    is_object = kind < len(KINDS)
    kind_right = kind_scores[:, : len(KINDS)].argmax(axis=1) == kind
    structure_right = kind_scores.argmax(axis=1) == kind
    colour_right = colour_scores.argmax(axis=1) == colour
    per_kind = [kind_right[kind == i].mean() for i in range(len(KINDS)) if (kind == i).any()]
    return {
        "kind": float(kind_right[is_object].mean()),
        "kind_macro": float(np.mean(per_kind)),
        "structure_kind": float(structure_right[~is_object].mean()),
        "colour": float(colour_right[is_object].mean()),
        "structure_colour": float(colour_right[~is_object].mean()),
        "crops": int(is_object.sum()),
    }


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _referral(
    texts: Float32[np.ndarray, "n f"], expressions: Sequence[tuple[Expression, dict[int, Instance], list[_View]]]
) -> dict[str, float]:
    kind_right, colour_right = [], []
    for text, (expression, instances, views) in zip(texts, expressions, strict=True):
        target = instances[expression.target.instances[0]]
        says_colour = target.colour in expression.text[slice(*expression.target.chars)].split()
        for view in views:
            objects = [i for i, item in enumerate(view.instances) if item.kind not in STRUCTURE_KINDS]
            if not any(view.instances[i].id == target.id for i in objects):
                continue
            picked = view.instances[objects[int((view.rows[objects] @ text).argmax())]]
            kind_right.append(picked.kind == target.kind)
            if says_colour:
                colour_right.append(picked.colour == target.colour)
    return {
        "expression_kind": float(np.mean(kind_right)),
        "expression_colour": float(np.mean(colour_right)) if colour_right else float("nan"),
        "expressions": len(expressions),
    }


def _relation_probe(
    texts: Float32[np.ndarray, "n f"], relations: Sequence[str], scenes: Int64[np.ndarray, " n"]
) -> dict[str, float]:
    names, wanted = np.unique(relations, return_inverse=True)
    train = scenes % 2 == 0
    if train.all() or not train.any():
        return {}
    x, y = torch.from_numpy(texts) * texts.shape[1] ** 0.5, torch.from_numpy(wanted)
    torch.manual_seed(0)
    probe = nn.Linear(texts.shape[1], len(names))
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    chosen = torch.from_numpy(train)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(probe(x[chosen]), y[chosen])
        loss = loss + 1e-3 * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        right = probe(x[~chosen]).argmax(dim=1) == y[~chosen]
    return {
        "relation_probe": float(right.float().mean()),
        "relation_chance": float(np.mean(wanted[~train] == np.bincount(wanted[train]).argmax())),
    }


def held_out_scenes(count: int, seed: int, views: int = 3, image_px: int = 512) -> Iterable[Scene]:
    """Rooms that no teacher was trained on, if `seed` is at least 1,000,000; the three corpora take turns."""
    for i in range(count):
        kind = CORPORA[i % len(CORPORA)]
        yield ProceduralScene(kind, i // len(CORPORA), seed, views, width=image_px, height=image_px)


def evaluate_tiny(path: Path, scenes: int, seed: int) -> dict[str, Any]:
    """Evaluate a small CLIP in our own layout on held-out rooms."""
    embedder = Embed(clip=load_shipped(path))
    return {name: round(value, 4) for name, value in evaluate_clip(embedder, held_out_scenes(scenes, seed)).items()}
