"""Results as text for a terminal: plain columns, every number with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.gate import PLACES, limit_percent


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, two spaces between them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def percent(value: Any) -> str:
    """A share in per cent; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def with_interval(number: Any) -> str:
    """A rate with its interval and n, a plain number, or a dash."""
    if number is None:
        return "–"
    if not isinstance(number, Mapping):
        return f"{number:.3f}"
    if number.get("value") is None:
        return "–"
    return f"{percent(number['value'])} [{100 * number['low']:.1f}, {100 * number['high']:.1f}] n={number['n']:,}"


def gate_table(scores: Mapping[str, Any]) -> str:
    """The gate's lines: what is asked, what was measured, the baseline where there is one, each line's verdict."""
    lines = scores.get("gate") or []
    if not lines:
        return ""
    baseline = scores.get("baseline")
    header = ["gate", "asked", "measured [95 %]", *(["baseline"] if baseline else []), "95 % bound", "verdict"]
    rows = [header]
    for line in lines:
        side, limit = next(iter(line["bound"].items()))
        place = PLACES[line["metric"]]
        before = ((baseline or {}).get(place.part) or {}).get(place.key)
        rows.append(
            [
                line["metric"],
                f"{'≥' if side == 'at_least' else '≤'} {limit_percent(limit)}",
                with_interval(line),
                *([with_interval(before)] if baseline else []),
                percent(line["one_sided_bound"]),
                line["verdict"],
            ]
        )
    return columns(rows)


def scores_text(scores: Mapping[str, Any]) -> str:
    """The verdict, its reasons, the gate as a table, and what broke the schema."""
    parts = [scores["verdict"], "\n".join(f"- {reason}" for reason in scores["reasons"])]
    table = gate_table(scores)
    parts += [table] if table else []
    counts = (scores.get("abstention") or {}).get("counts") or {}
    cells = ", ".join(f"{cell.replace('_', ' ')} {count:,}" for cell, count in counts.items() if count)
    parts.append(f"{scores['n']:,} outputs: {cells}")
    violations = (scores.get("schema") or {}).get("violations") or {}
    if violations:
        parts.append(
            "schema broken by: " + ", ".join(f"{name} {percent(one['value'])}" for name, one in violations.items())
        )
    paired = scores.get("against_baseline")
    if paired:
        parts.append(
            f"right: {percent(paired['first']['value'])} baseline, {percent(paired['second']['value'])} now, "
            f"{_difference(paired)}"
        )
    for one in scores.get("slices") or ():
        if all(row["value"] is None for row in one["values"]):  # a slip of the pen, most likely
            parts.append(f"by {one['key']}: no pair has this key in its meta")
    return "\n\n".join(parts)


def _difference(paired: Mapping[str, Any]) -> str:
    """A paired difference in points, its interval and how easily chance gives it."""
    low, high = 100 * paired["low"], 100 * paired["high"]
    return f"{100 * paired['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], McNemar p = {paired['mcnemar_p']:.2g}"


def retention_text(numbers: Mapping[str, Any]) -> str:
    """Non-inferiority set by set."""
    word = {True: "non-inferior", False: "inferior", None: "inconclusive"}
    rows = [["set", "n", "base", "tuned", "difference", "95 % bound", "limit", ""]]
    for name, one in numbers["sets"].items():
        share = one["kind"] == "accuracy"
        rows.append([name, f"{one['n']:,}", *_sides(one, share), word[one["non_inferior"]]])
    text = [word[numbers["non_inferior"]].upper(), columns(rows)]
    for name, one in numbers["sets"].items():
        if one["non_inferior"] is None:
            text.append(f"{name}: {needed(one)}")
    return "\n\n".join(text)


def _sides(one: Mapping[str, Any], share: bool) -> list[str]:
    if share:
        change = [f"{100 * one[key]:+.1f}" for key in ("difference", "bound", "limit")]
        return [percent(one["base"]["value"]), percent(one["tuned"]["value"]), *change]
    values = [one[key] for key in ("base", "tuned", "difference", "bound", "limit")]
    return [f"{values[0]:.3f}", f"{values[1]:.3f}", *("–" if v is None else f"{v:+.3f}" for v in values[2:])]


def needed(one: Mapping[str, Any]) -> str:
    """What would settle an open set, in words."""
    if one.get("silent"):
        return "the base answers too few of these items to show a loss; look at their prompts and how they compare"
    if one["bound"] is None:
        return "one item, or one group of them, cannot show how far others would lie apart; more of them are needed"
    if one["needed_n"] is None:
        return "the change seen is not inside the margin, so more of the same items will hardly settle it"
    return f"too few items; about {one['needed_n']:,} would settle it ({one['needed_n'] - one['n']:,} more)"


def comparison_text(compared: Mapping[str, Any]) -> str:
    """Reports in columns, then each paired difference in a sentence."""
    header = ["", *(one["name"] for one in compared["reports"])]
    rows = [header, ["verdict", *(one["verdict"] for one in compared["reports"])]]
    rows += [[name, *map(with_interval, row)] for name, row in compared["numbers"].items() if any(row)]
    lines = []
    tested = sum(one["paired"] is not None for one in compared["differences"])
    if compared["releases"] > 1:
        lines.append("These are of different releases: a pair counts as the same by its id alone.")
    for one in compared["differences"]:
        paired = one["paired"]
        if paired is None:
            lines.append(f"{one['second']} and {one['first']} share no pair: their differences cannot be tested")
            continue
        real = "a real difference" if paired["real"] else "no more than chance gives"
        said = f"{one['second']} against {one['first']}, right on {paired['n']:,} common pairs: {_difference(paired)}"
        if paired["adjusted_p"] != paired["mcnemar_p"]:
            said += f" ({paired['adjusted_p']:.2g} adjusted for {tested} comparisons)"
        lines.append(f"{said}: {real}")
    return "\n\n".join([columns(rows), "\n".join(lines)])
