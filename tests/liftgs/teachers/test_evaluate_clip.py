"""The evaluation of a CLIP, on scenes and embedders for which the right numbers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from liftgs.procedural import COLOURS, KINDS, STRUCTURE_KINDS
from liftgs.scene import Camera, Expression, Frame, Instance, Mention, Scene, SceneLabels
from liftgs.teachers.clip import Embed
from liftgs.teachers.evaluate_clip import evaluate_clip

WORDS = (*KINDS, *STRUCTURE_KINDS, *COLOURS, "left", "right")


class Squares(Scene):
    """Three squares and a wall; the red channel of a pixel is its instance."""

    uri = name = "squares"

    def __init__(self, relation: str):
        box = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.instances = (
            Instance(1, "chair", "red", "wood", *box),
            Instance(2, "table", "blue", "wood", *box),
            Instance(3, "wall", "white", "plaster", *box),
            Instance(4, "mug", "green", "ceramic", *box),  # too small to count
        )
        text = f"the red chair {relation} of the table"
        target = Mention((1,), (0, 13), (0, 3))
        anchor = Mention((2,), (text.index("the table"), len(text)), (5, 7))
        self.expressions = (Expression(text, target, (anchor,), relation),)

    def frame_ids(self) -> list[str]:
        return ["0", "1"]

    def load(self, frame_id: str) -> Frame:
        instances = np.full((32, 32), 3, np.uint16)
        instances[2:12, 2:12] = 1
        instances[20:30, 20:30] = 2
        instances[0, :3] = 4
        camera = Camera(np.array([[30.0, 0, 16], [0, 30, 16], [0, 0, 1]]), np.eye(4), 32, 32)
        rgb = np.repeat(instances.astype(np.uint8)[..., None], 3, axis=2)
        return Frame(frame_id, "squares", camera, rgb, instances=instances)

    def labels(self) -> SceneLabels:
        return SceneLabels(self.instances, self.expressions)


class Oracle:
    """Embeds things and texts as the words that are true of them; may take one kind or colour for another."""

    def __init__(self, mistakes: dict[str, str] | None = None):
        self.mistakes = mistakes or {}

    def __call__(self, rgb: np.ndarray, semantics: np.ndarray) -> np.ndarray:
        things = {item.id: item for item in Squares("left").instances}
        found = [things[int(rgb[semantics == row + 1][0, 0])] for row in range(int(semantics.max()))]
        words = [[self.mistakes.get(word, word) for word in (item.kind, item.colour)] for item in found]
        return self._rows(words).astype(np.float16)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        # of an expression, what is said of its target, and its relation
        return self._rows([[w for w in WORDS if f" {w} " in f" {text.split(' of ')[0]} "] for text in texts])

    def _rows(self, said: Sequence[Sequence[str]]) -> np.ndarray:
        rows = np.array([[word in words for word in WORDS] for words in said], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def evaluate(oracle: Oracle) -> dict[str, float]:
    scenes = [Squares(relation) for relation in ("left", "right", "right", "left")]
    return evaluate_clip(cast(Embed, oracle), scenes)


def test_one_who_knows_everything_is_always_right() -> None:
    result = evaluate(Oracle())
    for name in ("kind", "kind_macro", "structure_kind", "colour", "structure_colour"):
        assert result[name] == 1
    for name in ("expression_kind", "expression_colour", "relation_probe"):
        assert result[name] == 1
    assert result["crops"] == 4 * 2 * 2  # scenes, frames, objects that are large enough
    assert result["expressions"] == 4


def test_each_mistake_shows_where_it_belongs() -> None:
    result = evaluate(Oracle({"chair": "table", "white": "red"}))
    assert result["kind"] == 0.5
    assert result["structure_kind"] == 1
    assert result["colour"] == 1
    assert result["structure_colour"] == 0
    result = evaluate(Oracle({"chair": "table", "table": "chair", "red": "blue", "blue": "red"}))
    assert result["kind"] == result["colour"] == result["expression_kind"] == result["expression_colour"] == 0


def test_a_text_without_its_relation_leaves_the_probe_at_chance() -> None:
    oracle = Oracle()
    rows = oracle._rows
    oracle._rows = lambda said: rows([[w for w in words if w not in ("left", "right")] for words in said])  # type: ignore[method-assign]
    result = evaluate(oracle)
    assert result["relation_probe"] <= 0.5
    assert math.isclose(result["relation_chance"], 0.5)
