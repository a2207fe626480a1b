from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from curate.errors import PredictionError
from eval.retention import Result, read_results, retention_numbers
from eval.statistics import paired_bounds


def results(grades: list[bool], **more: Any) -> list[Result]:
    return [Result(id=str(i), correct=one, **more) for i, one in enumerate(grades)]


def losses(values: list[float], **more: Any) -> list[Result]:
    return [Result(id=str(i), nats_per_token=one, **more) for i, one in enumerate(values)]


def discordant(n: int, only_base: int, only_tuned: int) -> tuple[list[Result], list[Result]]:
    """`n` items: the first are right with the base alone, the next with the tuned model alone, the rest with both."""
    base = [True] * only_base + [False] * only_tuned + [True] * (n - only_base - only_tuned)
    tuned = [False] * only_base + [True] * only_tuned + [True] * (n - only_base - only_tuned)
    return results(base), results(tuned)


def test_the_numbers_of_a_set() -> None:
    found = retention_numbers(*discordant(1000, 12, 10))["sets"]["all"]
    assert found["base"]["value"] == 0.99
    assert found["tuned"]["value"] == 0.988
    assert found["difference"] == pytest.approx(-0.002)
    assert (found["only_base"], found["only_tuned"]) == (12, 10)
    assert found["mcnemar_p"] == pytest.approx(binomtest(10, 22).pvalue)
    assert found["low"] < found["bound"] < found["difference"] < found["opposite_bound"] < found["high"]
    assert found["bound"] == pytest.approx(-0.0107, abs=1e-4)
    assert found["standard_error"] == pytest.approx(0.00469, abs=1e-5)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [((1000, 12, 10), True), ((1000, 80, 10), False), ((100, 1, 1), None), ((1000, 0, 50), True)],
)
def test_a_set_is_non_inferior_inferior_or_open(case: tuple[int, int, int], verdict: bool | None) -> None:
    found = retention_numbers(*discordant(*case))
    assert found["non_inferior"] is verdict
    assert found["sets"]["all"]["non_inferior"] is verdict


@pytest.mark.parametrize("right", [0, 4])
def test_a_base_that_answers_nothing_has_nothing_to_lose_and_proves_nothing(right: int) -> None:
    grades = [True] * right + [False] * (200 - right)
    found = retention_numbers(results(grades), results(grades))
    assert found["non_inferior"] is None
    assert found["sets"]["all"]["silent"]
    assert found["sets"]["all"]["needed_n"] is None
    more = [True] * 5 + [False] * 195
    assert not retention_numbers(results(more), results(more))["sets"]["all"]["silent"]


def grouped(n: int, size: int, lost: int) -> tuple[list[Result], list[Result]]:
    base = [Result(id=str(i), group=i // size, correct=True) for i in range(n)]
    return base, [one.model_copy(update={"correct": i >= lost}) for i, one in enumerate(base)]


def test_an_item_lost_proves_no_more_than_none_lost() -> None:
    bounds = [retention_numbers(*grouped(500, 10, lost))["sets"]["all"]["bound"] for lost in (0, 1, 3, 9)]
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize(("n", "groups"), [(25, 7), (29, 15), (35, 29)])
def test_groups_that_all_change_have_a_bound(n: int, groups: int) -> None:
    base = [Result(id=str(i), group=i % groups, correct=False) for i in range(n)]
    tuned = [one.model_copy(update={"correct": True}) for one in base]
    assert retention_numbers(base, tuned)["sets"]["all"]["difference"] == 1


@pytest.mark.parametrize("n", [1, 5, 60, 148])
def test_few_items_without_a_change_prove_nothing(n: int) -> None:
    found = retention_numbers(*discordant(n, 0, 0))["sets"]["all"]
    assert found["non_inferior"] is None
    assert found["bound"] == pytest.approx(-(1 - 0.05 ** (1 / n)))
    assert found["needed_n"] == 149  # 0.98 ** 149 is the first below 0.05
    assert retention_numbers(*discordant(149, 0, 0))["non_inferior"] is True


@given(st.integers(20, 150), st.integers(0, 3), st.integers(0, 3))
def test_the_items_needed_settle_it_at_the_shares_seen(n: int, falls: int, rises: int) -> None:
    found = retention_numbers(*discordant(n, falls, rises))["sets"]["all"]
    needed = found["needed_n"]
    if needed is None:
        assert found["non_inferior"] is not None or (falls - rises) / n >= 0.02
        return
    assert found["non_inferior"] is None
    shares = falls / n, rises / n
    assert paired_bounds(shares[0] * needed, shares[1] * needed, needed).low > -0.02


@pytest.mark.parametrize(("n", "falls", "rises"), [(400, 6, 3), (150, 2, 0), (150, 1, 1)])
def test_the_items_needed_settle_it_four_times_in_five(n: int, falls: int, rises: int) -> None:
    needed = retention_numbers(*discordant(n, falls, rises))["sets"]["all"]["needed_n"]
    shares = [falls / n, rises / n, 1 - (falls + rises) / n]
    drawn = np.random.default_rng(7).multinomial(needed, shares, 1500)
    assert np.mean([paired_bounds(a, b, needed).low > -0.02 for a, b, _ in drawn]) == pytest.approx(0.8, abs=0.05)


def test_a_few_groups_that_fell_whole_are_not_hidden_by_small_changes_in_many() -> None:
    """Three groups of ten carry the fall, thirty others one rise each: nobody knows how many more such groups are."""
    fell = [(f"fell-{g}", True, False) for g in range(3) for _ in range(10)]
    rose = [(f"rose-{g}", item > 0, True) for g in range(30) for item in range(10)]
    kept = [(f"kept-{g}", True, True) for g in range(60) for _ in range(10)]
    items = [*fell, *rose, *kept]
    base, tuned = (
        [Result(id=str(i), correct=one[side], group=one[0]) for i, one in enumerate(items)] for side in (1, 2)
    )
    found = retention_numbers(base, tuned)["sets"]["all"]
    assert found["difference"] == 0
    assert found["effective_n"] <= found["groups"] == 93
    assert found["non_inferior"] is None


def test_every_set_must_pass_and_the_worst_one_is_named() -> None:
    steady = discordant(1000, 5, 5)
    fallen = discordant(400, 60, 2)
    base = [one.model_copy(update={"set": "copy"}) for one in steady[0]]
    base += [one.model_copy(update={"set": "count"}) for one in fallen[0]]
    tuned = [one.model_copy(update={"set": "copy"}) for one in steady[1]]
    tuned += [one.model_copy(update={"set": "count"}) for one in fallen[1]]
    found = retention_numbers(base, tuned)
    assert found["non_inferior"] is False
    assert [one["non_inferior"] for one in found["sets"].values()] == [True, False]
    assert found["drop"]["set"] == "count"
    assert found["drop"]["value"] == pytest.approx(58 / 400)
    assert found["drop"]["low"] < found["drop"]["value"] < found["drop"]["high"]


def test_the_margin_decides() -> None:
    case = discordant(1000, 40, 10)
    assert retention_numbers(*case, margin=0.02)["non_inferior"] is None
    assert retention_numbers(*case, margin=0.10)["non_inferior"] is True
    assert retention_numbers(*case, margin=0.0)["non_inferior"] is False


def test_copies_within_groups_do_not_tighten_the_bound() -> None:
    base, tuned = discordant(200, 4, 3)
    alone = retention_numbers(base, tuned)["sets"]["all"]

    def copied(some: list[Result], grouped: bool) -> list[Result]:
        return [
            Result(id=f"{one.id}-{k}", correct=one.correct, group=one.id if grouped else None)
            for one in some
            for k in range(8)
        ]

    grouped = retention_numbers(copied(base, True), copied(tuned, True))["sets"]["all"]
    naive = retention_numbers(copied(base, False), copied(tuned, False))["sets"]["all"]
    assert grouped["groups"] == 200
    assert naive["groups"] is None
    assert grouped["bound"] == pytest.approx(alone["bound"], abs=5e-4)
    assert naive["bound"] > alone["bound"] + 0.005
    assert grouped["standard_error"] == pytest.approx(alone["standard_error"])


def test_one_group_can_prove_nothing() -> None:
    base, tuned = discordant(500, 0, 0)
    one_group = [[one.model_copy(update={"group": "only"}) for one in some] for some in (base, tuned)]
    assert retention_numbers(*one_group)["non_inferior"] is None


def test_losses_are_in_nats_per_token_and_bounded_by_students_t() -> None:
    draw = random.Random(3)
    before = [draw.uniform(1, 3) for _ in range(40)]
    after = [one + draw.gauss(0.01, 0.02) for one in before]
    found = retention_numbers(losses(before), losses(after))
    one = found["sets"]["all"]
    assert found["drop"] is None
    assert one["kind"] == "loss"
    assert found["non_inferior"] is True
    test = ttest_rel(after, before)
    assert one["bound"] == pytest.approx(test.confidence_interval(0.90).high)
    assert (one["low"], one["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert retention_numbers(losses(before), losses([x + 0.2 for x in after]))["non_inferior"] is False


def test_losses_weigh_by_tokens_and_say_how_many_items_are_missing() -> None:
    before = [Result(id="a", nats_per_token=2.0, tokens=300), Result(id="b", nats_per_token=1.0, tokens=100)]
    after = [Result(id="a", nats_per_token=2.0, tokens=300), Result(id="b", nats_per_token=1.08, tokens=100)]
    one = retention_numbers(before, after)["sets"]["all"]
    assert one["base"] == pytest.approx(1.75)
    assert one["difference"] == pytest.approx(0.02)
    assert one["non_inferior"] is None
    assert one["needed_n"] > 2
    lonely = retention_numbers(before[:1], after[:1])["sets"]["all"]
    assert lonely["bound"] is lonely["non_inferior"] is lonely["needed_n"] is None


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60), st.randoms())
def test_order_does_not_matter_and_bounds_surround(items: list[tuple[bool, bool, int]], order: random.Random) -> None:
    base = [Result(id=str(i), correct=b, group=g) for i, (b, _, g) in enumerate(items)]
    tuned = [Result(id=str(i), correct=t, group=g) for i, (_, t, g) in enumerate(items)]
    found = retention_numbers(base, tuned)
    one = found["sets"]["all"]
    assert -1 <= one["low"] <= one["bound"] <= one["difference"] <= one["opposite_bound"] <= one["high"] <= 1
    json.dumps(found, allow_nan=False)
    order.shuffle(tuned)
    again = retention_numbers(base[::-1], tuned)["sets"]["all"]
    assert again["bound"] == pytest.approx(one["bound"])
    assert again["mcnemar_p"] == one["mcnemar_p"]


@pytest.mark.parametrize(
    ("base", "tuned", "message"),
    [
        ([{"id": "a", "correct": True}], [{"id": "b", "correct": True}], "done by one model only"),
        ([{"id": "a", "correct": True}], [{"id": "a", "correct": True, "set": "x"}], "done by one model only"),
        ([{"id": "a", "correct": True}], [{"id": "a", "nats_per_token": 1.0}], "a loss on one side"),
        (
            [{"id": "a", "correct": True}, {"id": "b", "nats_per_token": 1.0}],
            [{"id": "a", "correct": True}, {"id": "b", "nats_per_token": 1.0}],
            "mixes losses and grades",
        ),
        ([], [], "no item"),
    ],
)
def test_what_is_not_paired_is_refused(base: list[Any], tuned: list[Any], message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        retention_numbers([Result(**one) for one in base], [Result(**one) for one in tuned])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a"}', "exactly one of correct"),
        ('{"id": "a", "correct": true, "nats_per_token": 1}', "exactly one of correct"),
        ('{"id": "a", "correct": "yes"}', "correct"),
        ('{"id": "a", "correct": 0.5}', "correct"),
        ('{"correct": true}', "id"),
        ('{"id": "a", "nats_per_token": NaN}', "NaN"),
        ('{"id": "a", "nats_per_token": 1, "tokens": 0}', "tokens"),
        ("nonsense", "not valid JSON"),
        ('{"id": "ok", "correct": true}', "stands twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "ok", "correct": 1}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(PredictionError, match=message) as raised:
        read_results(file)
    assert raised.value.where == f"{file}, line 3"


def test_files_are_read_with_sets_groups_and_numbers_for_grades(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "a", "correct": 1.0, "set": "s", "group": 3, "more": []}\n{"id": "a", "correct": false}\n')
    assert [(one.key, one.correct, one.group) for one in read_results(file)] == [
        (("s", "a"), True, 3),
        (("all", "a"), False, None),
    ]
    file.write_text("\n")
    with pytest.raises(PredictionError, match="no results"):
        read_results(file)
    with pytest.raises(PredictionError, match="no such file"):
        read_results(tmp_path / "nothing.jsonl")
    with pytest.raises(PredictionError, match="cannot be read"):
        read_results(tmp_path)
