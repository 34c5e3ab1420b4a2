"""Secrets are blanked in every form in which others quote them, and nothing else is."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from liftgs.secrecy import blanked, what_is_secret

SECRET = "very/secret+key=0123456789"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("SOME_API_KEY", "sk-1234567890abcdef\n")
    monkeypatch.setenv("TINY_TOKEN", "tiny")
    monkeypatch.setenv("KEYBOARD", "a-long-layout")


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        base64.b64encode(SECRET.encode()).decode(),
        "sk-1234567890abcdef",
    ],
)
def test_every_form_of_a_secret_is_blanked(form: str) -> None:
    said = blanked(f"403: key '{form}' may not")
    assert form.rstrip("=") not in said
    assert said.startswith("403: key '***")


def test_words_stay() -> None:
    text = "a tiny a-long-layout at http://localhost:8000/v1/models/me@home, s3://bucket/a:b and user@host"
    assert blanked(text) == text
    assert what_is_secret(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKID:se/cret@bucket/key", "s3://***@bucket/key"),
        ("at https://me:password@host:80/x?", "at https://***@host:80/x?"),
        ("https://h/x?X-Amz-Signature=abc&b=1", "https://h/x?X-Amz-Signature=***&b=1"),
        ("https://h/x?a=1&sig=abc%3D", "https://h/x?a=1&sig=***"),
    ],
)
def test_passwords_and_signatures_in_urls_are_blanked_and_found(text: str, shown: str) -> None:
    assert blanked(text) == shown
    assert str(what_is_secret(text)).startswith("a URL with a ")


def test_a_variable_may_be_named_whose_name_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LOGIN", "open sesame")
    assert blanked("open sesame") == "open sesame"
    assert blanked("open sesame", "LLM_LOGIN") == "***"


def test_what_a_text_holds_is_told_without_telling_it() -> None:
    found = what_is_secret(f"http://host/v1?k={SECRET}")
    assert found == "the value of the environment variable AWS_SECRET_ACCESS_KEY"
