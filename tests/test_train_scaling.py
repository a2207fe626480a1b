"""The adapter's scale: what counts as wanted, what counts as kept, and which scale is taken."""

from __future__ import annotations

import math

import pytest

from curate.behaviour import Abstain, Answer, Behaviour, Output
from curate.pairs import Pair
from train.items import Item
from train.recipe import AdapterScale
from train.scaling import check_scale, describe, is_kept, is_wanted, paired_drop, sweep

BEHAVIOUR = Behaviour(
    name="x",
    prompt="{{ question }}",
    output=Output(format="json"),
    abstain=Abstain(where="/status", equals="unknown", output={"status": "unknown", "answer": None}),
    answer=Answer(at="/answer"),
    schema_document={"type": "object", "required": ["status", "answer"]},
)
ANSWERABLE = Pair(id="a", question="q", output={"status": "answered", "answer": "red"}, answerable=True)
UNANSWERABLE = Pair(id="u", question="q", output={"status": "unknown", "answer": None}, answerable=False)
ITEMS = [Item(id=str(i), set="s" if i < 50 else "t", prompt=str(i), answer="x") for i in range(100)]


@pytest.mark.parametrize(
    ("pair", "text", "wanted"),
    [
        (ANSWERABLE, '{"status": "answered", "answer": "Red"}', True),
        (ANSWERABLE, '{"status": "answered", "answer": "blue"}', False),
        (ANSWERABLE, '{"status": "unknown", "answer": null}', False),
        (ANSWERABLE, '```{"status": "answered", "answer": "red"}```', False),
        (ANSWERABLE, '{"answer": "red"}', False),
        (UNANSWERABLE, '{"status": "unknown", "answer": null}', True),
        (UNANSWERABLE, '{"status": "unknown", "answer": "red"}', False),
        (UNANSWERABLE, '{"status": "answered", "answer": "red"}', False),
        (UNANSWERABLE, "", False),
    ],
)
def test_wanted(pair: Pair, text: str, wanted: bool) -> None:
    assert is_wanted(BEHAVIOUR, pair, text) is wanted


def test_drop_by_hand() -> None:
    # 100 items, 8 lost and 2 gained: drop 0.06, variance of the differences 0.10 − 0.06²
    base = [True] * 90 + [False] * 10
    tuned = [False] * 8 + [True] * 82 + [True] * 2 + [False] * 8
    drop = paired_drop(base, tuned)
    error = math.sqrt((0.10 - 0.06**2) / 100)
    assert drop["drop"] == pytest.approx(0.06)
    assert drop["high"] == pytest.approx(0.06 + 1.6448536 * error)
    assert drop["low"] == pytest.approx(0.06 - 1.6448536 * error)


def test_no_change_in_few_items_proves_nothing() -> None:
    assert paired_drop([True] * 20, [True] * 20)["high"] > 0.02
    assert paired_drop([True] * 400, [True] * 400)["high"] < 0.02


def test_kept_by_the_bound_where_there_are_enough_items_else_by_the_estimate() -> None:
    assert is_kept({"drop": 0.01, "high": 0.05, "low": -0.03, "n": 100}, 0.02)  # too few to prove: the estimate
    assert not is_kept({"drop": 0.03, "high": 0.07, "low": -0.01, "n": 100}, 0.02)
    assert not is_kept({"drop": 0.015, "high": 0.03, "low": 0.0, "n": 3000}, 0.02)  # enough: the bound
    assert is_kept({"drop": 0.0, "high": 0.01, "low": -0.01, "n": 3000}, 0.02)


def forgetting(lost: dict[float, int]):  # type: ignore[no-untyped-def]
    def answer(scale: float) -> tuple[list[bool], list[bool]]:
        return [True] * int(10 * scale) + [False] * (10 - int(10 * scale)), [False] * lost[scale] + [True] * (
            100 - lost[scale]
        )

    return answer


def test_the_largest_scale_that_keeps_retention() -> None:
    guard = AdapterScale(candidates=(1.0, 0.25, 0.5))
    scale, curve, kept = sweep(forgetting({0.0: 0, 0.25: 0, 0.5: 2, 1.0: 30}), ITEMS, guard)
    assert (scale, kept) == (0.5, True)
    assert [point["scale"] for point in curve] == [0.0, 0.25, 0.5, 1.0]
    assert [point["task"] for point in curve] == [0.0, 0.2, 0.5, 1.0]
    assert curve[2]["retention"] == {"all": 0.98, "s": 0.96, "t": 1.0}
    assert "too few items to prove it" in describe(scale, curve, kept, guard.margin)


def test_where_no_scale_keeps_retention_the_smallest_is_taken_and_said() -> None:
    guard = AdapterScale(candidates=(0.5, 1.0))
    scale, curve, kept = sweep(forgetting({0.0: 0, 0.5: 20, 1.0: 30}), ITEMS, guard)
    assert (scale, kept) == (0.5, False)
    assert "no adapter scale keeps retention" in describe(scale, curve, kept, guard.margin)


def test_one_set_that_is_lost_is_not_made_up_for_by_the_others() -> None:
    items = [Item(id=str(i), set="few" if i < 30 else "many", prompt=str(i), answer="x") for i in range(3000)]

    def answer(scale: float) -> tuple[list[bool], list[bool]]:
        return [], [i >= (10 if scale == 1.0 else 0) for i in range(3000)]

    scale, curve, _ = sweep(answer, items, AdapterScale(candidates=(0.5, 1.0)))
    assert curve[2]["retention_drop"]["high"] < 0.02
    assert scale == 0.5


def test_a_scale_that_no_longer_does_the_task_is_a_finding() -> None:
    guard = AdapterScale(candidates=(0.05, 1.0))
    scale, curve, kept = sweep(forgetting({0.0: 0, 0.05: 0, 1.0: 30}), ITEMS, guard)
    assert (scale, kept) == (0.05, True)
    (found,) = check_scale({"scale": scale, "scaling": {"curve": curve}})
    assert (found.rule, found.level) == ("scale-without-task", "warning")
    assert found.message == "at scale 0.05 none of 10 validation pairs is answered as wanted; at scale 1, 100% are"
    assert found.message in describe(scale, curve, kept, guard.margin)
    assert check_scale({"scale": 1.0, "scaling": {"curve": curve}}) == []
    assert check_scale({"scale": 1.0, "scaling": None}) == []


def test_items_that_the_base_cannot_answer_are_said_to_show_nothing() -> None:
    items = [Item(id=str(i), prompt=str(i), answer="x") for i in range(400)]
    scale, curve, kept = sweep(lambda _: ([True], [False] * 400), items, AdapterScale())
    assert "the base itself answers only 0.0% of these items" in describe(scale, curve, kept, 0.02)
