"""Whether confidence can be believed, and from where on to answer, as a Hugging Face `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from eval.calibration import ALPHA, DELTA, calibration_numbers
from eval.metrics import CITATION
from eval.reliability import Answer

_DESCRIPTION = """
Calibration of answers (ECE with bins of equal width and of equal mass, Brier score, reliability), how well confidence
ranks them (AUROC, AURC, excess AURC, AUGRC, coverage at risk), recalibration, and the lowest confidence to answer at
such that selective risk stays below alpha with probability 1 - delta, chosen on held-out answers and nowhere else.
"""
_INPUTS = """
Args:
    predictions: the confidence of each answer, between 0 and 1.
    references: whether the answer is right (True, False, 1 or 0).
    held_out: (confidences, rights) on the calibration split: the threshold and the recalibration are fitted there.
    alpha, delta: the selective risk to stay below, and how often that may fail.
Returns:
    the numbers of scores.json under "calibration"; None is returned as {} where there is no answer.
Examples:
    >>> metric = evaluate.load("eval/metrics/selective_calibration")
    >>> metric.compute(predictions=[0.9, 0.8, 0.3], references=[1, 1, 0])["auroc"]
    1.0
"""


class SelectiveCalibration(evaluate.Metric):  # type: ignore[misc]
    """`eval.calibration.calibration_numbers`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("bool")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[bool],
        held_out: tuple[Sequence[float], Sequence[bool]] | None = None,
        alpha: float = ALPHA,
        delta: float = DELTA,
    ) -> dict[str, Any]:
        kept = None if held_out is None else _answers(*held_out)
        return calibration_numbers(_answers(predictions, references), kept, alpha, delta) or {}


def _answers(confidences: Sequence[float], rights: Sequence[bool]) -> list[Answer]:
    answers = [Answer(float(one), bool(right)) for one, right in zip(confidences, rights, strict=True)]
    if not all(0 <= one.confidence <= 1 for one in answers):
        raise ValueError("a confidence lies between 0 and 1")
    return answers
