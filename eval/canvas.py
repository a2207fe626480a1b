"""A small canvas: marks that the template draws as SVG, and the pieces every picture is made of.

A picture is drawn about 360 units wide, so that its text stays readable on a phone; two stand side by side on a desk.
Nothing here knows a colour: marks carry the classes `base` and `tuned`, and shape and dash say the same as colour does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH = 360.0
BAR = 46.0  # units that a group of bars takes
Number = Callable[[float], float]


@dataclass(frozen=True)
class Mark:
    """One SVG element: its tag, its attributes, the text inside."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawn picture with its words: `sentence` says what it shows, `rows` are its numbers for who cannot see it."""

    name: str
    title: str
    sentence: str
    height: float
    marks: list[Mark]
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    width: float = WIDTH
    legend: tuple[tuple[str, str], ...] = ()  # (words, whose mark)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash where there is none. What is not all is never rounded up to all."""
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) >= 100:
        text = f"{100 - 10.0**-digits:.{digits}f}"
    return f"{text}\u00a0%"


def clip(words: str, most: int) -> str:
    """A label that leaves room for the number beside it."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def signed(value: float, digits: int, unit: str) -> str:
    """A change with its sign and unit; no sign where it rounds to nothing."""
    text = f"{value:+.{digits}f}"
    return f"{text.lstrip('+-') if float(text) == 0 else text.replace('-', '−')} {unit}"


def linear(low: float, high: float, start: float, end: float) -> Number:
    """The straight map from [low, high] onto [start, end]; everything lands on `start` where the range is empty."""
    span = high - low
    return lambda value: start + (end - start) * ((value - low) / span if span else 0.0)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Mark:
    """A straight line."""
    return Mark("line", {"x1": _round(x1), "y1": _round(y1), "x2": _round(x2), "y2": _round(y2), "class": kind})


def text(x: float, y: float, words: str, kind: str = "label", anchor: str = "start") -> Mark:
    """Words whose baseline is at `y`."""
    return Mark("text", {"x": _round(x), "y": _round(y), "class": kind, "text-anchor": anchor}, words)


def rect(x: float, y: float, width: float, height: float, kind: str) -> Mark:
    """A rectangle; a negative width is none."""
    sizes = {"x": _round(x), "y": _round(y), "width": _round(max(width, 0)), "height": _round(height)}
    return Mark("rect", {**sizes, "class": kind})


def path(points: Sequence[tuple[float, float]], kind: str) -> Mark:
    """A line through points."""
    return Mark("polyline", {"points": " ".join(f"{_round(x)},{_round(y)}" for x, y in points), "class": kind})


def dot(x: float, y: float, who: str, size: float = 4.5) -> Mark:
    """A disc for the tuned model, an open square for the base: told apart without colour."""
    if who == "tuned":
        return Mark("circle", {"cx": _round(x), "cy": _round(y), "r": _round(size), "class": f"dot {who}"})
    return rect(x - size, y - size, 2 * size, 2 * size, f"dot {who}")


def _round(value: float) -> float:
    return round(value, 2)


def frame(
    x: Number, y: Number, horizontal: str, vertical: str, ceiling: float = 1.0, across: bool = True
) -> list[Mark]:
    """Axes with five ticks each from 0 to 1 (0 to `ceiling` upwards), in per cent, with their names.

    Without `across` only the vertical axis has ticks.
    """
    marks = []
    for step in range(5):
        share = step / 4
        marks.append(line(x(0), y(share * ceiling), x(1), y(share * ceiling), "grid"))
        marks.append(text(x(0) - 6, y(share * ceiling) + 4, f"{100 * share * ceiling:.3g}", "tick", "end"))
        if across:
            marks.append(text(x(share), y(0) + 16, f"{100 * share:g}", "tick", "middle"))
    marks.append(text((x(0) + x(1)) / 2, y(0) + 33, horizontal, "label", "middle"))
    marks.append(text(4, 12, vertical, "label"))
    return marks


def bars(tuned: Mapping[str, float], base: Mapping[str, float] | None, show: Callable[[float], str]) -> list[Mark]:
    """Horizontal bars, a group of BAR units for each name in `tuned`'s order, the base's below the tuned model's."""
    x = linear(0, max([*tuned.values(), *(base or {}).values()]), 4, 290)
    marks = [line(4, 2, 4, BAR * len(tuned) + 2, "axis")]
    for row, name in enumerate(tuned):
        marks.append(text(9, BAR * row + 14, name, "label strong"))
        for place, (who, values) in enumerate([("tuned", tuned), *([("base", base)] if base is not None else [])]):
            if name in values:
                end, top = x(values[name]), BAR * row + 19 + 12 * place
                marks.append(rect(4, top, end - 4, 9, f"bar {who}"))
                marks.append(text(end + 5, top + 8.5, show(values[name]), "tick"))
    return marks


def legend_of(before: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The legend's names; the base is among them where it has numbers."""
    return (("tuned", "tuned"), ("base", "base")) if before else (("tuned", "tuned"),)


def interval_strip(
    tuned: Mapping[str, Any] | None, base: Mapping[str, Any] | None, bound: Mapping[str, float], share: bool = True
) -> Picture:
    """One gate line as a strip: both intervals on one axis, the bound as a line, the side it wants shaded.

    `tuned` and `base` are rates ({"value", "low", "high"}). The axis of a `share` is 0 to 1, else it fits the numbers.
    """
    limit = next(iter(bound.values()))
    both = [one for one in (tuned, base) if one and one.get("value") is not None]
    edges = [
        0.0,
        limit,
        *(float(one[key]) for one in both for key in ("value", "low", "high") if one.get(key) is not None),
    ]
    low, high = (0.0, 1.0) if share else (min(edges), max(edges))
    pad = 0.0 if share else 0.1 * (high - low or 1.0)
    x = linear(low - pad, high + pad, 6, 194)
    start, end = (x(limit), 194.0) if "at_least" in bound else (6.0, x(limit))
    marks = [
        rect(start, 4, end - start, 30, "wanted"),
        line(6, 34, 194, 34, "axis"),
        line(x(limit), 1, x(limit), 38, "bound"),
    ]
    ends = ((0.0, "0", "start"), (1.0, "100\u00a0%", "end")) if share else ((0.0, "0", "middle"),)
    marks += [text(x(at), 47, words, "tick", anchor) for at, words, anchor in ends]
    for who, one, y in (("tuned", tuned, 13.0), ("base", base, 25.0)):
        if one and one.get("value") is not None:
            if one.get("low") is not None and one.get("high") is not None:
                marks.append(line(x(one["low"]), y, x(one["high"]), y, f"whisker {who}"))
            marks.append(dot(x(one["value"]), y, who, 4))
    return Picture("strip", "", "", 50, marks, width=200)
