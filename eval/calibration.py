"""Whether confidence means anything: calibration, selective risk, and a threshold with a guarantee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from curate.power import errorless_n
from eval.recalibration import recalibration_numbers
from eval.reliability import Answer, Floats, arrays, expected_calibration_error, reliability
from eval.statistics import clopper_pearson_bound, rate

RISKS = (0.01, 0.05, 0.10)
ALPHA = DELTA = 0.05
MOST_POINTS = 200  # of the risk-coverage curve that are kept for the picture


class Curve(NamedTuple):
    """Risk against coverage, strict to lax, one point for each distinct confidence (ties are kept or left together)."""

    thresholds: Floats
    kept: Floats  # how many answers have at least that confidence
    errors: Floats  # how many of those are wrong


def calibration_numbers(
    answers: Sequence[Answer],
    held_out: Sequence[Answer] | None = None,
    alpha: float = ALPHA,
    delta: float = DELTA,
) -> dict[str, Any] | None:
    """DESIGN 6's `calibration`; None where no answered output carries a confidence.

    `held_out` are the answers on the calibration split: the threshold is chosen and the recalibration fitted on them
    and nowhere else; what both do is then measured on `answers`.
    """
    if not answers:
        return None
    confidence, right = arrays(answers)
    curve = risk_coverage(answers)
    errors = float(len(right) - right.sum())
    return {
        "n": len(answers),
        "accuracy": rate(int(right.sum()), len(answers)),
        "mean_confidence": float(confidence.mean()),
        "ece": expected_calibration_error(answers),
        "ece_equal_mass": expected_calibration_error(answers, equal_mass=True),
        "brier": float(np.mean((confidence - right) ** 2)),
        "auroc": auroc(answers),
        "aurc": aurc(curve),
        "e_aurc": aurc(curve) - best_aurc(errors / len(answers)),
        "augrc": augrc(curve),
        "coverage_at_risk": {f"{risk:.2f}": coverage_at_risk(curve, risk) for risk in RISKS},
        "reliability": reliability(answers),
        "risk_coverage": _points(curve),
        "threshold": _applied(choose_threshold(held_out, alpha, delta), curve),
        "recalibration": recalibration_numbers(answers, held_out),
    }


def auroc(answers: Sequence[Answer]) -> float | None:
    """The chance that a right answer is surer than a wrong one, ties half (Mann & Whitney); None without both kinds."""
    confidence, right = arrays(answers)
    positives = right.sum()
    negatives = len(right) - positives
    if positives == 0 or negatives == 0:
        return None
    _, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[right == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def risk_coverage(answers: Sequence[Answer]) -> Curve:
    """The points of the risk-coverage curve."""
    confidence, right = arrays(answers)
    values, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=1 - right, minlength=len(values))
    return Curve(values[::-1], np.cumsum(sizes[::-1]).astype(np.float64), np.cumsum(wrong[::-1]))


def aurc(curve: Curve) -> float:
    """Area under selective risk (Geifman & El-Yaniv, 2017) by trapezoids over tie groups, as fd-shifts has it.

    From coverage 0 to the strictest point the risk stays what it is there.
    """
    coverage = np.concatenate([[0.0], curve.kept / curve.kept[-1]])
    risk = curve.errors / curve.kept
    return float(np.trapezoid(np.concatenate([risk[:1], risk]), coverage))


def best_aurc(error_rate: float) -> float:
    """The AURC of a confidence that ranks every error last: e + (1 − e)·ln(1 − e) (Geifman et al., 2019)."""
    return error_rate + (1 - error_rate) * math.log1p(-error_rate) if error_rate < 1 else 1.0


def augrc(curve: Curve) -> float:
    """Area under generalised risk, errors kept over all answers (Traub et al., 2024), by trapezoids."""
    coverage = np.concatenate([[0.0], curve.kept / curve.kept[-1]])
    return float(np.trapezoid(np.concatenate([[0.0], curve.errors]) / curve.kept[-1], coverage))


def coverage_at_risk(curve: Curve, risk: float) -> float:
    """The largest share of the answers that can be given with a selective risk of at most `risk`; 0 for none."""
    inside = curve.kept[curve.errors <= risk * curve.kept + 1e-9]
    return float(inside.max() / curve.kept[-1]) if len(inside) else 0.0


def _points(curve: Curve) -> list[dict[str, float]]:
    """The curve for a picture; thinned out evenly, both ends kept."""
    count = len(curve.kept)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))
    total = curve.kept[-1]
    return [
        {
            "coverage": float(curve.kept[i] / total),
            "risk": float(curve.errors[i] / curve.kept[i]),
            "threshold": float(curve.thresholds[i]),
        }
        for i in chosen
    ]


def choose_threshold(held_out: Sequence[Answer] | None, alpha: float = ALPHA, delta: float = DELTA) -> dict[str, Any]:
    """The lowest confidence to answer at such that selective risk ≤ `alpha` with probability 1 − `delta`.

    Fixed-sequence testing (Angelopoulos et al., 2021, "Learn then Test"; Bauer, 1991): from the strictest confidence
    at which an error-free sample would prove the risk, n ≥ ln δ / ln(1−α), to ever laxer ones while the exact binomial
    upper bound (Clopper-Pearson) stays at or below `alpha`; the last one that passed is the threshold.
    """
    n = len(held_out or ())
    nothing = {"value": None, "alpha": alpha, "delta": delta, "n": n, "kept": None, "risk_bound": None}
    if not held_out:
        why = "no answered output on the calibration split comes with a confidence"
        return {**nothing, "reason": why}
    least = errorless_n(alpha, delta)
    if least is None:
        raise ValueError("no sample proves that there is no risk at all; alpha must be above 0")
    curve = risk_coverage(held_out)
    if curve.kept[-1] < least:
        why = f"the calibration split holds {len(held_out)} answers with a confidence and at least {least} are needed"
        return {**nothing, "reason": why}
    chosen = None
    for value, kept, errors in zip(*curve, strict=True):
        if kept < least:
            continue
        bound = clopper_pearson_bound(errors, kept, "upper", 1 - delta)
        if bound > alpha:
            break
        chosen = {**nothing, "value": float(value), "kept": int(kept), "risk_bound": bound, "reason": None}
    if chosen is not None:
        return chosen
    why = (
        f"{int(errors)} of the {int(kept)} surest answers on the calibration split are wrong: "
        f"that leaves a risk of up to {bound:.1%}, and {alpha:.0%} was asked for"
    )
    return {**nothing, "reason": why}


def _applied(threshold: dict[str, Any], curve: Curve) -> dict[str, Any]:
    """The threshold with what it does on the test split: `coverage` of its answers, and their `risk`."""
    if threshold["value"] is None:
        return {**threshold, "coverage": None, "risk": None}
    strict_enough = int((curve.thresholds >= threshold["value"]).sum())
    if not strict_enough:
        return {**threshold, "coverage": 0.0, "risk": None}
    kept, errors = int(curve.kept[strict_enough - 1]), int(curve.errors[strict_enough - 1])
    return {**threshold, "coverage": kept / float(curve.kept[-1]), "risk": rate(errors, kept)}
