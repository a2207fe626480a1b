"""What a report highlights in an output that is not what was wanted."""

from __future__ import annotations

import json

import eval_cases
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.behaviour import Output
from curate.pairs import Pair
from eval.grading import grade
from eval.marking import fault_spans
from eval.predictions import Prediction
from eval.sections import split_at

ANSWERABLE, UNANSWERABLE = eval_cases.pairs(4)[1], eval_cases.pairs(4)[0]


def marked(output: str, pair: Pair = ANSWERABLE) -> list[str]:
    rules = eval_cases.behaviour()
    (graded,) = grade(rules, [pair], {pair.id: Prediction(id=pair.id, output=output)})
    return [output[start:end] for start, end in fault_spans(rules, graded)]


def test_the_value_that_is_wrong_is_marked() -> None:
    assert marked(json.dumps(eval_cases.answer("pink"))) == ["pink"]
    assert marked(json.dumps(eval_cases.answer("pink")), UNANSWERABLE) == ["pink"]
    assert marked(json.dumps(eval_cases.UNKNOWN)) == ["unknown"]
    assert marked(json.dumps(ANSWERABLE.output)) == []


def test_citations_that_no_passage_has_are_marked() -> None:
    output = {**eval_cases.answer("green"), "citations": ["p1", "p8", "p9"]}
    assert marked(json.dumps(output)) == ["p8", "p9"]


def test_breaches_of_the_schema_are_marked_where_they_stand() -> None:
    output = {"status": "maybe", "answer": 5, "citations": ["p1", 7]}
    assert marked(json.dumps(output)) == ["maybe", "5", "7"]
    assert marked('{"status": "answered"}') == [], "what is missing cannot be marked"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("```json\n{}\n```", ["```json\n", "\n```"]),
        ('Sure, as in [1]: {"a": 1}.', ["Sure, as in [1]: ", "."]),
        ("The box is green.", ["The box is green."]),
        ('{"status": "answered", "answer": "gr  ', ['answer": "gr']),
        ("", []),
    ],
)
def test_what_is_no_json_is_marked(output: str, expected: list[str]) -> None:
    assert marked(output) == expected


def test_a_text_answer_is_marked_as_a_whole() -> None:
    rules = eval_cases.behaviour(
        output=Output(format="text"), schema_document=None, abstain=None, answer=None, citations=None
    )
    pair = Pair(id="a", question="Why?", output="Because.", answerable=True)
    (graded,) = grade(rules, [pair], {"a": Prediction(id="a", output="No idea")})
    assert fault_spans(rules, graded) == ((0, 7),)


@given(
    st.text(max_size=60)
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_marks_lie_in_order_inside_any_output(output: str) -> None:
    rules = eval_cases.behaviour()
    (graded,) = grade(
        rules,
        [ANSWERABLE],
        {
            ANSWERABLE.id: Prediction.model_construct(
                **{**Prediction(id="x", output="").model_dump(), "id": ANSWERABLE.id, "output": output}
            )
        },
    )
    edges = [edge for span in fault_spans(rules, graded) for edge in span]
    assert edges == sorted(set(edges))
    assert all(0 <= edge <= len(output) for edge in edges)


@given(st.text(max_size=50), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 60))
def test_the_pieces_are_the_text(text: str, edges: list[int], longest: int) -> None:
    ordered = sorted(set(edges))
    spans = list(zip(ordered[::2], ordered[1::2], strict=False))
    pieces = split_at(text, spans, longest)
    assert "".join(piece for piece, _ in pieces).startswith(text[:longest])
    assert "".join(piece for piece, wrong in pieces if wrong) == "".join(text[:longest][a:b] for a, b in spans)
