"""A small canvas: marks that the template draws as SVG, and the pieces every picture is made of.

A picture is drawn about 360 units wide, so that its text stays readable on a phone; two stand side by side on a desk.
Nothing here knows a colour: marks carry the classes `base` and `tuned`, and shape and dash say the same as colour does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH = 360.0
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
