from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from eval import calibration as c
from eval.reliability import Answer

ANSWERS = st.lists(
    st.builds(Answer, st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.booleans()),
    min_size=1,
    max_size=60,
)


def answers(confidence: list[float], right: list[int]) -> list[Answer]:
    return [Answer(one, bool(other)) for one, other in zip(confidence, right, strict=True)]


def test_ece_equals_torchmetrics_published_example() -> None:
    example = answers([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1])
    assert c.expected_calibration_error(example, bins=2) == pytest.approx(0.29)


def test_ece_by_hand_for_fifteen_bins_and_for_equal_mass() -> None:
    example = answers([0.02, 0.03, 0.5, 0.99, 1.0, 1.0], [0, 1, 1, 1, 0, 1])
    wide = (abs(0.05 - 1) + abs(0.5 - 1) + abs(2.99 - 2)) / 6
    assert c.expected_calibration_error(example) == pytest.approx(wide)
    # three bins of two; the two 1.0 stay together
    mass = (abs(0.05 - 1) + abs(1.49 - 2) + abs(2.0 - 1)) / 6
    assert c.expected_calibration_error(example, bins=3, equal_mass=True) == pytest.approx(mass)


def test_equal_confidences_give_fd_shifts_values() -> None:
    curve = c.risk_coverage(answers([0.7] * 4, [1, 0, 1, 0]))
    assert c.aurc(curve) == pytest.approx(0.5)
    assert c.aurc(curve) - c.best_aurc(0.5) == pytest.approx(0.3465736, abs=1e-7)
    assert c.augrc(curve) == pytest.approx(0.25)


def test_aurc_by_hand() -> None:
    # Surest first: right, wrong, right. Risks 0, 1/2, 1/3 at coverages 1/3, 2/3, 1; flat before the first.
    curve = c.risk_coverage(answers([0.9, 0.8, 0.1], [1, 0, 1]))
    assert c.aurc(curve) == pytest.approx((0 + (0 + 1 / 2) / 2 + (1 / 2 + 1 / 3) / 2) / 3)
    assert c.augrc(curve) == pytest.approx((0 + (0 + 1 / 3) / 2 + 1 / 3) / 3)


def test_the_best_aurc_is_the_limit_of_a_perfect_ranking() -> None:
    n, errors = 20_000, 6_000
    curve = c.risk_coverage([Answer(1 - i / n, i < n - errors) for i in range(n)])
    assert c.aurc(curve) == pytest.approx(c.best_aurc(errors / n), abs=1e-4)
    assert c.best_aurc(1.0) == 1.0
    assert c.best_aurc(0.0) == 0.0


@given(ANSWERS)
def test_augrc_is_what_auroc_and_accuracy_make_of_it(found: list[Answer]) -> None:
    auroc = c.auroc(found)
    if auroc is None:
        return
    accuracy = sum(one.right for one in found) / len(found)
    identity = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert c.augrc(c.risk_coverage(found)) == pytest.approx(identity, abs=1e-9)


@given(ANSWERS)
def test_brier_and_auroc_equal_scikit_learns(found: list[Answer]) -> None:
    truth, confidence = [one.right for one in found], [one.confidence for one in found]
    numbers = c.calibration_numbers(found)
    assert numbers is not None
    assert numbers["brier"] == pytest.approx(brier_score_loss(truth, confidence, labels=[False, True]))
    if len(set(truth)) == 2:
        assert numbers["auroc"] == pytest.approx(roc_auc_score(truth, confidence))
    else:
        assert numbers["auroc"] is None


@given(ANSWERS, st.randoms(use_true_random=False))
def test_numbers_are_bounded_and_do_not_depend_on_the_order(found: list[Answer], order: random.Random) -> None:
    numbers = c.calibration_numbers(found)
    assert numbers is not None
    for key in ("ece", "ece_equal_mass", "brier", "aurc", "augrc", "mean_confidence"):
        assert 0 <= numbers[key] <= 1
    assert sum(one["n"] for one in numbers["reliability"]) == len(found)
    assert numbers["risk_coverage"][-1]["coverage"] == 1
    shuffled = list(found)
    order.shuffle(shuffled)
    again = c.calibration_numbers(shuffled)
    assert again is not None
    for key in ("ece", "ece_equal_mass", "brier", "auroc", "aurc", "e_aurc", "augrc"):
        assert again[key] == pytest.approx(numbers[key])
    assert again["coverage_at_risk"] == numbers["coverage_at_risk"]


@given(ANSWERS, st.integers(2, 4))
def test_copies_of_every_answer_change_nothing(found: list[Answer], times: int) -> None:
    once, more = c.risk_coverage(found), c.risk_coverage(found * times)
    assert c.aurc(more) == pytest.approx(c.aurc(once))
    assert c.augrc(more) == pytest.approx(c.augrc(once))
    for equal_mass in (False, True):
        once_ece = c.expected_calibration_error(found, equal_mass=equal_mass)
        assert c.expected_calibration_error(found * times, equal_mass=equal_mass) == pytest.approx(once_ece)


@given(ANSWERS, st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_coverage_at_risk_is_the_best_any_threshold_gives(found: list[Answer], risk: float) -> None:
    best = 0.0
    for least in {one.confidence for one in found}:
        kept = [one for one in found if one.confidence >= least]
        if sum(not one.right for one in kept) <= risk * len(kept) + 1e-9:
            best = max(best, len(kept) / len(found))
    assert c.coverage_at_risk(c.risk_coverage(found), risk) == pytest.approx(best)


def test_no_confidence_is_no_calibration() -> None:
    assert c.calibration_numbers([]) is None


def test_fifty_nine_right_answers_prove_five_per_cent() -> None:
    assert c.errorless_n(0.05, 0.05) == 59
    assert c.errorless_n(0.5, 0.5) == 1
    found = c.choose_threshold([Answer(0.9, True)] * 59)
    assert found["value"] == 0.9
    assert found["risk_bound"] == pytest.approx(1 - 0.05 ** (1 / 59))
    assert "at least 59 are needed" in str(c.choose_threshold([Answer(0.9, True)] * 58)["reason"])


def test_without_held_out_answers_there_is_no_threshold_and_a_reason() -> None:
    numbers = c.calibration_numbers([Answer(0.9, True)] * 500)
    assert numbers is not None
    assert numbers["threshold"]["value"] is None
    assert "calibration split" in numbers["threshold"]["reason"]


def test_the_sequence_stops_at_the_first_threshold_that_fails() -> None:
    # 100 right, then 10 wrong, then 10,000 right: what lies beyond the failure is never looked at.
    held = [Answer(0.9, True)] * 100 + [Answer(0.8, False)] * 10 + [Answer(0.7, True)] * 10_000
    assert c.choose_threshold(held)["value"] == 0.9
    wrong_first = [Answer(0.95, False)] * 20 + [Answer(0.9, True)] * 80
    found = c.choose_threshold(wrong_first)
    assert found["value"] is None
    assert "20 of the 100 surest answers" in str(found["reason"])


def test_the_threshold_is_applied_to_the_test_split() -> None:
    held = [Answer(0.8, True)] * 100 + [Answer(0.3, False)] * 100
    test = [Answer(0.9, True)] * 30 + [Answer(0.8, False)] * 10 + [Answer(0.5, True)] * 60
    numbers = c.calibration_numbers(test, held)
    assert numbers is not None
    assert numbers["threshold"]["coverage"] == pytest.approx(0.4)
    assert numbers["threshold"]["risk"]["value"] == pytest.approx(0.25)


@pytest.mark.parametrize("shape", ["linear", "steep", "flat"])
def test_the_guarantee_of_the_threshold_holds(shape: str) -> None:
    """Over 300 draws the true risk beyond the chosen threshold exceeds α in at most δ of them (and draw error)."""
    alpha, delta, draws, draw = 0.1, 0.1, 300, random.Random(11)
    wrong = {
        "linear": lambda u: 0.4 * (1 - u),  # at threshold t the risk of what is kept is 0.2·(1 − t)
        "steep": lambda u: 0.0 if u > 0.5 else 0.8,  # risk 0.8·(0.5 − t)/(1 − t) below one half
        "flat": lambda u: alpha + 1e-6,  # no threshold keeps the promise
    }[shape]
    risk = {
        "linear": lambda t: 0.2 * (1 - t),
        "steep": lambda t: 0.8 * max(0.0, 0.5 - t) / (1 - t),
        "flat": lambda t: alpha + 1e-6,
    }[shape]
    broken = found = 0
    for _ in range(draws):
        places = [draw.random() for _ in range(300)]
        chosen = c.choose_threshold([Answer(u, draw.random() >= wrong(u)) for u in places], alpha, delta)["value"]
        found += chosen is not None
        broken += chosen is not None and risk(float(chosen)) > alpha
    assert broken / draws <= delta + 2 * math.sqrt(delta * (1 - delta) / draws)
    if shape != "flat":
        assert found / draws > 0.5, "a guarantee that never chooses would be empty"
