"""Answering: the same answers alone and in batches, resumed where it stopped, confidence from the answer's tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eval_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_base import make_tokenizer

from curate.behaviour import Answer
from curate.pointer import resolve
from eval.answering import (
    Job,
    Line,
    Question,
    agreement,
    answer_all,
    batches_of,
    confidence_of,
    read_lines,
    tokens_within,
    value_span,
    write_lines,
)
from train.generation import Generation


def questions(n: int) -> list[Question]:
    return [Question(f"q{i}", "x" * (1 + i * 7 % 11)) for i in range(n)]


class Machine:
    """Answers by spelling a prompt's length; dies when asked for more batches than it may do."""

    def __init__(self, batches: int = 1000) -> None:
        self.left = batches
        self.asked: list[int] = []

    def __call__(self, prompts: list[str]) -> Sequence[Generation]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append(len(prompts))
        return [Generation(str(len(prompt)), (1,), (-0.5,), True) for prompt in prompts]


def line_of(question: Question, answer: Generation) -> Line:
    return {"id": question.id, "output": answer.text}


def job(path: Path, machine: Machine, n: int = 10, made_by: str = "k") -> Job:
    return Job(path, questions(n), made_by, machine, line_of, batch_size=3)


def without_time(lines: Sequence[Line]) -> list[Line]:
    return [{key: value for key, value in line.items() if key != "latency_seconds"} for line in lines]


def test_lines_stand_in_the_order_of_the_questions(tmp_path: Path) -> None:
    lines = answer_all(job(tmp_path / "p.jsonl", Machine()))
    assert [line["id"] for line in lines] == [f"q{i}" for i in range(10)]
    assert [line["output"] for line in lines] == [str(len(one.prompt)) for one in questions(10)]
    assert [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()] == lines
    assert all(line["latency_seconds"] >= 0 and line["made_by"] == "k" for line in lines)


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_interrupted_it_goes_on_where_it_stopped(tmp_path: Path, batches: int) -> None:
    whole = answer_all(job(tmp_path / "whole.jsonl", Machine()))
    path = tmp_path / "p.jsonl"
    with pytest.raises(KeyboardInterrupt):
        answer_all(job(path, Machine(batches)))
    rest = Machine()
    assert without_time(answer_all(job(path, rest))) == without_time(whole)
    assert rest.asked == [3, 3, 3, 1][batches:], "nothing is answered twice"


def test_a_torn_line_is_answered_again_with_its_whole_batch(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    whole = answer_all(job(path, Machine()))
    by_id = {line["id"]: line for line in whole}
    first, second = batches_of(questions(10), 3)[:2]
    write_lines(path, [by_id[one.id] for one in (*first, *second)])
    torn = path.read_bytes()[:-9]
    path.write_bytes(torn)
    assert len(read_lines(path, "k")) == 5
    rest = Machine()
    assert without_time(answer_all(job(path, rest))) == without_time(whole)
    assert rest.asked == [3, 3, 1], "the first batch was whole, the second is done again as it was composed"


def test_a_torn_character_is_healed(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes('{"id": "q0", "output": "ü'.encode()[:-1])
    assert answer_all(job(path, Machine(), n=1))[0]["output"] == "1"


def test_finished_nothing_is_asked(tmp_path: Path) -> None:
    first = answer_all(job(tmp_path / "p.jsonl", Machine()))
    again = Machine()
    assert answer_all(job(tmp_path / "p.jsonl", again)) == first
    assert again.asked == []


def test_lines_of_another_model_are_not_taken(tmp_path: Path) -> None:
    answer_all(job(tmp_path / "p.jsonl", Machine(), made_by="other"))
    again = Machine()
    assert {line["made_by"] for line in answer_all(job(tmp_path / "p.jsonl", again))} == {"k"}
    assert sum(again.asked) == 10


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=20), st.integers(1, 7))
def test_batches_hold_every_question_once_longest_first(prompts: list[str], size: int) -> None:
    asked = [Question(str(i), prompt) for i, prompt in enumerate(prompts)]
    batches = batches_of(asked, size)
    flat = [one for batch in batches for one in batch]
    assert sorted(one.id for one in flat) == sorted(one.id for one in asked)
    assert [len(one.prompt) for one in flat] == sorted((len(one.prompt) for one in asked), reverse=True)
    assert batches == batches_of(asked[::-1], size), "whatever the order they come in"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def pointers(value: Any, at: str = "") -> list[str]:
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inner = [(key.replace("~", "~0").replace("/", "~1"), one) for key, one in value.items()]
    if isinstance(value, list):
        inner = [(str(i), one) for i, one in enumerate(value)]
    return [at, *(found for key, one in inner for found in pointers(one, f"{at}/{key}"))]


@settings(deadline=None)
@given(JSON, st.sampled_from([None, 0, 2]), st.booleans())
def test_a_span_is_where_the_value_stands(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = " " + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + "\n"
    for pointer in pointers(value):
        span = value_span(text, pointer)
        assert span is not None
        inside, wanted = text[span[0] : span[1]], resolve(value, pointer)
        if isinstance(wanted, str) and wanted:
            inside = f'"{inside}"'
        assert json.loads(inside) == wanted


@pytest.mark.parametrize(
    "text", ["", "red", '{"a": ', '{"a": 1} b', '{"a": 1, "a": 2}', '{"b": 1}', "[1]", '{"a": NaN}']
)
def test_no_span_where_there_is_no_such_value(text: str) -> None:
    assert value_span(text, "/a") is None


def spoken(text: str, logprobs: dict[int, float] | None = None) -> Generation:
    """An answer in bytes: every byte a token of the test's tokenizer, with its log-probability (0 if not given)."""
    ids = tuple(make_tokenizer()(text, add_special_tokens=False)["input_ids"])
    given_ = logprobs or {}
    return Generation(text, (*ids, 3), (*(given_.get(i, 0.0) for i in range(len(ids))), -9.0), True)


def test_confidence_is_the_geometric_mean_of_the_values_tokens() -> None:
    text = '{"answer": "red"}'
    at = text.index("red")
    answer = spoken(text, {0: -5.0, at - 1: -4.0, at: math.log(0.5), at + 1: math.log(0.8), at + 2: 0.0, at + 3: -3.0})
    found = confidence_of(eval_cases.behaviour(), make_tokenizer(), answer)
    assert found == pytest.approx((0.5 * 0.8 * 1.0) ** (1 / 3), abs=1e-6)  # 0.7368


def test_confidence_counts_every_byte_of_a_character() -> None:
    text = '{"answer": "ü", "status": "é"}'
    at = len(text[: text.index("ü")].encode())
    answer = spoken(text, {at: math.log(0.9), at + 1: math.log(0.4), at - 2: -7.0, at + 3: -7.0})
    found = confidence_of(eval_cases.behaviour(), make_tokenizer(), answer)
    assert found == pytest.approx(math.sqrt(0.36), abs=1e-6)


def test_confidence_of_a_number_and_of_null() -> None:
    for value in ("12", "null"):
        text = f'{{"answer": {value}, "status": 1}}'
        at = text.index(value)
        answer = spoken(text, {at: math.log(0.25), at - 1: -7.0, at + len(value): -7.0})
        found = confidence_of(eval_cases.behaviour(), make_tokenizer(), answer)
        assert found == pytest.approx(0.25 ** (1 / len(value)), abs=1e-6)


def test_confidence_of_all_tokens_where_no_place_is_named() -> None:
    rules = eval_cases.behaviour(answer=Answer())
    answer = spoken("abcd", {0: math.log(0.5), 3: math.log(0.5)})
    assert confidence_of(rules, make_tokenizer(), answer) == pytest.approx(0.25**0.25, abs=1e-6)


@pytest.mark.parametrize("text", ["", "no JSON", '{"status": "unknown"}'])
def test_no_confidence_where_there_is_no_answer(text: str) -> None:
    assert confidence_of(eval_cases.behaviour(), make_tokenizer(), spoken(text)) is None


def test_no_confidence_without_probabilities() -> None:
    answer = Generation('{"answer": "red"}', (1, 2), None, True)
    assert confidence_of(eval_cases.behaviour(), make_tokenizer(), answer) is None


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffd"), min_size=1, max_size=12), st.data()
)
def test_tokens_within_cover_the_span_and_no_more(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = tokens_within(tokenizer, ids, (start, end))
    low, high = len(text[:start].encode()), len(text[:end].encode())
    assert found == list(range(low, high))


def test_alone_and_in_a_batch_a_model_answers_the_same(tiny_base: Path) -> None:
    from eval.subject import Subject
    from train.recipe import Base

    subject = Subject("tiny", Base(model=str(tiny_base)), None, "cpu")
    prompts = [f"<|im_start|>user\n{'why ' * i}<|im_end|>\n<|im_start|>assistant\n" for i in (1, 9, 4, 2)]
    together = subject.answer("tuned", prompts, 12)
    for prompt, one in zip(prompts, together, strict=True):
        alone = subject.answer("tuned", [prompt], 12)[0]
        assert alone.token_ids == one.token_ids
        assert alone.logprobs == pytest.approx(one.logprobs, abs=1e-4)


RED = '{"status": "answered", "answer": "dark red ink", "citations": ["p1"]}'
OTHER = '{"status": "answered", "answer": "blue", "citations": ["p1"]}'
UNKNOWN = '{"status": "unknown", "answer": null, "citations": []}'


@pytest.mark.parametrize(
    ("output", "samples", "wanted"),
    [
        (RED, [RED, RED, OTHER, UNKNOWN], 0.5),
        (RED, [RED.replace("dark", "DARK")], 1.0),
        (RED, ["", "no JSON", RED + " indeed", '{"answer": "dark red ink"}', RED], 0.2),
        (UNKNOWN, [UNKNOWN, RED], 0.5),
        (RED, [UNKNOWN], 0.0),
        ("no JSON", [RED], None),
        (RED, [], None),
    ],
)
def test_agreement_is_the_share_of_draws_with_the_same_answer(
    output: str, samples: list[str], wanted: float | None
) -> None:
    assert agreement(eval_cases.behaviour(), output, samples) == wanted


def test_agreement_of_plain_text() -> None:
    from curate.behaviour import Output

    rules = eval_cases.behaviour(
        output=Output(format="text"), abstain=None, answer=None, citations=None, schema_document=None
    )
    assert agreement(rules, "Red.", ["Red.", "blue"]) == 0.5
