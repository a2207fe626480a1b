"""What a pair's answer rests on: the passages it cites, or those in which the answer stands."""

from __future__ import annotations

import string
from collections.abc import Sequence

from curate.behaviour import Behaviour
from curate.compare import squad_tokens
from curate.duplicates import words_of
from curate.pairs import Pair, Passage


def cited_passages(pair: Pair, behaviour: Behaviour) -> list[Passage]:
    """The passages of the pair that its output cites."""
    cited = set(behaviour.citations_of(pair.output) or ())
    return [passage for passage in pair.passages if passage.id in cited]


def supporting_passages(pair: Pair, behaviour: Behaviour) -> list[Passage]:
    """The passages a pair's answer rests on: the cited ones; of an answer that cites none, one that it stands in.

    One alone, since a short answer ("30 days", "no") also stands in passages it was not taken from: the one that shares
    most words with the question, the first of several.
    """
    cited = cited_passages(pair, behaviour)
    if cited or not behaviour.is_answerable(pair):
        return cited
    holding = holding_passages(pair, answer_texts(pair, behaviour))
    if len(holding) < 2:
        return holding
    asked = set(words_of(pair.question))
    return [max(holding, key=lambda passage: len(asked.intersection(words_of(passage.text))))]


def holding_passages(pair: Pair, answers: Sequence[str]) -> list[Passage]:
    """The passages of the pair in which one of the answers stands."""
    return [passage for passage in pair.passages if holds(passage.text, answers)]


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in a text."""
    return any(stands_in(answer, text) for answer in answers)


def answer_texts(pair: Pair, behaviour: Behaviour) -> list[str]:
    """A pair's right answers as texts that could stand in a passage; lists give their items, Booleans nothing."""
    found: list[str] = []
    for answer in behaviour.wanted_answers(pair):
        items = answer if isinstance(answer, list) else [answer]
        found += [str(item) for item in items if isinstance(item, (str, int, float)) and not isinstance(item, bool)]
    return [text for text in dict.fromkeys(found) if squad_tokens(text)]


def stands_in(answer: str, text: str) -> bool:
    """Whether the answer's words stand in a text, in order and together, by SQuAD's normalisation or ours."""
    if _stands_as_it_is(answer, text) and squad_tokens(answer):
        return True
    return any(
        f" {' '.join(split(answer))} " in f" {' '.join(split(text))} "
        for split in (squad_tokens, words_of)
        if split(answer)
    )


def _stands_as_it_is(answer: str, text: str) -> bool:
    """Whether an answer stands in a text letter by letter, with nothing but punctuation between it and white space.

    Then it stands there by SQuAD's normalisation too, which works on single letters and words; most answers do.
    """
    at = text.find(answer)
    while at >= 0:
        before, after = text[:at].rstrip(string.punctuation), text[at + len(answer) :].lstrip(string.punctuation)
        if (not before or before[-1].isspace()) and (not after or after[0].isspace()):
            return True
        at = text.find(answer, at + 1)
    return False
