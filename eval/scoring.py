"""Graded predictions become scores: the numbers made from the grades, the verdict from those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.pairs import Pair
from eval.abstention import RIGHT, abstention_numbers, honesty_numbers
from eval.calibration import calibration_numbers
from eval.gate import judge
from eval.grading import Graded, answers_of, grade
from eval.grounding import grounding_numbers
from eval.latency import latency_numbers
from eval.predictions import Prediction, Predictions
from eval.schema import schema_numbers
from eval.slices import slice_numbers
from eval.statistics import CONFIDENCE, mcnemar, paired_bounds, rate
from eval.vocabulary import vocabulary_numbers

PARTS = ("schema", "abstention", "calibration", "grounding", "vocabulary", "retention")

Calibration = tuple[Sequence[Pair], Predictions]


def score_predictions(
    behaviour: Behaviour,
    pairs: Sequence[Pair],
    predictions: Predictions,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """{"n", "schema", "abstention", "calibration", "grounding", …, "outcomes"} of the pairs that have a prediction.

    `calibration` is the calibration split with its predictions: the threshold is chosen there. `outcomes` maps each
    pair's id to its cell, for paired comparisons.
    """
    return score_graded(behaviour, grade(behaviour, pairs, predictions), calibration)


def score_graded(
    behaviour: Behaviour,
    graded: Sequence[Graded],
    calibration: Calibration | None = None,
    closed_book: Mapping[str, Prediction] | None = None,
    slices: Sequence[str] = (),
) -> dict[str, Any]:
    """`score_predictions` for what is graded already.

    `closed_book` are answers given without passages, `slices` keys of the pairs' `meta` to look at parts by.
    """
    pairs = [one.pair for one in graded]
    readings = [one.reading for one in graded]
    cells = [one.cell for one in graded]
    told = any(one.prediction.abstained is not None for one in graded)
    can_abstain = behaviour.abstain is not None or told
    held_out = None if calibration is None else answers_of(grade(behaviour, *calibration))
    return {
        "n": len(graded),
        "schema": schema_numbers(behaviour, pairs, readings),
        "abstention": abstention_numbers(cells, can_abstain),
        "calibration": calibration_numbers(answers_of(graded), held_out),
        "grounding": grounding_numbers(behaviour, pairs, readings, cells, closed_book),
        "vocabulary": vocabulary_numbers(behaviour, readings, cells),
        "slices": [slice_numbers(graded, key, can_abstain) for key in slices],
        "latency": latency_numbers([one.prediction for one in graded]),
        "outcomes": {one.pair.id: one.cell for one in graded},
    }


def assemble_scores(
    behaviour: Behaviour,
    tuned: Mapping[str, Any],
    baseline: Mapping[str, Any] | None = None,
    retention: Mapping[str, Any] | None = None,
    sources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole of `scores.json`: the verdict under the behaviour's gate, the numbers, and those of the baseline.

    `tuned` and `baseline` are what `score_predictions` gave, `retention` what `retention_numbers` gave.
    """
    numbers = {part: tuned.get(part) for part in PARTS} | {"retention": retention}
    return {
        **judge(numbers, behaviour.gate),
        "n": tuned["n"],
        **numbers,
        "baseline": None if baseline is None else {part: baseline.get(part) for part in PARTS},
        "against_baseline": None if baseline is None else compare_outcomes(baseline["outcomes"], tuned["outcomes"]),
        "honesty": None if baseline is None else honesty_numbers(baseline["outcomes"], tuned["outcomes"]),
        "slices": tuned.get("slices") or [],
        "latency": _latencies(tuned, baseline),
        "sources": dict(sources or {}),
        "outcomes": tuned["outcomes"],
    }


def _latencies(tuned: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{"tuned", "baseline"}: measured, not computed, and so the one key in which two equal runs differ."""
    both = {"tuned": tuned.get("latency"), "baseline": (baseline or {}).get("latency")}
    return both if any(both.values()) else None


def compare_outcomes(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, Any] | None:
    """Right against right on the pairs both answered (abstaining on the unanswerable is right); None without any.

    `difference` is second − first with its two-sided 95 % interval; `mcnemar_p` says how easily chance gives it.
    """
    common = [one for one in first if one in second]
    if not common:
        return None
    only_first = sum(first[one] in RIGHT and second[one] not in RIGHT for one in common)
    only_second = sum(second[one] in RIGHT and first[one] not in RIGHT for one in common)
    low, high = paired_bounds(only_first, only_second, len(common), (1 + CONFIDENCE) / 2)
    return {
        "n": len(common),
        "first": rate(sum(first[one] in RIGHT for one in common), len(common)),
        "second": rate(sum(second[one] in RIGHT for one in common), len(common)),
        "difference": (only_second - only_first) / len(common),
        "low": low,
        "high": high,
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
    }
