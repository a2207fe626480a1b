"""The gate: scores become GO, NO-GO or INCONCLUSIVE, each with its reasons in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from curate.behaviour import Bound, GateLine
from eval.retention import items_needed
from eval.statistics import MOST_ITEMS, clopper_pearson_bound, smallest_n, unlucky

Verdict = Literal["GO", "NO-GO", "INCONCLUSIVE"]
WORST_FIRST: tuple[Verdict, ...] = ("NO-GO", "INCONCLUSIVE", "GO")


class Place(NamedTuple):
    """Where a gate line's number stands in the scores, what it is called and what it counts."""

    part: str
    key: str
    name: str
    counted: str


PLACES: dict[GateLine, Place] = {
    "schema_adherence": Place("schema", "adherence", "schema adherence", "pairs"),
    "hallucination_rate": Place("abstention", "hallucination_rate", "the hallucination rate", "unanswerable pairs"),
    "over_abstention_rate": Place("abstention", "over_abstention_rate", "over-abstention", "answerable pairs"),
    "abstention_recall": Place("abstention", "recall", "abstention recall", "unanswerable pairs"),
    "abstention_precision": Place("abstention", "precision", "abstention precision", "abstentions"),
    "accuracy_when_answered": Place("abstention", "accuracy_when_answered", "accuracy when answered", "answers"),
    "coverage": Place("abstention", "coverage", "coverage", "pairs"),
    "citation_validity": Place("grounding", "validity", "citation validity", "outputs that cite"),
    "retention_drop": Place("retention", "drop", "the drop in retention", "general items"),
}
MISSING_PART = {
    "abstention": "the behaviour does not say what an abstention is (abstain in behaviour.yaml)",
    "grounding": "the behaviour does not say where citations stand (citations in behaviour.yaml)",
    "retention": "no general items were answered by base and tuned model (tutelage eval run does so for a run)",
}


def judge(scores: Mapping[str, Any], gate: Mapping[GateLine, Bound]) -> dict[str, Any]:
    """{"verdict", "reasons", "gate"} of scores under a behaviour's gate.

    A line of the gate is GO when the one-sided 95 % bound of its number is on the right side, NO-GO when the other
    bound is on the wrong side, else INCONCLUSIVE. The bounds are exact (Clopper-Pearson), so that at most one in
    twenty models just outside a line passes it by luck; score bounds would let through one in fourteen. The verdict
    is that of the worst line.
    """
    if not gate:
        reason = "The behaviour names no gate: behaviour.yaml must say what a report has to show for GO."
        return {"verdict": "INCONCLUSIVE", "reasons": [reason], "gate": []}
    lines = [
        _retention_line(scores, bound) if metric == "retention_drop" else _rate_line(metric, scores, bound)
        for metric, bound in gate.items()
    ]
    ranked = sorted(lines, key=lambda line: WORST_FIRST.index(line["verdict"]))
    return {"verdict": ranked[0]["verdict"], "reasons": [line["reason"] for line in ranked], "gate": lines}


def _line(metric: GateLine, bound: Bound, verdict: Verdict, reason: str, **numbers: Any) -> dict[str, Any]:
    """One line of the gate; every key is always there, None where it has no number."""
    keys = ("value", "low", "high", "n", "one_sided_bound", "opposite_bound", "needed_n", "needed_more")
    values = {key: numbers.pop(key, None) for key in keys}
    written = bound.model_dump(exclude_none=True)
    return {"metric": metric, "bound": written, **values, **numbers, "verdict": verdict, "reason": _sentence(reason)}


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _rate_line(metric: GateLine, scores: Mapping[str, Any], bound: Bound) -> dict[str, Any]:
    place = PLACES[metric]
    part = scores.get(place.part)
    found = part.get(place.key) if part else None
    if found is None:
        return _line(metric, bound, "INCONCLUSIVE", f"{place.name} is not known: {_why_missing(place, part)}")
    n, k = found["n"], round(found["value"] * found["n"])
    limits = {side: clopper_pearson_bound(k, n, side) for side in ("lower", "upper")}
    near, far = ("lower", "upper") if bound.at_least is not None else ("upper", "lower")
    verdict = _verdict(bound, limits[near], limits[far])
    needed, share = None, found["value"]
    inside = _inside(bound, share, strictly=True)
    if verdict == "INCONCLUSIVE" and inside:
        needed = smallest_n(lambda m: _inside(bound, clopper_pearson_bound(_unlucky(share, m, near), m, near)), n + 1)
    more = None if needed is None else needed - n
    said = f"{place.name} is {_percent(found['value'])} (n = {n:,})"
    return _line(
        metric,
        bound,
        verdict,
        _explain(said, bound, verdict, limits[near], limits[far]) + _advice(verdict, more, place.counted, inside),
        **found,
        one_sided_bound=limits[near],
        opposite_bound=limits[far],
        needed_n=needed,
        needed_more=more,
    )


def _unlucky(share: float, n: int, side: str) -> float:
    """A count of n, on the side of harm of what the share lets one expect; all or none where the share is that."""
    if side == "upper":
        return min(float(n), unlucky(share * n, n * share * (1 - share)))
    return max(0.0, n - unlucky((1 - share) * n, n * share * (1 - share)))


def _why_missing(place: Place, part: Any) -> str:
    if place.part == "abstention" and part and _knows_no_abstention(part):
        return MISSING_PART["abstention"]
    return f"there are no {place.counted}" if part else MISSING_PART.get(place.part, "nothing was scored")


def _knows_no_abstention(part: Mapping[str, Any]) -> bool:
    """Whether a rate is missing although the pairs it counts are there."""
    counts = part.get("counts") or {}
    unanswerable = sum(count for cell, count in counts.items() if cell.endswith("_unanswerable"))
    answerable = sum(counts.values()) - unanswerable
    rates = ((answerable, "over_abstention_rate"), (unanswerable, "recall"))
    return any(count and part.get(key) is None for count, key in rates)


def _inside(bound: Bound, value: float, strictly: bool = False) -> bool:
    if bound.at_least is not None:
        return value > bound.at_least if strictly else value >= bound.at_least
    assert bound.at_most is not None
    return value < bound.at_most if strictly else value <= bound.at_most


def _verdict(bound: Bound, near: float, far: float) -> Verdict:
    """`near` is the bound that must be inside for GO, `far` the one that must be outside for NO-GO."""
    return "GO" if _inside(bound, near) else "NO-GO" if not _inside(bound, far) else "INCONCLUSIVE"


def _explain(said: str, bound: Bound, verdict: Verdict, near: float, far: float) -> str:
    least = bound.at_least is not None
    limit = bound.at_least if bound.at_least is not None else bound.at_most or 0.0
    asked = f"{'at least' if least else 'at most'} {limit_percent(limit)} is asked for"
    near_said, far_said = _beside(near, limit), _beside(far, limit)
    if verdict == "GO":
        return f"{said}, with 95 % confidence {'at least' if least else 'at most'} {near_said}; {asked}"
    if verdict == "NO-GO":
        return f"{said}, with 95 % confidence {'at most' if least else 'at least'} {far_said}; {asked}"
    return f"{said} and may be as {'low' if least else 'high'} as {near_said}; {asked}"


def limit_percent(limit: float) -> str:
    """A limit as it was asked for, to the last digit."""
    return f"{100 * limit:.10g} %"


def _beside(value: float, limit: float) -> str:
    """A share in per cent, with more digits where fewer would make it the limit."""
    if value == limit or _percent(value) != _percent(limit):
        return _percent(value)
    digits = next((d for d in range(2, 6) if f"{100 * value:.{d}f}" != f"{100 * limit:.{d}f}"), 6)
    return f"{100 * value:.{digits}f} %"


def _advice(verdict: Verdict, more: int | None, counted: str, inside: bool = False) -> str:
    if verdict != "INCONCLUSIVE":
        return ""
    if more is None and inside:
        return f". More than {MOST_ITEMS:,} {counted} would be needed to tell"
    if more is None:
        return ". What was seen is not inside that, so more of the same will hardly bring a GO"
    return f". About {more:,} more {counted} would settle it four times in five, were the share to stay"


def _percent(value: float | None) -> str:
    """A share in per cent with one digit; two where one would round it onto 0 or 100."""
    share = 100 * (value or 0.0)
    text = f"{share:.1f}"
    return (
        f"{share:.2f} %"
        if text in ("0.0", "100.0") and share not in (0.0, 100.0)
        else f"{text} %".replace(".0 %", " %")
    )


def _retention_line(scores: Mapping[str, Any], bound: Bound) -> dict[str, Any]:
    """The line of the set that fares worst: every set must pass, and loss sets their own margin."""
    place = PLACES["retention_drop"]
    sets = (scores.get("retention") or {}).get("sets") or {}
    lines = [_drop_line(name, one, bound) for name, one in sets.items() if one["kind"] == "accuracy"]
    if lines:
        # the worst verdict; among its sets the one whose drop may be largest
        worst = min(lines, key=lambda line: (WORST_FIRST.index(line["verdict"]), -line["one_sided_bound"]))
    else:
        why = "the general items were measured by their loss alone" if sets else MISSING_PART["retention"]
        worst = _line("retention_drop", bound, "INCONCLUSIVE", f"{place.name} is not known: {why}")
    for name, one in sets.items():
        if one["kind"] == "loss":
            verdict, reason = _judge_loss(name, one)
            if WORST_FIRST.index(verdict) < WORST_FIRST.index(worst["verdict"]):
                worst = _line("retention_drop", bound, verdict, reason, set=name)
    return worst


def _judge_loss(name: str, one: Mapping[str, Any]) -> tuple[Verdict, str]:
    verdicts: dict[bool | None, Verdict] = {True: "GO", False: "NO-GO", None: "INCONCLUSIVE"}
    verdict = verdicts[one["non_inferior"]]
    said = f"on the set {name!r} the loss changed by {one['difference']:+.3f} nats per token (n = {one['n']:,})"
    reach = (
        "by an amount too few items can tell" if one["bound"] is None else f"and may have risen by {one['bound']:.3f}"
    )
    more = None if one["needed_n"] is None else one["needed_n"] - one["n"]
    # of one item, or one group, nobody can say how far others would lie apart
    advice = "" if one["bound"] is None else _advice(verdict, more, f"items in {name!r}")
    return verdict, f"{said} {reach}; a rise of {one['limit']:.3f} is allowed{advice}"


def _drop_line(name: str, one: Mapping[str, Any], bound: Bound) -> dict[str, Any]:
    highest, lowest = -one["bound"], -one["opposite_bound"]
    near, far = (lowest, highest) if bound.at_least is not None else (highest, lowest)
    silent = bound.at_most is not None and one["base"]["value"] <= bound.at_most
    verdict: Verdict = "INCONCLUSIVE" if silent else _verdict(bound, near, far)
    needed = None
    if not silent and verdict == "INCONCLUSIVE" and bound.at_most is not None:
        needed = items_needed(one, bound.at_most)
    more = None if needed is None else needed - one["n"]
    before, after = _percent(one["base"]["value"]), _percent(one["tuned"]["value"])
    said = f"on the set {name!r} accuracy went from {before} to {after} (n = {one['n']:,})"
    kept = f"drop with 95 % confidence of at most {_points(near)}"
    if near < 0:
        kept = f"rise with 95 % confidence of at least {_points(-near)}"
    reading = {
        "GO": f"{said}, a {kept}",
        "NO-GO": f"{said}, a drop with 95 % confidence of more than {_points(far)}",
        "INCONCLUSIVE": f"{said} and the drop may be as large as {_points(near)}",
    }[verdict]
    limit = bound.at_most if bound.at_most is not None else bound.at_least
    reason = f"{reading}; {_points(limit)} may be lost{_advice(verdict, more, f'items in {name!r}')}"
    if silent:
        reason = (
            f"on the set {name!r} the base itself answers {before} (n = {one['n']:,}), too little to show a loss of"
            f" {_points(limit)}. Look at how its items compare answers and at their prompts, or take another set"
        )
    return _line(
        "retention_drop",
        bound,
        verdict,
        reason,
        value=0.0 - one["difference"],
        low=-one["high"],
        high=-one["low"],
        n=one["n"],
        one_sided_bound=near,
        opposite_bound=far,
        needed_n=needed,
        needed_more=more,
        set=name,
    )


def _points(share: float | None) -> str:
    points = 100 * (share or 0.0)
    return f"{points:.1f} point{'' if points == 1 else 's'}"
