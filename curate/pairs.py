"""Pairs: one input (question and retrieved passages) and the output wanted for it, as lines of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curate.errors import PairError, first_fault
from curate.files import atomic_path, parse_json, sha256_value

Json = Any  # a JSON value; a recursive alias costs pydantic more than it tells a reader


class Passage(BaseModel):
    """A retrieved text with an id that outputs cite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, description="Unique among the pair's passages.")
    text: str
    source: str | None = Field(default=None, description="Where it came from, e.g. handbook.md#returns.")

    @property
    def document(self) -> str | None:
        """The source document: what stands before the `#` of `source`, which begins no word as in `Ticket #12`."""
        return re.split(r"(?<=\S)#", self.source, maxsplit=1)[0] if self.source else None


class Turn(BaseModel):
    """One earlier message of the conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["user", "assistant"]
    content: str


class Pair(BaseModel):
    """One input and the output wanted for it. Keys it does not know go to `meta`; `id` is made from the content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    question: str
    history: tuple[Turn, ...] = ()
    passages: tuple[Passage, ...] = ()
    output: Json
    answerable: bool | None = Field(default=None, description="None: not said; then the output decides.")
    accepted: tuple[Json, ...] = Field(default=(), description="Other right answers.")
    source: str | None = Field(default=None, description="The log, file or person the pair came from.")
    meta: dict[str, Json] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("a pair is a JSON object")
        known = {key: data[key] for key in data if key in cls.model_fields}
        unknown = {key: data[key] for key in data if key not in cls.model_fields}
        meta = known.get("meta") or {}
        if unknown and isinstance(meta, dict):
            known["meta"] = {**meta, **unknown}
        for key in ("history", "passages", "accepted"):
            if known.get(key) is None:
                known.pop(key, None)
        if known.get("id") in (None, ""):
            known["id"] = content_id(known)
        return known

    @model_validator(mode="after")
    def _passage_ids_differ(self) -> Pair:
        ids = [passage.id for passage in self.passages]
        if len(set(ids)) < len(ids):
            raise ValueError("two passages have the same id")
        return self

    def record(self) -> dict[str, Json]:
        """The pair as a JSON object with every key, in a fixed order."""
        return self.model_dump(mode="json")

    def content_hash(self) -> str:
        """SHA-256 of the whole pair: what a release names it by."""
        return sha256_value(self.record())


def content_id(data: dict[str, Json]) -> str:
    """An id from what the model would see and say: question, history, passages and output."""
    passages = data.get("passages") or []
    seen = [[p.get("id"), p.get("text")] if isinstance(p, dict) else p for p in passages]
    parts = [data.get("question"), data.get("history") or [], seen, data.get("output")]
    return "p-" + sha256_value(parts)[:16]


def parse_pair(text: str, where: str) -> Pair:
    """One line of `pairs.jsonl`; raises `PairError` that names `where` and the field."""
    try:
        return make_pair(parse_json(text), where)
    except ValueError as error:
        raise PairError(f"not valid JSON: {error}", where=where) from error


def make_pair(data: Any, where: str) -> Pair:
    """A pair from a JSON object; raises `PairError` that names `where` and the field."""
    try:
        return Pair.model_validate(data)
    except ValidationError as error:
        raise PairError(first_fault(error, "pair"), where=where) from None
    except (ValueError, TypeError) as error:  # what canonical JSON cannot spell, such as NaN
        raise PairError(str(error), where=where) from error


def iterate_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a JSONL file, line by line; raises `PairError` at the first line that is none."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        raise PairError("there is no such file", where=str(path), fix="tutelage curate import FILE") from None
    except OSError as error:
        raise PairError(f"cannot be read: {error.strerror}", where=str(path)) from error
    with handle:
        for number, raw in enumerate(handle, start=1):
            where = f"{path}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")  # an editor may have put a BOM before it
            except UnicodeDecodeError as error:
                raise PairError(f"not UTF-8: {error.reason} at byte {error.start}", where=where) from None
            if line.strip():
                yield parse_pair(line, where)


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a JSONL file; raises `PairError` where a line is bad or an id stands twice."""
    pairs: dict[str, Pair] = {}
    for pair in iterate_pairs(path):
        if pair.id in pairs:
            raise PairError(f"the id {pair.id!r} stands twice", where=str(path), fix="give one of them another id")
        pairs[pair.id] = pair
    return list(pairs.values())


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the pairs as JSONL, the whole file at once or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for pair in pairs:
            try:
                handle.write(json.dumps(pair.record(), ensure_ascii=False, allow_nan=False) + "\n")
            except UnicodeEncodeError:
                what = f"the pair {pair.id!a} holds half a character (a lone surrogate), which no file can hold"
                raise PairError(what, where=str(path), fix="mend its text") from None
