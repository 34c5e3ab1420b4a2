"""Learns a small byte-pair vocabulary that open_clip's `SimpleTokenizer` reads. Knows no model."""

from __future__ import annotations

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import bytes_to_unicode

Merge = tuple[str, str]

_WORD = re.compile(r"[^\W\d_]+")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each run of letters occurs."""
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


def english_words() -> list[str]:
    """Common English and indoor words, for the words that our own corpora do not have."""
    return (Path(__file__).with_name("words.txt")).read_text().split()


def learn_merges(counts: Mapping[str, int], limit: int) -> list[Merge]:
    """Byte-pair merges, the most frequent pair first; ties go to the pair that sorts first.

    Args:
        counts: words and how often they occur.
        limit: merges to learn; fewer if every word is one token already.

    Source: Sennrich et al. 2016, on the byte alphabet of GPT-2 and CLIP.
    """
    alphabet = bytes_to_unicode()
    words: list[tuple[str, ...]] = []
    for letters in counts:
        *head, last = (alphabet[byte] for byte in letters.encode())
        words.append((*head, last + "</w>"))
    times = list(counts.values())
    pairs: Counter[Merge] = Counter()
    holders: dict[Merge, set[int]] = defaultdict(set)  # the words that a pair is in, or was
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += times[i]
            holders[pair].add(i)
    merges: list[Merge] = []
    while len(merges) < limit and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for i in holders.pop(best):
            pairs.subtract({pair: times[i] * count for pair, count in Counter(pairwise(words[i])).items()})
            words[i] = _merge(words[i], best)
            for pair in pairwise(words[i]):
                pairs[pair] += times[i]
                holders[pair].add(i)
        pairs = +pairs  # drop what no word holds any more
    return merges


def _merge(units: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(units):
        if units[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(units[i])
            i += 1
    return tuple(merged)


def write_merges(merges: Iterable[Merge], path: Path) -> None:
    """Write the file that `SimpleTokenizer(bpe_path=...)` reads: a header, one merge per line, gzip.

    The same bytes each time, and no final newline, which it would read as an empty merge.
    """
    text = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
