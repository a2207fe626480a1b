"""Duplicates among texts: the same, and nearly the same.

The near-duplicate relation is computed exactly, not sampled: candidates come from a prefix filter, which misses
nothing (Chaudhuri et al. 2006; Bayardo et al. 2007; position filter of Xiao et al. 2008). Whether two texts are near
duplicates depends on those two texts alone, so clusters are the same on any machine and only ever grow together when
texts are added.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE_WORDS = 3
SHORT_WORDS = 32  # below this a text is a question, in which one other name asks for another thing
SPELLING = 0.85  # how alike two spellings of a word are at least: colour and color 0.91, Martin and Morton 0.67
CANDIDATES_AT_ONCE = 2_000_000

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_ASCII_WORD = re.compile(r"\w+")
_ARTICLES = frozenset({"a", "an", "the"})


def words_of(text: str) -> list[str]:
    """The words that are compared: NFKC, lower case, contractions written out, no articles, no punctuation.

    A Chinese, Japanese or Korean character counts as a word.
    """
    is_ascii = text.isascii()
    plain = text.lower() if is_ascii else unicodedata.normalize("NFKC", text).casefold()
    if any(mark in plain for mark in "'’`"):
        plain = re.sub(r"n['’]t\b", " not", re.sub(r"(?<=\w)['’]s\b", " is", plain))
        plain = re.sub("['’`]", "", plain)
    form = _ASCII_WORD if is_ascii else _any_word()
    return [word for word in form.findall(plain) if word not in _ARTICLES]


@cache
def _any_word() -> re.Pattern[str]:
    """A word of any script: vowel signs and tones (Mn, Mc) are part of it to a reader, though not to `\\w`."""
    signs = "".join(chr(point) for point in range(0x300, 0x1D00) if unicodedata.category(chr(point)) in ("Mn", "Mc"))
    return re.compile(f"[{_CJK}]|(?:[^\\W{_CJK}]|[{signs}])+")


def exact_duplicates(values: Iterable[Hashable]) -> list[list[int]]:
    """Clusters (two or more indices, ascending) of equal values."""
    groups: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[list[int]]:
    """Clusters (two or more indices, ascending, ordered by their first) of texts that are nearly the same.

    Two texts of 32 words or more: Jaccard similarity of their sets of 3-word shingles is at least `threshold`. Where
    one is shorter, shingles would call "the colour of Alder" and "the colour of Birch" alike as soon as the template
    around the name is long, so nothing may be replaced: the shorter one's words all stand in the longer one, in the
    same order, and make up at least `threshold` of it; spellings such as colour and color count as the same word.
    Clusters are the connected components of that relation. `threshold` is above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is above 0 and at most 1, not {threshold}")
    worded = [words_of(text) for text in texts]
    union = _Union(len(texts))
    # Texts without a word (emoji, dashes) are compared as they are; the same words in a row are settled at once.
    keys = [" ".join(words) or f"\0{text.strip()}" for words, text in zip(worded, texts, strict=True)]
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        union.join(first.setdefault(key, index), index)
    kept = [index for index in first.values() if worded[index]]
    short = [index for index in kept if len(worded[index]) * threshold < SHORT_WORDS]
    for left, right in _similar_short([worded[index] for index in short], threshold):
        union.join(short[left], short[right])
    long = [index for index in kept if len(worded[index]) >= SHORT_WORDS]
    _join_long([worded[index] for index in long], threshold, union, long)
    return union.clusters()


class _Union:
    """Union-find over indices."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, index: int) -> int:
        parent = self.parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(self, left: int, right: int) -> None:
        left, right = self.find(left), self.find(right)
        if left != right:
            self.parent[max(left, right)] = min(left, right)

    def clusters(self) -> list[list[int]]:
        return exact_duplicates(map(self.find, range(len(self.parent))))


def _similar_short(texts: Sequence[list[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of texts of which the shorter one stands in the longer one, word by word.

    The two rarest words of the shorter are among the 2 + k rarest of the longer, where k is the number of words it
    may have more: only texts that share such a pair of words are looked at.
    """
    skeletons = [[_skeleton(word) for word in words] for words in texts]
    counts: dict[str, int] = {}
    for skeleton in skeletons:
        for word in set(skeleton):
            counts[word] = counts.get(word, 0) + 1
    rarest = [sorted(set(skeleton), key=lambda word: (counts[word], word)) for skeleton in skeletons]
    holders: dict[tuple[str, ...], list[int]] = {}
    for index, words in enumerate(rarest):
        holders.setdefault(tuple(words[:2]), []).append(index)
    for index, words in enumerate(rarest):
        length = len(texts[index])
        spare = length - math.ceil(threshold * length - 1e-9)
        head = words[: spare + 2]
        for key in (*combinations(head, 2), *((word,) for word in head[: spare + 1])):
            for other in holders.get(key, ()):
                fits = length - spare <= len(texts[other]) <= length and min(length, len(texts[other])) < SHORT_WORDS
                # Of two texts of one length only one direction is needed.
                if (
                    fits
                    and (len(texts[other]) < length or other < index)
                    and _stands_in(other, index, texts, skeletons)
                ):
                    yield other, index


def _skeleton(word: str) -> str:
    """A word without the vowels and doublings that spellings differ in; short words and numbers stay as they are."""
    if len(word) < 5 or not word.isalpha():
        return word
    return word[0] + re.sub(r"(.)\1+", r"\1", re.sub("[aeiou]", "", word[1:]))


def _stands_in(short: int, long: int, texts: Sequence[list[str]], skeletons: Sequence[list[str]]) -> bool:
    from rapidfuzz.distance import Indel, LCSseq

    left, right = skeletons[short], skeletons[long]
    if LCSseq.similarity(left, right) < len(left):
        return False
    matches = (block for block in LCSseq.opcodes(left, right) if block.tag == "equal")
    return all(
        texts[short][block.src_start + step] == texts[long][block.dest_start + step]
        or Indel.normalized_similarity(texts[short][block.src_start + step], texts[long][block.dest_start + step])
        >= SPELLING
        for block in matches
        for step in range(block.src_end - block.src_start)
    )


def _join_long(texts: Sequence[list[str]], threshold: float, union: _Union, names: Sequence[int]) -> None:
    """Join in `union` the texts whose shingle sets have a Jaccard similarity of at least `threshold`."""
    if len(texts) < 2:
        return
    import numpy as np

    sets = _shingle_ranks(texts)
    lengths = np.array([len(one) for one in sets], dtype=np.int64)
    members: dict[int, set[int]] = {}

    def as_set(index: int) -> set[int]:
        if index not in members:
            members[index] = set(sets[index].tolist())
        return members[index]

    for candidates in _candidates(sets, lengths, threshold):
        for left, right in zip((candidates // len(sets)).tolist(), (candidates % len(sets)).tolist(), strict=True):
            if union.find(names[left]) == union.find(names[right]):
                continue  # already one cluster: nothing more to learn
            common = len(as_set(left) & as_set(right))
            if common >= threshold * (int(lengths[left]) + int(lengths[right]) - common) - 1e-9:
                union.join(names[left], names[right])


def _shingle_ranks(texts: Sequence[list[str]]) -> list[NDArray[np.int64]]:
    """Each text's set of shingles as ascending ranks, 0 for the rarest shingle of all texts."""
    import numpy as np

    vocabulary: dict[str, int] = {}
    flat = np.fromiter((vocabulary.setdefault(w, len(vocabulary)) for words in texts for w in words), dtype=np.int64)
    owner = np.repeat(np.arange(len(texts), dtype=np.int64), [len(words) for words in texts])
    codes = flat
    for step in range(1, SHINGLE_WORDS):  # numbering after each step keeps the codes small and without collision
        codes = codes[:-1] * len(vocabulary) + flat[step:]
        codes = np.unique(codes, return_inverse=True)[1]
    whole = owner[: 1 - SHINGLE_WORDS] == owner[SHINGLE_WORDS - 1 :]
    kinds = int(codes.max()) + 1
    keys = np.unique(owner[: 1 - SHINGLE_WORDS][whole] * kinds + codes[whole])
    counts = np.bincount(keys % kinds, minlength=kinds)
    rank = np.empty(kinds, dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(kinds)
    keys = np.sort(keys // kinds * kinds + rank[keys % kinds])
    starts = np.searchsorted(keys, np.arange(1, len(texts)) * kinds)
    return [part % kinds for part in np.split(keys, starts)]


def _candidates(
    sets: Sequence[NDArray[np.int64]], lengths: NDArray[np.int64], threshold: float
) -> Iterator[NDArray[np.int64]]:
    """Packed pairs (left · number of sets + right) that may be similar enough; every pair that is, is among them.

    Two sets with Jaccard ≥ t share an element among the rarest n − ⌈t·n⌉ + 1 of each, their sizes differ by no more
    than the factor t, and what follows the shared element must still suffice for an overlap of t/(1+t)·(n + m).
    """
    import numpy as np

    heads = lengths - np.ceil(threshold * lengths - 1e-9).astype(np.int64) + 1
    element = np.concatenate([one[:head] for one, head in zip(sets, heads.tolist(), strict=True)])
    owner = np.repeat(np.arange(len(sets), dtype=np.int64), heads)
    position = np.arange(len(element)) - np.repeat(np.cumsum(heads) - heads, heads)
    order = np.lexsort((lengths[owner], element))
    element, owner, position = element[order], owner[order], position[order]
    edges = np.flatnonzero(np.diff(element)) + 1
    pending: list[NDArray[np.int64]] = []
    waiting = 0
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(element)], strict=True):
        if end - start < 2:
            continue
        group, places = owner[start:end], position[start:end]
        sizes = lengths[group]
        for at in range(len(group) - 1):
            last = int(np.searchsorted(sizes, sizes[at] / threshold + 1e-9, side="right"))
            rest, size = slice(at + 1, last), sizes[at]
            left = np.minimum(size - places[at], sizes[rest] - places[rest])
            fits = group[rest][left >= threshold / (1 + threshold) * (size + sizes[rest]) - 1e-9]
            if len(fits):
                low, high = np.minimum(group[at], fits), np.maximum(group[at], fits)
                pending.append(low * len(sets) + high)
                waiting += len(fits)
            if waiting >= CANDIDATES_AT_ONCE:
                yield np.unique(np.concatenate(pending))
                pending, waiting = [], 0
    if pending:
        yield np.unique(np.concatenate(pending))
