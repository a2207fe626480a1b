from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.behaviour import Behaviour
from curate.pairs import Pair
from curate.pointer import MISSING
from eval.schema import field_pointers, is_cut_short, read_output, schema_numbers

SCHEMA = {
    "type": "object",
    "required": ["status", "answer"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"]},
        "count": {"type": "integer", "minimum": 0},
        "mail": {"type": "string", "format": "email"},
        "citations": {"type": "array", "items": {"type": "string"}},
    },
}
GOOD = '{"status": "answered", "answer": "red"}'


def behaviour(schema: Any = SCHEMA, form: str = "json", **parts: Any) -> Behaviour:
    given = {"name": "b", "prompt": "{{ question }}", "output": {"format": form}, "schema_document": schema, **parts}
    return Behaviour.model_validate(given)


@pytest.mark.parametrize(
    ("text", "fault", "recoverable"),
    [
        (GOOD, None, True),
        (f"  {GOOD}\n", None, True),
        ("", "empty", False),
        (" \n\t ", "empty", False),
        ("I do not know.", "not_json", False),
        ('{"status": "answered", "answer": NaN}', "not_json", False),
        ('{"status": "answered", "answer": 1e999}', "not_json", False),
        ("{'status': 'answered', 'answer': 'red'}", "not_json", False),
        ('{"status": "answered", "answer": "red",}', "not_json", False),
        ('{"status": "answered", "answer": "\\ud800"}', "not_json", False),
        ("\ufeff" + GOOD, "wrapped", True),
        (f"```json\n{GOOD}\n```", "wrapped", True),
        (f"```\n{GOOD}\n```\n", "wrapped", True),
        (f"```json\n{GOOD}", "wrapped", True),
        (f"Here it is:\n```json\n{GOOD}\n```\nHope that helps!", "wrapped", True),
        (f"Sure! {GOOD}", "wrapped", True),
        (f"{GOOD} I hope this helps.", "wrapped", True),
        (f"According to [1] and {{p2}}, {GOOD}", "wrapped", True),
        (f"{GOOD}\n{GOOD}", "wrapped", False),
        ('Sure: {"status": "maybe", "answer": "red"}', "wrapped", False),
        ('Sure: {"status": "answered", "answer": "a", "answer": "b"}', "wrapped", False),
        ("According to [1], the answer is red.", "not_json", False),
        ("use {braces} wisely", "not_json", False),
        ('{"status": "answered", "ans', "truncated", False),
        ('{"status": "answered", "answer": "red"', "truncated", False),
        ('{"status": "answered", "answer": "re\\', "truncated", False),
        ('{"status": "answered", "answer": "\\u00', "truncated", False),
        ('{"status": "answered", "answer": tru', "truncated", False),
        ('{"status": "answered", "answer": -', "truncated", False),
        ('{"status": "answered",', "truncated", False),
        ('{"items": [{"a": 1}, {"a": 2}, {"a', "truncated", False),
        ('```json\n{"status": "answered", "ans', "truncated", False),
        ('Here you are: {"status": "ans', "truncated", False),
        ("{", "truncated", False),
        ('{"status": "answered", "answer": "a", "answer": "b"}', "duplicate_key", False),
        ('{"status": "answered"}', "required", False),
        ('{"status": "maybe", "answer": "red"}', "enum", False),
        ('{"status": "answered", "answer": 3}', "type", False),
        ('{"status": "answered", "answer": "red", "why": 1}', "additionalProperties", False),
        ('{"status": "answered", "answer": "red", "count": true}', "type", False),
        ('{"status": "answered", "answer": "red", "count": "3"}', "type", False),
        ('{"status": "answered", "answer": "red", "count": -1}', "minimum", False),
        ('{"status": "answered", "answer": "red", "mail": "nobody"}', "format", False),
        ('"answered"', "type", False),
        ("null", "type", False),
    ],
)
def test_what_an_output_is(text: str, fault: str | None, recoverable: bool) -> None:
    reading = read_output(behaviour(), text)
    assert (reading.fault, reading.recoverable) == (fault, recoverable)
    assert reading.well_formed == (fault is None)


def test_an_output_that_ran_out_of_tokens_is_truncated_when_it_is_not_valid() -> None:
    assert read_output(behaviour(), "The answer is that", "length").fault == "truncated"
    assert read_output(behaviour(), GOOD, "length").fault is None
    assert read_output(behaviour(), f"{GOOD} and besides", "length").fault == "wrapped"


def test_a_fence_may_hold_a_scalar_that_the_schema_wants() -> None:
    numbers = behaviour({"type": "integer"})
    assert read_output(numbers, "```\n42\n```").recoverable
    assert read_output(numbers, "It is 42.").fault == "not_json"


def test_a_text_output_is_well_formed_when_it_is_not_empty() -> None:
    text = behaviour(None, "text")
    assert read_output(text, "{not json").well_formed
    assert read_output(text, " ").fault == "empty"
    assert schema_numbers(text, [], [])["fields"] == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 10**12) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans(), st.data())
def test_every_beginning_of_an_object_is_truncated_and_the_whole_is_not(
    value: dict[str, Any], plain: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=plain)
    cut = data.draw(st.integers(1, len(text) - 1))
    assert is_cut_short(text[:cut])
    assert not is_cut_short(text)
    assert read_output(behaviour({}), text[:cut]).fault == "truncated"
    assert read_output(behaviour({}), text).fault is None


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_in_a_fence_or_prose_is_wrapped_and_recoverable(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    for wrapped in (f"```json\n{text}\n```", f"Here: {text}", f"{text} Done."):
        reading = read_output(behaviour({}), wrapped)
        assert (reading.fault, reading.recoverable, reading.value) == ("wrapped", True, MISSING)


@given(
    st.text() | st.text(alphabet='{}[]":,\\ntruefalse0123eE+-. `ju\n', max_size=60), st.sampled_from([None, "length"])
)
def test_no_text_is_too_odd_to_read(text: str, finish: str | None) -> None:
    reading = read_output(behaviour(), text, finish)
    assert reading.well_formed <= reading.recoverable
    try:
        json.loads(text)
    except ValueError:
        assert not reading.well_formed


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 5_000 + "]" * 5_000, "{" * 100_000, '"' + "\\" * 100_001, "```" * 50_000],
)
def test_hostile_outputs_are_read_in_bounded_time(text: str) -> None:
    begun = time.process_time()
    assert not read_output(behaviour(), text).well_formed
    assert time.process_time() - begun < 2


def pair(output: Any, **more: Any) -> Pair:
    return Pair(id=str(more.pop("id", "q")), question="?", output=output, **more)


def test_the_numbers_count_each_output_once_by_its_first_violation() -> None:
    texts = [GOOD, GOOD, f"```json\n{GOOD}\n```", '{"status": "answered"}', ""]
    outputs = [read_output(behaviour(), text) for text in texts]
    numbers = schema_numbers(behaviour(), [pair(json.loads(GOOD))] * 5, outputs)
    assert numbers["adherence"]["value"] == 0.4
    assert numbers["adherence"]["n"] == 5
    assert numbers["recoverable"]["value"] == 0.6
    assert {name: one["value"] for name, one in numbers["violations"].items()} == {
        "empty": 0.2,
        "required": 0.2,
        "wrapped": 0.2,
    }


def test_fields_are_present_valid_and_correct() -> None:
    judged = behaviour(answer={"at": "/answer", "compare": "f1", "at_least": 0.5}, citations={"at": "/citations"})
    wanted = {"status": "answered", "answer": "dark red", "citations": ["p1", "p2"]}
    texts = [
        '{"status": "answered", "answer": "the red", "citations": ["p2", "p1"]}',
        '{"status": "answered", "answer": 3}',
        '{"status": "maybe", "answer": "blue", "citations": ["p1"]}',
        "not json",
    ]
    fields = schema_numbers(judged, [pair(wanted)] * 4, [read_output(judged, text) for text in texts])["fields"]
    assert list(fields) == ["/status", "/answer", "/count", "/mail", "/citations"]
    assert [fields["/status"][key]["value"] for key in ("present", "valid", "correct")] == [0.75, 2 / 3, 0.5]
    assert [fields["/answer"][key]["value"] for key in ("present", "valid", "correct")] == [0.75, 2 / 3, 0.25]
    assert [fields["/citations"][key]["value"] for key in ("present", "valid", "correct")] == [0.5, 1.0, 0.25]
    assert fields["/count"]["valid"] is None  # nothing present
    assert fields["/count"]["correct"] is None  # no pair wants it


def test_pointers_come_from_the_schema_and_follow_references_inside_it() -> None:
    schema = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {"properties": {"a/b": {}, "next": {"$ref": "#/$defs/node"}, "in": {"properties": {"x": {}}}}}
        },
    }
    assert field_pointers(behaviour(schema)) == ["/a~1b", "/next", "/in", "/in/x"]
    assert field_pointers(behaviour(None), [pair({"k": 1}), pair({"m": 2})]) == ["/k", "/m"]
    assert field_pointers(behaviour(None), [pair("text")]) == []


def test_a_schema_that_points_at_itself_ends() -> None:
    schema = {"properties": {"a": {"$ref": "#"}}}
    assert "/a" in field_pointers(behaviour(schema))
