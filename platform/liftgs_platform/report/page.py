"""How a page is made from its template."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any


def fill(template: str, /, **facts: Any) -> str:
    """The template `{template}.html.j2` with the facts in it, which are escaped unless it says they are safe."""
    return str(_load(template).render(**facts))


@cache
def _load(template: str) -> Any:
    import jinja2  # noqa: PLC0415  only a page needs it

    text = files(__package__).joinpath(f"{template}.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(text)
