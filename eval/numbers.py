"""All numbers of a report as tables, tuned and base in columns; a part without numbers has no table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.canvas import percent
from eval.pictures import Scores, baseline_part, part_of

Row = tuple[str, list[dict[str, str] | None]]

GROUPS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("schema", "Schema", (("adherence", "Adherence"), ("recoverable", "Recoverable by stripping a fence or prose"))),
    (
        "abstention",
        "Abstention",
        (
            ("precision", "Precision"),
            ("recall", "Recall"),
            ("f1", "F1"),
            ("over_abstention_rate", "Over-abstention rate"),
            ("hallucination_rate", "Hallucination rate"),
            ("coverage", "Coverage"),
            ("accuracy_when_answered", "Accuracy when answered"),
            ("truthfulness", "Truthfulness (CRAG, −1 to 1)"),
            ("penalised.0.5", "Penalised score, t = 0.5"),
            ("penalised.0.75", "Penalised score, t = 0.75"),
            ("penalised.0.9", "Penalised score, t = 0.9"),
        ),
    ),
    (
        "calibration",
        "Calibration",
        (
            ("accuracy", "Accuracy of answers with a confidence"),
            ("mean_confidence", "Mean confidence"),
            ("ece", "ECE, 15 equal-width bins"),
            ("ece_equal_mass", "ECE, bins of equal mass"),
            ("brier", "Brier score"),
            ("auroc", "AUROC of confidence"),
            ("aurc", "AURC"),
            ("e_aurc", "Excess AURC"),
            ("augrc", "AUGRC"),
            ("coverage_at_risk.0.01", "Coverage at 1 % risk"),
            ("coverage_at_risk.0.05", "Coverage at 5 % risk"),
            ("coverage_at_risk.0.10", "Coverage at 10 % risk"),
        ),
    ),
    (
        "grounding",
        "Grounding",
        (
            ("presence", "Answers that cite"),
            ("validity", "Citations that exist"),
            ("coverage", "Answers that stand in what they cite"),
            ("mean_overlap", "Mean overlap of answer and citation"),
            ("closed_book", "Right without any passage (memorised)"),
        ),
    ),
)


def rate_cell(value: Any) -> dict[str, str] | None:
    """A number for a table cell: {"text", "interval"}; None where there is none. Rates are shown in per cent."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return {"text": f"{value:.4f}".replace("-", "−") if isinstance(value, float) else f"{value:,}", "interval": ""}
    if value.get("value") is None:
        return None
    low, high, n = value.get("low"), value.get("high"), value.get("n")
    parts = []
    if low is not None and high is not None:
        parts.append(f"[{100 * low:.1f},\u00a0{100 * high:.1f}]".replace("-", "−"))
    parts += [f"n\u00a0=\u00a0{n:,}"] if n is not None else []
    return {"text": percent(value["value"]), "interval": " ".join(parts)}


def numbers(scores: Scores) -> list[dict[str, Any]]:
    """Every table: {"name", "title", "first", "columns", "rows", "sentence"}; the first column names the row."""
    tables = [_part(scores, name, title, keys) for name, title, keys in GROUPS]
    tables += [_recalibration(scores), _honesty(scores), _vocabulary(scores), _costs(scores), _fields(scores)]
    return [one for one in tables if one["rows"]]


def _table(name: str, title: str, columns: list[str], rows: list[Row], sentence: str = "") -> dict[str, Any]:
    shown = [{"label": label, "cells": cells} for label, cells in rows if any(cells)]
    first = {"fields": "Field", "vocabulary": "Term"}.get(name, "Number")
    return {"name": name, "title": title, "first": first, "columns": columns, "rows": shown, "sentence": sentence}


def _part(scores: Scores, name: str, title: str, keys: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    sides = [baseline_part(scores, name)] if scores.get("baseline") else []
    sides.append(part_of(scores, name))
    columns = ["Base", "Tuned"] if len(sides) == 2 else ["Tuned"]
    return _table(name, title, columns, [(label, [rate_cell(_at(one, key)) for one in sides]) for key, label in keys])


def _recalibration(scores: Scores) -> dict[str, Any]:
    found = part_of(scores, "calibration").get("recalibration") or {}
    temperature = found.get("temperature") or {}
    ways = (
        ("As the model gave it", found.get("before")),
        (f"Temperature {temperature.get('value') or 0:.2f}", found.get("temperature")),
        ("Isotonic", found.get("isotonic")),
    )
    rows = [(label, [rate_cell(one["ece"]), rate_cell(one["brier"])]) for label, one in ways if one]
    sentence = f"Fitted on {found.get('n', 0):,} answers of the calibration split, measured on the test split."
    if found.get("reason"):
        sentence = f"Not recalibrated: {found['reason']}."
    return _table("recalibration", "Confidence put right", ["ECE", "Brier score"], rows, sentence)


def _honesty(scores: Scores) -> dict[str, Any]:
    found = part_of(scores, "honesty")
    names = (
        ("prudence", "Prudence: abstains on what the base did not know"),
        ("over_conservativeness", "Over-conservativeness: abstains on what the base had right"),
        ("honesty", "Honesty: mean of prudence and 1 − over-conservativeness"),
    )
    rows = [(label, [rate_cell(found.get(key))]) for key, label in names]
    sentence = f"Tuned against base on {found.get('n', 0):,} common questions (Yang et al., 2023)."
    return _table("honesty", "Honesty against the base", ["Tuned"], rows, sentence)


def _vocabulary(scores: Scores) -> dict[str, Any]:
    found, before = part_of(scores, "vocabulary"), baseline_part(scores, "vocabulary")
    terms = found.get("terms") or {}
    rows = [("any of them", [rate_cell(one.get("avoided")) for one in (before, found)])]
    for term, one in terms.items():
        earlier = ((before.get("terms") or {}).get(term) or {}).get("used")
        rows.append((f"“{term}” instead of “{one['prefer']}”", [rate_cell(earlier), rate_cell(one["used"])]))
    columns = ["Base", "Tuned"]
    if not before:
        columns, rows = columns[1:], [(label, cells[1:]) for label, cells in rows]
    return _table("vocabulary", "Answers that use a term to avoid", columns, rows)


def _costs(scores: Scores) -> dict[str, Any]:
    both = scores.get("latency") or {}
    sides = [both.get(who) or {} for who in ("baseline", "tuned") if both.get(who)]
    columns = [name for name, who in (("Base", "baseline"), ("Tuned", "tuned")) if both.get(who)]
    marks = (("mean", "mean"), ("p50", "median"), ("p95", "95th percentile"), ("max", "most"))
    rows = [
        (f"{kind.capitalize()} an answer, {label}", [rate_cell((one.get(kind) or {}).get(key)) for one in sides])
        for kind in ("seconds", "tokens")
        for key, label in marks
    ]
    return _table("latency", "Cost", columns, rows)


def _fields(scores: Scores) -> dict[str, Any]:
    fields = part_of(scores, "schema").get("fields") or {}
    keys = ("present", "valid", "correct")
    rows = [(pointer, [rate_cell(one.get(key)) for key in keys]) for pointer, one in fields.items()]
    return _table("fields", "Fields of the tuned model's outputs", ["Present", "Valid", "Correct"], rows)


def _at(part: Mapping[str, Any], key: str) -> Any:
    outer, _, inner = key.partition(".")
    found = part.get(outer)
    return found.get(inner) if inner and isinstance(found, Mapping) else found
