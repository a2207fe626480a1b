"""Whether raw outputs are the JSON that a schema asks for, as a Hugging Face `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from curate.pairs import Pair
from eval.metrics import CITATION, behaviour_of, pairs_of
from eval.schema import read_output, schema_numbers

_DESCRIPTION = """
The share of raw outputs that are exactly one JSON value (RFC 8259: no fence, no prose, no NaN, no duplicate keys) that
validates, formats asserted; what is broken first where they are not; and, per field, whether it is there, valid, right.
"""
_INPUTS = """
Args:
    predictions: the raw texts.
    behaviour: a behaviour.yaml (its path), or
    schema: a JSON Schema (a dict, or the path of its file).
    pairs: the pairs, each a record or a line of pairs.jsonl; then `fields` also say how many are right.
    finish: "stop" or "length" for each text, where known.
Returns:
    adherence, recoverable, violations and fields; rates as {"value", "low", "high", "n"} with 95 % Wilson intervals.
Examples:
    >>> metric = evaluate.load("eval/metrics/schema_adherence")
    >>> metric.compute(predictions=['{"a": 1}', 'no'], schema={"required": ["a"]})["adherence"]["value"]
    0.5
"""


class SchemaAdherence(evaluate.Metric):  # type: ignore[misc]
    """`eval.schema.schema_numbers`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: Sequence[str],
        behaviour: Any = None,
        schema: Any = None,
        pairs: Sequence[Any] | None = None,
        finish: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        rules = behaviour_of(behaviour, schema)
        ends = finish if finish is not None else [None] * len(predictions)
        readings = [read_output(rules, text, end) for text, end in zip(predictions, ends, strict=True)]
        # without pairs nothing is wanted, so that `correct` has no denominator
        unknown = [Pair(id="unknown", question="", output=None)] * len(predictions)
        asked = unknown if pairs is None else pairs_of(pairs, len(predictions))
        return schema_numbers(rules, asked, readings)
