"""How kinds of things are asked for in words."""

from __future__ import annotations


def class_phrase(kind: str) -> str:
    """A kind's name with its article: "a chair", "an armchair"."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
