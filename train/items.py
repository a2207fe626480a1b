"""General items: short questions with one right answer, in named sets. They measure retention and feed rehearsal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.compare import Comparator, score
from curate.errors import TrainingError, first_fault
from curate.files import atomic_path, parse_json, sha256_text
from curate.pairs import Turn
from train.rendering import Message


class Item(BaseModel):
    """One general item: a line of a general items file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, description="Unique in its file.")
    set: str = Field(default="general", min_length=1, description="The ability it belongs to.")
    prompt: str | tuple[Turn, ...] = Field(description="A question, or the messages of a conversation.")
    system: str | None = Field(default=None, description="A system message before the prompt.")
    answer: str | None = Field(default=None, description="The right answer; prompts for rehearsal need none.")
    accepted: tuple[str, ...] = Field(default=(), description="Other right answers.")
    compare: Comparator = Field(default="exact", description="exact, f1, number, set or contains.")
    at_least: float = Field(default=1.0, gt=0, le=1, description="The score from which an answer is right.")

    def messages(self) -> list[Message]:
        """The conversation to be answered."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        if isinstance(self.prompt, str):
            return [*system, {"role": "user", "content": self.prompt}]
        return [*system, *({"role": turn.role, "content": turn.content} for turn in self.prompt)]

    def key(self) -> str:
        """What makes two items the same question."""
        return json.dumps(self.messages(), ensure_ascii=False)

    def is_right(self, text: str) -> bool:
        """Whether an output answers the item, by its comparator."""
        wanted = [one for one in (self.answer, *self.accepted) if one is not None]
        return score(self.compare, text.strip(), wanted) >= self.at_least


def read_items(path: Path, answers: bool) -> list[Item]:
    """The items of a JSONL file, `answers` whether each must have one. Raises `TrainingError` with file and line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): a text may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"cannot be read: {error}", where=str(path)) from error
    items: dict[str, Item] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        item = _parse(line, where)
        if answers and item.answer is None:
            raise TrainingError(f"the item {item.id!r} has no answer", where=where, fix='give it "answer": "…"')
        if item.id in items:
            raise TrainingError(f"the id {item.id!r} stands twice", where=where)
        items[item.id] = item
    if not items:
        raise TrainingError("there are no items in it", where=str(path))
    return list(items.values())


def _parse(line: str, where: str) -> Item:
    try:
        return Item.model_validate(parse_json(line))
    except ValidationError as error:
        raise TrainingError(first_fault(error, "item"), where=where) from None
    except ValueError as error:
        raise TrainingError(f"not valid JSON: {error}", where=where) from error


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as JSONL, the whole file at once or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for item in items:
            handle.write(json.dumps(item.model_dump(mode="json", exclude_none=True), ensure_ascii=False) + "\n")


def sample_sets(items: Sequence[Item], per_set: int) -> list[Item]:
    """At most `per_set` items of each set, chosen by the hash of the id: the same ones on any machine."""
    sets: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda one: sha256_text(one.id)):
        sets[item.set].append(item)
    return [item for name in sorted(sets) for item in sets[name][:per_set]]


def sample_evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` items, as many of each set as can be."""
    names = {item.set for item in items}
    per_set = max(1, most // len(names)) if names else 0
    return sample_sets(items, per_set)[:most]


def accuracy_by_set(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Any]:
    """Share of right answers per set, and over all as `all`."""
    sets: dict[str, list[bool]] = defaultdict(list)
    for item, one in zip(items, right, strict=True):
        sets[item.set].append(one)
        sets["all"].append(one)
    return {name: sum(found) / len(found) for name, found in sorted(sets.items())}
