"""A report's pages: scores and failures become one HTML file that needs nothing else, and Markdown for a pull request.

The page fetches nothing and runs one small script, a filter over the failures: its content security policy allows that
script and that style sheet by their hashes and nothing else. Everything that comes from data is escaped. What was not
measured has no section and a line that says why. The same scores give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from curate.files import write_text
from eval import breakdowns, numbers, pictures, sections
from eval.canvas import Picture, legend_of
from eval.failures import NAME, Failure, write_failures
from eval.junit import JUNIT, write_junit
from eval.pictures import WHY_MISSING, Scores, part_of

HTML, MARKDOWN = "report.html", "report.md"
PAGES = (HTML, MARKDOWN, JUNIT)  # what is made from scores and failures alone


def write_report(directory: Path, scores: Scores, failures: Sequence[Failure]) -> Path:
    """Write report.html, report.md, junit.xml and failures.jsonl into `directory`; returns the HTML file's path.

    `scores` is what scores.json holds (DESIGN 6) with "verdict", "reasons", "gate" and "sources". Optional keys of
    "sources": "title", "subtitle", "chain" ([{"role", "name", "sha256", "made_from"}], from the report backwards) and
    "facts" ([[name, value]]).
    """
    write_failures(directory / NAME, failures)
    return write_pages(directory, scores, failures)


def write_pages(directory: Path, scores: Scores, failures: Sequence[Failure]) -> Path:
    """Write report.html, report.md and junit.xml alone; returns the HTML file's path."""
    write_text(directory / HTML, render_html(scores, failures))
    write_text(directory / MARKDOWN, render_markdown(scores, failures))
    write_junit(directory, scores)
    return directory / HTML


def render_html(scores: Scores, failures: Sequence[Failure]) -> str:
    """The whole page as text."""
    environment = _environment()
    css, js = (_asset(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        **_shared(scores, failures),
        css=Markup(css),
        js=Markup(js),
        css_hash=_hash(css),
        js_hash=_hash(js),
        pictures=_cards(scores),
        numbers=numbers.numbers(scores),
        missing=sections.missing(scores),
    )


def render_markdown(scores: Scores, failures: Sequence[Failure]) -> str:
    """The verdict, the gate and the main tables for a pull request."""
    drawn = [
        one
        for _, one in pictures.drawings(scores)
        if isinstance(one, Picture) and one.name in ("violations", "retention")
    ]
    shared = _shared(scores, failures)
    asides = sections.asides(scores)
    text = _environment().get_template("report.md.j2").render(**shared, tables=drawn, asides=asides)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _shared(scores: Scores, failures: Sequence[Failure]) -> dict[str, Any]:
    """What both pages show."""
    sources = part_of(scores, "sources")
    return {
        "title": sources.get("title") or "Report",
        "subtitle": sources.get("subtitle") or f"{scores['n']:,} answers scored",
        "verdict": sections.verdict(scores),
        "paired": sections.paired(scores),
        "gate": sections.gate(scores),
        "matrix": sections.matrix(scores),
        "legend": legend_of(part_of(scores, "baseline")),
        "no_base": None if scores.get("baseline") else NO_BASE,
        "failures": sections.failures(failures, scores["n"]),
        "chain": sources.get("chain") or [],
        "facts": sources.get("facts") or [],
    }


NO_BASE = "There is no base model to compare with: only one model's outputs were scored."


def _cards(scores: Scores) -> list[dict[str, Any]]:
    """The pictures that there are: the matrix, the drawn ones, then parts, bound outputs and costs."""
    grid, titles = sections.matrix(scores), pictures.TITLES
    cards: list[dict[str, Any]] = [] if grid["why"] else [{"kind": "matrix", **sections.MATRIX, "matrix": grid}]
    drawn: list[Picture | None] = []
    for name, one in pictures.drawings(scores):
        if isinstance(one, Picture):
            drawn.append(one)
        elif one not in WHY_MISSING.values():
            cards.append({"kind": "note", "name": name, "title": titles[name], "note": one})
    drawn += [*breakdowns.slices(scores), breakdowns.latency(scores)]
    cards += [{"kind": "picture", "picture": one} for one in drawn if one]
    bound = breakdowns.constrained(scores)
    return [*cards, {"kind": "table", **bound}] if bound else cards


def _hash(text: str) -> str:
    """What a content security policy names an inline script or style by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8").strip()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("eval"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=numbers.rate_cell, md=markdown_text, code=markdown_code, fence=markdown_fence)
    return environment


def markdown_text(value: Any) -> str:
    """Text for a paragraph or table cell: one line, nothing in it is markup, a link or a mention."""
    line = " ".join(str(value).split())
    escaped = re.sub(r"([\\`*_{}\[\]|<>~$&])", r"\\\1", line)
    return re.sub(r"[@#]|://|(?i:www)\.", lambda found: found.group()[0] + "\u200b" + found.group()[1:], escaped)


def markdown_code(value: Any) -> str:
    """Text as a code span of one line; a code span has no mentions and no links."""
    line = " ".join(str(value).split()).replace("`", "'").replace("|", "¦")
    return f"`{line}`" if line else ""


def markdown_fence(value: Any) -> str:
    """Text as a fenced block whose fence is longer than any run of backticks inside."""
    text = str(value)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"
