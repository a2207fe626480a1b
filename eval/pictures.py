"""The report's pictures: from scores to marks. Each is a picture, or the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.canvas import (
    BAR,
    Mark,
    Picture,
    bars,
    clip,
    dot,
    frame,
    legend_of,
    line,
    linear,
    path,
    percent,
    signed,
    text,
)

WHY_MISSING = {
    "schema": "Not measured: no output was scored.",
    "abstention": "Not measured: the behaviour does not say how “I don't know” is said (abstain in behaviour.yaml).",
    "calibration": "Not measured: no answered output carries a confidence.",
    "grounding": "Not measured: the behaviour does not say where citations stand (citations in behaviour.yaml).",
    "retention": "Not measured: base and tuned model answered no general items; tutelage eval run does so for a run.",
    "scales": "Not measured: these scores come from no run that tried several adapter scales.",
}
Scores = Mapping[str, Any]


def part_of(scores: Scores, name: str) -> Mapping[str, Any]:
    """One part of the scores; empty where it is null."""
    return scores.get(name) or {}


def baseline_part(scores: Scores, name: str) -> Mapping[str, Any]:
    """One part of the base model's scores; empty where it is null or there is no base."""
    return part_of(part_of(scores, "baseline"), name)


def violations(scores: Scores) -> Picture | str:
    """Horizontal bars: the share of outputs that break the schema, by what is broken first."""
    part, before = part_of(scores, "schema"), baseline_part(scores, "schema")
    if not part.get("adherence"):
        return WHY_MISSING["schema"]
    n = part["adherence"]["n"]
    tuned, base = _shares(part), _shares(before)
    if not tuned and not base:
        return f"There are none: all {n:,} outputs are exactly what is asked for."
    names = sorted({*tuned, *base}, key=lambda name: (-max(tuned.get(name, 0), base.get(name, 0)), name))
    marks = bars(
        {name: tuned.get(name, 0.0) for name in names},
        {name: base.get(name, 0.0) for name in names} if before else None,
        percent,
    )
    sentence = f"{percent(sum(tuned.values()))} of the tuned model's {n:,} outputs break the schema"
    sentence += f"; of the base model's, {percent(sum(base.values()))}." if before else "."
    header = ["What is broken first", "Tuned", *(["Base"] if before else [])]
    rows = [[name, percent(tuned.get(name, 0)), *([percent(base.get(name, 0))] if before else [])] for name in names]
    height = BAR * len(names) + 4
    return Picture("violations", TITLES["violations"], sentence, height, marks, header, rows, legend=legend_of(before))


def _shares(part: Mapping[str, Any]) -> dict[str, float]:
    return {name: one["value"] for name, one in (part.get("violations") or {}).items() if one and one["value"]}


def reliability(scores: Scores) -> Picture | str:
    """Stated confidence against the share that was right, bin by bin; larger marks hold more answers."""
    part, before = part_of(scores, "calibration"), baseline_part(scores, "calibration")
    if not part.get("reliability"):
        return WHY_MISSING["calibration"]
    x, y = linear(0, 1, 38, 350), linear(0, 1, 232, 22)
    marks = [*frame(x, y, "stated confidence, %", "right, %"), line(x(0), y(0), x(1), y(1), "ideal")]
    rows = []
    for who, bins in (("base", before.get("reliability") or []), ("tuned", part["reliability"])):
        full = [one for one in bins if one["n"]]
        most = max((one["n"] for one in full), default=1)
        for one in full:
            marks.append(dot(x(one["confidence"]), y(one["accuracy"]), who, 2 + 5 * (one["n"] / most) ** 0.5))
            span = f"{percent(one['low'], 0)} to {percent(one['high'], 0)}"
            rows.append([who, span, percent(one["confidence"]), percent(one["accuracy"]), f"{one['n']:,}"])
    sentence = (
        f"Stated confidence and truth lie {percent(part['ece'])} apart on average (ECE, {part['n']:,} answers). On the "
        "dotted line the model is right as often as it says; below it, it is too sure. Larger marks hold more answers."
    )
    header = ["Model", "Bin", "Mean confidence", "Right", "n"]
    return Picture("reliability", TITLES["reliability"], sentence, 270, marks, header, rows, legend=legend_of(before))


def risk_coverage(scores: Scores) -> Picture | str:
    """Selective risk against coverage: how often answers are wrong when only the surest are given."""
    part, before = part_of(scores, "calibration"), baseline_part(scores, "calibration")
    if not part.get("risk_coverage"):
        return WHY_MISSING["calibration"]
    curves = (("base", before.get("risk_coverage") or []), ("tuned", part["risk_coverage"]))
    highest = max(point["risk"] for _, curve in curves for point in curve)
    ceiling = next((top for top in (0.04, 0.1, 0.2, 0.4, 0.6) if highest <= top), 1.0)
    x, y = linear(0, 1, 38, 350), linear(0, ceiling, 232, 22)
    marks = frame(x, y, "answers given, surest first, %", "wrong among them, %", ceiling)
    rows = []
    for who, curve in curves:
        points = [(x(point["coverage"]), y(point["risk"])) for point in curve]
        marks.append(path([(x(0), points[0][1]), *points] if points else [], f"curve {who}"))
        for share in (0.25, 0.5, 0.75, 1.0):
            reached = [point for point in curve if point["coverage"] >= share - 1e-9]
            rows += [
                [who, percent(one["coverage"]), percent(one["risk"]), f"{one['threshold']:.3f}"] for one in reached[:1]
            ]
    drawn, sentence = _threshold(part.get("threshold") or {}, x(0), y(0), y(ceiling), x)
    header = ["Model", "Answers given", "Wrong among them", "Confidence from"]
    return Picture(
        "risk-coverage",
        TITLES["risk-coverage"],
        sentence,
        270,
        [*marks, *drawn],
        header,
        rows,
        legend=legend_of(before),
    )


def _threshold(chosen: Mapping[str, Any], left: float, bottom: float, top: float, x: Any) -> tuple[list[Mark], str]:
    """The chosen threshold's line, and what it promises."""
    reading = "Further right more questions are answered; lower is better."
    if chosen.get("value") is None:
        why = str(chosen.get("reason") or "none was looked for")
        return [], f"{reading} No threshold can be promised: {why}."
    promise = (
        f"Answering only at a confidence of {chosen['value']:.3f} or more keeps the wrong ones at or below "
        f"{percent(chosen['alpha'])}, at {percent(1 - chosen['delta'], 0)} confidence; "
        "it was chosen on the calibration split."
    )
    coverage = chosen.get("coverage")
    if coverage is None:
        return [], f"{promise} {reading}"
    promise += f" Here it lets through {percent(coverage)} of the answers."
    side, shift = ("end", -5) if coverage > 0.5 else ("start", 5)
    at = x(coverage)
    label = text(at + shift, top + 12, f"threshold {chosen['value']:.3f}", "tick strong", side)
    return [line(at, bottom, at, top, "bound"), label], f"{promise} {reading}"


def retention(scores: Scores) -> Picture | str:
    """Per set: the change from base to tuned, the one-sided bound of the harm, and the limit it must stay inside."""
    sets = part_of(scores, "retention").get("sets") or {}
    graded = {name: one for name, one in sets.items() if one["kind"] == "accuracy"}
    if not graded:
        return WHY_MISSING["retention"]
    sentence = (
        "The disc is the change in accuracy; the line reaches to its one-sided 95 % bound and must end to the right of "
        "the dashed margin."
    )
    return _forest(
        "retention", graded, sentence, lambda value: percent(value), lambda value: signed(100 * value, 1, "points")
    )


def losses(scores: Scores) -> Picture | None:
    """The same for the sets that were measured by their loss; None where there are none."""
    sets = part_of(scores, "retention").get("sets") or {}
    measured = {name: one for name, one in sets.items() if one["kind"] == "loss"}
    if not measured:
        return None
    sentence = (
        "The disc is the change in loss; the line reaches to its one-sided 95 % bound and must end to the left of the "
        "dashed margin."
    )
    return _forest("losses", measured, sentence, lambda value: f"{value:.3f}", lambda value: signed(value, 3, "nats"))


def _forest(name: str, sets: Mapping[str, Any], sentence: str, show: Any, change: Any) -> Picture:
    """A row per set: its change as a disc, its bound as a whisker, its margin as a dashed line."""
    edges = [
        0.0,
        *(one[key] for one in sets.values() for key in ("difference", "bound", "limit") if one[key] is not None),
    ]
    pad = 0.1 * ((max(edges) - min(edges)) or 0.1)
    x = linear(min(edges) - pad, max(edges) + pad, 8, 352)
    bottom = 42.0 * len(sets) + 2
    limit = next(iter(sets.values()))["limit"]
    marks = []
    # a line each: a small margin beside a great loss leaves them no room next to each other
    for value, words, below in ((0.0, "no change", 14), (limit, f"margin {change(limit)}", 28)):
        anchor = "start" if x(value) < 60 else "end" if x(value) > 300 else "middle"
        marks.append(text(x(value), bottom + below, words, "tick", anchor))
    rows = []
    for place, (label, one) in enumerate(sets.items()):
        y, reached = 42.0 * place, "–"
        marks += [
            text(8, y + 14, clip(label, 30), "label strong halo"),
            text(352, y + 14, change(one["difference"]), "tick halo", "end"),
        ]
        marks += [line(x(0), y + 19, x(0), y + 38, "axis"), line(x(limit), y + 19, x(limit), y + 38, "bound")]
        if one["bound"] is not None:
            reached = change(one["bound"])
            marks.append(line(x(one["bound"]), y + 28, x(one["difference"]), y + 28, "whisker tuned"))
            marks.append(line(x(one["bound"]), y + 23, x(one["bound"]), y + 33, "whisker tuned"))
        marks.append(dot(x(one["difference"]), y + 28, "tuned"))
        base, tuned = (
            show(side["value"] if isinstance(side, Mapping) else side) for side in (one["base"], one["tuned"])
        )
        held = {True: "held", False: "lost"}.get(one["non_inferior"], "not settled")
        rows.append(
            [label, base, tuned, change(one["difference"]), reached, change(one["limit"]), f"{one['n']:,}", held]
        )
    header = ["Set", "Base", "Tuned", "Change", "Bound", "Margin", "n", "Verdict"]
    return Picture(name, TITLES[name], sentence, bottom + 34, marks, header, rows)


def scales(scores: Scores) -> Picture | str:
    """What each scale of the adapter did to the task and to the general items, and which one is shipped."""
    found = part_of(scores, "sources").get("scales") or {}
    curve = found.get("curve") or []
    if len(curve) < 2:
        return WHY_MISSING["scales"]
    chosen = found["chosen"]
    x, y = linear(0, max(point["scale"] for point in curve), 38, 350), linear(0, 1, 232, 22)
    marks = frame(linear(0, 1, 38, 350), y, "", "right, %", across=False)
    for point in curve:
        marks.append(text(x(point["scale"]), y(0) + 16, f"{point['scale']:g}", "tick", "middle"))
    marks.append(text(194, y(0) + 33, "adapter scale (0 is the base)", "label", "middle"))
    marks.append(line(x(chosen), y(0), x(chosen), y(1), "bound"))
    side, shift = ("end", -5) if x(chosen) > 194 else ("start", 5)
    marks.append(text(x(chosen) + shift, y(0) - 6, "shipped", "tick strong halo", side))
    for who, read in (("base", _general), ("tuned", _task)):
        points = [(x(point["scale"]), y(read(point))) for point in curve if read(point) is not None]
        marks += [path(points, f"curve {who}"), *(dot(*point, who) for point in points)]
    rows = [
        [f"{point['scale']:g}", percent(_task(point)), percent(_general(point)), _kept(point, chosen)]
        for point in curve
    ]
    sentence = f"The adapter is shipped at scale {chosen:g}: the largest that was tried and keeps general ability."
    if not found.get("kept", True):
        sentence = f"No scale that was tried keeps general ability; {chosen:g} is the smallest of them."
    sentence += " Measured by the run on its validation split and its general items."
    header = ["Scale", "Task", "General", ""]
    legend = (("task", "tuned"), ("general ability", "base"))
    return Picture("scales", TITLES["scales"], sentence, 270, marks, header, rows, legend=legend)


def _task(point: Mapping[str, Any]) -> Any:
    return point.get("task")


def _general(point: Mapping[str, Any]) -> Any:
    return (point.get("retention") or {}).get("all")


def _kept(point: Mapping[str, Any], chosen: float) -> str:
    if point["scale"] == chosen:
        return "shipped"
    return "" if point.get("kept", True) else "loses too much"


TITLES = {
    "violations": "What breaks the schema",
    "reliability": "Does it know when it is right?",
    "risk-coverage": "What holding back buys",
    "retention": "What the base could do, and still can",
    "losses": "Loss on general text",
    "scales": "How much of the adapter to keep",
}


def drawings(scores: Scores) -> Sequence[tuple[str, Picture | str]]:
    """Every picture in the page's order, by name."""
    drawn: list[tuple[str, Picture | str]] = [
        ("violations", violations(scores)),
        ("reliability", reliability(scores)),
        ("risk-coverage", risk_coverage(scores)),
        ("retention", retention(scores)),
    ]
    loss = losses(scores)
    if loss:
        kept = [one for one in drawn if one[1] != WHY_MISSING["retention"]]  # with a loss it was measured
        drawn = [*kept, ("losses", loss)]
    return [*drawn, ("scales", scales(scores))]
