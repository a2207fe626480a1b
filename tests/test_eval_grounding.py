from __future__ import annotations

import json
from typing import Any

import pytest
from output_form import UNKNOWN

from curate.behaviour import Behaviour
from curate.pairs import Pair, Passage
from eval.grading import grade
from eval.grounding import grounding_numbers, token_overlap
from eval.predictions import Prediction

PARTS: dict[str, Any] = {
    "name": "b",
    "prompt": "{{ question }}",
    "output": {"format": "json"},
    "schema_document": {"type": "object", "required": ["status"]},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer", "compare": "f1", "at_least": 0.5},
    "citations": {"at": "/citations"},
}
BEHAVIOUR = Behaviour.model_validate(PARTS)


def pair(name: str) -> Pair:
    passages = (Passage(id="p1", text="The old barn is dark red."), Passage(id="p2", text="It rains."))
    wanted = {"status": "answered", "answer": "dark red", "citations": ["p1"]}
    return Pair(id=name, question="?", passages=passages, output=wanted)


def numbers(*outputs: Any, behaviour: Behaviour = BEHAVIOUR, **more: Any) -> dict[str, Any] | None:
    pairs = [pair(f"q{i}") for i in range(len(outputs))]
    texts = [one if isinstance(one, str) else json.dumps(one) for one in outputs]
    predictions = {one.id: Prediction(id=one.id, output=text) for one, text in zip(pairs, texts, strict=True)}
    graded = grade(behaviour, pairs, predictions)
    return grounding_numbers(behaviour, pairs, [g.reading for g in graded], [g.cell for g in graded], **more)


def answer(text: str, *citations: str) -> dict[str, Any]:
    return {"status": "answered", "answer": text, "citations": list(citations)}


def test_citations_must_exist_and_hold_the_answer() -> None:
    found = numbers(
        answer("dark red", "p1"),  # exists and covers
        answer("dark red", "p2"),  # exists, does not cover
        answer("dark red", "p9"),  # does not exist: nothing to cover it
        answer("dark red", "p1", "p9"),  # one does not exist, the other covers
        answer("dark red"),  # cites nothing
        UNKNOWN,
        "not JSON",
    )
    assert found is not None
    assert found["presence"]["value"] == 4 / 5
    assert (found["validity"]["value"], found["validity"]["n"]) == (0.5, 4)
    assert (found["coverage"]["value"], found["coverage"]["n"]) == (2 / 3, 3)
    assert found["mean_overlap"] == pytest.approx(2 / 3)
    assert found["closed_book"] is None


def test_an_abstention_that_cites_what_is_not_there_counts_against_validity() -> None:
    found = numbers({**UNKNOWN, "citations": ["p7"]})
    assert found is not None
    assert found["validity"]["value"] == 0
    assert found["coverage"] is found["presence"] is found["mean_overlap"] is None


@pytest.mark.parametrize("citations", [None, "p1", 3, {"p1": True}])
def test_citations_that_are_no_list_cite_nothing(citations: Any) -> None:
    found = numbers({"status": "answered", "answer": "dark red", "citations": citations})
    assert found is not None
    assert found["presence"]["value"] == 0
    assert found["validity"] is None


def test_without_citations_there_is_no_grounding() -> None:
    plain = Behaviour.model_validate({**PARTS, "citations": None})
    assert numbers(answer("dark red"), behaviour=plain) is None


def test_closed_book_counts_what_the_model_knows_by_heart() -> None:
    outputs = {
        "q0": json.dumps(answer("dark red")),  # known
        "q1": json.dumps(answer("blue")),
        "q2": json.dumps(UNKNOWN),
        "q3": "no JSON",
    }
    closed = {name: Prediction(id=name, output=text) for name, text in outputs.items()}
    found = numbers(*[answer("dark red", "p1")] * 5, closed_book=closed)
    assert found is not None
    assert (found["closed_book"]["value"], found["closed_book"]["n"]) == (0.25, 4)


@pytest.mark.parametrize(
    ("given", "texts", "share"),
    [
        ("the dark red", ["It is DARK, red."], 1.0),
        ("dark blue", ["It is dark."], 0.5),
        (["dark", "blue"], ["It is dark.", "blue"], 1.0),
        (42, ["It is 42 m."], 1.0),
        ("the", ["the"], None),  # nothing but an article
        (None, ["x"], None),
        ("red", [], None),
    ],
)
def test_overlap_is_the_share_of_the_answers_tokens(given: Any, texts: list[str], share: float | None) -> None:
    assert token_overlap(given, texts) == share
