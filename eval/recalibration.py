"""Confidence put right on the calibration split: temperature and isotonic, judged on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.reliability import Answer, Floats, expected_calibration_error

FEWEST = 30  # answers on the calibration split; on fewer a fit is mostly noise
EDGE = 1e-6  # how near to 0 and 1 a confidence may come before its logit is taken


def recalibration_numbers(answers: Sequence[Answer], held_out: Sequence[Answer] | None) -> dict[str, Any]:
    """{"n", "reason", "before", "temperature", "isotonic"}: ECE and Brier score of `answers` before and after.

    Both maps are fitted on `held_out` alone. Where they cannot be, they are None and `reason` says why.
    """
    n = len(held_out or ())
    found: dict[str, Any] = {"n": n, "reason": None, "before": _quality(answers), "temperature": None, "isotonic": None}
    if not held_out or n < FEWEST:
        why = f"the calibration split holds {n} answers with a confidence and at least {FEWEST} are needed"
        return {**found, "reason": why}
    if len({one.right for one in held_out}) < 2:
        kind = "right" if held_out[0].right else "wrong"
        return {**found, "reason": f"all {n} answers on the calibration split are {kind}: there is nothing to fit"}
    temperature = fit_temperature(held_out)
    found["temperature"] = {"value": temperature, **_quality(apply_temperature(answers, temperature))}
    found["isotonic"] = _quality(isotonic(answers, held_out))
    return found


def _quality(answers: Sequence[Answer]) -> dict[str, float]:
    brier = sum((one.confidence - one.right) ** 2 for one in answers) / len(answers)
    return {"ece": expected_calibration_error(answers), "brier": float(brier)}


def _logits(answers: Sequence[Answer]) -> Floats:
    clipped = np.clip([one.confidence for one in answers], EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def fit_temperature(held_out: Sequence[Answer]) -> float:
    """The T in [0.01, 100] that makes σ(logit(confidence) / T) likeliest (Guo et al., 2017; Platt's with no offset)."""
    from scipy.optimize import minimize_scalar

    logits = _logits(held_out)
    signs = np.where([one.right for one in held_out], 1.0, -1.0)

    def loss(log_t: float) -> float:
        return float(np.logaddexp(0.0, -signs * logits / np.exp(log_t)).mean())

    bounds = (np.log(0.01), np.log(100.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def apply_temperature(answers: Sequence[Answer], temperature: float) -> list[Answer]:
    """The answers with σ(logit(confidence) / T) as their confidence."""
    from scipy.special import expit

    scaled = expit(_logits(answers) / temperature)
    return [Answer(float(new), one.right) for new, one in zip(scaled, answers, strict=True)]


def isotonic(answers: Sequence[Answer], held_out: Sequence[Answer]) -> list[Answer]:
    """The answers with the never falling step function that fits `held_out` best (Zadrozny & Elkan, 2002)."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit([one.confidence for one in held_out], [float(one.right) for one in held_out])
    fitted = model.predict([one.confidence for one in answers])
    return [Answer(float(new), one.right) for new, one in zip(fitted, answers, strict=True)]
