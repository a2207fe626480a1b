"""Whether answers speak the domain's language: terms the behaviour wants avoided, and how many answers use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.pointer import MISSING
from curate.vocabulary import term_pattern, terms_to_avoid
from eval.abstention import ANSWERED, Cell
from eval.schema import Reading
from eval.statistics import rate


def vocabulary_numbers(
    behaviour: Behaviour, readings: Sequence[Reading], cells: Sequence[Cell]
) -> dict[str, Any] | None:
    """{"avoided", "terms"} over answered outputs; None where the behaviour names no vocabulary.

    `avoided` is the share of answers that use a term to avoid; `terms` has for each of those the term to `prefer` and
    the share of answers with it. Only the answer counts where the behaviour says where it stands. Terms are whole
    words (or several), in any case.
    """
    wanted = terms_to_avoid(behaviour)
    if not wanted:
        return None
    patterns = {term: term_pattern(term, one) for term, one in wanted.items()}
    used: Counter[str] = Counter()
    answers = with_any = 0
    for reading, cell in zip(readings, cells, strict=True):
        if cell not in ANSWERED:
            continue
        text = "\n".join(strings_of(behaviour.answer_of(reading.value)))
        found = [term for term, pattern in patterns.items() if pattern.search(text)]
        answers, with_any = answers + 1, with_any + bool(found)
        used.update(found)
    terms = {term: {"prefer": one, "used": rate(used[term], answers)} for term, one in wanted.items()}
    return {"avoided": rate(with_any, answers), "terms": terms}


def strings_of(value: Any) -> Iterator[str]:
    """Every string inside a JSON value; keys are the schema's, not the model's words."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and value is not MISSING:
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)
