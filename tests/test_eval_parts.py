"""Slices, honesty against a baseline, vocabulary, cost and recalibration."""

from __future__ import annotations

import json
import random
from typing import Any

import eval_cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from curate.behaviour import Vocabulary
from eval.abstention import CELLS, honesty_numbers
from eval.calibration import calibration_numbers
from eval.grading import grade
from eval.latency import latency_numbers, quantile
from eval.predictions import Prediction
from eval.recalibration import apply_temperature, fit_temperature, isotonic, recalibration_numbers
from eval.reliability import Answer
from eval.scoring import assemble_scores, score_graded, score_predictions
from eval.slices import MOST_VALUES, slice_numbers

RULES = eval_cases.behaviour()


def asked(metas: list[dict[str, Any]]) -> list[Any]:
    return [
        pair.model_copy(update={"meta": meta}) for pair, meta in zip(eval_cases.pairs(len(metas)), metas, strict=True)
    ]


def test_slices_stand_worst_first_with_the_numbers_of_their_part() -> None:
    pairs = asked([{"topic": {"name": "law" if i % 4 else "tax"}} for i in range(40)])
    texts = {p.id: json.dumps(p.output) if p.meta["topic"]["name"] == "law" else "no json" for p in pairs}
    given = {key: Prediction(id=key, output=text) for key, text in texts.items()}
    found = score_graded(RULES, grade(RULES, pairs, given), slices=("topic.name",))["slices"]
    assert [one["key"] for one in found] == ["topic.name"]
    tax, law = found[0]["values"]
    assert (tax["value"], tax["n"], tax["right"]["value"]) == ("tax", 10, 0.0)
    assert (law["value"], law["n"], law["right"]["value"]) == ("law", 30, 1.0)
    part = [pair for pair in pairs if pair.meta["topic"]["name"] == "law"]
    alone = score_predictions(RULES, part, given)
    assert law["schema_adherence"] == alone["schema"]["adherence"]
    assert law["hallucination_rate"] == alone["abstention"]["hallucination_rate"]
    assert law["over_abstention_rate"] == alone["abstention"]["over_abstention_rate"]


def test_slices_of_lists_of_missing_keys_and_of_too_many_values() -> None:
    pairs = asked([{"tags": ["a", "b"]}, {"tags": [3]}, {"tags": []}, {}])
    given = eval_cases.predictions(pairs, 1.0, 1.0)
    graded = grade(RULES, pairs, given)
    assert {one["value"]: one["n"] for one in slice_numbers(graded, "tags")["values"]} == {
        **{"a": 1, "b": 1, "3": 1},
        None: 2,
    }
    assert [one["value"] for one in slice_numbers(graded, "nothing.there")["values"]] == [None]
    many = asked([{"id": i} for i in range(MOST_VALUES + 5)])
    found = slice_numbers(grade(RULES, many, eval_cases.predictions(many, 1.0, 1.0)), "id")
    assert (len(found["values"]), found["left_out"]) == (MOST_VALUES, 5)


def test_honesty_is_that_of_yang_et_al() -> None:
    """Their table: rows by the model, columns by the baseline (right, wrong, abstained); cells numbered 1 to 9."""
    names = {"right": "answered_correct", "wrong": "answered_wrong", "abstained": "abstained_answerable"}
    n = dict(zip([(now, then) for now in names for then in names], range(1, 10), strict=True))
    before, after = {}, {}
    for (now, then), count in n.items():
        for i in range(count):
            before[f"{now}{then}{i}"], after[f"{now}{then}{i}"] = names[then], names[now]
    found = honesty_numbers(before, after)
    assert found is not None
    assert found["prudence"]["value"] == pytest.approx((8 + 9) / (5 + 6 + 8 + 9))
    assert found["over_conservativeness"]["value"] == pytest.approx(7 / (1 + 4 + 7))
    assert found["honesty"] == pytest.approx((17 / 28 + 1 - 7 / 12) / 2)
    assert honesty_numbers({"a": "answered_wrong"}, {"b": "answered_wrong"}) is None
    lone = honesty_numbers({"a": "malformed_answerable"}, {"a": "abstained_unanswerable"})
    assert lone is not None
    assert (lone["prudence"]["value"], lone["over_conservativeness"], lone["honesty"]) == (1.0, None, None)


@given(st.lists(st.tuples(st.sampled_from(CELLS), st.sampled_from(CELLS)), min_size=1, max_size=40))
def test_honesty_lies_between_0_and_1(cells: list[tuple[Any, Any]]) -> None:
    sides = [{str(i): pair[side] for i, pair in enumerate(cells)} for side in (0, 1)]
    found = honesty_numbers(*sides)
    assert found is not None
    assert found["honesty"] is None or 0 <= found["honesty"] <= 1


def test_vocabulary_counts_answers_with_a_term_to_avoid() -> None:
    rules = eval_cases.behaviour(vocabulary=Vocabulary(prefer={"client": ("customer", "end user"), "red": ("blue",)}))
    pairs = eval_cases.pairs(6)
    said = ["Our CUSTOMER pays.", "customers, clients", "an end\n user", "blue? Customer!", None, "fine"]
    given = {
        pair.id: Prediction(id=pair.id, output=json.dumps({**eval_cases.answer("x"), "answer": text}))
        if text
        else Prediction(id=pair.id, output=json.dumps(eval_cases.UNKNOWN))
        for pair, text in zip(pairs, said, strict=True)
    }
    found = score_predictions(rules, pairs, given)["vocabulary"]
    assert (found["avoided"]["value"], found["avoided"]["n"]) == (3 / 5, 5)
    assert {term: one["used"]["value"] for term, one in found["terms"].items()} == {
        "customer": 2 / 5,
        "end user": 1 / 5,
        "blue": 1 / 5,
    }
    assert found["terms"]["end user"]["prefer"] == "client"
    assert score_predictions(RULES, pairs, given)["vocabulary"] is None


def test_cost_is_kept_apart_and_has_numpys_quantiles() -> None:
    draw = random.Random(2)
    times = [draw.expovariate(3) for _ in range(101)]
    found = latency_numbers([Prediction(id=str(i), output="", latency_seconds=one) for i, one in enumerate(times)])
    assert found is not None
    assert found["tokens"] is None
    assert found["seconds"]["p95"] == pytest.approx(np.quantile(times, 0.95))
    assert found["seconds"]["mean"] == pytest.approx(np.mean(times))
    assert quantile([1.0, 2.0], 0.5) == 1.5
    assert latency_numbers([Prediction(id="a", output="")]) is None
    pairs = eval_cases.pairs(9)
    plain = eval_cases.predictions(pairs, 0.9, 0.9)
    timed = {key: one.model_copy(update={"latency_seconds": 0.5, "tokens": 7}) for key, one in plain.items()}
    whole = [assemble_scores(RULES, score_predictions(RULES, pairs, one)) for one in (plain, timed)]
    assert whole[0].pop("latency") is None
    assert whole[1].pop("latency")["tuned"]["tokens"]["max"] == 7
    assert whole[0] == whole[1]


def overconfident(n: int, seed: int, temperature: float = 3.0) -> list[Answer]:
    """Answers whose stated logit is `temperature` times the true one."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0.5, 1.0, n)
    right = draw.random(n) < 1 / (1 + np.exp(-logits))
    stated = 1 / (1 + np.exp(-temperature * logits))
    return [Answer(float(one), bool(other)) for one, other in zip(stated, right, strict=True)]


def test_temperature_is_recovered_and_both_maps_mend_calibration_on_the_test_split() -> None:
    held, test = overconfident(4000, 1), overconfident(4000, 2)
    assert fit_temperature(held) == pytest.approx(3.0, rel=0.15)
    found = recalibration_numbers(test, held)
    for way in ("temperature", "isotonic"):
        assert found[way]["ece"] < 0.4 * found["before"]["ece"]
        assert found[way]["brier"] < found["before"]["brier"]
    mended = isotonic(test, held)
    brier = brier_score_loss([one.right for one in mended], [one.confidence for one in mended])
    assert found["isotonic"]["brier"] == pytest.approx(brier)
    order = sorted(zip(test, mended, strict=True), key=lambda two: two[0].confidence)
    after = [two[1].confidence for two in order]
    assert after == sorted(after), "isotonic keeps the order"


def test_recalibration_says_why_there_is_none() -> None:
    test = overconfident(50, 3)
    assert "at least 30" in recalibration_numbers(test, test[:10])["reason"]
    assert "at least 30" in recalibration_numbers(test, None)["reason"]
    assert "all 40" in recalibration_numbers(test, [Answer(0.9, True)] * 40)["reason"]
    numbers = calibration_numbers(test)
    assert numbers is not None
    assert numbers["recalibration"]["before"]["ece"] == numbers["ece"]
    edges = apply_temperature([Answer(0.0, False), Answer(1.0, True)], 0.01)
    assert [round(one.confidence, 6) for one in edges] == [0.0, 1.0]
