import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from liftgs.labels import renumber
from liftgs.procedural.kinds import KINDS
from liftgs.readers import list_scenes, open_scene
from liftgs.teachers.caption_vocabulary import Vocabulary, VocabularyCaptioner, load_vocabulary, with_article
from liftgs.teachers.captions import CaptionConfig, build_captioner
from liftgs.teachers.clip import Embed


class BagOfWords:
    """A CLIP of sorts: a text is the sum of a fixed direction per word but articles. Counts the texts that it reads."""

    def __init__(self, model="tiny", width=256):
        self.config = SimpleNamespace(model=model)
        self.width = width
        self.read: list[str] = []

    def encode_text(self, texts):
        self.read += texts
        rows = np.stack(
            [sum(self._direction(word) for word in text.split() if word not in ("a", "an")) for text in texts]
        )
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _direction(self, word):
        return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.width)


def frame_of(captions, clip):
    semantics = np.arange(len(captions) + 1, dtype=np.uint16)[None].repeat(4, 0)
    embeds = clip.encode_text(captions).astype(np.float16) if captions else np.zeros((0, clip.width), np.float16)
    return np.zeros((*semantics.shape, 3), np.uint8), semantics, embeds


@pytest.mark.parametrize(("model", "prefix"), [("tiny", ""), ("ViT-L-14", "a photo of ")])
def test_nearest_kind_and_colour_are_said(model, prefix):
    clip = BagOfWords(model)
    captioner = build_captioner(CaptionConfig(), clip)
    captions = ["a red bookshelf", "an orange stool", "a grey wall"]
    rgb, semantics, embeds = frame_of([prefix + caption for caption in captions], clip)
    assert captioner(rgb, semantics, embeds) == captions


def test_words_suit_the_clip_unless_the_config_names_them():
    kinds = {}
    for model in ("tiny", "ViT-L-14"):
        for vocabulary in ("auto", "procedural", "indoor"):
            clip = BagOfWords(model)
            build_captioner(CaptionConfig(vocabulary=vocabulary), clip)
            kinds[model, vocabulary] = tuple(clip.read)
    assert kinds["tiny", "auto"] == kinds["tiny", "procedural"]
    assert kinds["ViT-L-14", "auto"] == kinds["ViT-L-14", "indoor"]
    assert kinds["tiny", "auto"] != kinds["ViT-L-14", "auto"]


def test_each_text_is_embedded_once():
    clip = BagOfWords()
    captioner = build_captioner(CaptionConfig(), clip)
    frame = frame_of(["a red bookshelf", "a blue bookshelf", "a green wall"], clip)
    clip.read.clear()
    for _ in range(3):
        captioner(*frame)
    assert len(clip.read) == len(set(clip.read)) == 2 * 11  # eleven colours of two kinds


def test_frame_without_segments_has_no_captions():
    clip = BagOfWords()
    assert build_captioner(CaptionConfig(), clip)(*frame_of([], clip)) == []


def test_embeddings_are_needed_and_must_be_of_the_same_clip():
    captioner = build_captioner(CaptionConfig(), BagOfWords())
    rgb, semantics, embeds = frame_of(["a red bookshelf"], BagOfWords(width=128))
    with pytest.raises(ValueError, match="embedder"):
        captioner(rgb, semantics, None)
    with pytest.raises(ValueError, match=r"128.*256"):
        captioner(rgb, semantics, embeds)


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("red chair", "a red chair"),
        ("orange chair", "an orange chair"),
        ("armchair", "an armchair"),
        ("umbrella", "an umbrella"),
        ("uniform", "a uniform"),
        ("utensil rack", "a utensil rack"),
        ("hourglass", "an hourglass"),
        ("house", "a house"),
        ("one-seater", "a one-seater"),
        ("oven", "an oven"),
        ("unused box", "an unused box"),
        ("used box", "a used box"),
        ("urinal", "a urinal"),
        ("upright piano", "an upright piano"),
    ],
)
def test_article_is_the_one_a_person_says(noun, phrase):
    assert with_article(noun) == phrase


def test_word_lists_are_distinct_lower_case_nouns():
    indoor, procedural = load_vocabulary("indoor"), load_vocabulary("procedural")
    assert len(indoor.kinds) >= 200
    assert set(KINDS) < set(procedural.kinds)
    for kinds in (indoor.kinds, procedural.kinds):
        assert len(set(kinds)) == len(kinds)
        assert all(kind == kind.lower().strip() and kind for kind in kinds)


def test_own_list_is_a_text_file(tmp_path):
    file = tmp_path / "tools.txt"
    file.write_text("hammer\n\n  drill press \nhammer\n")
    assert load_vocabulary(str(file)) == Vocabulary(("hammer", "drill press"))
    file.write_text("\n")
    for name in (str(file), str(tmp_path / "none.txt"), "procedral"):
        with pytest.raises(ValueError, match="vocabulary="):
            load_vocabulary(name)


def test_revision_follows_the_words():
    clip = BagOfWords()
    revisions = {
        VocabularyCaptioner(Vocabulary(kinds), clip.encode_text).revision for kinds in [("a",), ("b",), ("a",)]
    }
    assert len(revisions) == 2


def test_small_clip_names_what_is_seen_in_rooms_it_has_never_seen():
    embed = Embed()
    captioner = build_captioner(CaptionConfig(), embed)
    right = []
    for uri in list_scenes("procedural:apartments?scenes=3&views=2&seed=987"):
        scene = open_scene(uri)
        named = {item.id: f"{item.colour} {item.kind}" for item in scene.labels().instances}
        frame = scene.load(scene.frame_ids()[0])
        large = np.flatnonzero(np.bincount(frame.instances.ravel()) >= 1024)
        kept = np.isin(frame.instances, np.intersect1d(large, list(named)))
        semantics, rows = renumber(np.where(kept, frame.instances, np.uint16(0)))
        captions = captioner(frame.rgb, semantics, embed(frame.rgb, semantics))
        right += [caption == with_article(named[row + 1]) for row, caption in zip(rows, captions, strict=True)]
    assert len(right) > 20
    assert np.mean(right) > 0.6  # by chance: 0.002
