import json

import fsspec
import numpy as np
import pytest

from liftgs.teachers.caption_cache import CaptionCache, question_key
from liftgs.teachers.caption_prompted import BadAnswer, clean_caption
from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable, build_captioner


def vllm_config(**changes):
    return CaptionConfig(**{"captioner": "vllm", "model": "m", **changes})


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("a red chair", "a red chair"),
        ('  "A red chair."\n', "A red chair"),
        ('"a red traffic light,"', "a red traffic light"),
        ("“a box near\n\nthe wall”.", "a box near the wall"),
        ('a\x00 TV 24" wide', 'a TV 24" wide'),
        ("a \ud83d lamp", "a lamp"),
        ("the child's chair", "the child's chair"),
        ("a sorry-looking sofa", "a sorry-looking sofa"),
    ],
)
def test_answers_become_one_bare_line(answer, caption):
    assert clean_caption(answer, 200) == caption


@pytest.mark.parametrize("answer", ["", " . ", '""', "\x00", None, 3, "x" * 201, "Sorry, I can't.", "I cannot see it"])
def test_what_is_no_caption_is_refused(answer):
    with pytest.raises(BadAnswer):
        clean_caption(answer, 200)


def test_cleaning_twice_changes_nothing():
    for answer in ["\"'a chair.'\", ", "a b ", '"a" and "b"', "'''"]:
        once = clean_caption(answer, 200)
        assert clean_caption(once, 200) == once


@pytest.mark.parametrize("url", ["{tmp}/cache", "file://{tmp}/cache", "memory://captions"])
def test_cache_returns_what_was_put_and_survives_damage(url, tmp_path):
    url = url.format(tmp=tmp_path)
    cache = CaptionCache(url)
    key = question_key(vllm_config(), np.zeros((4, 4, 3), np.uint8))
    assert cache.get(key) is None
    cache.put(key, "a rüd chair", "m")
    assert CaptionCache(url).get(key) == "a rüd chair"
    file_system, root = fsspec.core.url_to_fs(url)
    files = file_system.find(root)
    assert [name.split("/")[-2:] for name in files] == [[key[:2], f"{key}.json"]]
    for damage in (b"", b'{"cap', b"[1]", b'{"caption": 3}', b"\xff"):
        file_system.pipe_file(files[0], damage)
        assert cache.get(key) is None
    cache.put(key, "again", "m")
    assert cache.get(key) == "again"


def test_a_store_that_fails_is_the_machines_fault(monkeypatch):
    """An object store's client says so with exceptions of its own, which would otherwise be a photo's fault."""
    cache = CaptionCache("memory://captions")

    def refuse(*args):
        raise LookupError("unable to locate credentials")

    monkeypatch.setattr(type(cache._fs), "cat_file", refuse)
    monkeypatch.setattr(type(cache._fs), "pipe_file", refuse)
    with pytest.raises(OSError, match=r"caption\.cache .*unable to locate credentials"):
        cache.get("ab12")
    with pytest.raises(OSError, match=r"caption\.cache"):
        cache.put("ab12", "a chair", "m")


def test_a_cached_caption_names_no_secret_and_no_place(tmp_path):
    CaptionCache(str(tmp_path)).put("ab12", "a chair", "m")
    assert json.loads((tmp_path / "ab" / "ab12.json").read_text()) == {"caption": "a chair", "model": "m"}


def test_key_depends_on_all_that_decides_the_answer_and_on_nothing_else():
    image = np.zeros((4, 6, 3), np.uint8)
    one = question_key(vllm_config(), image)
    different = [
        question_key(vllm_config(model="n"), image),
        question_key(vllm_config(prompt="What?"), image),
        question_key(vllm_config(parameters={"max_tokens": 5}), image),
        question_key(vllm_config(), image + np.uint8(1)),
        question_key(vllm_config(), image.reshape(6, 4, 3)),
    ]
    assert len({one, *different}) == 6
    assert question_key(vllm_config(cache="/elsewhere", engine={"enforce_eager": True}), image) == one
    reordered = {"seed": 0, "temperature": 0.0, "max_tokens": 48}
    assert question_key(vllm_config(parameters=reordered), image) == one


def test_served_and_in_process_models_share_a_cache():
    served = CaptionConfig(captioner="http", model="m", base_url="http://host/v1", concurrency=3)
    image = np.zeros((4, 4, 3), np.uint8)
    assert question_key(served, image) == question_key(vllm_config(), image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captioner": "https"}, "none, vocabulary, http, vllm"),
        ({"captioner": "http", "base_url": "http://h/v1"}, "caption.model"),
        ({"captioner": "vllm"}, "caption.model"),
        ({"captioner": "http", "model": "m"}, "caption.base_url"),
        ({"captioner": "http", "model": "m", "base_url": "host:8000"}, "caption.base_url"),
        ({"concurrency": 0}, "caption.concurrency"),
        ({"timeout_s": 0.0}, "caption.timeout_s"),
    ],
)
def test_config_that_cannot_work_says_what_is_missing(settings, message):
    with pytest.raises(ValueError, match=message):
        CaptionConfig(**settings)


def test_none_is_no_captioner():
    assert build_captioner(CaptionConfig(captioner="none")) is None


def test_vocabulary_without_clip_is_refused():
    with pytest.raises(ValueError, match="CLIP"):
        build_captioner(CaptionConfig(captioner="vocabulary"))


def test_vllm_where_it_is_not_installed_says_how_to_get_it():
    try:
        import vllm  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("vLLM is installed in this environment")
    with pytest.raises(CaptionerUnavailable, match=r"liftgs_platform\.vllm_env"):
        build_captioner(vllm_config())
