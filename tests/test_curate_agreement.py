"""Agreement: alpha against the `krippendorff` package and Krippendorff's own example, what stands out, pairs wanted."""

from __future__ import annotations

import math
from typing import Any

import krippendorff as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.agreement import (
    agreement_with_others,
    krippendorff,
    pairs_wanted,
    seconds_per_review,
    stand_out,
    wilson,
)
from curate.behaviour import Behaviour

VALUES = "abcd"


def as_matrix(ratings: dict[str, dict[str, str]]) -> Any:
    """The package's form: a row per reviewer, a column per unit, NaN where nothing was said."""
    reviewers = sorted({name for values in ratings.values() for name in values})
    matrix = np.full((len(reviewers), len(ratings)), np.nan)
    for column, (_, values) in enumerate(sorted(ratings.items())):
        for name, value in values.items():
            matrix[reviewers.index(name), column] = VALUES.index(value)
    return matrix


ratings_strategy = st.dictionaries(
    st.integers(0, 40).map(lambda n: f"p{n:02}"),
    st.dictionaries(st.sampled_from(["anna", "ben", "chris", "dora"]), st.sampled_from(VALUES), max_size=4),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(ratings_strategy)
def test_alpha_equals_the_krippendorff_package(ratings: dict[str, dict[str, str]]) -> None:
    mine = krippendorff(ratings, draws=10)
    paired = {name: values for name, values in ratings.items() if len(values) >= 2}
    assert mine.n == len(paired)
    if len({value for values in paired.values() for value in values.values()}) < 2:
        assert mine.alpha is None
        return
    expected = reference.alpha(reliability_data=as_matrix(paired), level_of_measurement="nominal")
    assert mine.alpha == pytest.approx(expected, abs=1e-9)


def test_alpha_of_krippendorffs_own_example() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), part C: nominal alpha is 0.743."""
    rows = ["1 2 3 3 2 1 4 1 2 * * *", "1 2 3 3 2 2 4 1 2 5 * 3", "* 3 3 3 2 3 4 2 2 5 1 *", "1 2 3 3 2 4 4 1 2 5 1 *"]
    units: dict[str, dict[str, str]] = {}
    for reviewer, row in enumerate(rows):
        for unit, value in enumerate(row.split()):
            if value != "*":
                units.setdefault(f"u{unit:02}", {})[f"r{reviewer}"] = value
    assert krippendorff(units).alpha == pytest.approx(0.743, abs=5e-4)


def test_interval_holds_the_value_is_repeatable_and_narrows() -> None:
    def made(n: int) -> dict[str, dict[str, str]]:
        draw = np.random.default_rng(3)
        found = {}
        for unit in range(n):
            truth = VALUES[draw.integers(3)]
            other = truth if draw.random() < 0.8 else VALUES[draw.integers(3)]
            found[f"p{unit:04}"] = {"anna": truth, "ben": other}
        return found

    small, large = krippendorff(made(60)), krippendorff(made(960))
    assert small == krippendorff(made(60))
    for one in (small, large):
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.alpha < one.high
    widths = [one.high - one.low for one in (small, large)]  # type: ignore[operator]
    assert widths[1] < widths[0] / 2.5  # a quarter, give or take


@pytest.mark.parametrize(
    "ratings",
    [{}, {"p1": {"anna": "a"}}, {"p1": {"anna": "a", "ben": "a"}, "p2": {"anna": "a", "ben": "a"}}],
    ids=["nothing", "one reviewer", "one value"],
)
def test_alpha_is_null_where_it_has_no_meaning(ratings: dict[str, dict[str, str]]) -> None:
    one = krippendorff(ratings)
    assert (one.alpha, one.low, one.high) == (None, None, None)


def test_wilson_against_published_values() -> None:
    """Newcombe (1998), table I, method 3: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    rate = wilson(81, 263)
    assert (rate.low, rate.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson(0, 0) == (None, None, None, 0)


def test_who_stands_out() -> None:
    rows = {f"p{n}": {"anna": "a", "ben": "a", "chris": "a", "eve": "b" if n % 2 else "a"} for n in range(60)}
    agreement = agreement_with_others([rows])
    assert agreement["anna"].n == 180
    seconds = {"anna": 40.0, "ben": 50.0, "chris": 3.0, "eve": None}
    assert stand_out("anna", agreement, seconds) == ()
    assert "agrees with the others in 50%" in stand_out("eve", agreement, seconds)[0]
    assert "takes 3 s" in stand_out("chris", agreement, seconds)[0]


def test_breaks_do_not_count_as_slowness() -> None:
    assert seconds_per_review([0, 10, 20, 30, 40, 50, 9000, 9010]) == 10
    assert seconds_per_review([0, 10, 20]) is None


def test_pairs_wanted_count_their_own_kind() -> None:
    behaviour = Behaviour.model_validate(
        {
            "name": "b",
            "prompt": "{{ question }}",
            "output": {"format": "json"},
            "gate": {
                "hallucination_rate": {"at_most": 0.05},
                "schema_adherence": {"at_least": 0.98},
                "retention_drop": {"at_most": 0.02},
                "abstention_recall": {"at_least": 1.0},
            },
        }
    )
    wanted = pairs_wanted(behaviour, answerable=500, unanswerable=100, test_share=0.2)
    assert wanted["hallucination_rate"] == {"test_pairs": 59, "settled_pairs_still_wanted": 195}
    assert wanted["schema_adherence"] == {"test_pairs": 149, "settled_pairs_still_wanted": math.ceil(149 / 0.2) - 600}
    assert wanted["abstention_recall"]["settled_pairs_still_wanted"] is None
    assert "retention_drop" not in wanted
