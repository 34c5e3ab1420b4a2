"""The names that corpora use themselves, which samples are asked for though they do not hold what bears them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from liftgs.sample import Sample, decode_sample
from liftgs.scene import BadInput
from liftgs_platform.mixture import Mixture

#: Samples of a corpus that are read for its names.
LOOKED_AT = 100


def names_of(mixture: Mixture, of: Callable[[Sample], Iterable[str]], most: int = LOOKED_AT) -> tuple[str, ...]:
    """All different names in samples spread over the corpora, sorted; a function of the corpora's contents.

    Args:
        mixture: the corpora, and what of each is used.
        of: names in a sample.
        most: samples that are read of each corpus. Damaged ones have no names; training meets and counts them.
    """
    names: set[str] = set()
    for reader, kept in zip(mixture.readers, mixture.kept, strict=True):
        for place in np.unique(np.linspace(0, len(kept) - 1, most).round().astype(int)).tolist():
            try:
                names |= set(of(decode_sample(reader[kept[place]], f"{reader.corpus}#{reader.key(kept[place])}")))
            except BadInput:
                continue
    return tuple(sorted(names))


def kinds_in(sample: Sample) -> list[str]:
    """Of what is labelled in 3D."""
    return [row.kind for row in sample.labels.instances] if sample.labels else []


def captions_in(sample: Sample) -> list[str]:
    """Of the segments of all views."""
    segments = [view.segments for view in sample.views]
    return [caption for one in segments if one is not None for caption in one.captions or ()]
