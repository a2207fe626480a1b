"""Whether answers rest on the passages: cited passages exist and hold the answer, and nothing was memorised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.compare import squad_tokens
from curate.pairs import Pair
from curate.pointer import MISSING
from eval.abstention import ANSWERED, Cell
from eval.predictions import Prediction
from eval.schema import Reading, read_output
from eval.statistics import Rate, rate

COVERED_FROM = 0.8  # share of the answer's tokens that must stand in the cited passages


def grounding_numbers(
    behaviour: Behaviour,
    pairs: Sequence[Pair],
    readings: Sequence[Reading],
    cells: Sequence[Cell],
    closed_book: Mapping[str, Prediction] | None = None,
) -> dict[str, Any] | None:
    """DESIGN 6's `grounding`; None where the behaviour has no citations and no closed-book answers are given.

    `presence`: answered outputs that cite at all. `validity`: well-formed outputs that cite, all of whose citations
    are ids of the pair's passages. `coverage`: answered outputs that cite a real passage, where at least 80 % of the
    answer's tokens stand in the passages cited; `mean_overlap` is the mean of those shares.
    """
    if behaviour.citations is None and closed_book is None:
        return None
    answered = cited = valid_of = valid = 0
    overlaps: list[float] = []
    for pair, reading, cell in zip(pairs, readings, cells, strict=True):
        if not reading.well_formed or behaviour.citations is None:
            continue
        citations = behaviour.citations_of(reading.value) or []
        texts = {passage.id: passage.text for passage in pair.passages}
        valid_of += bool(citations)
        valid += bool(citations) and all(one in texts for one in citations)
        if cell in ANSWERED:
            answered += 1
            cited += bool(citations)
            overlap = token_overlap(
                behaviour.answer_of(reading.value), [texts[one] for one in citations if one in texts]
            )
            overlaps += [overlap] if overlap is not None else []
    return {
        "presence": rate(cited, answered),
        "validity": rate(valid, valid_of),
        "coverage": rate(sum(one >= COVERED_FROM for one in overlaps), len(overlaps)),
        "mean_overlap": math.fsum(overlaps) / len(overlaps) if overlaps else None,
        "closed_book": closed_book_accuracy(behaviour, pairs, closed_book) if closed_book is not None else None,
    }


def token_overlap(answer: Any, texts: Sequence[str]) -> float | None:
    """The share of the answer's distinct tokens (SQuAD's) that stand in the texts; None without tokens or texts."""
    parts = answer if isinstance(answer, list) else [answer]
    tokens = {token for part in parts if part is not MISSING and part is not None for token in squad_tokens(part)}
    if not tokens or not texts:
        return None
    there = {token for text in texts for token in squad_tokens(text)}
    return len(tokens & there) / len(tokens)


def closed_book_accuracy(
    behaviour: Behaviour, pairs: Sequence[Pair], closed_book: Mapping[str, Prediction]
) -> Rate | None:
    """How many answerable questions are answered rightly without their passages: knowledge that should be retrieved.

    An output of the wrong shape still counts when its JSON can be read: here only what is known matters.
    """
    asked = right = 0
    for pair in pairs:
        prediction = closed_book.get(pair.id)
        if prediction is None or not behaviour.is_answerable(pair):
            continue
        asked += 1
        value = read_output(behaviour, prediction.output, prediction.finish).value
        known = value is not MISSING and not behaviour.abstains(value) and behaviour.is_right(value, pair)
        right += known if prediction.correct is None else prediction.correct
    return rate(right, asked)
