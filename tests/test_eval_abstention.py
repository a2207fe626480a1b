from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from curate.behaviour import Behaviour
from curate.pairs import Pair
from eval.abstention import ABSTAINED, CELLS, Cell, abstention_numbers, cell_of
from eval.predictions import Prediction
from eval.schema import read_output

UNKNOWN = {"status": "unknown", "answer": None}
RED = {"status": "answered", "answer": "red"}
PARTS: dict[str, Any] = {
    "name": "b",
    "prompt": "{{ question }}",
    "output": {"format": "json"},
    "schema_document": {"type": "object", "required": ["status", "answer"]},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer"},
}
JSON_BEHAVIOUR = Behaviour.model_validate(PARTS)
TEXT_BEHAVIOUR = Behaviour.model_validate(
    {
        "name": "t",
        "prompt": "{{ question }}",
        "output": {"format": "text"},
        "abstain": {"where": ["I don't know"], "output": "I don't know."},
    }
)
LISTS = st.lists(st.sampled_from(CELLS), max_size=80)


def cell(behaviour: Behaviour, wanted: Any, text: str, **judged: Any) -> Cell:
    pair = Pair(id="q", question="?", output=wanted, accepted=("crimson",))
    prediction = Prediction(id="q", output=text, **judged)
    return cell_of(behaviour, pair, prediction, read_output(behaviour, text))


@pytest.mark.parametrize(
    ("wanted", "given", "expected"),
    [
        (RED, RED, "answered_correct"),
        (RED, {"status": "answered", "answer": "crimson"}, "answered_correct"),
        (RED, {"status": "answered", "answer": "blue"}, "answered_wrong"),
        (RED, UNKNOWN, "abstained_answerable"),
        (RED, {"status": "unknown", "answer": "red"}, "answered_correct"),  # an abstention that also answers
        (RED, {"status": "unknown"}, "malformed_answerable"),
        (UNKNOWN, UNKNOWN, "abstained_unanswerable"),
        (UNKNOWN, RED, "answered_unanswerable"),
        (UNKNOWN, {"status": "unknown", "answer": "red"}, "answered_unanswerable"),
        (UNKNOWN, {"status": "unknown"}, "malformed_unanswerable"),
    ],
)
def test_every_output_falls_into_its_cell(wanted: Any, given: Any, expected: str) -> None:
    assert cell(JSON_BEHAVIOUR, wanted, json.dumps(given)) == expected


def test_a_fenced_abstention_is_malformed() -> None:
    assert cell(JSON_BEHAVIOUR, UNKNOWN, f"```json\n{json.dumps(UNKNOWN)}\n```") == "malformed_unanswerable"


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("red", "Red", "answered_correct"),
        ("red", "i dont know", "abstained_answerable"),
        ("I don't know.", "I don't know!", "abstained_unanswerable"),
        ("I don't know.", "I don't know, perhaps red", "answered_unanswerable"),
        ("I don't know.", "  ", "malformed_unanswerable"),
        ("red", "", "malformed_answerable"),
    ],
)
def test_texts_fall_into_cells_too(wanted: str, text: str, expected: str) -> None:
    assert cell(TEXT_BEHAVIOUR, wanted, text) == expected


def test_a_judge_overrules_the_grade_but_not_the_shape() -> None:
    blue = json.dumps({"status": "answered", "answer": "blue"})
    assert cell(JSON_BEHAVIOUR, RED, blue, correct=True) == "answered_correct"
    assert cell(JSON_BEHAVIOUR, RED, json.dumps(RED), correct=False) == "answered_wrong"
    assert cell(JSON_BEHAVIOUR, RED, blue, abstained=True) == "abstained_answerable"
    assert cell(JSON_BEHAVIOUR, UNKNOWN, json.dumps(UNKNOWN), abstained=False) == "answered_unanswerable"
    assert cell(JSON_BEHAVIOUR, UNKNOWN, blue, correct=True) == "answered_unanswerable"
    assert cell(JSON_BEHAVIOUR, UNKNOWN, "not JSON", abstained=True) == "malformed_unanswerable"


def test_the_pairs_word_on_answerability_comes_first() -> None:
    pair = Pair(id="q", question="?", output=RED, answerable=False)
    found = cell_of(
        JSON_BEHAVIOUR,
        pair,
        Prediction(id="q", output=json.dumps(RED)),
        read_output(JSON_BEHAVIOUR, json.dumps(RED)),
    )
    assert found == "answered_unanswerable"


def test_the_numbers_by_hand() -> None:
    cells: list[Cell] = [
        *["answered_correct"] * 50,  # type: ignore[list-item]
        *["answered_wrong"] * 10,
        *["abstained_answerable"] * 5,
        *["malformed_answerable"] * 5,
        *["abstained_unanswerable"] * 20,
        *["answered_unanswerable"] * 8,
        *["malformed_unanswerable"] * 2,
    ]
    numbers = abstention_numbers(cells)
    values = {
        key: numbers[key]["value"] for key in ("precision", "recall", "over_abstention_rate", "hallucination_rate")
    }
    assert values == {
        "precision": 20 / 25,
        "recall": 20 / 30,
        "over_abstention_rate": 5 / 70,
        "hallucination_rate": 8 / 30,
    }
    assert numbers["coverage"]["value"] == 0.68
    assert numbers["accuracy_when_answered"]["value"] == 50 / 68
    assert numbers["truthfulness"] == pytest.approx((2 * 70 + 5) / 100 - 1)
    assert numbers["penalised"] == pytest.approx({"0.5": 0.45, "0.75": -0.05, "0.9": -1.55})
    assert numbers["f1"] == pytest.approx(2 * 0.8 * (2 / 3) / (0.8 + 2 / 3))


@given(LISTS.filter(bool))
def test_precision_recall_and_f1_equal_scikit_learns(cells: list[Cell]) -> None:
    truth = [one.endswith("_unanswerable") for one in cells]
    said = [one in ABSTAINED for one in cells]
    numbers = abstention_numbers(cells)
    for key, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        ours = numbers[key] if key == "f1" or numbers[key] is None else numbers[key]["value"]
        if ours is not None:
            assert ours == pytest.approx(function(truth, said, zero_division=0.0))


def rates(numbers: dict[str, Any]) -> dict[str, float]:
    """Every number of the section as one value."""
    flat = {key: one["value"] for key, one in numbers.items() if isinstance(one, dict) and "value" in one}
    flat |= {key: numbers[key] for key in ("f1", "truthfulness") if numbers[key] is not None}
    return flat | {f"penalised {t}": one for t, one in numbers["penalised"].items() if one is not None}


@given(LISTS)
def test_cells_add_up_and_rates_are_bounded(cells: list[Cell]) -> None:
    numbers = abstention_numbers(cells)
    assert sum(numbers["counts"].values()) == numbers["n"] == len(cells)
    for key, value in rates(numbers).items():
        least = {"truthfulness": -1.0, "penalised 0.5": -1.0, "penalised 0.75": -3.0, "penalised 0.9": -9.0}.get(
            key, 0.0
        )
        assert least <= value <= 1
    assert abstention_numbers(reversed(cells)) == numbers
    assert rates(abstention_numbers(cells * 3)) == pytest.approx(rates(numbers))


@given(LISTS, st.sampled_from(["malformed_answerable", "malformed_unanswerable"]))
def test_a_malformed_output_never_raises_a_number(cells: list[Cell], malformed: Cell) -> None:
    before, after = rates(abstention_numbers(cells)), rates(abstention_numbers([*cells, malformed]))
    for key in before:
        assert after[key] <= before[key] + 1e-12


def test_empty_denominators_give_none() -> None:
    numbers = abstention_numbers(["answered_correct"])
    assert numbers["precision"] is numbers["recall"] is numbers["f1"] is numbers["hallucination_rate"] is None
    assert numbers["over_abstention_rate"]["value"] == 0
    assert set(abstention_numbers([])["penalised"].values()) == {None}


def test_without_a_rule_for_abstaining_its_numbers_are_none() -> None:
    numbers = abstention_numbers(["answered_correct", "answered_unanswerable"], can_abstain=False)
    assert numbers["hallucination_rate"] is numbers["recall"] is numbers["over_abstention_rate"] is None
    assert numbers["coverage"]["value"] == 1
