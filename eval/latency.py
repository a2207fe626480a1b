"""What answers cost: seconds and tokens. Measured, so two runs never agree on it: no verdict rests on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval.predictions import Prediction

QUANTILES = {"p50": 0.5, "p95": 0.95}


def latency_numbers(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """{"seconds", "tokens"}, each {"n", "mean", "p50", "p95", "max"} or None; None where nothing was measured."""
    seconds = _spread([one.latency_seconds for one in predictions if one.latency_seconds is not None])
    tokens = _spread([float(one.tokens) for one in predictions if one.tokens is not None])
    return {"seconds": seconds, "tokens": tokens} if seconds or tokens else None


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    ordered = sorted(values)
    marks = {name: quantile(ordered, share) for name, share in QUANTILES.items()}
    return {"n": len(ordered), "mean": math.fsum(ordered) / len(ordered), **marks, "max": ordered[-1]}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile by linear interpolation between order statistics (Hyndman & Fan, 1996, type 7; numpy's default)."""
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
