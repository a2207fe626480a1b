"""Whether a tuned model still does what its base could, as a Hugging Face `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import datasets
import evaluate

from eval.metrics import CITATION
from eval.retention import LOSS_MARGIN, MARGIN, Result, retention_numbers

_DESCRIPTION = """
Paired non-inferiority of a tuned model against its base, set by set: the difference on the same items, its one-sided
95 % bound (items of one group count as dependent), McNemar's test, and how many items would settle an open question.
"""
_INPUTS = """
Args:
    predictions: what the tuned model did on each item: 1 right, 0 wrong; with kind="loss" its nats per token.
    references: the same for the base, item for item.
    kind: "accuracy" or "loss".
    sets, groups, tokens: for each item its set, the group it depends on, how many tokens its loss is the mean of.
    margin, loss_margin: what may be lost (a share; nats per token).
Returns:
    margin, loss_margin, non_inferior (True, False, or None where the items are too few), drop and sets.
Examples:
    >>> metric = evaluate.load("eval/metrics/retention")
    >>> metric.compute(predictions=[1] * 300, references=[1] * 300)["non_inferior"]
    True
"""


class Retention(evaluate.Metric):  # type: ignore[misc]
    """`eval.retention.retention_numbers`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[float],
        kind: Literal["accuracy", "loss"] = "accuracy",
        sets: Sequence[str] | None = None,
        groups: Sequence[str | int] | None = None,
        tokens: Sequence[int] | None = None,
        margin: float = MARGIN,
        loss_margin: float = LOSS_MARGIN,
    ) -> dict[str, Any]:
        beside = {"set": sets, "group": groups, "tokens": tokens}
        key = "correct" if kind == "accuracy" else "nats_per_token"
        for name, given in beside.items():
            if given is not None and len(given) != len(predictions):
                raise ValueError(f"there are {len(predictions)} items and {len(given)} of {name}")

        def results(values: Sequence[float]) -> list[Result]:
            lines = (
                {"id": str(i), key: value, **{name: given[i] for name, given in beside.items() if given is not None}}
                for i, value in enumerate(values)
            )
            return [Result.model_validate(line) for line in lines]

        return retention_numbers(results(references), results(predictions), margin, loss_margin)
