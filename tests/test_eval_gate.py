from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from curate.behaviour import Bound
from curate.power import errorless_n
from eval.abstention import Cell, abstention_numbers
from eval.gate import PLACES, judge
from eval.retention import Result, retention_numbers
from eval.statistics import rate
from eval.tables import retention_text


def schema(k: int, n: int) -> dict[str, Any]:
    return {"schema": {"adherence": rate(k, n)}}


def line(k: int, n: int, **bound: float) -> dict[str, Any]:
    found = judge(schema(k, n), {"schema_adherence": Bound(**bound)})["gate"]
    assert len(found) == 1
    return dict(found[0])


@pytest.mark.parametrize(
    ("k", "n", "bound", "verdict"),
    [
        (149, 149, {"at_least": 0.98}, "GO"),  # 0.98 ** 149 < 0.05
        (148, 148, {"at_least": 0.98}, "INCONCLUSIVE"),
        (990, 1000, {"at_least": 0.98}, "GO"),
        (985, 1000, {"at_least": 0.98}, "INCONCLUSIVE"),
        (960, 1000, {"at_least": 0.98}, "NO-GO"),
        (0, 59, {"at_most": 0.05}, "GO"),
        (0, 58, {"at_most": 0.05}, "INCONCLUSIVE"),
        (30, 100, {"at_most": 0.05}, "NO-GO"),
        (0, 10, {"at_least": 0.0}, "GO"),
        (10, 10, {"at_most": 1.0}, "GO"),
    ],
)
def test_a_line_has_three_verdicts(k: int, n: int, bound: dict[str, float], verdict: str) -> None:
    assert line(k, n, **bound)["verdict"] == verdict


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
def test_a_release_and_the_gate_ask_for_as_many_pairs(share: float) -> None:
    for bound, failures in (({"at_least": share}, False), ({"at_most": round(1 - share, 9)}, True)):
        n = errorless_n(bound["at_most"] if failures else 1 - share)
        assert n is not None
        assert line(0 if failures else n, n, **bound)["verdict"] == "GO"
        assert line(0 if failures else n - 1, n - 1, **bound)["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize("n", [20, 59, 100, 250, 600])
@pytest.mark.parametrize(
    ("share", "bound"), [(0.98, {"at_least": 0.98}), (0.05, {"at_most": 0.05}), (0.5, {"at_least": 0.5})]
)
def test_luck_passes_or_fails_a_line_at_most_one_time_in_twenty(n: int, share: float, bound: dict[str, float]) -> None:
    """A model whose true share is the bound itself: summed over every sample, neither verdict may come too often."""
    verdicts = [line(k, n, **bound)["verdict"] for k in range(n + 1)]
    weight = binom.pmf(range(n + 1), n, share)
    for verdict in ("GO", "NO-GO"):
        assert sum(w for w, one in zip(weight, verdicts, strict=True) if one == verdict) <= 0.05


def test_a_good_model_passes_when_there_are_enough_pairs() -> None:
    passed = sum(
        w for k, w in enumerate(binom.pmf(range(601), 600, 0.995)) if line(k, 600, at_least=0.98)["verdict"] == "GO"
    )
    assert passed > 0.9


@given(st.integers(1, 300), st.data())
def test_the_pairs_needed_are_the_fewest_that_settle_it(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    found = line(k, n, at_least=0.8)
    if found["needed_n"] is None:
        assert found["verdict"] != "INCONCLUSIVE" or k / n <= 0.8
        return
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["needed_more"] == found["needed_n"] - n > 0
    if k == n:  # then the observed share can be had exactly at any n
        assert line(found["needed_n"], found["needed_n"], at_least=0.8)["verdict"] == "GO"
        assert line(found["needed_n"] - 1, found["needed_n"] - 1, at_least=0.8)["verdict"] == "INCONCLUSIVE"
    times = -(-found["needed_n"] // n)
    assert line(k * times, n * times, at_least=0.8)["verdict"] == "GO"


@pytest.mark.parametrize(("k", "n", "limit"), [(98, 100, 0.95), (56, 60, 0.9), (195, 200, 0.95)])
def test_as_many_as_it_asks_for_settle_it_four_times_in_five(k: int, n: int, limit: float) -> None:
    needed = line(k, n, at_least=limit)["needed_n"]
    drawn = np.random.default_rng(7).binomial(needed, k / n, 500)
    went = [line(int(one), needed, at_least=limit)["verdict"] == "GO" for one in drawn]
    assert np.mean(went) == pytest.approx(0.8, abs=0.07)


def test_reasons_say_what_was_seen_what_is_asked_and_how_many_more() -> None:
    found = line(97, 98, at_least=0.95)
    said = "Schema adherence is 99 % (n = 98), with 95 % confidence at least 95.3 %; at least 95 % is asked for."
    assert (found["verdict"], found["reason"]) == ("GO", said)
    open_line = line(50, 50, at_least=0.98)
    assert "about 99 more pairs would settle it" in open_line["reason"].lower()
    hopeless = line(47, 50, at_least=0.98)
    assert hopeless["verdict"] == "INCONCLUSIVE"
    assert hopeless["needed_n"] is None
    assert "hardly bring a GO" in hopeless["reason"]


def test_limits_and_bounds_are_told_apart_to_the_digit_it_takes() -> None:
    assert "at least 99.75 % is asked for" in line(999, 1000, at_least=0.9975)["reason"]
    near = line(109, 115, at_least=0.9)
    assert near["verdict"] == "INCONCLUSIVE"
    assert "as low as 89.96 %; at least 90 % is asked for" in near["reason"]


def test_a_share_inside_by_a_hair_is_not_said_to_be_outside() -> None:
    found = line(9500, 9999, at_least=0.95)
    assert (found["verdict"], found["needed_n"]) == ("INCONCLUSIVE", None)
    assert "More than 10,000,000 pairs would be needed to tell" in found["reason"]


def test_the_verdict_is_that_of_the_worst_line_and_its_reason_comes_first() -> None:
    scores = {
        "schema": {"adherence": rate(500, 500)},
        "abstention": abstention_numbers(
            [*["answered_correct"] * 300, *["answered_unanswerable"] * 50, *["abstained_unanswerable"] * 50]  # type: ignore[list-item]
        ),
    }
    gate = {
        "schema_adherence": Bound(at_least=0.98),
        "coverage": Bound(at_least=0.86),
        "hallucination_rate": Bound(at_most=0.05),
    }
    found = judge(scores, gate)  # type: ignore[arg-type]
    assert [one["verdict"] for one in found["gate"]] == ["GO", "INCONCLUSIVE", "NO-GO"]
    assert found["verdict"] == "NO-GO"
    assert found["reasons"][0].startswith("The hallucination rate is 50 % (n = 100)")
    assert len(found["reasons"]) == 3
    assert judge(scores, {"schema_adherence": Bound(at_least=0.98)})["verdict"] == "GO"


def test_no_gate_is_inconclusive() -> None:
    found = judge(schema(10, 10), {})
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["gate"] == []
    assert found["reasons"][0].startswith("The behaviour names no gate")


@pytest.mark.parametrize("metric", list(PLACES))
def test_a_number_that_is_missing_is_inconclusive_and_named(metric: Any) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("schema", "abstention", "calibration", "grounding", "retention"))
    found = judge(nothing, {metric: Bound(at_least=0.5)})
    assert found["verdict"] == "INCONCLUSIVE"
    assert "is not known: " in found["reasons"][0]
    assert found["gate"][0]["value"] is None
    json.dumps(found, allow_nan=False)


def test_an_empty_denominator_is_told_apart_from_a_missing_rule() -> None:
    cells: list[Cell] = ["answered_correct"] * 5
    gate: Any = {"hallucination_rate": Bound(at_most=0.05)}
    assert "there are no unanswerable pairs" in judge({"abstention": abstention_numbers(cells)}, gate)["reasons"][0]
    both: list[Cell] = ["answered_correct", "answered_unanswerable"]
    silent = abstention_numbers(both, can_abstain=False)
    assert "does not say what an abstention is" in judge({"abstention": silent}, gate)["reasons"][0]
    over: Any = {"over_abstention_rate": Bound(at_most=0.1)}
    silent = abstention_numbers(cells, can_abstain=False)
    assert "does not say what an abstention is" in judge({"abstention": silent}, over)["reasons"][0]


def kept(n: int, falls: int, name: str) -> tuple[list[Result], list[Result]]:
    base = [Result(id=str(i), set=name, correct=True) for i in range(n)]
    return base, [Result(id=str(i), set=name, correct=i >= falls) for i in range(n)]


def retained(*sets: tuple[list[Result], list[Result]]) -> dict[str, Any]:
    base = [one for some in sets for one in some[0]]
    return {"retention": retention_numbers(base, [one for some in sets for one in some[1]])}


@pytest.mark.parametrize(
    ("falls", "n", "verdict"), [(0, 500, "GO"), (30, 500, "NO-GO"), (6, 500, "INCONCLUSIVE"), (0, 100, "INCONCLUSIVE")]
)
def test_every_retention_set_must_pass(falls: int, n: int, verdict: str) -> None:
    gate: Any = {"retention_drop": Bound(at_most=0.02)}
    found = judge(retained(kept(1000, 0, "steady"), kept(n, falls, "other")), gate)["gate"][0]
    assert found["verdict"] == verdict
    assert found["set"] == "other"
    assert found["value"] == falls / n
    assert found["one_sided_bound"] > found["value"] > found["opposite_bound"]
    if verdict == "INCONCLUSIVE":
        assert found["needed_n"] > n
        assert "more items in 'other' would settle it" in found["reason"]


def test_a_set_of_which_the_base_answers_nothing_is_no_go() -> None:
    base = [Result(id=str(i), set="mute", correct=False) for i in range(500)]
    gate: Any = {"retention_drop": Bound(at_most=0.02)}
    found = judge(retained(kept(1000, 0, "steady"), (base, base)), gate)["gate"][0]
    assert (found["verdict"], found["set"], found["needed_n"]) == ("INCONCLUSIVE", "mute", None)
    assert "the base itself answers 0 % (n = 500), too little to show a loss of 2.0 points" in found["reason"]


def test_a_sure_gain_is_called_a_rise() -> None:
    base = [Result(id=str(i), correct=i < 200) for i in range(400)]
    tuned = [Result(id=str(i), correct=i < 300) for i in range(400)]
    (reason,) = judge(retained((base, tuned)), {"retention_drop": Bound(at_most=0.02)})["reasons"]
    assert "from 50 % to 75 % (n = 400), a rise with 95 % confidence of at least 21.4 points; 2.0 points" in reason


def test_a_loss_that_rose_stops_a_go() -> None:
    gate: Any = {"retention_drop": Bound(at_most=0.02)}
    fine = kept(500, 0, "copy")
    before = [Result(id=str(i), set="text", nats_per_token=2 + i / 100) for i in range(50)]
    for rise, verdict in ((0.0, "GO"), (0.2, "NO-GO")):
        after = [
            Result(id=one.id, set="text", nats_per_token=(one.nats_per_token or 0) + rise + int(one.id) / 5000)
            for one in before
        ]
        found = judge(retained(fine, (before, after)), gate)
        assert found["verdict"] == verdict
    assert "nats per token" in found["reasons"][0]
    (line,) = found["gate"]  # it speaks of the losses, not of the set that was kept
    assert (line["set"], line["value"], line["one_sided_bound"]) == ("text", None, None)
    alone = judge(retained((before, after)), gate)
    assert alone["verdict"] == "NO-GO"


def test_losses_alone_say_nothing_of_the_drop_in_accuracy() -> None:
    before = [Result(id=str(i), set="text", nats_per_token=2.0 + i) for i in range(50)]
    found = judge(retained((before, before)), {"retention_drop": Bound(at_most=0.02)})
    assert found["verdict"] == "INCONCLUSIVE"
    assert "measured by their loss alone" in found["reasons"][0]


def test_of_one_loss_it_is_not_said_that_more_will_not_help() -> None:
    one = [Result(id="1", set="text", nats_per_token=2.0)]
    scores = retained(kept(500, 0, "copy"), (one, one))
    (reason,) = judge(scores, {"retention_drop": Bound(at_most=0.02)})["reasons"]
    assert "by an amount too few items can tell" in reason
    assert "hardly" not in reason + retention_text(scores["retention"])
