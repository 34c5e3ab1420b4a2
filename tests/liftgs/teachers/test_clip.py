"""The CLIP teacher: crops, embeddings, token states and foreign checkpoints."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from liftgs.procedural.kinds import REGISTRY
from liftgs.procedural.language import imagine, sentence
from liftgs.scene import BadInput, Expression, Mention
from liftgs.teachers import crops
from liftgs.teachers.clip import ClipModel, Embed, EmbedConfig, build_clip, mix_global
from liftgs.teachers.clip_checkpoint import create_open_clip
from liftgs.teachers.clip_text import mention_tokens, token_spans
from liftgs.teachers.evaluate_clip import evaluate_clip, held_out_scenes

TOY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module", autouse=True)
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """open_clip models `toy` and `toy-quickgelu`, of one shape."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "toy.json").write_text(json.dumps(TOY))
    (folder / "toy-quickgelu.json").write_text(json.dumps({**TOY, "quick_gelu": True}))
    open_clip.add_model_config(folder)


def toy(quick_gelu: bool = False, seed: int = 0) -> open_clip.CLIP:
    torch.manual_seed(seed)
    return open_clip.CLIP(**TOY, quick_gelu=quick_gelu).eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "toy.pt"
    torch.save(toy().state_dict(), path)
    return path


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def semantics() -> np.ndarray:
    image = np.zeros((48, 64), np.uint16)
    image[4:40, 10:50] = 1
    image[8:20, 20:30] = 2
    image[25:30, 40:64] = 3
    return image


def images(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))


# ---- crops


def test_a_crop_is_the_segments_box(photo: np.ndarray, semantics: np.ndarray) -> None:
    found = list(crops.crop_segments(photo, semantics))
    assert np.array_equal(found[0], photo[4:40, 10:50])
    assert np.array_equal(found[2], photo[25:30, 40:64])


def test_background_options_change_only_pixels_outside_the_segment(photo: np.ndarray, semantics: np.ndarray) -> None:
    inside = semantics[4:40, 10:50] == 1
    for background in ("blur", "zero", "mean"):
        crop = next(crops.crop_segments(photo, semantics, background, mean_rgb=(10.0, 20.0, 30.0)))
        assert np.array_equal(crop[inside], photo[4:40, 10:50][inside])
        outside = crop[~inside]
        assert {"zero": (outside == 0).all(), "mean": (outside == (10, 20, 30)).all()}.get(background, True)
        assert not np.array_equal(outside, photo[4:40, 10:50][~inside])


def test_boxes_grow_by_padding_and_fraction_but_stay_inside() -> None:
    boxes = np.array([[10, 10, 20, 30], [0, 0, 5, 5]])
    assert crops.grow_boxes(boxes, (48, 64), pad_px=2, expand=0.5).tolist() == [[3, 0, 27, 42], [0, 0, 9, 9]]


def test_square_boxes_are_square_and_hold_the_box_wherever_the_image_allows() -> None:
    boxes = np.array([[0, 10, 40, 14], [50, 0, 64, 48], [0, 0, 64, 10]])
    grown = crops.grow_boxes(boxes, (48, 64), square=True)
    assert (grown[:, :2] <= boxes[:, :2]).all()
    assert (grown[:, 2:] >= boxes[:, 2:]).all()
    assert (grown[:, 2:] <= (64, 48)).all()
    assert (grown[:, 2:] - grown[:, :2]).tolist() == [[40, 40], [48, 48], [64, 48]]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(120, 90), (20, 90), (40, 17)])
def test_resizing_agrees_with_open_clips_own_transform(mode: crops.ResizeMode, size: tuple[int, int]) -> None:
    smooth = Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    crop = np.asarray(smooth.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    transform = open_clip.image_transform(32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode)
    theirs = transform(Image.fromarray(crop)) * 255
    ours = crops.resize_crop(crop, (32, 32), mode)
    assert (ours - theirs).abs().mean() < 0.5
    assert (ours - theirs).abs().max() < 8  # the two round overshoot of the filter at different moments


# ---- embeddings


def test_rows_are_what_open_clip_computes_for_the_crops(
    checkpoint: Path, photo: np.ndarray, semantics: np.ndarray
) -> None:
    rows = Embed(EmbedConfig("toy", str(checkpoint)))(photo, semantics)
    transform = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(crop)) for crop in crops.crop_segments(photo, semantics)])
    with torch.no_grad():
        theirs = toy().encode_image(pixels, normalize=True)
    assert rows.dtype == np.float16
    assert np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1).max() < 2e-3
    assert np.abs(rows - theirs.numpy()).max() < 2e-2


def test_a_frame_without_segments_has_no_rows(checkpoint: Path, photo: np.ndarray) -> None:
    rows = Embed(EmbedConfig("toy", str(checkpoint)))(photo, np.zeros((48, 64), np.uint16))
    assert rows.shape == (0, 32)
    assert rows.dtype == np.float16


def test_batch_size_does_not_matter(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    all_at_once = Embed(EmbedConfig("toy", str(checkpoint)))(photo, semantics)
    one_by_one = Embed(EmbedConfig("toy", str(checkpoint), batch_size=1))(photo, semantics)
    assert np.abs(all_at_once.astype(np.float32) - one_by_one).max() < 2e-3


def test_lower_precision_gives_nearly_the_same_rows(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    full = Embed(EmbedConfig("toy", str(checkpoint)))
    half = Embed(EmbedConfig("toy", str(checkpoint), precision="bf16"))
    assert (full(photo, semantics).astype(np.float32) * half(photo, semantics)).sum(axis=1).min() > 0.999
    assert (full.encode_text(["a red chair"]) * half.encode_text(["a red chair"])).sum() > 0.999
    ends = half.encode_tokens(["a red chair"]).states[0, -1].numpy()
    assert (half.encode_text(["a red chair"])[0] * ends).sum() > 0.999


def test_global_mix_is_conceptfusions(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    plain, mixed = (
        Embed(EmbedConfig("toy", str(checkpoint), mix_global=mix))(photo, semantics).astype(np.float64)
        for mix in (False, True)
    )
    embedder = Embed(EmbedConfig("toy", str(checkpoint)))
    whole = embedder(photo, np.ones((48, 64), np.uint16))[0].astype(np.float64)
    weight = np.exp(plain @ whole) / np.exp(plain @ whole).sum()
    wanted = weight[:, None] * whole + (1 - weight[:, None]) * plain
    assert np.abs(mixed - wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).max() < 3e-3
    assert mix_global(torch.eye(2), torch.tensor([1.0, 0.0])).norm(dim=1).allclose(torch.ones(2))


# ---- texts


def test_the_end_marks_token_state_is_the_text_embedding(checkpoint: Path) -> None:
    embedder = Embed(EmbedConfig("toy", str(checkpoint)))
    texts = ["chair", "the red chair to the left of the white table", "word " * 40]
    tokens = embedder.encode_tokens(texts)
    ends = tokens.states[torch.arange(3), tokens.ends].numpy()
    assert np.abs(ends - embedder.encode_text(texts)).max() < 1e-5
    assert tokens.mask.sum(dim=1).tolist() == [3, 12, 16]
    assert (tokens.states[~tokens.mask] == 0).all()
    assert [len(spans) for spans in tokens.spans] == [3, 12, 16]
    assert embedder.encode_text([]).shape == (0, 32)


def test_spans_point_at_the_characters_of_each_token(checkpoint: Path) -> None:
    text = "The unbelievably red chair's LEG"
    tokens = Embed(EmbedConfig("toy", str(checkpoint))).encode_tokens([text])
    words = [text[low:high].lower() for low, high in tokens.spans[0][1:-1]]
    assert "".join(words) == "theunbelievablyredchair'sleg"
    start = text.index("red")
    covered = tokens.covering(0, (start, start + len("red chair")))
    assert [text[slice(*tokens.spans[0][i])] for i in covered] == ["red", "chair"]


@pytest.mark.parametrize(
    ("text", "word"), [("the   café  table", "café"), ("salt &amp; pepper mill", "&amp;"), ("a “red” chair", "chair")]
)
def test_spans_survive_the_tokenizers_clean_up(text: str, word: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy")
    spans = token_spans(tokenizer, text)
    assert len(spans) == len(tokenizer.encode(text)) + 2
    start = text.index(word)
    inside = [span for span in spans if span[0] < start + len(word) and start < span[1]]
    assert inside
    assert min(low for low, _ in inside) == start
    assert max(high for _, high in inside) == start + len(word)


def test_clean_up_that_leaves_the_length_does_not_shift_spans() -> None:
    text = " the \ufb01ne table &amp;c"  # a space less and a ligature in two letters: as long as before
    tokenizer = open_clip.get_tokenizer("toy")
    assert len(tokenizer.clean_fn(" the \ufb01ne")) == len(" the \ufb01ne")
    for said in (text, " the \ufb01ne"):
        words = [said[low:high] for low, high in token_spans(tokenizer, said)[1:-1]]
        assert words[:2] == ["the", "\ufb01ne"]


@pytest.mark.parametrize("text", ["a b&nbsp;c d", "a \x00 table", "one&amp;two \x00 three", "a\u2003b"])
def test_spans_point_at_words_that_clean_up_splits_or_drops(text: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy")
    last = text.rsplit(maxsplit=1)[-1]
    spans = token_spans(tokenizer, text)
    assert len(spans) == len(tokenizer.encode(text)) + 2
    assert text[slice(*spans[1])] == text.split(maxsplit=1)[0]
    assert text[slice(*spans[-2])] == last


# ---- mentions


def mentioned(text: str, *words: tuple[int, int]) -> Expression:
    """An expression whose mentions are those words."""
    starts = [0]
    for word in text.split(" "):
        starts.append(starts[-1] + len(word) + 1)
    mentions = [Mention((i + 1,), (starts[a], starts[b] - 1), (a, b)) for i, (a, b) in enumerate(words)]
    return Expression(text, mentions[0], tuple(mentions[1:]))


def word_by_word(tokenizer: SimpleTokenizer, expression: Expression) -> tuple[list[int], list[tuple[int, int]]]:
    """The slow twin: tokens of one word after the other, and the tokens of each word."""
    tokens, places = [], []
    for word in expression.words:
        start = 1 + len(tokens)
        tokens += tokenizer.encode(word)
        places.append((start, 1 + len(tokens)))
    return tokens, places


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_mentions_have_the_tokens_of_their_words(name: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy") if name == "toy" else build_clip(EmbedConfig()).tokenizer
    rng = np.random.default_rng(0)
    kinds = list(REGISTRY.values())
    imagined = [sentence(imagine(kinds, rng), rng) for _ in range(300)]
    expressions = [mentioned(said.text, *map(said.words, said.spans)) for said in imagined]
    expressions += [
        mentioned("the Table's 2nd legs , isn't it ?", (0, 2), (2, 4), (5, 6)),
        mentioned('( the so-called "coffee-table" ) ...', (1, 4), (0, 1), (4, 5)),
        mentioned("a caf\u00e9 table !!! in the n\u00ba-1 corner ; ;", (0, 3), (5, 8)),
        mentioned("unbelievablygreenish_chair 1234567 \u2665", (0, 1), (1, 2), (2, 3)),
    ]
    for expression in expressions:
        tokens, places = word_by_word(tokenizer, expression)
        assert tokens == tokenizer.encode(expression.text), "word by word is the same as all at once"
        found = mention_tokens(tokenizer, expression)
        for mention in (expression.target, *expression.anchors):
            first, stop = mention.words
            wanted = range(places[first][0], min(places[stop - 1][1], tokenizer.context_length - 1))
            assert found.get(mention, ()) == tuple(wanted), expression.text


def test_tokens_of_mentions_are_rows_of_the_token_states(tiny: ClipModel) -> None:
    expression = mentioned("the table next to the coffee table", (0, 2), (4, 7))
    places = mention_tokens(tiny.tokenizer, expression)
    row = tiny.tokenizer([expression.text])[0]
    assert [tiny.tokenizer.decode(row[list(tokens)].tolist()).strip() for tokens in places.values()] == [
        "the table",
        "the coffee table",
    ]
    states = tiny.encode_tokens([expression.text])
    assert places[expression.anchors[0]] == tuple(states.covering(0, expression.anchors[0].chars))


def test_mentions_that_fall_off_a_long_text_are_dropped() -> None:
    tokenizer = open_clip.get_tokenizer("toy")  # 16 tokens, of which two are marks
    text = " ".join(["the", "red", "chair"] + ["very"] * 10 + ["near", "the", "desk"])
    cut = mentioned(text, (0, 3), (12, 15), (14, 16))
    assert list(mention_tokens(tokenizer, cut).values()) == [(1, 2, 3), (13, 14)]
    lost = mentioned(text, (14, 16), (0, 3))
    assert lost.target not in mention_tokens(tokenizer, lost)


# ---- foreign checkpoints


def test_every_format_of_a_checkpoint_gives_the_same_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = toy().state_dict()
    training = tmp_path / "epoch_1.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}, training)
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "toy.safetensors")
    with torch.no_grad():
        wanted = toy().encode_text(open_clip.get_tokenizer("toy")(["a chair"]), normalize=True)
    found = {
        str(path): build_clip(EmbedConfig("toy", str(path)))
        for path in (checkpoint, training, tmp_path / "toy.safetensors")
    }
    for clip in found.values():
        assert clip.encode_text(["a chair"]).allclose(wanted, atol=1e-6)
    monkeypatch.setenv("LIFTGS_CACHE", str(tmp_path / "cache"))
    by_url = build_clip(EmbedConfig("toy", checkpoint.as_uri()))
    assert by_url.revision == found[str(checkpoint)].revision  # names the content, not the place
    assert len({clip.revision for clip in found.values()}) == 3


def openai_archive(path: Path) -> open_clip.CLIP:
    """A file in the format that OpenAI publishes."""
    model = toy(quick_gelu=True)
    for name, value in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 49408)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    inputs = {"encode_image": torch.rand(1, 3, 32, 32), "encode_text": torch.zeros(1, 16, dtype=torch.int)}
    with torch.no_grad():
        torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False), path)
    return model


@pytest.mark.filterwarnings("ignore")
def test_openais_archives_are_read_and_get_quick_gelu_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "ViT-toy.pt"
    openai_archive(path)
    for name in ("toy", "toy-quickgelu"):
        model, used, _ = create_open_clip(name, str(path), "fp32", "cpu")
        assert used == "toy-quickgelu"
        assert isinstance(model, open_clip.CLIP)
        pixels = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert model.encode_image(pixels).allclose(toy(quick_gelu=True).encode_image(pixels), atol=1e-5)
            assert not model.encode_image(pixels).allclose(toy().encode_image(pixels), atol=1e-3)


def test_the_openai_tag_gets_quick_gelu_whatever_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, weights: str, **_: object) -> torch.nn.Module:
        asked.append((name, weights))
        return toy()

    monkeypatch.setattr(open_clip, "create_model", create)
    create_open_clip("ViT-L-14", "openai", "fp32", "cpu")
    create_open_clip("ViT-L-14", "laion2b_s32b_b82k", "fp32", "cpu")
    assert asked == [("ViT-L-14-quickgelu", "openai"), ("ViT-L-14", "laion2b_s32b_b82k")]


class Payload:
    """Would leave a file behind if anything executed it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore")
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "evil.pt"
    torch.save({"weight": Payload(trap)}, path)
    with pytest.raises(BadInput, match="not a plain state dict"):
        build_clip(EmbedConfig("toy", str(path)))
    archive = tmp_path / "evil-archive.pt"
    openai_archive(archive)
    import zipfile

    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(tmp_path / "evil2.pt", "w") as bad:
        for name in good.namelist():
            data = pickle.dumps(Payload(trap)) if name.endswith("/data.pkl") else good.read(name)
            bad.writestr(name, data)
    with pytest.raises(BadInput, match="not a plain state dict"):
        build_clip(EmbedConfig("toy", str(tmp_path / "evil2.pt")))
    assert not trap.exists()


def test_a_bad_checkpoint_is_refused_in_one_sentence_that_names_it(checkpoint: Path, tmp_path: Path) -> None:
    good = checkpoint.read_bytes()
    state = toy().state_dict()
    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "short.safetensors").write_bytes(b"123")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({**state, "ln_final.weight": torch.zeros(7)}, tmp_path / "wrong_shape.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    reasons = {
        "cut.pt": "not a readable checkpoint",
        "empty.pt": "not a readable checkpoint",
        "short.safetensors": "not a readable checkpoint",
        "list.pt": "checkpoint",
        "wrong_shape.pt": r"ln_final.weight is \[7\], not \[64\]",
        "other.pt": "another architecture than toy",
        "absent.pt": "no such checkpoint file",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadInput, match=reason) as caught:
            build_clip(EmbedConfig("toy", str(tmp_path / name)))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_wrong_name_or_tag_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="did you mean 'ViT-L-14'"):
        build_clip(EmbedConfig("ViT-L14", "openai"))
    with pytest.raises(ValueError, match=r"RN101 \(openai"):
        build_clip(EmbedConfig("RN101", "opnai"))
    with pytest.raises(ValueError, match="pretrained is empty"):
        EmbedConfig("ViT-L-14")


def test_settings_of_a_path_are_those_of_the_models_known_weights() -> None:
    from liftgs.teachers.clip_checkpoint import _settings_of

    agreed = _settings_of("ViT-B-16-SigLIP", "", "a.pt")
    assert (agreed["mean"], agreed["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert "quick_gelu" not in agreed
    assert _settings_of("toy", "", "a.pt") == {}


@pytest.mark.parametrize(
    ("name", "tag", "mean", "resize", "quick"),
    [
        ("ViT-L-14", "laion2b_s32b_b82k", 0.5, "shortest", None),
        ("ViT-L-14", "openai", 0.48145466, "shortest", True),
        ("ViT-H-14", "dfn5b", 0.48145466, "squash", True),
        ("ViT-B-32", "laion2b_s34b_b79k", 0.48145466, "shortest", None),
    ],
)
def test_a_path_with_its_tag_gets_the_settings_of_the_tag(
    name: str, tag: str, mean: float, resize: str, quick: bool | None
) -> None:
    from liftgs.teachers.clip_checkpoint import _settings_of

    found = _settings_of(name, tag, "a.pt")
    assert (found["mean"][0], found["resize_mode"], found.get("quick_gelu")) == (mean, resize, quick)


def test_a_path_whose_settings_nobody_can_know_needs_its_tag(tmp_path: Path) -> None:
    """Weights of one model were made with other means, crops and activations; nothing would fail."""
    path = tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError, match=r"ViT-L-14 differ in mean, std, quick_gelu; .* as in openai@PATH: openai, laion400m"
    ):
        create_open_clip("ViT-L-14", str(path), "fp32", "cpu")
    with pytest.raises(ValueError, match=r"'opnai@.*weights.pt' is neither a pretrained tag of ViT-L-14"):
        create_open_clip("ViT-L-14", f"opnai@{path}", "fp32", "cpu")
    with pytest.raises(BadInput, match="another architecture than ViT-B-32"):
        create_open_clip("ViT-B-32", f"laion2b_s34b_b79k@{path}", "fp32", "cpu")


def test_a_job_resolves_the_path_behind_a_tag() -> None:
    from liftgs.teachers.configs import split_weights

    assert split_weights("laion2b_s34b_b79k@/weights/b.pt") == ("laion2b_s34b_b79k", "/weights/b.pt")
    assert split_weights("openai") == ("", "openai")
    assert split_weights("s3://user@host/b.pt") == ("", "s3://user@host/b.pt")


# ---- the small CLIP that ships


@pytest.fixture(scope="module")
def tiny() -> ClipModel:
    return build_clip(EmbedConfig())


def test_tiny_is_open_clips_own_class_and_small(tiny: ClipModel) -> None:
    assert type(tiny.model) is open_clip.CLIP
    from liftgs.teachers.clip import TINY, WEIGHTS

    assert sum(path.stat().st_size for path in WEIGHTS.glob(f"{TINY}*")) < 7.5e6


def test_tiny_reads_any_text(tiny: ClipModel) -> None:
    tokens = tiny.encode_tokens(["ein großer Tisch ♥ 42", "", "the red chair left of the white table"])
    assert torch.isfinite(tokens.states).all()
    assert len(tokens.spans[2]) == 8 + 2  # every word of our own grammar is one token


def test_tiny_sees_kinds_and_colours_of_rooms_it_never_saw(tiny: ClipModel) -> None:
    scenes = held_out_scenes(3, seed=2_000_000, views=1)
    result = evaluate_clip(Embed(clip=tiny), scenes)
    assert result["crops"] > 20
    assert result["kind"] > 0.75
    assert result["colour"] > 0.75


@pytest.mark.slow
def test_tiny_keeps_what_it_reached_on_held_out_rooms(tiny: ClipModel) -> None:
    # The goal is 0.90 for both. Kinds are short of it: the network still underfits after the run that made it.
    result = evaluate_clip(Embed(clip=tiny), held_out_scenes(60, seed=1_000_000))
    assert result["kind"] >= 0.83
    assert result["colour"] >= 0.9
    assert result["expression_kind"] >= 0.9
    assert result["relation_probe"] >= 0.95
