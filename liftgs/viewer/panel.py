"""The answers in words, as HTML for the page's panel. What was typed is escaped: others may see the page, too."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import UInt8

from liftgs.viewer.answers import Answers

_HINT = "Type what to look for, like <i>a plant, the red chair</i>."


def describe(answers: Answers) -> str:
    """A line per phrase: its colour, its words, the scores of its answers; or what is wrong, or what to do."""
    if answers.message:
        return _block(f'<span role="alert">{escape(answers.message)}</span>')
    return _block("".join(_line(answers, *phrase) for phrase in answers.phrases) or _HINT)


def looking(text: str) -> str:
    """While the network is at work."""
    return _block(f"Looking for {escape(text)} …")


def _line(answers: Answers, phrase: str, colour: UInt8[np.ndarray, " 3"]) -> str:
    scores = " ".join(f"{highlight.match.score:.2f}" for highlight in answers.of(phrase))
    rgb = ",".join(str(channel) for channel in colour.tolist())
    swatch = f"display:inline-block;width:0.8em;height:0.8em;border-radius:2px;background:rgb({rgb})"
    return (
        f'<div style="display:flex;gap:0.5em;align-items:baseline"><span style="{swatch}"></span>'
        f'<span style="flex:1;overflow-wrap:anywhere">{escape(phrase)}</span>'
        f"<span>{scores or 'nothing found'}</span></div>"
    )


def _block(content: str) -> str:
    return f'<div style="padding:0 0.8em 0.3em;font-size:0.9em;line-height:1.6">{content}</div>'
