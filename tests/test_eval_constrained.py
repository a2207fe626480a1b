"""Constrained decoding: whatever a model would say, what it says is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from curate.files import parse_json, read_json
from eval.constrained import Grammar, split_conditions
from eval.subject import Manner, Subject
from train.recipe import Base

DEMO = Path(__file__).parent.parent / "recipes/demo"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["status", "answer"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"], "minLength": 1, "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "if": {"properties": {"status": {"const": "answered"}}},
    "then": {"properties": {"answer": {"type": "string"}}},
    "else": {"properties": {"answer": {"type": "null"}}},
}


def prompts(subject: Subject) -> list[str]:
    asked = ["Say hello.", "Which colour has a lemon?", "", "Reply with one JSON object.", "Count to nine.", "[p1] x"]
    return [subject.render([{"role": "user", "content": one}]) for one in asked]


@pytest.fixture(scope="module")
def demo() -> Subject:
    return Subject("demo", Base(model=str(DEMO / "base")), None, "cpu")


def test_bound_to_the_schema_every_output_is_valid(demo: Subject) -> None:
    valid = jsonschema_rs.validator_for(SCHEMA)
    asked = prompts(demo)
    free = [one.text for one in demo.answer("tuned", asked, 80)]
    assert not all(_is_valid(valid, text) for text in free), "else the next lines would show nothing"
    bound = demo.answer("tuned", asked, 80, Manner(schema=SCHEMA))
    assert all(one.finished for one in bound)
    assert all(_is_valid(valid, one.text) for one in bound), [one.text for one in bound]
    assert [one.text for one in demo.answer("tuned", asked, 80)] == free, "the engine leaves nothing behind"


def test_drawn_answers_are_bound_too(demo: Subject) -> None:
    valid = jsonschema_rs.validator_for(SCHEMA)
    drawn = demo.answer("tuned", prompts(demo), 120, Manner(1.0, 3, SCHEMA))
    finished = [one.text for one in drawn if one.finished]
    assert finished
    assert all(_is_valid(valid, text) for text in finished)


def test_alone_and_in_a_batch_the_same_is_said(demo: Subject) -> None:
    asked = prompts(demo)
    together = demo.answer("tuned", asked, 60, Manner(schema=SCHEMA))
    alone = [demo.answer("tuned", [one], 60, Manner(schema=SCHEMA))[0] for one in asked]
    assert [one.text for one in alone] == [one.text for one in together]


def test_what_the_engine_does_not_know_is_named(demo: Subject) -> None:
    assert Grammar(SCHEMA, demo.tokenizer).ignored == []
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}
    assert Grammar(schema, demo.tokenizer).ignored == ["uniqueItems"]
    assert Grammar(read_json(DEMO / "schema.json"), demo.tokenizer).ignored == ["uniqueItems"]


VALUES: list[Any] = [
    {"status": "answered", "answer": "x"},
    {"status": "answered", "answer": None},
    {"status": "unknown", "answer": "x"},
    {"status": "unknown", "answer": None},
    {"status": "unknown", "answer": None, "tags": ["a"]},
    {"status": "other", "answer": None},
    {"answer": "x"},
    {"status": "answered"},
    [],
]
CASES: list[dict[str, Any]] = [
    {},
    {"if": {"properties": {"status": {"enum": ["answered", "else"]}}, "required": ["status"]}},
    {"then": False},
    {"else": True},
    {"required": ["answer"]},
    {"if": {"properties": {"answer": {"type": "null"}}}},
    {"if": True},
    {"properties": {"status": {"type": "string"}, "answer": {}, "tags": {}}},
]


@pytest.mark.parametrize("change", CASES)
def test_alternatives_say_what_the_condition_said(change: dict[str, Any]) -> None:
    schema = {**SCHEMA, **change}
    before, after = (jsonschema_rs.validator_for(one) for one in (schema, split_conditions(schema)))
    assert [before.is_valid(one) for one in VALUES] == [after.is_valid(one) for one in VALUES]


def test_a_condition_becomes_alternatives_with_its_definitions() -> None:
    schema = {
        **SCHEMA,
        "$defs": {"name": {"type": "string"}},
        "then": {"properties": {"answer": {"$ref": "#/$defs/name"}}},
    }
    split = split_conditions(schema)
    assert "if" not in json.dumps(split)
    assert [jsonschema_rs.validator_for(split).is_valid(one) for one in VALUES[:4]] == [True, False, False, True]


def _is_valid(validator: Any, text: str) -> bool:
    try:
        return bool(validator.is_valid(parse_json(text)))
    except ValueError:
        return False
