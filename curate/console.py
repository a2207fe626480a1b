"""What the commands of all three stages share: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from curate.workspace import Workspace

DONE, FINDINGS, INCONCLUSIVE = 0, 3, 4

T = TypeVar("T")


class Finite(click.FloatRange):
    """A number in a range; NaN and infinity, which compare with nothing or with everything, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def workspace() -> Workspace:
    """The workspace that `-C` names; raises `WorkspaceError` where it is none."""
    return Workspace(Path()).require()


def say(message: str) -> None:
    """A message for the person; never part of a result."""
    click.echo(message, err=True)


def emit(document: Any, text: str, as_json: bool) -> None:
    """The result: the document with `--json`, else the text for people."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through `items` with a bar on standard error, or a count where `total` is not known; silent off a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=label)
