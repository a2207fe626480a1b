"""Questions to answers: greedy, in batches, kept as they come, so that an interrupted run goes on where it stopped.

Every line is marked with the key of what made it (model, prompt settings): lines of another model are never taken for
this one's. Batches are fixed by the questions alone, and one that was not finished is done again as a whole, so an
interrupted run ends at the same numbers as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.behaviour import Answer as Rule
from curate.behaviour import Behaviour
from curate.compare import score
from curate.files import parse_json, write_text
from curate.pointer import MISSING, keys_of
from eval.schema import read_output

if TYPE_CHECKING:
    from train.generation import Generation

Line = dict[str, Any]
MADE_BY = "made_by"


@dataclass(frozen=True)
class Question:
    """A rendered prompt and the id its answer goes by."""

    id: str
    prompt: str


Answer = Callable[[list[str]], Sequence[Any]]  # prompts of one batch -> their answers
Say = Callable[[Question, Any], Line]  # a question and its answer -> what stands in the file


@dataclass(frozen=True)
class Job:
    """Questions to answer into a file. `made_by` is the key of model and settings that marks the lines."""

    path: Path
    questions: Sequence[Question]
    made_by: str
    answer: Answer
    line_of: Say
    batch_size: int = 64


def answer_all(job: Job, progress: Callable[[int], None] | None = None) -> list[Line]:
    """Answer what has no line in the file yet, batch after batch; the lines of all questions, in their order.

    `latency_seconds` of a line is the time its batch took shared among the batch: what an answer costs at this batch
    size, not what one waits for it; unless `line_of` knows better.
    """
    done = read_lines(job.path, job.made_by)
    batches = batches_of(job.questions, job.batch_size)
    kept = {one.id: done[one.id] for batch in batches if all(one.id in done for one in batch) for one in batch}
    write_lines(job.path, list(kept.values()))
    if progress:
        progress(len(kept))
    for batch in batches:
        if batch[0].id in kept:
            continue
        lines = _answer_batch(job, batch)
        append_lines(job.path, lines)
        kept.update((line["id"], line) for line in lines)
        if progress:
            progress(len(batch))
    ordered = [kept[one.id] for one in job.questions]
    write_lines(job.path, ordered)
    return ordered


def _answer_batch(job: Job, batch: Sequence[Question]) -> list[Line]:
    begun = time.perf_counter()
    found = job.answer([one.prompt for one in batch])
    seconds = round((time.perf_counter() - begun) / len(batch), 6)
    return [
        {"latency_seconds": seconds, **job.line_of(one, answer), MADE_BY: job.made_by}
        for one, answer in zip(batch, found, strict=True)
    ]


def batches_of(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Batches of prompts of like length, the longest first; the same ones whatever is answered already."""
    ordered = sorted(questions, key=lambda one: (-len(one.prompt), one.id))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def read_lines(path: Path, made_by: str) -> dict[str, Line]:
    """The lines of a key by id. What a killed run left half written, or another model wrote, is not there."""
    return {line["id"]: line for line in all_lines(path) if line.get(MADE_BY) == made_by}


def all_lines(path: Path) -> Iterator[Line]:
    """Every whole line, whoever wrote it; none where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for raw in handle:
            try:
                line = parse_json(raw.decode("utf-8")) if raw.endswith(b"\n") else None
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("id"), str):
                yield line


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """The whole file at once or not at all."""
    write_text(path, _text(lines))


def append_lines(path: Path, lines: Sequence[Line]) -> None:
    """Add lines in one write; they are in the file when this returns."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(_text(lines))


def confidence_of(behaviour: Behaviour, tokenizer: Any, answer: Generation) -> float | None:
    """How sure the model was of its answer: the geometric mean of its tokens' probabilities, in (0, 1].

    The tokens are those of the value at `answer.at` (of a string what stands between its quotes), for keys and braces
    are near certain in any trained output and would hide doubt; without `answer.at`, all tokens but the stop token.
    None where the output has no such value. The mean is taken over the length since a plain product would call every
    long answer unsure: length-normalised sequence probability (Murray & Chiang, 2018; Malinin & Gales, 2021).
    """
    if answer.logprobs is None:
        return None
    said = len(answer.token_ids) - int(answer.finished)

    def within(span: tuple[int, int]) -> list[int]:
        return tokens_within(tokenizer, answer.token_ids[:said], span)

    return confidence_from(behaviour, answer.text, answer.logprobs[:said], within)


def confidence_from(
    behaviour: Behaviour, text: str, logprobs: Sequence[float], within: Callable[[tuple[int, int]], list[int]]
) -> float | None:
    """`confidence_of` for any tokens: their log-probabilities, and which lie `within` characters [start, end)."""
    chosen: Sequence[int] = range(len(logprobs))
    if behaviour.is_json and behaviour.answer is not None and behaviour.answer.at is not None:
        span = value_span(text, behaviour.answer.at)
        chosen = [] if span is None else within(span)
    if not chosen:
        return None
    mean = math.fsum(logprobs[i] for i in chosen) / len(chosen)
    return None if math.isnan(mean) else round(min(1.0, math.exp(mean)), 6)


def agreement(behaviour: Behaviour, output: str, samples: Sequence[str]) -> float | None:
    """The share of drawn outputs that give the same answer as `output`; None where it is no answer or none was drawn.

    Answers are the same by the behaviour's comparator, abstaining is the same as abstaining, and a malformed draw
    agrees with nothing: self-consistency (Wang et al., 2023) as a confidence.
    """
    given = read_output(behaviour, output).value
    if given is MISSING or not samples:
        return None
    drawn = [read_output(behaviour, one) for one in samples]
    return sum(one.well_formed and _same(behaviour, given, one.value) for one in drawn) / len(samples)


def _same(behaviour: Behaviour, given: Any, other: Any) -> bool:
    if behaviour.abstains(given) or behaviour.abstains(other):
        return behaviour.abstains(given) and behaviour.abstains(other)
    left, right = behaviour.answer_of(given), behaviour.answer_of(other)
    if left is MISSING or left is None or right is MISSING or right is None:
        return left is right
    rule = behaviour.answer or Rule()
    return max(score(rule.compare, right, [left]), score(rule.compare, left, [right])) >= rule.at_least


def tokens_within(tokenizer: Any, ids: Sequence[int], span: tuple[int, int]) -> list[int]:
    """Places of the tokens whose text overlaps the characters [start, end) of the decoded text."""
    found, before = [], 0
    for i in range(len(ids)):
        text = tokenizer.decode(list(ids[: i + 1]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        after = len(text.rstrip("\ufffd"))  # a character of several tokens is there when its last one is
        if before < span[1] and max(after, before + 1) > span[0]:
            found.append(i)
        if after >= span[1]:
            break
        before = max(before, after)
    return found


def value_span(text: str, pointer: str) -> tuple[int, int] | None:
    """Where the value at a JSON Pointer stands in `text`, as characters [start, end); a string without its quotes.

    None where `text` is not exactly one JSON value or has nothing there.
    """
    try:
        parse_json(text)
        at = _skip(text, 0)
        for key in keys_of(pointer):
            found = _member(text, at, key)
            if found is None:
                return None
            at = found
        _, end = _DECODER.raw_decode(text, at)
    except ValueError:
        return None
    return (at + 1, end - 1) if text[at] == '"' and end - at > 2 else (at, end)


_DECODER = json.JSONDecoder()


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _member(text: str, at: int, key: str) -> int | None:
    """Where the member `key` of the object or list that begins at `at` begins; the text is known to be JSON."""
    if text[at] not in "{[":
        return None
    inside_object, index = text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        name: Any = str(index)
        if inside_object:
            name, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        if name == key:
            return at
        _, at = _DECODER.raw_decode(text, at)
        at, index = _skip(text, at), index + 1
        at = _skip(text, at + 1) if text[at] == "," else at
    return None
