"""Training of the small CLIP: vocabulary, texts, objective, and runs that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from liftgs.teachers.clip import TINY, Embed, load_shipped
from liftgs.teachers.train.clip import ClipTrainConfig, TinyClipConfig, fit, make_tokenizer, train_clip
from liftgs.teachers.train.clip_batches import BatchConfig, Batches, claim_of_target, fits, renamed
from liftgs.teachers.train.clip_data import ALL_KINDS, Crops, Named, RoomExpression, RoomsConfig, load_blocks, prepare
from liftgs.teachers.train.clip_objective import multi_positive, pooled, token_states, trimmed
from liftgs.teachers.train.clip_texts import Phrase, object_phrase
from liftgs.teachers.train.clip_tokenizer import count_words, learn_merges, write_merges

CONFIG = ClipTrainConfig(
    rooms=RoomsConfig(rooms=2, views=1, image_px=160, rooms_per_block=1, crop_px=40, min_area_px=400),
    network=TinyClipConfig(
        width=32,
        image_px=32,
        image_layers=(1, 1, 1, 1),
        image_width=8,
        text_width=32,
        text_heads=2,
        text_layers=1,
        merges=50,
    ),
    batch=BatchConfig(crops=12, phrases=6, expressions=6),
    steps=4,
    checkpoint_every=1,
    log_every=2,
    eval_scenes=1,
)


def silent(line: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crops, list[RoomExpression]]:
    folder = tmp_path_factory.mktemp("data")
    prepare(CONFIG.rooms, folder, silent)
    return folder, *load_blocks(folder, range(CONFIG.rooms.blocks))


# ---- vocabulary


def test_open_clips_tokenizer_reads_the_learned_merges(tmp_path: Path) -> None:
    counts = count_words(["the red chair", "the red table", "A reddish CHAIR"])
    merges = learn_merges(counts, 100)
    write_merges(merges, tmp_path / "merges.txt.gz")
    tokenizer = SimpleTokenizer(str(tmp_path / "merges.txt.gz"))
    assert tokenizer.vocab_size == 512 + len(merges) + 2
    assert [tokenizer.decode([token]) for token in tokenizer.encode("The red chair")] == ["the ", "red ", "chair "]
    assert tokenizer.decode(tokenizer.encode("größe 42")) == "größe 4 2 "


def test_frequent_pairs_come_first_and_ties_do_not_depend_on_order() -> None:
    assert learn_merges({"aab": 5, "xy": 1}, 1) == [("a", "a")]
    assert learn_merges({"ab": 1, "cd": 1}, 2) == learn_merges({"cd": 1, "ab": 1}, 2)


# ---- texts


def test_a_phrase_claims_what_its_text_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        phrase = object_phrase("armchair", "orange", "leather", rng)
        assert "armchair" in phrase.text
        assert ("orange" in phrase.text) == (phrase.colour == "orange")
        assert ("leather" in phrase.text) == (phrase.material == "leather")
        assert "a orange" not in phrase.text
        assert "a armchair" not in phrase.text
        assert "{" not in phrase.text


def test_renaming_moves_the_spans_with_the_words() -> None:
    text = "seen from the wooden door the red chair next to a table that is white"
    mentions = (
        ("the red chair", "chair", "red"),
        ("a table that is white", "table", "white"),
        ("the wooden door", "door", "blue"),
    )
    expression = RoomExpression(
        0,
        text,
        "left",
        tuple(
            Named(i, kind, colour, (text.index(words), text.index(words) + len(words)))
            for i, (words, kind, colour) in enumerate(mentions)
        ),
    )
    assert claim_of_target(expression) == Phrase(text, "chair", "red")
    other = renamed(expression, [("office chair", "green"), ("sofa", "black"), ("window", "pink")])
    assert other.text == "seen from the wooden window the green office chair next to a sofa that is black"
    assert [other.text[slice(*m.chars)] for m in other.mentions] == [
        "the green office chair",
        "a sofa that is black",
        "the wooden window",
    ]
    assert claim_of_target(other) == Phrase(other.text, "office chair", "green")


def test_every_expression_of_the_rooms_has_its_target_among_its_mentions(data: tuple) -> None:
    _, crops, expressions = data
    assert len(expressions) > 4
    assert set(crops.kinds) <= set(ALL_KINDS)
    for expression in expressions:
        assert expression.mentions
        assert expression.mentions[0].kind in expression.text


# ---- objective


def test_multi_positive_is_the_mean_over_positives_of_each_rows_cross_entropy() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    positive = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    log_p = logits.log_softmax(dim=1)
    wanted = -((log_p[0, 0] + log_p[0, 1]) / 2 + log_p[1, 2]) / 2
    assert multi_positive(logits, positive).allclose(wanted)
    assert multi_positive(logits, torch.zeros(3, 3, dtype=torch.bool)) == 0


def test_an_unnamed_attribute_excludes_nobody(data: tuple) -> None:
    _, crops, _ = data
    rows = np.arange(len(crops))
    kind, colour = str(crops.kinds[0]), str(crops.colours[0])
    matrix = fits([Phrase("", kind), Phrase("", kind, colour), Phrase("")], crops, rows)
    assert (matrix[0] == (crops.kinds == kind)).all()
    assert (matrix[1] == (crops.kinds == kind) & (crops.colours == colour)).all()
    assert matrix[2].all()


def test_short_texts_give_the_states_of_padded_ones() -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    torch.manual_seed(0)
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = open_clip.CLIP(16, vision, text).eval()
    texts = ["a chair", "the red chair to the left of the white table"]
    tokens, ends = trimmed(tokenizer, texts)
    assert tokens.shape == (2, 12)
    with torch.no_grad():
        ours = pooled(token_states(model, tokens), ends)
        assert ours.allclose(model.encode_text(tokenizer(texts), normalize=True), atol=1e-6)


# ---- runs


def test_a_step_depends_on_seed_and_number_only_and_holds_its_expressions_targets(data: tuple) -> None:
    _, crops, expressions = data
    first, again = (Batches(crops, expressions, CONFIG.batch, 3) for _ in range(2))
    _ = again[0]
    for step in (0, 5):
        one, two = first[step], again[step]
        assert (one.rows == two.rows).all()
        assert one.expressions == two.expressions
        assert len(one.rows) == CONFIG.batch.crops
        seen = {(crops.rooms[row], crops.instances[row]) for row in one.rows}
        assert all((e.room, e.mentions[0].instance) in seen for e, _ in one.expressions)


def test_a_killed_run_ends_with_the_weights_of_one_that_was_left_alone(data: tuple, tmp_path: Path) -> None:
    _, crops, expressions = data
    tokenizer = make_tokenizer(CONFIG, crops, expressions, tmp_path)

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        raise Killed

    whole = fit(CONFIG, crops, expressions, tokenizer, tmp_path, silent).state_dict()
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(Killed):  # by the first progress line, before the checkpoint of that step
        fit(CONFIG, crops, expressions, tokenizer, broken, kill)
    resumed = fit(CONFIG, crops, expressions, tokenizer, broken, silent).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_does_not_go_on_from_another_configs_checkpoint(data: tuple, tmp_path: Path) -> None:
    folder, crops, expressions = data
    tokenizer = make_tokenizer(CONFIG, crops, expressions, tmp_path)
    short = replace(CONFIG, steps=1)
    fit(short, crops, expressions, tokenizer, tmp_path, silent)
    with pytest.raises(ValueError, match="another config"):
        fit(CONFIG, crops, expressions, tokenizer, tmp_path, silent)
    with pytest.raises(ValueError, match="another config"):
        prepare(replace(CONFIG.rooms, seed=1), folder, silent)


def test_training_ends_with_a_model_that_loads_and_numbers_about_it(tmp_path: Path) -> None:
    lines: list[str] = []
    metrics = train_clip(CONFIG, tmp_path, lines.append)
    assert 0 <= metrics["kind"] <= 1
    assert 0 <= metrics["colour"] <= 1
    assert any("step 4/4" in line for line in lines)
    clip = load_shipped(tmp_path / f"{TINY}.json")
    rows = Embed(clip=clip)(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.uint16))
    assert rows.shape == (1, 32)
