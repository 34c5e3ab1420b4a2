"""Blanks secrets in what is shown or kept: messages of errors, logs, records. Knows no store and no service.

Others put them there: an endpoint repeats the key that it refuses, a client quotes the request that failed.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

#: Names of variables that hold a secret, as AWS, Azure, Hugging Face, OpenAI, Ray and others call theirs.
_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CONNECTION_STRING)$|^AWS_ACCESS_KEY_ID$")
#: Shorter values are words and numbers, which blanking would take out of every message.
_SHORTEST = 8
#: user:password@ of a URL. A password may hold slashes, and a port is none.
_USER = re.compile(r"(?<=://)[^/:@\s]+:(?!\d+/)[^@\s]*@")
_SIGNATURE = re.compile(r"(?i)([?&](?:x-amz-signature|x-amz-security-token|x-goog-signature|sig|token)=)[^&\s'\"]+")


def blanked(text: str, *variables: str) -> str:
    """The text with *** for secrets, plain, URL-encoded or in base64, and for passwords and signatures in URLs.

    Args:
        text: of an error, say.
        variables: names of variables that hold a secret, though they do not sound like it.
    """
    values = set(_secrets(*variables).values())
    for form in sorted({form for value in values for form in _forms(value)}, key=len, reverse=True):
        text = text.replace(form, "***")
    return _SIGNATURE.sub(r"\1***", _USER.sub("***@", text))


def what_is_secret(text: str) -> str | None:
    """What a text holds that must not be written down, in words; None if it holds no such thing."""
    if _USER.search(text):
        return "a URL with a password"
    if _SIGNATURE.search(text):
        return "a URL with a signature"
    name = next((name for name, value in _secrets().items() if value in text), None)
    return name and f"the value of the environment variable {name}"


def _secrets(*variables: str) -> dict[str, str]:
    """Name -> value of the environment's variables that hold one."""
    return {
        name: value.strip()
        for name, value in os.environ.items()
        if (name in variables or _NAME.search(name.upper())) and len(value.strip()) >= _SHORTEST
    }


def _forms(value: str) -> Iterator[str]:
    yield value
    for encoded in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield from (encoded, re.sub("%..", lambda code: code[0].lower(), encoded))
    yield base64.b64encode(value.encode()).decode().rstrip("=")
