"""The same model on parts of the test split: by any key of the pairs' `meta`, the worst part first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eval.abstention import RIGHT, abstention_numbers
from eval.grading import Graded
from eval.statistics import rate

MOST_VALUES = 100  # a key with more values than that (an id, a date) slices nothing a person would read


def slice_numbers(graded: Sequence[Graded], key: str, can_abstain: bool = True) -> dict[str, Any]:
    """{"key", "values", "left_out"} of the outputs by the value of `meta[key]`, dots leading into nested records.

    Each value has `n`, `schema_adherence`, `right` (answered rightly, or rightly abstained), `hallucination_rate` and
    `over_abstention_rate`, as rates; None where there is nothing to divide by. The lowest share of right outputs
    stands first. A pair with a list there counts under each of its items, one without the key under None.
    """
    parts: dict[str | None, list[Graded]] = {}
    for one in graded:
        for value in _values(one.pair.meta, key):
            parts.setdefault(value, []).append(one)
    rows = [{"value": value, **_numbers(part, can_abstain)} for value, part in parts.items()]
    rows.sort(key=lambda row: (row["right"]["value"], -row["n"], str(row["value"])))
    return {"key": key, "values": rows[:MOST_VALUES], "left_out": max(0, len(rows) - MOST_VALUES)}


def _values(meta: Any, key: str) -> list[str | None]:
    found = meta
    for part in [key] if isinstance(meta, dict) and key in meta else key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    values = found if isinstance(found, list) else [found]
    return list(dict.fromkeys(map(_named, values))) or [None]


def _named(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _numbers(part: Sequence[Graded], can_abstain: bool) -> dict[str, Any]:
    numbers = abstention_numbers([one.cell for one in part], can_abstain)
    n = len(part)
    return {
        "n": n,
        "schema_adherence": rate(sum(one.reading.well_formed for one in part), n),
        "right": rate(sum(one.cell in RIGHT for one in part), n),
        "hallucination_rate": numbers["hallucination_rate"],
        "over_abstention_rate": numbers["over_abstention_rate"],
    }
