"""`log.jsonl`: one JSON object per event. A run that is resumed goes on without an event standing twice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from curate.files import write_text
from train.processes import is_main

Event = dict[str, Any]
DURING = ("targets", "start", "base", "step", "evaluation")  # events before training ends; the rest is done again


class Log:
    """The log of one run. Of several processes the main one alone writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[Event]:
        """What was logged; a last line that a killed process left half written is not there."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return [one for one in found if isinstance(one, dict) and "event" in one]

    def add(self, event: Event) -> None:
        """Append an event; it is in the file when this returns."""
        if not is_main():
            return
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(_finite(event), ensure_ascii=False, allow_nan=False) + "\n")

    def once(self, event: Event) -> None:
        """Append an event unless one of its kind stands there."""
        if not any(one["event"] == event["event"] for one in self.events()):
            self.add(event)

    def keep_until(self, step: int) -> None:
        """Take away what will be done again when training goes on after `step`."""
        if not is_main():
            return
        kept = [one for one in self.events() if one["event"] in DURING and one.get("step", 0) <= step]
        write_text(self.path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept))


def _finite(event: Event) -> Event:
    """The event with null where a number is none, since JSON has no NaN."""
    bad = {key for key, value in event.items() if isinstance(value, float) and not math.isfinite(value)}
    return {key: None if key in bad else value for key, value in event.items()}
