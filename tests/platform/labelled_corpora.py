"""Corpora of 3D labels, of real procedural rooms at a size that takes a second each."""

from __future__ import annotations

from pathlib import Path

from liftgs_platform.pseudolabel import Spec, run_here


def write(folder: Path, scenes: int = 4, seed: int = 0) -> str:
    """Apartments of two small views; returns the corpus' path."""
    source = f"procedural:apartments?scenes={scenes}&views=2&width=96&height=96&seed={seed}"
    run_here(Spec(source=source, output=str(folder), pseudo_labels=False, chunks_per_shard=2))
    return str(folder)
