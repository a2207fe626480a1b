"""Progress on standard error: the losses while training, a count while answering."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from curate.console import say
from train.log import Event
from train.processes import is_main


def _visible() -> bool:
    return is_main() and sys.stderr.isatty()


@contextmanager
def counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar towards `total`; give its function how many more are done. Silent where standard error is no terminal."""
    if not _visible():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.advance(task, done)


class TrainingBar:
    """One line with the losses; where standard error is no terminal, a line per evaluation. Fed with log events."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._progress: Any = None
        self._task: Any = None
        self._evaluated = ""

    def __enter__(self) -> TrainingBar:
        if _visible():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            described = TextColumn("{task.description}")
            self._progress = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                described,
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task("training", total=self._steps)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, event: Event) -> None:
        """Show a step or an evaluation."""
        if event["event"] == "step" and self._progress:
            text = f"loss {event.get('task_loss', event['loss']):.3f}{self._evaluated}"
            self._progress.update(self._task, completed=event["step"], description=text)
        if event["event"] != "evaluation":
            return
        named = {"validation": "task_loss", "retention": "retention_loss", "KL": "kl"}
        self._evaluated = "".join(f" · {name} {event[key]:.3f}" for name, key in named.items() if key in event)
        if not self._progress and is_main():
            say(f"step {event['step']}/{self._steps}{self._evaluated}")
