"""Where in a raw output its fault stands: the characters that a report highlights. Pure."""

from __future__ import annotations

from curate.behaviour import Behaviour
from eval.answering import value_span
from eval.grading import Graded
from eval.schema import NOT_JSON, TRUNCATED, WRAPPED, embedded_span

Span = tuple[int, int]
CUT_END = 12  # characters before the place where a truncated output stops


def fault_spans(behaviour: Behaviour, graded: Graded) -> tuple[Span, ...]:
    """Characters [start, end) of the output that are wrong, in order and apart; () where none can be pointed at.

    What is missing (a required key, an answer) cannot be, so it is for the sentence beside the output to say.
    """
    text, fault = graded.prediction.output, graded.reading.fault
    if fault == NOT_JSON:
        found = [(0, len(text))]
    elif fault == TRUNCATED:
        end = len(text.rstrip())
        found = [(max(0, end - CUT_END), end)]
    elif fault == WRAPPED:
        inside = embedded_span(text)
        found = [(0, len(text))] if inside is None else [(0, inside[0]), (inside[1], len(text))]
    elif fault is not None:
        found = _at(text, [one.where for one in graded.reading.violations if one.where])
    else:
        found = _of_cell(behaviour, graded) + _of_citations(behaviour, graded)
    return _apart(found)


def _at(text: str, pointers: list[str]) -> list[Span]:
    return [span for pointer in pointers if (span := value_span(text, pointer)) is not None]


def _of_cell(behaviour: Behaviour, graded: Graded) -> list[Span]:
    text = graded.prediction.output
    rule = {
        "answered_wrong": behaviour.answer and behaviour.answer.at,
        "answered_unanswerable": behaviour.answer and behaviour.answer.at,
        "abstained_answerable": behaviour.abstain and behaviour.abstain.where,
    }
    if graded.cell not in rule:
        return []
    pointer = rule[graded.cell]
    return _at(text, [pointer]) if behaviour.is_json and isinstance(pointer, str) else [(0, len(text))]


def _of_citations(behaviour: Behaviour, graded: Graded) -> list[Span]:
    """The citations that no passage has."""
    if behaviour.citations is None or not behaviour.is_json:
        return []
    ids = {passage.id for passage in graded.pair.passages}
    cited = behaviour.citations_of(graded.reading.value) or []
    places = [f"{behaviour.citations.at}/{i}" for i, one in enumerate(cited) if one not in ids]
    return _at(graded.prediction.output, places)


def _apart(spans: list[Span]) -> tuple[Span, ...]:
    """Spans in order, those that touch joined, empty ones left out."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
