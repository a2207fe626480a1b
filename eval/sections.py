"""The report's sections but the pictures: scores and failures become what the page shows. Pure.

A number that is missing becomes a sentence that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.canvas import percent
from eval.failures import KINDS, Failure, count_kinds, gravest_first
from eval.gate import PLACES
from eval.pictures import WHY_MISSING, Scores, baseline_part, interval_strip, part_of

SHOWN = 300  # failures on the page; all of them stand in failures.jsonl
LONGEST = 6_000  # characters of one text on the page

VERDICTS = {
    "GO": ("go", "Every line of the gate is passed, and not by luck of the sample."),
    "NO-GO": ("no-go", "At least one line of the gate is missed, and not by bad luck of the sample."),
    "INCONCLUSIVE": ("inconclusive", "No line is surely missed, but not every line is surely passed either."),
}


def verdict(scores: Scores) -> dict[str, Any]:
    """The word, its meaning, the three reasons that carry it, and the other reasons apart."""
    word = scores["verdict"]
    kind, means = VERDICTS[word]
    if not scores["gate"]:
        means = "Nothing was required, so nothing could be passed or missed."
    reasons = [str(one) for one in scores["reasons"]]
    return {"word": word, "kind": kind, "means": means, "reasons": reasons[:3], "more": reasons[3:]}


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


def gate(scores: Scores) -> list[dict[str, Any]]:
    """The gate's lines, base and tuned beside each other, each with its strip."""
    return [_gate_line(scores, line) for line in scores["gate"]]


def _gate_line(scores: Scores, line: Mapping[str, Any]) -> dict[str, Any]:
    metric, (side, limit) = line["metric"], next(iter(line["bound"].items()))
    tuned = line if line["value"] is not None else None
    place = PLACES[metric]
    # a drop is measured against the base, which has none itself
    base = None if metric == "retention_drop" else baseline_part(scores, place.part).get(place.key)
    kind = VERDICTS[line["verdict"]][0]
    label = place.name.removeprefix("the ").capitalize()
    more = line.get("needed_more")
    return {
        "label": f"{label} ({line['set']})" if line.get("set") else label,
        "wanted": f"{'at least' if side == 'at_least' else 'at most'} {percent(limit)}",
        "base": rate_cell(base),
        "tuned": rate_cell(tuned),
        "strip": interval_strip(tuned, base, line["bound"], share=metric != "retention_drop"),
        "kind": kind,
        "verdict": {"go": "passed", "no-go": "missed"}.get(kind, "not settled"),
        "note": "no number" if tuned is None else f"about {more:,} more would settle it" if more else "",
        "reason": line["reason"],
    }


# cell -> (its words, how it is to be read)
CELLS = {
    "answered_correct": ("right", "right"),
    "answered_wrong": ("wrong", "wrong"),
    "abstained_answerable": ("held back needlessly", "held"),
    "malformed_answerable": ("not usable", "wrong"),
    "answered_unanswerable": ("made up", "wrong"),
    "abstained_unanswerable": ("rightly held back", "right"),
    "malformed_unanswerable": ("not usable", "wrong"),
}
ROWS = (
    (
        "The passages hold the answer",
        (("answered_correct", "answered_wrong"), ("abstained_answerable",), ("malformed_answerable",)),
    ),
    ("They do not hold it", (("answered_unanswerable",), ("abstained_unanswerable",), ("malformed_unanswerable",))),
)


def matrix(scores: Scores) -> dict[str, Any]:
    """The seven cells of answering and abstaining, tuned and base; {"why"} where they were not measured."""
    counts, earlier = part_of(scores, "abstention").get("counts"), baseline_part(scores, "abstention").get("counts")
    if not counts or not sum(counts.values()):
        return {"why": WHY_MISSING["abstention"], "rows": [], "sentence": ""}
    rows = []
    for label, columns in ROWS:
        cells = [[_cell(name, counts, earlier) for name in names] for names in columns]
        n = sum(counts[name] for names in columns for name in names)
        rows.append({"label": label, "n": f"{n:,}", "columns": cells})
    right = counts["answered_correct"] + counts["abstained_unanswerable"]
    sentence = f"The tuned model met {right:,} of {sum(counts.values()):,} questions as it should"
    if earlier:
        sentence += f", the base model {earlier['answered_correct'] + earlier['abstained_unanswerable']:,}"
    return {"rows": rows, "sentence": sentence + ".", "why": None}


def _cell(name: str, counts: Mapping[str, int], earlier: Mapping[str, int] | None) -> dict[str, Any]:
    words, kind = CELLS[name]
    base = f"{earlier[name]:,}" if earlier else None
    return {"name": words, "kind": kind, "tuned": f"{counts[name]:,}", "base": base}


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


def numbers(scores: Scores) -> list[dict[str, Any]]:
    """All numbers by part, tuned and base in columns; then the fields of the schema."""
    with_base = bool(scores.get("baseline"))
    groups = []
    for name, title, keys in GROUPS:
        part, before = part_of(scores, name), baseline_part(scores, name)
        rows = [
            {"label": label, "cells": [rate_cell(_at(one, key)) for one in ((part, before) if with_base else (part,))]}
            for key, label in keys
        ]
        rows = [row for row in rows if any(row["cells"])]
        columns = ["Tuned", "Base"] if with_base else ["Tuned"]
        why = None if part else WHY_MISSING[name]
        groups.append({"name": name, "title": title, "first": "Number", "columns": columns, "rows": rows, "why": why})
    fields = part_of(scores, "schema").get("fields") or {}
    if fields:
        rows = [
            {"label": pointer, "cells": [rate_cell(one.get(key)) for key in ("present", "valid", "correct")]}
            for pointer, one in fields.items()
        ]
        columns = ["Present", "Valid", "Correct"]
        title = "Fields of the tuned model's outputs"
        groups.append(
            {"name": "fields", "title": title, "first": "Field", "columns": columns, "rows": rows, "why": None}
        )
    return groups


def _at(part: Mapping[str, Any], key: str) -> Any:
    outer, _, inner = key.partition(".")
    found = part.get(outer)
    return found.get(inner) if inner and isinstance(found, Mapping) else found


def failures(found: Sequence[Failure], n: int) -> dict[str, Any]:
    """The failures on the page, the gravest first, and how many there are of each kind."""
    counts = count_kinds(found)
    sentence = "There are none." if n else "Nothing was answered."
    if found:
        sentence = f"{len(found):,} of {n:,} answers of the tuned model are not what was wanted, the gravest first."
        if len(found) > SHOWN:
            sentence += f" The first {SHOWN} are shown; all of them stand in failures.jsonl."
    kinds = [{"name": kind, "label": KINDS[kind][0], "count": f"{counts[kind]:,}"} for kind in counts]
    shown = [_failure(one) for one in gravest_first(found)[:SHOWN]]
    return {"total": f"{len(found):,}", "sentence": sentence, "kinds": kinds, "shown": shown}


def _failure(one: Failure) -> dict[str, Any]:
    shown = one.model_dump()
    shown["labels"] = [KINDS[kind][0] for kind in one.kinds]
    for key in ("question", "wanted", "given"):
        shown[key] = shorten(shown[key])
    shown["passages"] = [{**passage, "text": shorten(passage["text"])} for passage in shown["passages"]]
    shown["history"] = [{**turn, "content": shorten(turn["content"])} for turn in shown["history"]]
    return shown


def shorten(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"
