"""Answering and abstaining, from both sides, as a Hugging Face `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from eval.abstention import abstention_numbers, cell_of
from eval.metrics import CITATION, behaviour_of, pairs_of
from eval.predictions import Prediction
from eval.schema import read_output

_DESCRIPTION = """
The seven cells an output can fall into (answered right or wrong, abstained, malformed; the question answerable or not)
and what follows from them: precision, recall and F1 of abstaining, hallucination and over-abstention rates, coverage,
accuracy when answered, truthfulness (CRAG) and the penalised scores of Kalai et al. (2025).
"""
_INPUTS = """
Args:
    predictions: the raw texts.
    references: the pairs, each as a line of pairs.jsonl.
    behaviour: the behaviour.yaml (its path): what an abstention is, where the answer stands, how answers compare.
Returns:
    n, counts and the numbers; rates as {"value", "low", "high", "n"}, None where nothing is to be divided by.
Examples:
    >>> metric = evaluate.load("eval/metrics/abstention")
    >>> metric.compute(predictions=texts, references=open("pairs.jsonl").readlines(), behaviour="behaviour.yaml")
"""


class Abstention(evaluate.Metric):  # type: ignore[misc]
    """`eval.abstention.abstention_numbers`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str], behaviour: Any = None) -> dict[str, Any]:
        rules = behaviour_of(behaviour)
        cells = [
            cell_of(rules, pair, Prediction(id=pair.id, output=text), read_output(rules, text))
            for pair, text in zip(pairs_of(references, len(predictions)), predictions, strict=True)
        ]
        return abstention_numbers(cells, can_abstain=rules.abstain is not None)
