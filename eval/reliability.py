"""Stated confidence against truth: answers in bins, and how far the two lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15

Floats = NDArray[np.float64]


class Answer(NamedTuple):
    """An answered output: the confidence it carries, in [0, 1], and whether it was right."""

    confidence: float
    right: bool


def arrays(answers: Sequence[Answer]) -> tuple[Floats, Floats]:
    """Their confidences, and 1 where they are right."""
    return (
        np.array([one.confidence for one in answers], dtype=np.float64),
        np.array([one.right for one in answers], dtype=np.float64),
    )


def _equal_width(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Bin numbers: [0, 1/bins), …, the last one closed, as torchmetrics has them."""
    return np.minimum(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="right") - 1, bins - 1)


def _equal_mass(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Bin numbers of equal counts, by rank; equal confidences share the bin of their middle rank."""
    _, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2
    return np.minimum((middle / len(confidence) * bins).astype(np.int64), bins - 1)[group]


def expected_calibration_error(answers: Sequence[Answer], bins: int = BINS, equal_mass: bool = False) -> float:
    """Σ over bins of (share of answers) · |accuracy − mean confidence| (Naeini et al., 2015; Guo et al., 2017)."""
    confidence, right = arrays(answers)
    place = (_equal_mass if equal_mass else _equal_width)(confidence, bins)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(answers))


def reliability(answers: Sequence[Answer], bins: int = BINS) -> list[dict[str, Any]]:
    """The equal-width bins of the reliability diagram; confidence and accuracy are None in an empty one."""
    confidence, right = arrays(answers)
    place = _equal_width(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins)
    rights = np.bincount(place, weights=right, minlength=bins)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "n": int(n),
            "confidence": float(sums[i] / n) if n else None,
            "accuracy": float(rights[i] / n) if n else None,
        }
        for i, n in enumerate(counts)
    ]
