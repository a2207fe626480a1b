from __future__ import annotations

import math
import random
from functools import cache
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from eval import statistics as s

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I.
@pytest.mark.parametrize(
    ("k", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_intervals_equal_the_published_ones(
    k: int, n: int, score: tuple[float, float], exact: tuple[float, float]
) -> None:
    assert s.wilson(k, n) == pytest.approx(score, abs=5e-5)
    assert two_sided(k, n) == pytest.approx(exact, abs=5e-5)


def two_sided(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval, which the published values are of: a bound on each side, each at half the error."""
    each = (1 + confidence) / 2
    return s.clopper_pearson_bound(k, n, "lower", each), s.clopper_pearson_bound(k, n, "upper", each)


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_equal_scipys(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    both = binomtest(k, n)
    assert s.wilson(k, n, confidence) == pytest.approx(tuple(both.proportion_ci(confidence, "wilson")), abs=1e-9)
    assert two_sided(k, n, confidence) == pytest.approx(tuple(both.proportion_ci(confidence, "exact")), abs=1e-9)
    # scipy's one-sided intervals: "greater" bounds from below
    lower = binomtest(k, n, alternative="greater").proportion_ci(confidence, "exact").low
    upper = binomtest(k, n, alternative="less").proportion_ci(confidence, "exact").high
    assert s.clopper_pearson_bound(k, n, "lower", confidence) == pytest.approx(lower, abs=1e-9)
    assert s.clopper_pearson_bound(k, n, "upper", confidence) == pytest.approx(upper, abs=1e-9)


@given(COUNTS)
def test_a_rate_lies_in_its_interval_and_the_interval_in_0_to_1(counts: tuple[int, int]) -> None:
    found = s.rate(*counts)
    assert found is not None
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_nothing_of_nothing_has_no_rate() -> None:
    assert s.rate(0, 0) is None
    with pytest.raises(ValueError, match="no share"):
        s.wilson(1, 0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_exact_binomial_test(b: int, c: int) -> None:
    expected = binomtest(min(b, c), b + c).pvalue if b + c else 1.0
    assert s.mcnemar(b, c) == pytest.approx(expected)


def test_holm_adjusts_for_the_number_of_tests() -> None:
    # Holm's step-down by hand: 3·0.01, 2·0.03, then never below what came before.
    assert s.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert s.holm([0.9, 0.8]) == [1.0, 1.0]


@cache
def bounds_of(n: int) -> list[tuple[int, int, s.Interval]]:
    return [(b, c, s.paired_bounds(b, c, n)) for b in range(n + 1) for c in range(n + 1 - b)]


def exact_errors(n: int, p: float, q: float) -> tuple[float, float]:
    """How often the lower and the upper bound miss the true difference q − p, summed over every possible sample."""
    lower = upper = 0.0
    p_of_b = binom.pmf(range(n + 1), n, p)
    p_of_c = {b: binom.pmf(range(n + 1), n - b, q / (1 - p)) for b in range(n + 1) if p_of_b[b] > 1e-12}
    for b, c, bounds in bounds_of(n):
        if b in p_of_c:
            weight = p_of_b[b] * p_of_c[b][c]
            lower += weight * (bounds.low > q - p + 1e-9)
            upper += weight * (bounds.high < q - p - 1e-9)
    return lower, upper


@pytest.mark.parametrize("n", [30, 60, 100])
def test_the_paired_bounds_err_in_at_most_five_per_cent_of_samples(n: int) -> None:
    shares = [(0.0, 0.02), (0.005, 0.02), (0.02, 0.02), (0.02, 0.2), (0.05, 0.1), (0.1, 0.1), (0.2, 0.45), (0.0, 0.5)]
    errors = [exact_errors(n, p, q) for one in shares for p, q in (one, one[::-1])]
    assert max(max(pair) for pair in errors) <= 0.05
    assert max(max(pair) for pair in errors) > 0.03, "a bound this wide would waste items"


def test_without_discordant_items_the_bound_is_what_none_of_n_leaves_open() -> None:
    bounds = s.paired_bounds(0, 0, 100)
    assert bounds.low == pytest.approx(-(1 - 0.05 ** (1 / 100)))
    assert bounds.high == pytest.approx(1 - 0.05 ** (1 / 100))


@given(st.integers(1, 200), st.data())
def test_paired_bounds_hold_the_difference_and_mirror(n: int, data: st.DataObject) -> None:
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    low, high = s.paired_bounds(b, c, n)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert s.paired_bounds(c, b, n) == pytest.approx((-high, -low))


def test_paired_bounds_come_near_the_normal_ones_for_many_items() -> None:
    n, b, c = 20_000, 900, 1100
    error = math.sqrt((b + c) / n - ((c - b) / n) ** 2) / math.sqrt(n)
    assert s.paired_bounds(b, c, n).low == pytest.approx((c - b) / n - 1.645 * error, abs=2e-4)


def test_a_mean_of_single_items_has_the_textbook_standard_error() -> None:
    values = [1.0, 0.0, -1.0, 0.5, 0.25]
    mean = s.clustered_mean(values, range(5))
    assert mean.standard_error == pytest.approx(stdev(values) / math.sqrt(5))


def test_copies_in_one_group_add_no_certainty() -> None:
    values = [1.0, 0.0, -1.0, 0.5, 0.25]
    alone = s.clustered_mean(values, range(5))
    copied = s.clustered_mean([v for v in values for _ in range(10)], [i for i in range(5) for _ in range(10)])
    assert copied.value == pytest.approx(alone.value)
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert s.effective_n(copied, [v for v in values for _ in range(10)]) <= 5
    assert s.effective_n(alone, values) == 5


def test_one_group_gives_no_standard_error() -> None:
    assert s.clustered_mean([1.0, 0.0], ["a", "a"]).standard_error is None


def test_groups_without_any_change_count_as_one_item_each() -> None:
    values = [0.0] * 40
    mean = s.clustered_mean(values, [i // 10 for i in range(40)])
    assert s.effective_n(mean, values) == 4


def test_weights_are_tokens() -> None:
    mean = s.clustered_mean([1.0, 3.0], [0, 1], [3.0, 1.0])
    assert mean.value == pytest.approx(1.5)


def test_clustered_bounds_err_as_rarely_as_they_say() -> None:
    """Groups of eight that mostly change together; the true difference is 0."""
    draw, misses, trials = random.Random(5), 0, 600
    for _ in range(trials):
        values, groups = [], []
        for group in range(40):
            mood = draw.choice([-0.4, 0.4])
            for _ in range(8):
                values.append(float(math.copysign(1, mood)) if draw.random() < abs(mood) else 0.0)
                groups.append(group)
        mean = s.clustered_mean(values, groups)
        share = s.effective_n(mean, values) / len(values)
        falls, rises = values.count(-1.0), values.count(1.0)
        naive = s.paired_bounds(falls, rises, len(values)).low
        bound = s.paired_bounds(falls * share, rises * share, len(values) * share).low
        assert bound <= naive + 1e-12
        misses += bound > 0
    # 0.05 and three standard errors of 600 draws
    assert misses / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@given(st.integers(1, 5000), st.integers(1, 200_000))
def test_the_smallest_n_is_the_smallest(start: int, limit: int) -> None:
    assert s.smallest_n(lambda n: n >= limit, start) == max(start, limit)


def test_what_never_settles_has_no_n() -> None:
    assert s.smallest_n(lambda n: False, 1) is None
