"""The report's pictures of parts and costs: slices by `meta`, time an answer takes, outputs bound to the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.abstention import RIGHT
from eval.canvas import BAR, Mark, Picture, bars, clip, dot, legend_of, line, linear, percent, rect, text
from eval.pictures import Scores, part_of

MOST_DRAWN = 12  # parts of one slice that are drawn; all of them stand in its table
ROW = 34.0
TIMES = {"p50": "half of the answers, at most", "p95": "95 % of the answers, at most", "max": "the slowest"}
BOUND_ROWS = (
    ("schema", "adherence", "Schema adherence"),
    ("abstention", "accuracy_when_answered", "Accuracy when answered"),
    ("abstention", "hallucination_rate", "Hallucination rate"),
    ("abstention", "over_abstention_rate", "Over-abstention rate"),
    ("abstention", "truthfulness", "Truthfulness (CRAG, −1 to 1)"),
)


def interval(rate: Mapping[str, Any] | None) -> str:
    """A rate with its interval in per cent; a dash for none."""
    if rate is None:
        return "–"
    return f"{percent(rate['value'])} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def slices(scores: Scores) -> list[Picture]:
    """One picture for each key of `meta` that was asked for: the share of right outputs by its values, worst first."""
    return [_slice(number, one, _right(scores)) for number, one in enumerate(found_slices(scores))]


def found_slices(scores: Scores) -> list[Mapping[str, Any]]:
    """The slices by a key that some pair has."""
    return [one for one in scores.get("slices") or () if any(row["value"] is not None for row in one["values"])]


def _right(scores: Scores) -> float | None:
    counts = part_of(scores, "abstention").get("counts") or {}
    total = sum(counts.values())
    return sum(counts[cell] for cell in RIGHT) / total if total else None


def _slice(number: int, found: Mapping[str, Any], overall: float | None) -> Picture:
    values = found["values"]
    drawn = values[:MOST_DRAWN]
    x, bottom = linear(0, 1, 8, 352), ROW * len(drawn) + 2
    marks: list[Mark] = []
    for place, one in enumerate(drawn):
        y = ROW * place
        low, high = x(one["right"]["low"]), x(one["right"]["high"])
        marks += [rect(8, y + 18, 344, 12, "track"), line(low, y + 24, high, y + 24, "whisker tuned")]
        if overall is not None:
            marks.append(line(x(overall), y + 17, x(overall), y + 31, "bound"))
        marks.append(dot(x(one["right"]["value"]), y + 24, "tuned"))
        marks.append(text(8, y + 13, clip(_named(one["value"]), 32), "label strong"))
        marks.append(text(352, y + 13, f"{percent(one['right']['value'])}, n = {one['n']:,}", "tick", "end"))
    marks += [text(8, bottom + 13, "0", "tick"), text(352, bottom + 13, "100\u00a0%", "tick", "end")]
    if overall is not None:
        anchor = "end" if overall > 0.6 else "start"
        marks.append(
            text(min(max(x(overall), 22), 300), bottom + 13, f"all: {percent(overall)}", "tick strong", anchor)
        )
    header = ["Part", "n", "Right", "Schema adherence", "Hallucination rate", "Over-abstention rate"]
    keys = ("right", "schema_adherence", "hallucination_rate", "over_abstention_rate")
    rows = [[_named(one["value"]), f"{one['n']:,}", *(interval(one[key]) for key in keys)] for one in values]
    return Picture(f"slices-{number}", f"By {found['key']}", slice_sentence(found), bottom + 18, marks, header, rows)


def slice_sentence(found: Mapping[str, Any]) -> str:
    """The worst part in a sentence, and what is not shown."""
    worst, best = found["values"][0], found["values"][-1]
    said = f"By {found['key']}, {_named(worst['value'])} fares worst: {interval(worst['right'])} right"
    said += f" (n = {worst['n']:,})."
    if worst["right"]["value"] == best["right"]["value"]:
        said = f"By {found['key']}, no part fares worse than another: {percent(worst['right']['value'])} right."
    said += " Lines are 95 % intervals; where one reaches the average of all, the difference may be chance."
    hidden = len(found["values"]) - MOST_DRAWN
    if hidden > 0:
        said += f" The {MOST_DRAWN} worst parts are drawn."
    if found["left_out"]:
        said += f" {found['left_out']:,} more parts are in no table: this key has too many values."
    return said


def _named(value: str | None) -> str:
    return "without one" if value is None else value


def latency(scores: Scores) -> Picture | None:
    """Seconds an answer took, tuned and base; None where no answer was timed."""
    both = scores.get("latency") or {}
    seconds = {who: (both.get(who) or {}).get("seconds") for who in ("tuned", "baseline")}
    if not seconds["tuned"]:
        return None
    tuned = {words: float(seconds["tuned"][key]) for key, words in TIMES.items()}
    before = seconds["baseline"]
    base = {words: float(before[key]) for key, words in TIMES.items()} if before else None
    header = ["Seconds", "Tuned", *(["Base"] if base else [])]
    rows = [[name, _seconds(tuned[name]), *([_seconds(base[name])] if base else [])] for name in tuned]
    marks = bars(tuned, base, _seconds)
    return Picture(
        "latency",
        "What an answer costs",
        latency_sentence(scores),
        BAR * 3 + 4,
        marks,
        header,
        rows,
        legend=legend_of(before or {}),
    )


def latency_sentence(scores: Scores) -> str:
    """Median seconds and mean tokens, tuned and base."""
    said = []
    for who, name in (("tuned", "the tuned model"), ("baseline", "the base")):
        found = (scores.get("latency") or {}).get(who) or {}
        parts = []
        if found.get("seconds"):
            parts.append(f"{_seconds(found['seconds']['p50'])} (median)")
        if found.get("tokens"):
            parts.append(f"{found['tokens']['mean']:.1f} tokens on average")
        said += [f"{name} took {' and '.join(parts)}"] if parts else []
    return (
        f"For an answer {', '.join(said)}. Measured, not computed: another machine gives other times." if said else ""
    )


def _seconds(value: float) -> str:
    return f"{value:.3g}\u00a0s" if value >= 0.1 else f"{1000 * value:.3g}\u00a0ms"


def constrained(scores: Scores) -> dict[str, Any] | None:
    """Plain and bound outputs side by side, as a table with its sentence; None where none were bound.

    It answers whether a schema engine alone would have bought what training did.
    """
    bound = scores.get("constrained")
    if not bound:
        return None
    sides = [
        (name, numbers)
        for name, numbers in (
            ("Base", scores.get("baseline")),
            ("Base, bound", bound.get("base")),
            ("Tuned", scores),
            ("Tuned, bound", bound.get("tuned")),
        )
        if numbers
    ]
    rows = [(label, [part_of(numbers, part).get(key) for _, numbers in sides]) for part, key, label in BOUND_ROWS]
    return {
        "name": "constrained",
        "title": "Would a schema engine alone have done it?",
        "sentence": _constrained_sentence(scores, bound),
        "columns": [name for name, _ in sides],
        "rows": [row for row in rows if any(one is not None for one in row[1])],
    }


def _constrained_sentence(scores: Scores, bound: Mapping[str, Any]) -> str:
    who = bound.get("engine") or "the server"
    said = f"“Bound” outputs could only be what the schema allows ({who} saw to it); the model is the same."
    values = [
        part_of(numbers, "abstention").get("truthfulness") for numbers in (bound.get("base") or {}, scores) if numbers
    ]
    if len(values) == 2 and None not in values:
        said += f" Truthfulness is {values[0]:.2f} for the bound base and {values[1]:.2f} for the tuned model.".replace(
            "-", "−"
        )
    if bound.get("ignored"):
        said += f" The engine does not know these keywords of the schema: {', '.join(bound['ignored'])}."
    return said
