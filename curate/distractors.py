"""Passages of other pairs that look like an answer to a question and hold none."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence

from curate.duplicates import words_of
from curate.files import sha256_text
from curate.pairs import Pair, Passage

QUESTION_WORDS = 6  # the rarest of a question's words are what a retriever would go by
MOST_DOCUMENTS = 8  # a twin with one passage ties two documents in a split; chains of them must stay short
LOOKED_AT = 200


class Distractors:
    """All passages of some pairs, found by the words they share with a question; the same answer on any machine."""

    def __init__(self, pairs: Sequence[Pair], questions: Iterable[str], seed: int) -> None:
        wanted = {word for question in questions for word in words_of(question)}
        self.passages: list[Passage] = []
        self.order: list[str] = []
        self.holders: dict[str, list[int]] = {}
        self.of_document: dict[str, list[int]] = {}
        self.tied: dict[str, set[str]] = {}
        seen: set[str] = set()
        for pair in pairs:
            for passage in pair.passages:
                if passage.text in seen or not passage.text.strip():
                    continue
                seen.add(passage.text)
                index = len(self.passages)
                self.passages.append(passage)
                self.order.append(sha256_text(f"{seed}:{passage.text}"))
                self.of_document.setdefault(document_of(passage), []).append(index)
                for word in wanted.intersection(words_of(passage.text)):
                    self.holders.setdefault(word, []).append(index)

        by_id = {pair.id: pair for pair in pairs}
        for pair in pairs:  # the twins that are there already tie documents too
            original = by_id.get(str(pair.meta.get("twin_of")))
            if original and original.passages and pair.passages:
                self._tie(document_of(original.passages[0]), document_of(pair.passages[0]))

        # For a question that shares no word with any passage.
        self.first = heapq.nsmallest(LOOKED_AT, range(len(self.passages)), key=self.order.__getitem__)

    def find(self, pair: Pair, count: int, fits: Callable[[str], bool], alone: bool) -> list[Passage]:
        """Up to `count` passages that the pair has not, most like its question first, for which `fits(text)` holds.

        `alone` says that the distractor will be the pair's only passage: then one that would tie more than a few
        documents together is passed over.
        """
        own = {passage.text for passage in pair.passages}
        home = document_of(pair.passages[0])
        found: list[Passage] = []
        for index in self._ranked(pair):
            passage = self.passages[index]
            there = document_of(passage)
            if passage.text in own or (alone and len(self._group(home) | self._group(there)) > MOST_DOCUMENTS):
                continue
            if not fits(passage.text):
                continue
            if alone:
                self._tie(home, there)
            own.add(passage.text)
            found.append(passage)
            if len(found) == count:
                break
        return found

    def _tie(self, one: str, other: str) -> None:
        group = self._group(one) | self._group(other)
        self.tied |= dict.fromkeys(group, group)

    def _group(self, document: str) -> set[str]:
        return self.tied.get(document, {document})

    def _ranked(self, pair: Pair) -> list[int]:
        """Passages by the rarity of the words they share with the question; those of the pair's documents first."""
        words = [word for word in set(words_of(pair.question)) if word in self.holders]
        words.sort(key=lambda word: (len(self.holders[word]), word))
        scores: dict[int, float] = {}
        for word in words[:QUESTION_WORDS]:
            rarity = math.log(1 + len(self.passages) / len(self.holders[word]))
            for index in self.holders[word][:LOOKED_AT]:
                scores[index] = scores.get(index, 0.0) + rarity
        documents = {document_of(passage) for passage in pair.passages}
        near = {index for name in documents for index in self.of_document.get(name, [])[:LOOKED_AT]}
        ranked = [(index not in near, -round(scores.get(index, 0.0), 9), self.order[index], index) for index in scores]
        ranked += [(False, 0.0, self.order[index], index) for index in near - scores.keys()]
        return [one[-1] for one in heapq.nsmallest(LOOKED_AT, ranked)] or self.first


def document_of(passage: Passage) -> str:
    """The source document, or the text itself where none is named."""
    return passage.document or f"text:{passage.text}"
