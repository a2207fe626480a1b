"""Failures: what is said of each answer that is wrong, and that they come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import eval_cases

from eval.failures import KINDS, find_failures, gravest_first, read_failures, write_failures
from eval.grading import grade
from eval.predictions import Prediction


def test_failures_say_what_is_wrong() -> None:
    rules = eval_cases.behaviour()
    asked = {pair.id: pair for pair in eval_cases.pairs(6)}
    outputs = {
        "q000": eval_cases.answer("red"),  # unanswerable
        "q001": eval_cases.answer("blue"),  # wrong
        "q002": eval_cases.UNKNOWN,  # held back
        "q003": eval_cases.UNKNOWN,  # right
        "q004": {**eval_cases.answer("white"), "citations": ["p9"]},
        "q005": {"status": "answered"},
    }
    predictions = {key: Prediction(id=key, output=json.dumps(value)) for key, value in outputs.items()}
    found = {one.id: one for one in find_failures(rules, grade(rules, list(asked.values()), predictions))}
    assert {key: one.kinds for key, one in found.items()} == {
        "q000": ("hallucination",),
        "q001": ("wrong",),
        "q002": ("over-abstention",),
        "q004": ("citation",),
        "q005": ("schema",),
    }
    assert list(found) == ["q000", "q005", "q001", "q002", "q004"], "the gravest first"
    assert '"blue"' in found["q001"].wrong[0]
    assert '"green"' in found["q001"].wrong[0]
    assert "'p9'" in found["q004"].wrong[0]
    assert [passage["cited"] for passage in found["q000"].passages] == [True, False]
    assert {kind for one in found.values() for kind in one.kinds} == set(KINDS)


def test_failures_survive_odd_characters(tmp_path: Path, scored: tuple[dict[str, Any], list[Any]]) -> None:
    odd = scored[1][0].model_copy(update={"given": "a\u2028b\x85c\x0bd\r\ne"})
    write_failures(tmp_path / "f.jsonl", [odd, odd])
    assert read_failures(tmp_path / "f.jsonl") == gravest_first([odd, odd])
